"""What a packet thread can still do, tried from within one; and that the threads beside it can do all they could."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from fixer.kernel import confined

PROGRAM = """
import ctypes, json, mmap, os, socket, sys, threading
from fixer.kernel import confined

libc = ctypes.CDLL(None, use_errno=True)
tried = {}

def attempt(name, what):
    try:
        what()
    except OSError as error:
        tried[name] = error.errno
    else:
        tried[name] = 0

def raw(function, *arguments):
    if function(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

def thread():
    held = confined.packet_thread()
    status = dict(line.split(":", 1) for line in os.read(mine, 1 << 16).decode().splitlines())
    attempt("write a file", lambda: os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600))
    attempt("read a file", lambda: os.open("/etc/passwd", os.O_RDONLY))
    attempt("remove a file", lambda: os.unlink(sys.argv[2]))
    attempt("start a program", lambda: os.execv("/bin/true", ["true"]))
    attempt("fork", os.fork)
    attempt("a socket", lambda: socket.socket(socket.AF_INET))
    attempt("ptrace", lambda: raw(libc.ptrace, 16, os.getppid(), 0, 0))
    attempt("kill", lambda: os.kill(os.getppid(), 0))
    attempt("another namespace", lambda: raw(libc.unshare, 0x40000000))
    attempt("code", lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC))
    attempt("memory", lambda: mmap.mmap(-1, 1 << 20).close())
    attempt("a message", lambda: ours.send(b"verdict"))
    tried.update(held=held, status={key: value.strip() for key, value in status.items()})

ours, theirs = socket.socketpair()
def open_status():
    global mine
    mine = os.open("/proc/thread-self/status", os.O_RDONLY)
    thread()
worker = threading.Thread(target=open_status)
worker.start()
worker.join()
tried["beside"] = os.system("exit 7") >> 8
open(sys.argv[1], "w").close()
print(json.dumps(tried))
"""


def tried_in_a_packet_thread(tmp_path: Path, through: Sequence[str]) -> dict[str, object]:
    (tmp_path / "kept").touch()
    done = subprocess.run(
        [*through, sys.executable, "-c", PROGRAM, tmp_path / "written", tmp_path / "kept"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("through", [(), ("setpriv", "--bounding-set=-sys_admin")], ids=["as-it-is", "no-sys-admin"])
def test_a_packet_thread_starts_nothing_and_opens_nothing(tmp_path: Path, through: tuple[str, ...]) -> None:
    """Without CAP_SYS_ADMIN, as the service is, too."""
    if through and (os.geteuid() or not shutil.which(through[0])):
        pytest.skip("needs root and setpriv")
    found = tried_in_a_packet_thread(tmp_path, through)
    held = found["held"]
    assert isinstance(held, list)
    if not Path("/proc/sys/kernel/seccomp").exists():
        pytest.skip("this kernel has no seccomp filters")
    assert "seccomp" in held
    assert {name: found[name] for name in found if isinstance(found[name], int)} == {
        **dict.fromkeys(("write a file", "read a file", "remove a file", "start a program", "fork", "a socket"), 1),
        **dict.fromkeys(("ptrace", "kill", "another namespace", "code"), 1),
        **dict.fromkeys(("memory", "a message"), 0),
        "beside": 7,
    }
    status = found["status"]
    assert isinstance(status, dict)
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
    if "capabilities" in held:
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 1 << confined.NET_ADMIN


@pytest.mark.parametrize(("has", "status"), [("net_admin", 0), ("net_admin,+net_raw", 1)], ids=["alone", "one-more"])
def test_where_capset_is_refused_it_holds_if_there_is_nothing_to_give_up(has: str, status: int) -> None:
    """As under the unit, whose filter has no such call."""
    if os.geteuid() or not shutil.which("setpriv"):
        pytest.skip("needs root and setpriv")
    sets = f"-all,+{has}"
    program = "from fixer.kernel import confined as c; c._CAPSET = (1 << 20,) * 2; c._keep_net_admin()"
    command = ["setpriv", f"--bounding-set={sets}", f"--inh-caps={sets}", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status, done.stderr
    assert ("Function not implemented" in done.stderr) is bool(status)


@pytest.mark.parametrize("lock", ["_keep_net_admin", "_open_no_file", "_call_little"])
def test_each_lock_holds_without_the_others(lock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel lacks one, or its number is not known, packets are served all the same."""

    def refused() -> None:
        raise PermissionError

    for other in {"_keep_net_admin", "_open_no_file", "_call_little"} - {lock}:
        monkeypatch.setattr(confined, other, refused)
    monkeypatch.setattr(confined, lock, lambda: None)
    monkeypatch.setattr(confined, "_no_new_privs", refused)
    assert len(confined.packet_thread()) == 1


def test_a_machine_that_nobody_knows_is_no_reason_not_to_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined.platform, "machine", lambda: "riscv64")
    with pytest.raises(OSError, match="riscv64"):
        confined._machine()


@pytest.mark.parametrize(
    ("machine", "header"),
    [(0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), (1, "/usr/include/asm-generic/unistd.h")],
    ids=["x86_64", "aarch64"],
)
def test_the_numbers_are_those_of_the_kernel_s_headers(machine: int, header: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"no {header} here")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text()))
    mine = {name: numbers[machine] for name, numbers in confined._ALLOWED.items()}
    mine |= dict(zip(("mmap", "mprotect"), (numbers[machine] for numbers in confined._MAPPING), strict=True))
    mine |= {"seccomp": confined._SECCOMP[machine]}
    mine |= {"capget": confined._CAPGET[machine], "capset": confined._CAPSET[machine]}
    if machine == 1:
        del mine["poll"]  # which there is ppoll
    assert mine == {name: int(known[name]) for name in mine}
