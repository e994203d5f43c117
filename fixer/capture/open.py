"""Captures: the frames of a pcap or pcapng file with their IP packet, and a pcap file to write.

scapy reads and writes the files; it is never asked to dissect. What scapy keeps quiet about, a file that is cut short
or damaged, is found here by watching its reads: a record that was begun and did not end is damage, whatever scapy made
of it. Where nobody needs the frames, a pcap file's records go from large blocks straight into a census (`count`).
"""

from __future__ import annotations

import gzip
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from scapy.error import Scapy_Exception
from scapy.utils import RawPcapNgReader, RawPcapReader, RawPcapWriter

from fixer.capture.link import LinkType, find_ip
from fixer.capture.records import HEADER, Records
from fixer.datapath.pipeline import Pipeline
from fixer.errors import CaptureDamaged, FileUnreadable, SystemRefused
from fixer.findings.census import Census

# scapy describes damage as warnings on stderr, for some files one a record; ours is one line, at the end.
logging.getLogger("scapy.runtime").setLevel(logging.CRITICAL)

LARGEST_RECORD = 1 << 24
"""Bytes. libpcap allows 256 KiB a record; a length above this is damage, and is not worth the memory of trying."""

LATEST_NS = (1 << 63) - 1
"""Nanoseconds since the epoch, in the year 2262. pcapng can name times beyond any clock."""

BLOCK = 1 << 20
"""Bytes of a pcap file that are counted at once: long enough to be quick, over soon enough for who presses Ctrl-C."""
GZIP_PIECE = 1 << 13
"""Bytes that are inflated at once: zlib takes what it has of a piece with it when the stream is damaged there."""

LINK_TYPES = frozenset(LinkType)
NG_DIRECTION = {1: False, 2: True}  # epb_flags, bits 0 and 1: inbound, outbound; other values know nothing

BROKEN_OFF = "it ends in the middle of a record, or a length in it is wrong"
_PCAP_MAGICS = (b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1")
_PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it was captured.

    ``wire_length`` is in bytes and at least ``len(data)``; ``when_ns`` counts from the epoch, 0 where the capture does
    not know; ``ip_at`` is the offset of the underlay's IP header in ``data``, NOT_IP where there is none; ``outgoing``
    is None where the capture does not know.
    """

    data: bytes
    wire_length: int
    when_ns: int
    link_type: int
    ip_at: int
    outgoing: bool | None


class Capture:
    """The frames of one file, to be iterated once; a context manager that closes it.

    Opening raises FileUnreadable (missing, empty, not a capture) and CaptureDamaged (the file's own header is cut).
    Iterating raises FileUnreadable for a link type that is not known, and CaptureDamaged behind the last whole frame
    of a file that is cut short or damaged: the frames before it have been yielded by then.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames = 0
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise FileUnreadable(f"{path}: cannot be read: {_words(error)}") from error
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self._reader = self._recognise()
        except BaseException:
            self._file.close()
            raise

    @property
    def position(self) -> int:
        """How far the file on disk has been read, in bytes of ``size``."""
        return self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Frame]:
        reader, source = self._reader, self._source
        is_ng = isinstance(reader, RawPcapNgReader)
        while True:
            try:
                # scapy's iterator cuts frames at 65,535 bytes; BIG TCP's are longer, and only this call takes a size.
                data, about = reader._read_packet(size=LARGEST_RECORD)
            except (EOFError, Scapy_Exception, struct.error):
                if source.unfinished or source.fault:
                    raise self._damaged(source.fault or BROKEN_OFF) from None
                return
            if is_ng:
                link_type = about.linktype
                ticks = ((about.tshigh or 0) << 32) + (about.tslow or 0)
                when_ns = ticks * 1_000_000_000 // about.tsresol
                outgoing = NG_DIRECTION.get(about.direction)
            else:
                link_type = reader.linktype & 0xFFFF  # the upper bits describe a frame check sequence
                when_ns = about.sec * 1_000_000_000 + about.usec * (1 if reader.nano else 1000)
                outgoing = None
                if len(data) < about.caplen:
                    raise self._damaged(source.fault or BROKEN_OFF)
            if link_type not in LINK_TYPES:
                raise FileUnreadable(
                    f"{self.path}: link type {link_type} is not one that fixer reads "
                    f"(Ethernet, Linux cooked, raw IP, loopback): capture on the host's interface, or with `-i any`"
                )
            ip_at, marked = find_ip(link_type, data)
            self.frames += 1
            yield Frame(
                data=data,
                wire_length=max(about.wirelen, len(data)),
                when_ns=min(when_ns, LATEST_NS),
                link_type=link_type,
                ip_at=ip_at,
                outgoing=outgoing if marked is None else marked,
            )

    @property
    def countable(self) -> bool:
        """Whether `count` reads this file: a pcap file of a link type that is known."""
        return isinstance(self._reader, _Pcap) and self._reader.linktype & 0xFFFF in LINK_TYPES

    def count(self, pipeline: Pipeline, census: Census, pause: Callable[[], None]) -> None:
        """Note what `pipeline` says of every packet of a `countable` file, as iterating would show them, but fast.

        pause: called every now and then, and when the census is full: it must drain it then. Raises as iterating does,
        with the frames before the damage counted.
        """
        reader, source = self._reader, self._source
        records = Records(big_endian=reader.endian == ">", nanoseconds=reader.nano, link_type=reader.linktype & 0xFFFF)
        block = bytearray(BLOCK)
        held = 0  # bytes at the block's beginning: of a record that is not whole yet
        while fresh := source.fill(block, held):
            at, held = 0, held + fresh
            while True:
                at = records.count(block, at, held, pipeline, census)
                was_full = census.full
                self.frames = census.frames
                pause()
                if not was_full:
                    break
            claimed = records.claimed(block, at, held)
            if claimed - HEADER > LARGEST_RECORD:
                raise self._damaged(f"a record claims {claimed - HEADER} bytes")
            held -= at
            block[:held] = block[at : at + held]
            if claimed > len(block):
                block.extend(bytes(claimed - len(block)))
        if held or source.fault:
            raise self._damaged(source.fault or BROKEN_OFF)

    def _recognise(self) -> Any:
        """scapy's reader for the file's format; leaves ``_source`` behind the file's first header."""
        try:
            zipped = self._file.peek(2)[:2] == _GZIP_MAGIC
        except OSError as error:
            raise FileUnreadable(f"{self.path}: cannot be read: {_words(error)}") from error
        self._source = source = _Source(gzip.GzipFile(fileobj=self._file) if zipped else self._file)
        magic = source.read(4)
        if not magic and not source.fault:
            raise FileUnreadable(f"{self.path}: empty: nothing was captured, or nothing was written yet")
        kind = _PcapNg if magic == _PCAPNG_MAGIC else _Pcap if magic in _PCAP_MAGICS else None
        if kind is None:
            if source.fault:
                raise self._damaged(source.fault)
            raise FileUnreadable(f"{self.path}: not a capture: neither pcap nor pcapng, plain or gzip")
        try:
            # scapy's metaclass would open the file itself, and then call this.
            return type.__call__(kind, str(self.path), source, magic)
        except (EOFError, Scapy_Exception, struct.error):
            raise self._damaged(source.fault or "its file header is cut short or damaged") from None

    def _damaged(self, how: str) -> CaptureDamaged:
        return CaptureDamaged(
            f"{self.path}: damaged after frame {self.frames}: {how}; "
            f"what stands before that is whole. Capture again, or let the writer finish the file"
        )


class CaptureWriter:
    """A pcap file with nanosecond timestamps that appears under its name only when it is complete.

    Raises SystemRefused where the file cannot be written. As a context manager: left by an exception, nothing remains.
    """

    def __init__(self, path: Path, link_type: int) -> None:
        self.path = path
        self.link_type = link_type
        # Through a symbolic link, so that the link stays one; beside the target: a rename cannot cross devices.
        self._target = path.resolve()
        self._part = self._target.with_name(f".{self._target.name}.{os.getpid()}.part")
        if self._target.exists() and not self._target.is_file():
            raise SystemRefused(f"{path}: not a regular file: choose another name to write to")
        try:
            self._file = self._part.open("xb")
        except OSError as error:
            raise SystemRefused(f"{path}: cannot be written: {_words(error)}") from error
        self._writer = RawPcapWriter(self._file, nano=True, snaplen=1 << 18)
        self._writer.linktype = link_type  # scapy's own argument takes link type 0 for none given
        self._writer.write_header(None)

    def write(self, frame: Frame, data: bytes | bytearray) -> None:
        """Append `frame` with `data` in place of its own bytes."""
        seconds, nanoseconds = divmod(frame.when_ns, 1_000_000_000)
        try:
            self._writer.write_packet(
                bytes(data), sec=seconds & 0xFFFFFFFF, usec=nanoseconds, wirelen=min(frame.wire_length, 0xFFFFFFFF)
            )
        except OSError as error:
            raise SystemRefused(f"{self.path}: cannot be written: {_words(error)}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()  # flushes: a full disk may show only here
            if kind is None:
                self._part.replace(self._target)
        except OSError as full:
            raise SystemRefused(f"{self.path}: cannot be written: {_words(full)}") from full
        finally:
            self._part.unlink(missing_ok=True)


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


_READ_ERRORS = (EOFError, zlib.error, OSError)


def _what_broke(error: Exception) -> str:
    """What one of _READ_ERRORS says of the file."""
    if isinstance(error, EOFError):
        return "its gzip stream is cut short"
    if isinstance(error, OSError) and error.errno is not None:
        return _words(error)
    return "its gzip stream is damaged" + (f": {error}" if isinstance(error, OSError) else "")


class _Source:
    """The stream that scapy reads from. It knows what scapy does not tell: that a record was begun and not finished."""

    def __init__(self, stream: gzip.GzipFile | BufferedReader) -> None:
        self._stream = stream
        self.fault = ""
        self.unfinished = False

    def begin_record(self) -> None:
        self.unfinished = False

    def read(self, size: int) -> bytes:
        """At most `size` bytes, fewer at the end; never raises: a broken gzip stream or disk ends it with a `fault`."""
        if self.fault:
            return b""  # nothing behind a fault is to be believed, and the first is the one to name
        if size > LARGEST_RECORD:
            self.fault = f"a record claims {size} bytes"
            return b""
        try:
            data = self._stream.read(size)
        except _READ_ERRORS as error:
            self.fault = _what_broke(error)
            return b""
        self.unfinished |= bool(data)
        return data

    def fill(self, block: bytearray, at: int) -> int:
        """Fill `block` from `at` on and return how much that was: less than there was room for at the end, and then 0.

        Never raises: a broken stream ends it with a `fault`, behind what was read before that.
        """
        began = at
        piece = GZIP_PIECE if isinstance(self._stream, gzip.GzipFile) else len(block)
        try:
            with memoryview(block) as view:
                while not self.fault and (fresh := self._stream.readinto1(view[at : at + piece])):
                    at += fresh
        except _READ_ERRORS as error:
            self.fault = _what_broke(error)
        return at - began


class _Pcap(RawPcapReader):
    """scapy's pcap reader, telling its source where a record begins."""

    f: Any  # a _Source

    def _read_packet(self, size: int = LARGEST_RECORD) -> tuple[bytes, Any]:
        """A whole record: scapy 2.8's own method cuts those above 262,140 bytes."""
        self.f.begin_record()
        header = self.f.read(HEADER)
        if len(header) < HEADER:
            raise EOFError
        seconds, fraction, captured, length = struct.unpack(f"{self.endian}IIII", header)
        data = self.f.read(captured)
        return data, self.PacketMetadata(sec=seconds, usec=fraction, wirelen=length, caplen=captured)


class _PcapNg(RawPcapNgReader):
    """scapy's pcapng reader, telling its source where a block begins, and two things scapy passes over in silence."""

    f: Any  # a _Source

    def _read_block(self, size: int = LARGEST_RECORD) -> tuple[bytes, Any] | None:
        self.f.begin_record()
        found: tuple[bytes, Any] | None = super()._read_block(size=size)
        return found

    def _check_interface_id(self, interface: int) -> bool:
        """A packet of an interface that was never described is damage; scapy leaves it out."""
        if interface >= len(self.interfaces):
            self.f.fault = f"a packet names interface {interface} of {len(self.interfaces)}"
            raise EOFError
        return True

    def _read_block_idb(self, block: bytes, size: int) -> None:
        """Snapshot length 0 means no limit; scapy would cut simple packet blocks to nothing."""
        super()._read_block_idb(block, size)
        link_type, limit, options = self.interfaces[-1]
        self.interfaces[-1] = (link_type, limit or LARGEST_RECORD, options)
