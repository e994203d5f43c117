"""``make soak``: traffic, and faults that come and go, for an hour or as long as FIXER_SOAK says (seconds); what grows?

One daemon lives through all of it, so only what it survives is among the faults: what ends a process is in `faults`.
What was sampled is build/soak.json; the picture is docs/img/soak.png, of less than an hour build/soak.png.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import time
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest
from support.graph import Panel, draw

from .guard import BY_VARIANT
from .scene import Scene, scene

HOUR, QUARTER = 3600.0, 900.0
SECONDS = float(os.environ.get("FIXER_SOAK", HOUR))
FAULT_SECONDS, SAMPLE_SECONDS = 6.0, 5.0
ROOT = Path(__file__).parents[2]
SETTINGS = """
[log]
to = "{room}/log"
per_second = 100
[metrics]
listen = "unix:{room}/metrics"
"""

pytestmark = [pytest.mark.root, pytest.mark.timeout(SECONDS + 300)]


# --- what comes and goes ---------------------------------------------------------------------------------------------


LOSSES, LOSSES_SECONDS = 2, 60.0
"""So often in so many seconds the rule is lost: the guard stops at five times, and one loss may be two for it."""
lost_at: deque[float] = deque(maxlen=LOSSES)


def rule_lost(here: Scene, random: Random) -> str:
    if len(lost_at) == LOSSES and time.monotonic() - lost_at[0] < LOSSES_SECONDS:
        return reloaded(here, random)
    lost_at.append(time.monotonic())
    name, way = random.choice([each for each in BY_VARIANT["nft"].items() if "legacy" not in each[1].command])
    here.lab.right.run("sh", "-c", way.command.format(v="nft"))
    return f"rule lost: {name}"


def reloaded(here: Scene, random: Random) -> str:
    text = re.sub("per_second = .*", f"per_second = {random.randrange(1, 1000)}", here.service.config.read_text())
    here.service.config.write_text(text)
    here.service.process.send_signal(signal.SIGHUP)
    return "reload"


def misconfigured(here: Scene, _random: Random) -> str:
    good = here.service.config.read_text()
    here.service.config.write_text("[queue\n")
    here.service.process.send_signal(signal.SIGHUP)
    time.sleep(1)
    here.service.config.write_text(good)
    return "reload refused"


def rotated(here: Scene, _random: Random) -> str:
    (here.room / "log").replace(here.room / "log.1")
    return "log rotated"


def paused(here: Scene, _random: Random) -> str:
    """For less than the watchdog waits."""
    with here.service.paused():
        time.sleep(1)
    return "stopped for a second"


def interface_down(here: Scene, _random: Random) -> str:
    here.lab.right.configure("link set eth0 down")
    time.sleep(0.3)
    here.lab.right.configure("link set eth0 up")
    return "interface down and up"


def turned_off(here: Scene, _random: Random) -> str:
    assert here.service.ask("off", "--force").status == 0
    assert here.service.ask("on", "--variant", "nft").status == 0
    return "off and on"


def second_daemon(here: Scene, _random: Random) -> str:
    here.service.ask("run")
    return "a second daemon"


def scraped(here: Scene, _random: Random) -> str:
    for _ in range(20):
        here.scrape()
    return "20 scrapes"


def flooded(here: Scene, _random: Random) -> str:
    here.flood(0.5)
    return "flood"


FAULTS: tuple[Callable[[Scene, Random], str], ...] = (
    *(rule_lost, rule_lost, reloaded, reloaded, rotated, rotated),
    *(misconfigured, paused, interface_down, turned_off, second_daemon, scraped, flooded),
)


# --- what is looked at -----------------------------------------------------------------------------------------------


def sampled(here: Scene, began: float, faults: int) -> dict[str, float]:
    right, pid = here.lab.right, here.pid
    status = Path(f"/proc/{pid}/status").read_text()
    resident = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert resident
    asked, answered, failed = here.traffic.figures()
    inode = right.call(right.host.netns_inode)
    kept = [path.name for path in (right.host.run_directory / "fixer").iterdir() if path.name.startswith(f"{inode}")]
    rules = [right.run(f"{command}-save", "-t", "raw").out for command in ("iptables-nft", "ip6tables-nft")]
    return {
        "seconds": time.monotonic() - began,
        "memory": int(resident[1]) / 1024,
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
        "flows": float(here.flows()["used"]),
        "rules": sum(bool(re.match("-A .*FIXER", line)) for table in rules for line in table.splitlines()),
        "namespaces": sum(name.startswith(f"fx-{os.getpid()}-") for name in os.listdir("/run/netns")),  # noqa: PTH208
        "files": len(kept),
        "asked": asked,
        "unanswered": asked - answered,
        "failed": failed,
        "faults": faults,
    }


PANELS = (
    Panel("memory", "memory of the daemon, MiB"),
    Panel("flows", "flow table, entries"),
    Panel("descriptors", "open descriptors"),
    Panel("threads", "threads"),
    Panel("rules", "rules of ours, IPv4 and IPv6"),
    Panel("files", "files below /run/fixer"),
    Panel("namespaces", "network namespaces of the lab"),
    Panel("unanswered", "questions without an answer, so far"),
)


def test_nothing_grows(tmp_path: Path) -> None:
    assert find_spec("matplotlib"), "nobody could draw it: make soak installs that first"
    samples: list[dict[str, float]] = []
    done: dict[str, int] = {}
    random = Random(16)
    with scene(tmp_path, normalised=True, settings=SETTINGS, on=("--variant", "nft")) as here:
        began = time.monotonic()
        pid = here.pid
        due = began + FAULT_SECONDS
        while time.monotonic() < began + SECONDS:
            if time.monotonic() >= due:
                what = random.choice(FAULTS)(here, random)
                done[what] = done.get(what, 0) + 1
                due = time.monotonic() + FAULT_SECONDS
            time.sleep(min(SAMPLE_SECONDS, max(due - time.monotonic(), 0.1)))
            samples.append(sampled(here, began, sum(done.values())))
            here.traffic.forget()
            write(samples, done)
        here.traffic.goes_on()
        here.traffic.finish()
        assert (here.pid, here.supervisor.restarts) == (pid, [])
    noticed = here.traffic.noticed(began)
    write(samples, done)
    draw(samples, PANELS, ROOT / ("docs/img" if SECONDS >= HOUR else "build") / "soak.png")
    print(json.dumps(done, indent=1), samples[-1], sep="\n")
    assert noticed.lost + samples[-1]["failed"] == 0, noticed.failures
    for name, most in GROWS_AT_MOST.items():
        early, late = medians(samples, name)
        print(f"{name}: {early:g} in the second quarter, {late:g} in the last")
        assert late - early <= most, name


GROWS_AT_MOST = {"descriptors": 0, "threads": 0, "rules": 0, "files": 0, "namespaces": 0}
GROWS_AT_MOST |= {"memory": 1.0 if SECONDS >= QUARTER else 3.0}
"""Between the second quarter, when every kind of fault has been, and the last; the tables' pages take minutes to be
all touched."""


def medians(samples: list[dict[str, float]], name: str) -> tuple[float, float]:
    quarter = max(len(samples) // 4, 1)
    second, last = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
    return statistics.median(each[name] for each in second), statistics.median(each[name] for each in last)


def write(samples: list[dict[str, float]], done: dict[str, int]) -> None:
    kept = ROOT / "build" / "soak.json"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps({"faults": done, "samples": samples}))
