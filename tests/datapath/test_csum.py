"""The arithmetic against the slow and obvious, every length swept."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.oracle import ones_sum

from fixer._csum import checksum_sum, pseudo_header_sum, updated_field

words = st.integers(0, 0xFFFF)


def test_every_length_of_a_jumbo_frame() -> None:
    data = random.Random(1071).randbytes(9018)
    for length in range(9018):
        assert checksum_sum(data[:length]) == ones_sum(data[:length]), length


@pytest.mark.parametrize("length", [65_507, 65_531, 65_535, 80_100])
@pytest.mark.parametrize("byte", [0x00, 0x01, 0xFF])
def test_the_longest_packets_of_the_heaviest_words(length: int, byte: int) -> None:
    data = bytes([byte]) * length
    assert checksum_sum(data) == ones_sum(data)


@pytest.mark.parametrize("offset", range(8))
def test_every_alignment(offset: int) -> None:
    data = random.Random(offset).randbytes(1500)
    view = memoryview(bytearray(data))
    for length in range(70):
        assert checksum_sum(view[offset : offset + length]) == ones_sum(data[offset : offset + length])


def test_rfc_1071_example() -> None:
    assert checksum_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2


@given(st.binary(max_size=200))
def test_zero_only_from_zeros(data: bytes) -> None:
    assert (checksum_sum(data) == 0) == (not any(data))


@given(st.sampled_from([4, 16]), st.data(), st.integers(0, 255), st.integers(0, 0xFFFFFFFF))
def test_pseudo_header(size: int, data: st.DataObject, protocol: int, length: int) -> None:
    source, destination = (data.draw(st.binary(min_size=size, max_size=size)) for _ in range(2))
    header = source + destination + length.to_bytes(4, "big") + protocol.to_bytes(4, "big")
    assert pseudo_header_sum(source, destination, protocol, length) == ones_sum(header)


@given(st.binary(min_size=4, max_size=64).filter(lambda data: len(data) % 2 == 0), st.data(), words)
def test_updated_is_as_good_as_recomputed(data: bytes, draw: st.DataObject, new: int) -> None:
    """RFC 1624: after the update the packet verifies if, and only if, it verified before."""
    at = draw.draw(st.integers(0, len(data) // 2 - 1)) * 2
    old = int.from_bytes(data[at : at + 2], "big")
    changed = data[:at] + new.to_bytes(2, "big") + data[at + 2 :]
    right = 0xFFFF - ones_sum(data)
    assert ones_sum(changed + updated_field(right, old, new).to_bytes(2, "big")) in (0, 0xFFFF)
    wrong = right ^ 0x0100
    error = ones_sum(data + wrong.to_bytes(2, "big"))
    assert ones_sum(changed + updated_field(wrong, old, new).to_bytes(2, "big")) == error


def test_refuses_what_is_no_address() -> None:
    with pytest.raises(ValueError, match="4 or 16 bytes"):
        pseudo_header_sum(b"123", b"1234", 6, 20)
    with pytest.raises(ValueError, match="protocol"):
        pseudo_header_sum(b"1234", b"1234", 256, 20)
