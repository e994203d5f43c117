"""Counts in sentences: what several who write them need."""

from __future__ import annotations

from collections import Counter


def some_of(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def packets_words(count: int) -> str:
    return some_of(count, "packet")


def share(count: int, of: int) -> str:
    """'5 of 1,020 packets', 'all 20 packets', 'both packets', 'the one packet'."""
    if count == of and of in (1, 2):
        return "the one packet" if of == 1 else "both packets"
    return f"all {of:,} packets" if count == of else f"{count:,} of {packets_words(of)}"


def list_words(counts: Counter[str], most: int = 6) -> str:
    """'6 TCP, 2 ARP'; of many the first ones."""
    said = [f"{count:,} {name}" for name, count in counts.items()]
    return ", ".join(said[:most]) + (f" and {len(said) - most} other kinds" if len(said) > most else "")
