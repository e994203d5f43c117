"""A BPF object, as clang writes it, to instructions and maps: just what ours has (docs/kernel.md), and nothing else.

Little-endian ELF64 for EM_BPF, of one program, whose maps stand in a section ``maps`` as {type, bytes of a key, bytes
of a value, most entries}, four 32-bit numbers each, and are referred to by R_BPF_64_64. Anything else is a ValueError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQ")
_EM_BPF = 247
_R_BPF_64_64 = 1
_SHT_SYMTAB, _SHT_REL = 2, 9
_MAP = struct.Struct("<IIII")
_LOAD_64 = 0x18
"""The instruction that takes an address: BPF_LD | BPF_IMM | BPF_DW."""
BPF_PSEUDO_MAP_FD = 1
"""As its source register: the value is a map's descriptor."""


class MapShape(NamedTuple):
    """What a map is made of; sizes in bytes."""

    kind: int
    key_size: int
    value_size: int
    most: int


class Object(NamedTuple):
    """One program, the maps it needs by name, and where it refers to each: offsets of instructions, in bytes."""

    code: bytes
    licence: bytes
    maps: dict[str, MapShape]
    refers: list[tuple[int, str]]

    def linked(self, descriptors: dict[str, int]) -> bytes:
        """The code that refers to these maps."""
        code = bytearray(self.code)
        for at, name in self.refers:
            code[at + 1] |= BPF_PSEUDO_MAP_FD << 4
            code[at + 4 : at + 8] = descriptors[name].to_bytes(4, "little")
        return bytes(code)


class _Section(NamedTuple):
    name: str
    kind: int
    content: bytes
    about: int
    """Of relocations: the number of the section that they change."""


def read(content: bytes, program: str) -> Object:
    """The object whose program stands in the section ``program``. Raises ValueError."""
    try:
        return _read(content, program)
    except (struct.error, IndexError, KeyError, StopIteration, UnicodeDecodeError) as error:
        raise ValueError(f"not an object that this loader understands: {error}") from None


def _read(content: bytes, program: str) -> Object:
    identity, _, machine = _HEADER.unpack_from(content)[:3]
    if identity[:6] != b"\x7fELF\x02\x01" or machine != _EM_BPF:
        raise ValueError("not a little-endian BPF object")
    sections = list(_sections(content))
    number = next(number for number, section in enumerate(sections) if section.name == program)
    by_name = {section.name: section for section in sections}
    names = by_name[".strtab"].content
    symbols = [
        (_text(names, name), place, value)
        for name, _, _, place, value, _ in _SYMBOL.iter_unpack(by_name[".symtab"].content)
    ]
    where = next((number for number, section in enumerate(sections) if section.name == "maps"), None)
    maps = {
        name: MapShape(*_MAP.unpack_from(sections[where].content, value))
        for name, place, value in symbols
        if where is not None and place == where and name
    }
    refers = []
    for section in sections:
        if section.kind == _SHT_REL and section.about == number:
            for at, info in _RELOCATION.iter_unpack(section.content):
                name = symbols[info >> 32][0]
                if info & 0xFFFFFFFF != _R_BPF_64_64 or name not in maps or sections[number].content[at] != _LOAD_64:
                    raise ValueError(f"a relocation for {name or 'no name'} that is none of a map")
                refers.append((at, name))
    return Object(sections[number].content, by_name["license"].content.rstrip(b"\0"), maps, refers)


def _sections(content: bytes) -> Iterator[_Section]:
    header = _HEADER.unpack_from(content)
    start, size, count, names_at = header[6], header[11], header[12], header[13]
    heads = [_SECTION.unpack_from(content, start + size * number) for number in range(count)]
    names = _content(content, heads[names_at])
    for head in heads:
        yield _Section(_text(names, head[0]), head[1], _content(content, head), head[7])


def _content(content: bytes, head: tuple[int, ...]) -> bytes:
    found = content[head[4] : head[4] + head[5]]
    if len(found) != head[5] and head[1]:
        raise ValueError("cut short")
    return found


def _text(names: bytes, at: int) -> str:
    return names[at : names.index(0, at)].decode("ascii")
