"""A queue in which nothing waits: the kernel finishes what comes to it, and passes it on by itself.

Before a packet is put into a queue that was not asked for the GSO flag, the kernel completes it: an unfinished checksum
is finished, a packet that is to be segmented later is segmented now, with checksums (nfnetlink_queue.c,
nfqnl_enqueue_packet and nfqnl_build_packet_message). Whether the queue is full is asked afterwards. So a queue of
length 0 with FAIL_OPEN completes every packet, in its order, and hands none to user space: whoever has it open need
not run.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Self

NETLINK_NETFILTER = 12  # <linux/netlink.h>
QUEUE_CONFIG, NLM_F_REQUEST, NLM_F_ACK, NLMSG_ERROR = 0x0302, 1, 4, 2  # <linux/netfilter/nfnetlink_queue.h>
NFQA_CFG_CMD, NFQA_CFG_PARAMS, NFQA_CFG_QUEUE_MAXLEN, NFQA_CFG_MASK, NFQA_CFG_FLAGS = 1, 2, 3, 4, 5
NFQNL_CFG_CMD_BIND = 1
NFQNL_COPY_PACKET = 2  # with any other copy mode, checksums stay as they are
NFQA_CFG_F_FAIL_OPEN, NFQA_CFG_F_GSO = 1, 4
COPY_RANGE = 1  # bytes of each packet, for nobody (0 would be all)
ANSWER_SECONDS = 2.0


class Finishing:
    """One such queue, from the start on until ``close``, or the end of the process: then packets pass as they are."""

    def __init__(self, number: int) -> None:
        """Bind queue ``number`` in this thread's network namespace. OSError if the kernel refuses: EPERM if held."""
        self.number = number
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        try:
            self._socket.settimeout(ANSWER_SECONDS)
            self._socket.bind((0, 0))
            self._configure(
                (NFQA_CFG_CMD, struct.pack(">BxH", NFQNL_CFG_CMD_BIND, 0)),
                (NFQA_CFG_PARAMS, struct.pack(">IB", COPY_RANGE, NFQNL_COPY_PACKET)),
                (NFQA_CFG_QUEUE_MAXLEN, struct.pack(">I", 0)),
                (NFQA_CFG_MASK, struct.pack(">I", NFQA_CFG_F_FAIL_OPEN | NFQA_CFG_F_GSO)),
                (NFQA_CFG_FLAGS, struct.pack(">I", NFQA_CFG_F_FAIL_OPEN)),
            )
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the queue. It holds nothing, so nothing is lost."""
        self._socket.close()

    def _configure(self, *attributes: tuple[int, bytes]) -> None:
        """All in one message, so that no packet meets a queue that is half set up."""
        body = struct.pack(">BBH", socket.AF_UNSPEC, 0, self.number)  # struct nfgenmsg
        for kind, value in attributes:
            body += struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
        self._socket.send(struct.pack("=IHHII", 16 + len(body), QUEUE_CONFIG, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + body)
        answer = self._socket.recv(4096)
        kind, error = struct.unpack_from("=H", answer, 4)[0], struct.unpack_from("=i", answer, 16)[0]
        if kind != NLMSG_ERROR:
            raise OSError(f"the kernel answered a queue configuration with a message of type {kind:#x}")
        if error:
            raise OSError(-error, os.strerror(-error))
