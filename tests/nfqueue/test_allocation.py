"""The packet path asks for no memory: malloc is counted while a queue answers packets."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

# Counts calls while the environment says so; glibc's own entry points do the work.
COUNTER = r"""
#define _GNU_SOURCE
#include <stddef.h>
static unsigned long calls;
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
void *malloc(size_t n) { __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED); return __libc_malloc(n); }
void *calloc(size_t m, size_t n) { __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED); return __libc_calloc(m, n); }
void *realloc(void *p, size_t n) { __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED); return __libc_realloc(p, n); }
unsigned long malloc_calls(void) { return calls; }
"""

# A batch is put into the socket and served by `release`, which runs without the GIL until the socket is empty.
SCRIPT = """
import ctypes, os, socket, sys
sys.path.insert(0, {tests!r})
from support.netlink import NUMBER, arrival
from support.packets import tunnelled
from support.syns import in_vxlan, syn
from fixer.datapath.pipeline import Pipeline
from fixer.findings.wire import watch
from fixer.nfqueue.queue import Queue
calls = ctypes.CDLL(None).malloc_calls
calls.restype = ctypes.c_ulong
kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
pipeline = Pipeline(ports=[4789], monitor=False)
watch([pipeline])  # and what is found is counted, too
states = ("VERIFIES", "GOOD"), ("PARTIAL", "AGREES"), ("WRONG", "GOOD")  # passed, repaired, dropped
packets = [tunnelled(*state) for state in states]
packets += [in_vxlan(syn(bytes([10, 0, 0, new]), bytes(4), 1, 1, 1), 7) for new in range(6)]
messages = [arrival(number, packet) for number, packet in enumerate(packets, 1)]
def served(count):
    queue = Queue(pipeline, NUMBER, fd=ours.fileno())
    for number in range(count):
        kernel.send(messages[number])
    before = calls()
    queue.release()
    used = calls() - before
    assert queue.counters()["received"] == count
    while True:
        try:
            kernel.recv(1 << 20, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return used
served(1)
print(served(1), served(9))
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to build the counter with")
@pytest.mark.skipif("asan" in str(sysconfig.get_config_var("LDFLAGS")), reason="the sanitizer has its own malloc")
def test_nine_packets_ask_for_no_more_memory_than_one(tmp_path: Path) -> None:
    source, library = tmp_path / "counter.c", tmp_path / "counter.so"
    source.write_text(COUNTER)
    subprocess.run(["cc", "-O1", "-fPIC", "-shared", "-o", library, source], check=True)
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]))
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],  # the installed fixer, which is not always the checkout
        env={"LD_PRELOAD": str(library), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, nine = map(int, done.stdout.split())
    assert one == nine
    assert one < 50, "what `release` itself asks for"
