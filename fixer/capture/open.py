"""Open a capture: the format that its first bytes name, or what to do with one that is not read; its frames, block by
block, and damage wherever it is."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from fixer.capture import pcap, pcapng, text
from fixer.capture.frames import Frame, Frames
from fixer.capture.pcap import Pcap
from fixer.capture.pcapng import PcapNg
from fixer.capture.source import STDIN, Source
from fixer.errors import CaptureDamaged, FileUnreadable

BLOCK = 1 << 20
"""Bytes of a file that are looked at once: long enough to be quick, over soon enough for who presses Ctrl-C."""

HEAD = 1 << 16
"""Bytes that are looked at to know a format; a hex dump begins in them."""

BROKEN_OFF = "it ends in the middle of a record, or a length in it is wrong"

READ = "Ethernet, Linux cooked, raw IP and loopback"
OTHER_LINK_TYPES = {
    9: "PPP",
    105: "802.11",
    119: "802.11 with Prism headers",
    127: "802.11 with radiotap headers",
    189: "USB",
    192: "PPI",
    195: "802.15.4",
    201: "Bluetooth",
    220: "USB",
    239: "NFLOG",
    253: "Netlink",
}


class Other(NamedTuple):
    """A format that is not read: how it begins, what it is called, what makes a capture of it."""

    magic: bytes
    name: str
    command: str = "editcap -F pcap {file} capture.pcap"


OTHERS = (
    Other(b"snoop\0\0\0", "a snoop capture"),
    Other(b"RTSS", "a Network Monitor capture"),
    Other(b"GMBU", "a Network Monitor capture"),
    Other(b"TRSNIFF data    \x1a", "a Sniffer capture"),
    Other(b"XCP\0", "a NetXray capture"),
    Other(b"\x7fver", "an EtherPeek or OmniPeek capture"),
    Other(b"iptrace 1.0", "an AIX iptrace"),
    Other(b"iptrace 2.0", "an AIX iptrace"),
    Other(b"ObserverPktBuffe", "a Network Instruments Observer capture"),
    Other(b"\x04\x22\x4d\x18", "packed with lz4", "lz4 -dc {file} | fixer scan -"),
    Other(b"PK\x03\x04", "a zip archive", "unzip -p {file} | fixer scan -"),
    Other(b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x -so {file} | fixer scan -"),
)


class Capture:
    """The frames of one file, or of standard input for ``-``: to be read once. A context manager that closes it.

    Opening raises FileUnreadable (missing, empty, not a capture) and CaptureDamaged (the file's own header is cut).
    Reading raises CaptureDamaged behind the last whole frame of a file that is cut short or damaged, and FileUnreadable
    at the end of one that has frames and none of a link type that is read.
    """

    def __init__(self, path: Path, taken_on: bytes = b"") -> None:
        """taken_on: an address of the host that captured it, as `Frames.taken_on` takes it."""
        self.path = path
        self._source = Source(path)
        self._frames = Frames()
        if taken_on:
            self._frames.taken_on(taken_on)
        try:
            self._reader = self._recognise()
        except BaseException:
            self._source.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

    @property
    def frames(self) -> int:
        """How many have been read."""
        return self._frames.seen

    @property
    def unread(self) -> Counter[int]:
        """How many of them were of each link type that is not read."""
        return Counter(self._frames.unread)

    @property
    def warning(self) -> str:
        """What is odd about the file, and no damage."""
        return self._source.warning

    @property
    def position(self) -> int:
        """How far the file on disk has been read, in bytes of ``size``."""
        return self._source.position

    @property
    def size(self) -> int:
        """Bytes on disk; 0 for a pipe."""
        return self._source.size

    def __iter__(self) -> Iterator[Frame]:
        for frames in self.batches():
            yield from frames

    def batches(self) -> Iterator[Frames]:
        """The frames a block at a time: the same object again and again, valid until the next one is asked for."""
        source, reader, frames = self._source, self._reader, self._frames
        try:
            yield from text.batches(source, frames) if reader is None else _in_blocks(source, reader, frames)
        except ValueError as fault:
            raise self._damaged(str(fault)) from None
        if source.fault:
            raise self._damaged(source.fault)
        if self.frames and self.unread.total() == self.frames:
            kinds = ", ".join(link_words(each) for each in self.unread)
            raise FileUnreadable(
                f"{source.name}: nothing but {kinds}, which fixer does not read "
                f"({READ}): capture on the host's interface, or with `-i any`"
            )

    @property
    def network(self) -> int | None:
        """Link type and frame check sequence as a pcap file's header has them; None for other formats."""
        return self._reader.network if isinstance(self._reader, Pcap) else None

    def _recognise(self) -> Pcap | PcapNg | None:
        """The reader for the file's format, its source behind the file's own header; None for text."""
        source = self._source
        magic = source.peek(HEAD)
        if not magic and not source.fault:
            raise FileUnreadable(f"{source.name}: empty: nothing was captured, or nothing was written yet")
        if magic[:4] in pcap.MAGICS:
            header = source.read(pcap.HEADER)
            if len(header) < pcap.HEADER:
                raise self._damaged(source.fault or "its file header is cut short")
            return Pcap(header)
        if magic[:4] == pcapng.MAGIC:
            return PcapNg()
        if source.fault:
            raise self._damaged(source.fault)
        file = "FILE" if self.path == STDIN else shlex.quote(source.name)
        for other in OTHERS:
            if magic.startswith(other.magic):
                raise FileUnreadable(f"{source.name}: {other.name}: `{other.command.format(file=file)}`")
        if text.is_text(magic):
            if text.has_dump(magic):
                return None
            raise FileUnreadable(f"{source.name}: not a capture: text without a hex dump (`tcpdump -xx` prints one)")
        if _is_erf(magic):
            raise FileUnreadable(
                f"{source.name}: an ERF capture (libtrace converts it): `traceconvert erf:{file} pcapfile:capture.pcap`"
            )
        raise FileUnreadable(f"{source.name}: not a capture: neither pcap nor pcapng, nor a hex dump, plain or packed")

    def _damaged(self, how: str) -> CaptureDamaged:
        return CaptureDamaged(
            f"{self._source.name}: damaged after frame {self.frames}: {how}; "
            f"what stands before that is whole. Capture again, or let the writer finish the file"
        )


def _in_blocks(source: Source, reader: Pcap | PcapNg, frames: Frames) -> Iterator[Frames]:
    """Raises ValueError, with what is wrong, behind the last whole frame of a file that is cut or damaged."""
    block = bytearray(BLOCK)
    held = 0  # bytes at the block's beginning: of a record that is not whole yet
    while fresh := source.fill(block, held):
        at, held = 0, held + fresh
        while True:
            at = reader.parse(block, at, held, frames)
            if not len(frames):
                break
            yield frames
        held -= at
        if reader.claimed > len(block):
            block = block[at : at + held].ljust(reader.claimed, b"\0")
        else:
            block[:held] = block[at : at + held]
    if held:
        raise ValueError(source.fault or BROKEN_OFF)


def _is_erf(head: bytes) -> bool:
    """Endace's format has no magic number: two records in a row are it, whose kinds exist and whose times are close."""
    if len(head) < 16:
        return False
    kind, size = head[8] & 0x7F, int.from_bytes(head[10:12], "big")
    behind = head[size:]
    if not 1 <= kind <= 48 or size < 16 or (len(behind) < 16 and size != len(head)):
        return False
    seconds = int.from_bytes(head[4:8], "little")
    return not behind or (1 <= behind[8] & 0x7F <= 48 and abs(int.from_bytes(behind[4:8], "little") - seconds) < 3600)


def link_words(link_type: int) -> str:
    """Of a link type that is not read."""
    name = OTHER_LINK_TYPES.get(link_type)
    return f"link type {link_type}" + (f" ({name})" if name else "")
