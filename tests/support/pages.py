"""The pages of docs/ that are made of what is in the tree: ``make pages`` writes them, and a test holds them to it.

``causes``: what findings are called, from ``fixer/findings/causes.py``. ``conclusions``: each labelled capture, with
what is right and what is concluded.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from support.dialogue import Capture
from support.labelled import LABELLED, Label

from fixer.findings.causes import CAUSES
from fixer.findings.finding import Place, Verdict

DOCS = Path(__file__).parents[2] / "docs"
ABOUT_CAUSES = """\
Written by `make pages` from `fixer/findings/causes.py`: what a finding's `cause` means, what has to be seen before it
is said, what looks the same, and what cures it. `fixer doctor` looks for the same on a host."""
ABOUT_CONCLUSIONS = """\
Written by `make pages` from `tests/support/labelled.py`, whose packets are made for it; real kernels are asked in
`tests/e2e/test_conclusions.py`. A false accusation is a number in the column *fault* beside the diagonal, a missed
fault one in the row *fault*. Each sender of each capture counts once, with the worst that is said of it; rows are what
is right, columns what is concluded."""
VERDICTS = (*map(str, Verdict), "sound")


def concluded(name: str) -> tuple[Label, set[Place]]:
    """Of one labelled capture: packets by sender and verdict; and where it is said to be taken."""
    build, _, _, told = LABELLED[name]
    capture = Capture()
    build(capture)
    found: Label = {}
    places = set()
    for one in capture.findings(told):
        if one.cause != "sound":
            found[one.who, one.verdict] = found.get((one.who, one.verdict), 0) + one.packets
        if one.cause not in ("mtu", "unanswered"):
            places.add(one.taken)
    return found, places


def words(label: Label) -> str:
    said = sorted(label.items(), key=lambda each: (each[0][0], list(Verdict).index(each[0][1])))
    return "; ".join(f"{who} {verdict} {packets}" for (who, verdict), packets in said) or "all sound"


def worst(found: Label, who: str) -> str:
    return next((str(verdict) for verdict in Verdict if (who, verdict) in found), "sound")


def confusion() -> Counter[tuple[str, str]]:
    """Senders by their worst verdict: as it is right, as it was concluded."""
    counts: Counter[tuple[str, str]] = Counter()
    for name, (build, expected, _, _) in LABELLED.items():
        found, _ = concluded(name)
        capture = Capture()
        build(capture)
        for who in senders_of(capture):
            counts[worst(expected, who), worst(found, who)] += 1
    return counts


def senders_of(capture: Capture) -> set[str]:
    return {".".join(map(str, packet[12:16])) for _, packet, _ in capture.packets}


def table_of_confusion() -> list[str]:
    counts = confusion()
    lines = [f"{'right':10}" + "".join(f"{name:>10}" for name in VERDICTS)]
    return lines + [f"{row:10}" + "".join(f"{counts[row, column]:>10}" for column in VERDICTS) for row in VERDICTS]


def conclusions_page() -> str:
    rows = []
    for name, (_, expected, _, told) in LABELLED.items():
        found, places = concluded(name)
        right = "yes" if found == expected else "**no**"
        where = ", ".join(sorted(places)) + (" (told)" if told is not None else "")
        rows.append(f"| {name} | {words(expected)} | {words(found)} | {right} | {where} |")
    return "\n".join(
        [
            "# What `scan` concludes of captures whose right conclusion is known",
            "",
            ABOUT_CONCLUSIONS,
            "",
            "```",
            *table_of_confusion(),
            "```",
            "",
            "| capture | right: sender, verdict, packets | concluded | the same | taken |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def causes_page() -> str:
    lines = [
        "# Causes",
        "",
        ABOUT_CAUSES,
    ]
    for name, cause in CAUSES.items():
        lines += ["", f"## `{name}`", "", f"{cause.what[0].upper()}{cause.what[1:]}.", "", "| | |", "|---|---|"]
        for heading, text in (
            ("proof", cause.proof),
            ("it is not", cause.unlike),
            ("kernels", cause.kernel),
            ("drivers", cause.drivers),
            ("cure", cause.cure),
            *((f"on {platform}", cure) for platform, cure in cause.platforms),
            ("`fixer run`", cause.meanwhile),
        ):
            if text:
                lines.append(f"| {heading} | {text} |")
    return "\n".join([*lines, ""])


PAGES = {"causes.md": causes_page, "conclusions.md": conclusions_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
