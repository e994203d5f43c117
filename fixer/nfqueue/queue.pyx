# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""One NFQUEUE, from bind to a stop that loses nothing.

netfilterqueue binds and owns the queue. Everything after that happens on its descriptor, which is a plain nfnetlink
socket: packets are read in batches (recvmmsg), put through the pipeline, and answered with one send a batch, all of it
without the GIL.
"""
import os
import socket
import struct
import threading
import time
import warnings
from contextlib import suppress

from libc.errno cimport EAGAIN, EINTR, ENOBUFS, ENOMEM, EPROTO, errno
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from fixer.datapath.pipeline cimport Handed, Pipeline
from fixer.datapath.repair cimport DROP, REPAIR, Action
from fixer.datapath.zeroed cimport zeroed
from fixer.nfqueue.netlink cimport *

cdef extern from *:
    """
    #include <malloc.h>
    /* glibc's threshold for memory that goes back to the system when freed: once set, it does not grow any more. */
    static void give_back_what_is_freed(void)
    {
    #ifdef M_MMAP_THRESHOLD
        mallopt(M_MMAP_THRESHOLD, 128 << 10);
    #endif
    }
    """
    void give_back_what_is_freed()

cdef extern from "<poll.h>" nogil:
    enum: POLLIN
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *, unsigned long, int)

cdef extern from "<unistd.h>" nogil:
    int close(int)

cdef extern from "<time.h>" nogil:
    enum: CLOCK_REALTIME, CLOCK_MONOTONIC
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int, timespec *)

cdef enum:
    # 128 cost this process 5 to 10 % less CPU than 64 (docs/performance.md). 256 would save more on sound packets and
    # nothing on changed ones, for twice the memory. A batch fits one send: MESSAGES * IOVECS < UIO_MAXIOV (1024).
    BATCH = 128
    SLOT = 66048             # COPY_RANGE and what the kernel puts around it, in whole 512s
    MESSAGES = 2 * BATCH + 1  # at the most, every packet changed and a batch verdict before each
    IOVECS = 3               # of a message: head, payload, padding
    SETTLE_MS = 1000

SOL_NETLINK = 270
NETLINK_NO_ENOBUFS = 5
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33

# Each reload makes the tables of a pipeline, some 10 MB, and frees them: else they stayed, and in pieces, so that some
# later reload took as much again.
give_back_what_is_freed()

cdef uint8_t[4] ZEROS = [0, 0, 0, 0]


cdef class Queue:
    """A bound queue and its buffers, allocated once. `run` in one thread; `stop` and `counters` from any."""

    def __cinit__(self):
        cdef int i
        self.fd = self.waker = -1
        self.send_limit = 65536
        self.slots = <uint8_t *>zeroed(BATCH, SLOT, "the queue's buffers")
        self.arrivals = <mmsghdr *>zeroed(BATCH, sizeof(mmsghdr), "the queue's buffers")
        self.slot_vectors = <iovec *>zeroed(BATCH, sizeof(iovec), "the queue's buffers")
        self.heads = <uint8_t *>zeroed(MESSAGES, MESSAGE_HEAD, "the queue's buffers")
        self.vectors = <iovec *>zeroed(MESSAGES * IOVECS, sizeof(iovec), "the queue's buffers")
        self.ends = <uint32_t *>zeroed(MESSAGES, sizeof(uint32_t), "the queue's buffers")
        for i in range(BATCH):
            self.slot_vectors[i].iov_base = self.slots + <size_t>i * SLOT
            self.slot_vectors[i].iov_len = SLOT
            self.arrivals[i].msg_hdr.msg_iov = &self.slot_vectors[i]
            self.arrivals[i].msg_hdr.msg_iovlen = 1

    def __dealloc__(self):
        if self.waker >= 0:
            close(self.waker)
        free(self.slots)
        free(self.arrivals)
        free(self.slot_vectors)
        free(self.heads)
        free(self.vectors)
        free(self.ends)

    def __init__(self, Pipeline pipeline not None, int number, *, int fd=-1):
        """fd: a descriptor to use instead of binding one, for tests: it speaks the queue's messages."""
        if not 0 <= number <= 65535:
            raise ValueError(f"a queue's number is 0..65535, not {number}")
        self.pipeline = pipeline
        self.number = number
        self.fd = fd
        self.flags = {}
        self.waker = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def bind(self, *, uint32_t length=4096, int receive_buffer=32 << 20, bint fail_open=True, bint gso=True):
        """Bind the queue in this thread's network namespace and make it ready. OSError if the kernel refuses.

        length: packets the kernel holds at most; receive_buffer: bytes of the socket's, for what was not read yet;
        fail_open: what does not fit passes unseen instead of being dropped; gso: merged packets come whole. What the
        kernel granted of the two is in `flags`.
        """
        from netfilterqueue import NetfilterQueue

        self.owner = NetfilterQueue()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)     # of its small receive buffer: ours is set below
            # The callback sees only packets that come in while libnetfilter_queue waits for its own answers.
            self.owner.bind(self.number, accept, length)
        self.fd = self.owner.get_fd()
        try:
            self.size_buffers(receive_buffer)
            self.configure(NFQA_CFG_PARAMS, COPY_RANGE.to_bytes(4, "big") + bytes([NFQNL_COPY_PACKET]))
            self.flags["fail_open"] = bool(fail_open) and self.configure_flag(NFQA_CFG_F_FAIL_OPEN)
            self.flags["gso"] = bool(gso) and self.configure_flag(NFQA_CFG_F_GSO)
        except BaseException:
            self.let_go()
            raise

    def size_buffers(self, int receive_buffer):
        """Both socket buffers; and no ENOBUFS, one error for many losses: the socket counts its drops."""
        with socket.socket(fileno=os.dup(self.fd)) as nfnetlink:
            for force, fallback, size in ((SO_RCVBUFFORCE, socket.SO_RCVBUF, receive_buffer),
                                          (SO_SNDBUFFORCE, socket.SO_SNDBUF, 1 << 20)):
                try:
                    nfnetlink.setsockopt(socket.SOL_SOCKET, force, size)
                except PermissionError:         # root of a user namespace only: up to net.core.?mem_max then
                    nfnetlink.setsockopt(socket.SOL_SOCKET, fallback, size)
            nfnetlink.setsockopt(SOL_NETLINK, NETLINK_NO_ENOBUFS, 1)
            # The kernel doubles what it is asked for and counts bookkeeping against it: half of the half is safe.
            self.send_limit = nfnetlink.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 4

    def configure_flag(self, uint32_t flag):
        """Ask for one NFQA_CFG_F_ flag; False if this kernel does not know it."""
        word = int(flag).to_bytes(4, "big")
        try:
            self.configure(NFQA_CFG_FLAGS, word, NFQA_CFG_MASK, word)
        except OSError:
            return False
        return True

    def configure(self, *attributes):
        """Send one CONFIG of type, value pairs and wait for its answer; packets that come in meanwhile are served."""
        body = b"".join(
            struct.pack("=HH", ATTRIBUTE + len(value), type_) + value.ljust(aligned(<uint32_t>len(value)), b"\0")
            for type_, value in zip(attributes[::2], attributes[1::2], strict=True))
        cdef uint8_t[HEADERS] header
        self.sequence += 1
        put_header(header, <uint32_t>(HEADERS + len(body)), QUEUE_CONFIG, NLM_F_REQUEST | NLM_F_ACK, self.sequence,
                   self.number)
        os.write(self.fd, bytes(header[:HEADERS]) + body)
        deadline = time.monotonic() + 2
        while self.answered != self.sequence:
            if time.monotonic() > deadline:
                raise TimeoutError("the kernel did not answer a queue configuration within 2 s")
            with nogil:
                if self.step() == 0:
                    self.wait(100)
        if self.answer:
            raise OSError(self.answer, os.strerror(self.answer))

    def run(self):
        """Serve packets until `stop`, then let go of the queue without losing one."""
        while not self.stopping:
            with nogil:
                self.serve()
            if self.adopting:
                self.take_over()
        self.release()

    def adopt(self, Pipeline pipeline not None):
        """Have the pipeline adopt this one's settings between two batches; an event that is set when it has.

        From any thread; what is not yet adopted gives way to what comes later.
        """
        done = threading.Event()
        os.eventfd_write(self.waker, 1)         # first: a wake-up that comes late would never be read
        self.successor = pipeline, done
        self.adopting = True
        return done

    def take_over(self):
        self.adopting = False                   # first: what comes meanwhile is not overlooked
        with suppress(BlockingIOError):
            os.eventfd_read(self.waker)
        successor, done = self.successor
        self.pipeline.adopt(successor)
        done.set()

    def stop(self):
        """Make `run` return soon. From any thread, or a signal handler."""
        self.stopping = True
        os.eventfd_write(self.waker, 1)

    def release(self):
        """What is new passes at once, what is held is answered, then the queue is closed."""
        if self.fd < 0:
            return
        try:
            if self.owner is not None:
                self.let_new_pass()
            with nogil:
                # The configuration took the queue's lock: after its answer nothing is added, what was is in the socket.
                while self.step() > 0:
                    pass
        finally:
            self.let_go()
            self.pipeline.finish(time.time_ns())

    def let_new_pass(self):
        """From now on nothing is queued any more, and nothing is dropped for it: QUEUE_MAXLEN 0 with FAIL_OPEN."""
        # FAIL_OPEN first: the other way round, and with it off until now, what came between would be dropped.
        self.configure_flag(NFQA_CFG_F_FAIL_OPEN)
        self.configure(NFQA_CFG_QUEUE_MAXLEN, bytes(4))

    def let_go(self):
        """Close the queue; what it still holds is dropped by the kernel, so `release` empties it first."""
        self.fd = -1
        if self.owner is not None:
            self.owner.unbind()
            self.owner = None

    def counters(self):
        """Counted so far, by name. Safe while the queue runs."""
        return dict(self.counted)

    cdef void serve(self) noexcept nogil:
        cdef uint64_t settled = now(CLOCK_MONOTONIC), uptime
        while not (self.stopping or self.adopting):
            self.turns += 1
            if self.step() <= 0:
                self.wait(SETTLE_MS)
            uptime = now(CLOCK_MONOTONIC)
            if uptime - settled >= SETTLE_MS * 1000000U:
                self.pipeline.settle(now(CLOCK_REALTIME), <uint32_t>(uptime // 1000000000U), False)
                settled = uptime

    cdef void wait(self, int milliseconds) noexcept nogil:
        """Until there is something to read, `stop` was called, or the time is over."""
        cdef pollfd[2] sources
        sources[0].fd = self.fd
        sources[0].events = POLLIN
        sources[1].fd = self.waker
        sources[1].events = POLLIN
        poll(sources, 1 if self.stopping else 2, milliseconds)

    cdef int step(self) noexcept nogil:
        """Read what is there, at most a batch, and answer it. Returns the number of messages, 0 if there was none."""
        cdef Handed handed
        cdef int i, count
        if self.owing:
            self.owing = False
            self.accept(self.owed)              # all before it are answered, or owed too: better unrepaired than never
            self.flush()
        count = recvmmsg(self.fd, self.arrivals, BATCH, MSG_DONTWAIT, NULL)
        if count < 0:
            if errno == ENOBUFS:
                self.counted.overruns += 1
                return 1                        # the socket is readable again at once
            return 0
        handed.when = now(CLOCK_REALTIME)
        handed.uptime = <uint32_t>(now(CLOCK_MONOTONIC) // 1000000000U)
        for i in range(count):
            self.take(self.slots + <size_t>i * SLOT, self.arrivals[i].msg_len,
                      (self.arrivals[i].msg_hdr.msg_flags & MSG_TRUNC) != 0, &handed)
        self.flush()
        return count

    cdef void take(self, uint8_t *message, uint32_t length, bint cut, Handed *handed) noexcept nogil:
        """One netlink message: a packet is put through the pipeline and its verdict gathered.

        `handed` has the time; what else is known of the packet is filled in.
        """
        cdef uint32_t claimed, sequence
        cdef uint16_t type_
        cdef int32_t error
        if length < HEADERS:
            self.counted.unreadable += 1
            return
        memcpy(&claimed, message + NLMSG_LENGTH, 4)
        memcpy(&type_, message + NLMSG_TYPE, 2)
        if claimed < length:
            length = claimed
        if type_ == QUEUE_PACKET and length >= HEADERS:
            self.take_packet(message, length, cut, handed)
        elif type_ == NLMSG_ERROR:
            memcpy(&error, message + NETLINK_HEADER, 4)
            memcpy(&sequence, message + NLMSG_SEQUENCE, 4)
            if sequence:                        # ours: verdicts are numbered 0, a CONFIG is not
                self.answered = sequence
                # The kernel's are -MAX_ERRNO to 0; of others the smallest has no positive counterpart.
                self.answer = -error if -MAX_ERRNO <= error <= 0 else EPROTO
            elif error:
                self.counted.refused += 1
        else:
            self.counted.unreadable += 1

    cdef void take_packet(self, uint8_t *message, uint32_t length, bint cut, Handed *handed) noexcept nogil:
        cdef uint32_t at = HEADERS
        cdef uint32_t size, captured = 0, whole = 0, packet = 0
        cdef uint16_t attribute, type_
        cdef uint8_t *value
        cdef uint8_t *payload = NULL
        cdef bint known = False
        cdef Action action
        handed.skb_info = 0
        handed.outgoing = False
        while at + ATTRIBUTE <= length:
            memcpy(&attribute, message + at + NLA_LENGTH, 2)
            memcpy(&type_, message + at + NLA_TYPE, 2)
            type_ &= ATTRIBUTE_TYPE
            if attribute < ATTRIBUTE or at + attribute > length:
                break                           # only the last one of a cut message
            value = message + at + ATTRIBUTE
            size = attribute - ATTRIBUTE
            if type_ == NFQA_PACKET_HDR and size >= 4:
                packet = number(value)
                known = True
                handed.outgoing = size > NFQA_PACKET_HOOK and value[NFQA_PACKET_HOOK] == NF_INET_LOCAL_OUT
            elif type_ == NFQA_PAYLOAD:
                payload = value
                captured = size
            elif type_ == NFQA_CAP_LEN and size >= 4:
                whole = number(value)
            elif type_ == NFQA_SKB_INFO and size >= 4:
                handed.skb_info = number(value)
            at += aligned(attribute)
        if not known:
            self.counted.unreadable += 1
            return
        self.counted.received += 1
        if whole < captured:
            whole = captured
        if cut or payload == NULL or whole > captured:
            self.counted.truncated += 1
        if cut or payload == NULL:
            self.accept(packet)
            return
        action = self.pipeline.process(payload, captured, whole, handed, NULL)
        if action == REPAIR and captured == whole:      # a cut copy given back as the packet would destroy it
            self.counted.changed += 1
            self.give(packet, NF_ACCEPT, payload, captured)
        elif action == DROP:
            self.counted.dropped += 1
            self.give(packet, NF_DROP, NULL, 0)
        else:
            self.accept(packet)

    cdef void accept(self, uint32_t packet) noexcept nogil:
        """Accept an untouched packet: runs of them become one batch verdict, which covers everything up to its id."""
        cdef uint8_t *head
        if self.running:
            head = self.heads + <size_t>(self.messages - 1) * MESSAGE_HEAD
            put_number(head + VERDICT_ID, packet)
            return
        self.reserve(VERDICT_MESSAGE)
        head = self.heads + <size_t>self.messages * MESSAGE_HEAD
        put_verdict(head, QUEUE_VERDICT_BATCH, self.number, NF_ACCEPT, packet, 0)
        self.add(head, VERDICT_MESSAGE)
        self.close_message()
        self.running = True
        self.counted.batch_verdicts += 1

    cdef void give(self, uint32_t packet, uint32_t verdict, uint8_t *payload, uint32_t length) noexcept nogil:
        """A verdict of its own, with a new payload or without; what was accepted before it goes before it."""
        cdef uint8_t *head
        self.reserve(MESSAGE_HEAD + aligned(length))
        head = self.heads + <size_t>self.messages * MESSAGE_HEAD
        put_verdict(head, QUEUE_VERDICT, self.number, verdict, packet, length)
        self.add(head, MESSAGE_HEAD if length else VERDICT_MESSAGE)
        if length:
            self.add(payload, length)
            if aligned(length) != length:
                self.add(ZEROS, aligned(length) - length)
        self.close_message()
        self.running = False

    cdef inline void reserve(self, uint32_t length) noexcept nogil:
        if self.messages == MESSAGES or (self.messages and self.gathered + length > self.send_limit):
            self.flush()
        self.gathered += length

    cdef inline void add(self, void *base, uint32_t length) noexcept nogil:
        self.vectors[self.vector_count].iov_base = base
        self.vectors[self.vector_count].iov_len = length
        self.vector_count += 1

    cdef inline void close_message(self) noexcept nogil:
        self.ends[self.messages] = self.vector_count
        self.messages += 1

    cdef void flush(self) noexcept nogil:
        """Send what was gathered, in order. If the kernel does not take it as one, message by message.

        What it does not take either is owed: the next step accepts it.
        """
        cdef uint32_t i, start = 0
        if self.messages and not self.send(0, self.vector_count):
            for i in range(self.messages):
                if not self.send(start, self.ends[i]):
                    self.counted.unsent += 1
                    self.owing = True
                    self.owed = number(self.heads + <size_t>i * MESSAGE_HEAD + VERDICT_ID)
                start = self.ends[i]
        self.messages = self.vector_count = self.gathered = 0
        self.running = False

    cdef bint send(self, uint32_t start, uint32_t end) noexcept nogil:
        cdef msghdr message
        cdef int _attempt
        memset(&message, 0, sizeof(message))
        message.msg_iov = self.vectors + start
        message.msg_iovlen = end - start
        for _attempt in range(3):
            self.counted.sends += 1
            if sendmsg(self.fd, &message, 0) >= 0:
                return True
            if errno != EINTR and errno != ENOBUFS and errno != ENOMEM and errno != EAGAIN:
                return False
        return False


cdef inline uint64_t now(int which) noexcept nogil:
    """Nanoseconds on one of the system's clocks."""
    cdef timespec clock
    clock_gettime(which, &clock)
    return <uint64_t>clock.tv_sec * 1000000000U + <uint64_t>clock.tv_nsec


def accept(packet):
    packet.accept()
