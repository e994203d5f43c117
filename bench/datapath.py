"""The packet path alone: nanoseconds a packet and gigabytes a second, of packets that lie ready in the queue's buffers.

64 packets of one length are put through the pipeline again and again, as after one recvmmsg; nothing else is in the
loop. Their payloads are in the caches as far as they fit: at 64,000 bytes (4 MB for all) they come from further away.
Outer and inner checksum are both there. *sum* is the time that one sum over the same bytes takes and nothing else.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from fixer.datapath.pipeline import Pipeline

from .packets import AROUND, flow
from .ratio import Interval, interval

HERE = Path(__file__).parent
SIZES = (64, 1450, 9000, 64000)  # bytes of the inner packet, from its IP header
BATCH = 64
REPETITIONS = 15
BYTES_A_REPETITION = 300_000_000


class Pace(NamedTuple):
    inner: int  # bytes
    packet: int  # bytes, from the outer IP header
    unfinished: bool
    ns: Interval  # a packet
    sum_ns: Interval

    @property
    def gigabytes_per_second(self) -> float:
        return self.packet / self.ns.median


def paces(build: Path, tell: Callable[[str], None], repetitions: int = REPETITIONS) -> list[Pace]:
    """Every size, sound and unfinished."""
    spin = compiled(build)
    found = []
    for inner in SIZES:
        for unfinished in (False, True):
            tell(f"the packet path alone: {inner} bytes{', unfinished' if unfinished else ''}")
            found.append(pace(spin, inner, unfinished, repetitions))
    return found


def pace(spin: Any, inner: int, unfinished: bool, repetitions: int) -> Pace:
    packets = list(islice(flow(inner, 1, unfinished), BATCH))
    length = inner + AROUND
    turns = max(20, min(BYTES_A_REPETITION // 10 // length, 200_000) // BATCH)
    pipeline = Pipeline(ports=[4789])
    times, sums = [], []
    for _ in range(repetitions):
        seconds, repaired = spin.process(pipeline, packets, turns)
        if repaired != (turns * BATCH if unfinished else 0):
            raise RuntimeError(f"{repaired} of {turns * BATCH} packets were repaired")
        times.append(seconds / turns / BATCH * 1e9)
        seconds, _ = spin.sums(packets, turns)
        sums.append(seconds / turns / BATCH * 1e9)
    return Pace(inner, length, unfinished, interval(times), interval(sums))


def compiled(build: Path) -> Any:
    """The module ``spin.pyx``, compiled below ``build`` against the fixer that is installed."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    extension = Extension("bench.spin", [str(HERE / "spin.pyx")], extra_compile_args=["-O3", "-g0"])
    modules = cythonize(extension, build_dir=str(build), quiet=True)  # type: ignore[no-untyped-call]
    made = Distribution({"ext_modules": modules})
    command = made.get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(build), str(build)
    command.ensure_finalized()
    command.run()
    [built] = command.get_outputs()
    spec = importlib.util.spec_from_file_location("bench.spin", built)
    if spec is None or spec.loader is None:
        raise ImportError("bench.spin was built and cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
