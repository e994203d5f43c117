"""``fixer scan``: counts, words, JSON, repaired captures; and that a sender's own capture is known for one."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import sys
import zlib
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click
import pytest
from rich.console import Console
from support import shared
from support.captures import block, cooked, cooked2, enhanced, ethernet, interface, pcap, section
from support.make_swarm import FILE as SWARM
from support.packets import (
    HOSTS,
    VTEPS,
    encapsulate,
    frame,
    in_state,
    merged_by_lro,
    of_vtep,
    segment,
    talk,
    tunnelled,
    vxlan,
    with_field,
)

from fixer.capture.open import Capture
from fixer.cli.scan import scan_each
from fixer.config import Settings, Vxlan
from fixer.errors import CommandWrong

ZERO = {"good": 0, "absent": 0, "partial": 0, "wrong": 0, "uncheckable": 0}
SENDER, RECEIVER = VTEPS[4]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "in.pcap"


def as_json(*files: Path, plain: bool = False, **more: Any) -> list[dict[str, Any]]:
    out = io.StringIO()
    scan_each(files, Settings(plain=plain), as_json=True, console=Console(file=out), **more)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def of_packets(file: Path, packets: list[bytes], *, plain: bool = False) -> dict[str, Any]:
    """The JSON of a capture of these packets, raw IP."""
    file.write_bytes(pcap(packets, link_type=101))
    (found,) = as_json(file, plain=plain)
    return found


def verdicts(found: dict[str, Any]) -> list[str]:
    return [finding["verdict"] for finding in found["findings"]]


def as_text(*files: Path, width: int = 100, **more: Any) -> str:
    out = io.StringIO()
    scan_each(files, Settings(), console=Console(file=out, width=width), **more)
    return out.getvalue()


def flat(text: str) -> str:
    return " ".join(text.split())


def test_swarm() -> None:
    (found,) = as_json(SWARM)
    counts = {
        "vxlan": 2,
        "outer": ZERO | {"good": 2},
        "inner": ZERO | {"partial": 2},
        "repairable": 2,
        "corrupt": 0,
        "payload_unverified": 2,
    }
    assert found["frames"] == 2
    assert {key: found[key] for key in counts} == counts
    assert found["vteps"] == {"192.168.102.4": counts | {"vnis": [4097]}}
    assert found["diagnoses"] == {"inner_unfinished": 2}
    assert "error" not in found
    assert verdicts(found) == ["unclear"], "on its own host it would be normal"
    text = flat(as_text(SWARM))
    assert "unfinished inner checksums (VNI 4097) in both packets, all of them sent again and never answered" in text
    assert "--taken-on" in text
    text = flat(as_text(SWARM, taken_on=ip_address("192.168.102.5").packed))
    assert "VTEP 192.168.102.4 sends unfinished inner checksums (VNI 4097) in both packets" in text
    assert "ethtool -K DEV tx-checksum-ip-generic off" in text
    assert "179e → 483c" in text


EACH = [
    ("VERIFIES", "GOOD", "good", "good"),
    ("VERIFIES", "ZERO", "good", "absent"),
    ("VERIFIES", "PARTIAL", "good", "partial"),
    ("VERIFIES", "WRONG", "good", "wrong"),
    ("PARTIAL", "GOOD", "partial", "good"),
    ("PARTIAL", "AGREES", "partial", "good"),
    ("PARTIAL", "ZERO", "partial", "absent"),
    ("PARTIAL", "PARTIAL", "partial", "partial"),
    ("PARTIAL", "WRONG", "partial", "wrong"),
    ("WRONG", "GOOD", "wrong", "good"),
    ("ABSENT", "GOOD", "absent", "good"),
]


@pytest.mark.parametrize(("inner", "outer", "inner_as", "outer_as"), EACH)
def test_what_each_state_counts_as(file: Path, inner: str, outer: str, inner_as: str, outer_as: str) -> None:
    found = of_packets(file, [tunnelled(inner, outer, "udp")])
    assert found["inner"] == ZERO | {inner_as: 1}
    assert found["outer"] == ZERO | {outer_as: 1}
    assert found["vteps"][SENDER]["inner"] == found["inner"]
    corrupt = inner == "WRONG" or (inner == "PARTIAL" and outer == "WRONG")
    assert found["corrupt"] == corrupt
    assert found["repairable"] == (not corrupt and "PARTIAL" in (inner, outer))


def behind_nat(number: int) -> bytes:
    """Differing packets whose outer checksum of zero a NAT made ffff."""
    return with_field(tunnelled("VERIFIES", "ZERO", payload=f"packet {number}".encode()), 26, 0xFFFF)


def test_a_stale_outer_counts_as_wrong_and_repairable_once_its_envelope_is_known(file: Path) -> None:
    found = of_packets(file, [behind_nat(number) for number in range(5)])
    assert (found["outer"]["wrong"], found["repairable"]) == (5, 3)
    assert found["diagnoses"] == {"outer_stale": 3, "outer_wrong": 2}
    (sentence,) = (finding["text"] for finding in found["findings"])
    assert "a wrong outer checksum (VNI 4097) in all 5 packets, because" in sentence, "one cause, with hindsight"
    assert "`fixer run` rights 3 of them" in sentence
    found = of_packets(file, [behind_nat(0)] * 5)
    assert (found["outer"]["wrong"], found["repairable"]) == (5, 0), "one packet, however often, shows nothing"


def test_an_outer_of_zero_over_ipv6_is_absent_and_not_sound(file: Path) -> None:
    found = of_packets(file, [tunnelled("VERIFIES", "ZERO", outer=6), tunnelled("VERIFIES", "ZERO")])
    assert found["outer"] == ZERO | {"absent": 2}
    assert found["diagnoses"] == {"outer_absent6": 1, "sound": 1}


def test_a_wrong_outer_ip_header_is_neither_sound_nor_mended(file: Path) -> None:
    found = of_packets(file, [with_field(tunnelled(inner, "AGREES"), 10, 1) for inner in ("PARTIAL", "WRONG")])
    assert (found["repairable"], found["corrupt"]) == (0, 0)
    assert found["diagnoses"] == {"outer_ip_wrong": 2}


def test_what_is_not_looked_into_is_not_called_sound(file: Path) -> None:
    found = of_packets(file, [encapsulate(vxlan(frame(bytes(46), ethertype=0x8847)), "ZERO")])
    assert found["inner"] == ZERO | {"uncheckable": 1}
    assert found["reasons"] == {"not_ip": 1}
    assert "1 cannot be checked: no IP inside: MPLS" in found["findings"][0]["text"]


def test_what_lro_merged_is_not_called_corrupt(file: Path) -> None:
    found = of_packets(file, [merged_by_lro(1500, 5 * 1448)], plain=True)
    assert (found["corrupt"], found["inner"]) == (0, ZERO | {"uncheckable": 1})
    assert found["reasons"] == {"merged_by_nic": 1}


def test_counts_add_up_and_each_vtep_has_its_own(file: Path) -> None:
    back = bytearray(tunnelled("VERIFIES", "GOOD"))
    back[12:20] = back[16:20] + back[12:16]  # the other VTEP; sums do not care about the order
    arp = encapsulate(vxlan(frame(bytes(28), ethertype=0x0806)), "ZERO")
    geneve, other = tunnelled("PARTIAL", "AGREES", port=6081), tunnelled("PARTIAL", "AGREES", port=53)
    found = of_packets(file, [tunnelled(i, o, "udp") for i, o, *_ in EACH] + [bytes(back), arp, geneve, other])
    assert found["frames"] == len(EACH) + 4
    assert found["vxlan"] == len(EACH) + 2
    assert sum(found["outer"].values()) == sum(found["inner"].values()) == found["vxlan"]
    assert set(found["vteps"]) == {SENDER, RECEIVER}
    for key in ("vxlan", "repairable", "corrupt"):
        assert sum(vtep[key] for vtep in found["vteps"].values()) == found[key]
    assert found["inner"]["uncheckable"] == 1
    assert found["other"] == 2
    assert found["reasons"] == {"no_ip": 1, "no_checksum": 1, "geneve": 1, "other_traffic": 1}


def test_plain_packets_are_judged_only_when_asked_for(file: Path) -> None:
    packets = [in_state(segment(4, "tcp"), 4, "tcp", "PARTIAL"), tunnelled("VERIFIES", "ZERO")]
    without = of_packets(file, packets)
    assert (without["vxlan"], without["plain"], without["other"], without["repairable"]) == (1, 0, 1, 0)
    found = of_packets(file, packets, plain=True)
    assert (found["vxlan"], found["plain"], found["other"], found["repairable"]) == (1, 1, 0, 1)
    assert sum(found["inner"].values()) == 2
    assert sum(found["outer"].values()) == 1
    assert found["senders"][HOSTS[4][0]]["inner"]["partial"] == 1


def test_no_vxlan_is_said_and_plain_is_named(file: Path) -> None:
    file.write_bytes(pcap([segment(4, "tcp")], link_type=101))
    text = flat(as_text(file))
    assert "No VXLAN on UDP 4789, 8472 or 6784" in text
    assert "--plain" in text


def test_ports_come_from_the_configuration(file: Path) -> None:
    file.write_bytes(pcap([tunnelled("PARTIAL", "AGREES", port=4790)], link_type=101))
    out = io.StringIO()
    scan_each([file], Settings(vxlan=Vxlan(ports=(4790,))), as_json=True, console=Console(file=out))
    assert json.loads(out.getvalue())["repairable"] == 1


# --- a sender's own capture -------------------------------------------------------------------------------------------


def test_frames_marked_as_outgoing_are_no_fault(file: Path) -> None:
    """Linux cooked and pcapng know directions; the same packets coming in, again and again, are a fault."""
    unfinished = tunnelled("PARTIAL", "AGREES")
    made = {
        "SLL": lambda out: pcap([cooked(unfinished, 4 if out else 0)] * 3, link_type=113),
        "SLL2": lambda out: pcap([cooked2(unfinished, 4 if out else 0)] * 3, link_type=276),
        "pcapng": lambda out: section() + interface() + enhanced(ethernet(unfinished), flags=2 if out else 1) * 3,
    }
    for name, make in made.items():
        file.write_bytes(make(False))
        (found,) = as_json(file)
        again = name != "pcapng"  # there, all have one time: one packet, seen three times
        assert verdicts(found) == ["fault" if again else "unclear"], name
        assert ("sends unfinished" in found["findings"][0]["text"]) is again, name
        file.write_bytes(make(True))
        (found,) = as_json(file)
        assert verdicts(found) == ["harmless"], name
        assert (found["findings"][0]["packets"], found["findings"][0]["taken"]) == (3, "sender"), name
        assert found["repairable"] == 3, name  # the counts stay those of the matrix
        assert "no fault by itself" in found["findings"][0]["text"], name


def test_super_packets_are_no_fault_and_excuse_nothing_else(file: Path) -> None:
    whole = tunnelled("PARTIAL", "PARTIAL", payload=bytes(7000))
    assert verdicts(of_packets(file, [whole])) == ["harmless"]
    assert verdicts(of_packets(file, [tunnelled("PARTIAL", "ZERO", payload=bytes(20000))])) == ["harmless"]
    # A jumbo frame whose sender finished nothing but an agreeing outer is a packet of a wire.
    assert verdicts(of_packets(file, [tunnelled("PARTIAL", "AGREES", payload=bytes(8000))])) == ["unclear"]
    assert verdicts(of_packets(file, [tunnelled("PARTIAL", "PARTIAL")])) == ["unclear"]
    found = of_packets(file, [tunnelled("PARTIAL", "AGREES"), whole])
    assert [(one["verdict"], one["packets"]) for one in found["findings"]] == [("unclear", 1), ("harmless", 1)]


def test_unfinished_packets_that_are_answered_are_no_fault(file: Path) -> None:
    conversation = [
        talk("S", False, "PARTIAL"),
        talk("SA", True, "VERIFIES"),
        talk("A", False, "PARTIAL"),
        talk("PA", False, "PARTIAL"),
        talk("A", True, "VERIFIES"),
    ]
    # `talk` numbers nothing: what acknowledges is told apart in tests/findings/test_conversations.py.
    udp = [talk("", False, "PARTIAL", "udp"), talk("", True, "VERIFIES", "udp")] * 2
    for packets in (udp, [*udp, *conversation[:1]]):
        found = of_packets(file, packets)
        assert verdicts(found) == ["harmless"]
        assert "no fault by itself" in found["findings"][0]["text"]
        assert "the other side answers them" in found["findings"][0]["text"]
        assert "harmless" in as_text(file)
        assert "repaired" not in as_text(file).split("VTEP")[0], "the table says the same"


def test_unfinished_packets_that_nobody_answers_may_be_a_fault(file: Path) -> None:
    silence = [talk("S", False, "PARTIAL")] * 6
    # The other side tries again and again: these SYNs are no answers, they say that it hears nothing.
    deaf = [talk("S", True, "VERIFIES"), talk("SA", False, "PARTIAL")] * 5
    # A question that is asked again, and its answers that never arrive.
    unheard = [talk("", True, "VERIFIES", "udp"), talk("", False, "PARTIAL", "udp")] * 5
    here = [ip_address(address).packed for address in (SENDER, RECEIVER)]
    for packets in (silence, deaf, unheard):
        assert verdicts(of_packets(file, packets)) == ["unclear"]
        (on_sender,) = as_json(file, taken_on=here[0])
        assert verdicts(on_sender) == ["harmless"]
        (on_receiver,) = as_json(file, taken_on=here[1])
        assert verdicts(on_receiver) == ["fault"]
        assert f"VTEP {SENDER} sends unfinished" in on_receiver["findings"][0]["text"]


def test_finished_packets_of_the_same_sender_show_that_its_nic_was_passed(file: Path) -> None:
    finished = [talk("S", False, "VERIFIES", port=port) for port in (5000, 5001)]
    found = of_packets(file, finished + [talk("S", False, "PARTIAL")] * 6)
    assert [(one["verdict"], one["packets"], one["taken"]) for one in found["findings"]] == [("fault", 6, "behind")]
    assert found["findings"][0]["evidence"] == [
        {"what": "sent again and never answered", "packets": 6, "frame": 3},
        {"what": "finished segments of the same sender", "packets": 2, "frame": 0},
    ]
    assert verdicts(of_packets(file, finished[:1] + [talk("S", False, "PARTIAL")] * 6)) == ["unclear"], (
        "may be forwarded"
    )


def test_taken_on_a_mac(file: Path) -> None:
    frames = [ethernet(talk("S", False, "PARTIAL"))] * 3
    file.write_bytes(pcap(frames))
    for mac, verdict in ((frames[0][6:12], "harmless"), (frames[0][:6], "fault"), (bytes(6), "unclear")):
        assert verdicts(as_json(file, taken_on=mac)[0]) == [verdict]


def test_what_was_accepted_is_no_fault_though_it_is_marked_as_incoming(file: Path) -> None:
    """Between veths nobody finishes anything; or somebody repairs behind this point."""
    frames = [cooked(talk("", False, "PARTIAL", "udp"), 0), cooked(talk("", True, "VERIFIES", "udp"), 4)] * 3
    file.write_bytes(pcap(frames, link_type=113))
    (found,) = as_json(file)
    assert verdicts(found) == ["harmless"]
    assert "repaired behind this point" in found["findings"][0]["text"]


def test_corrupt_packets_of_a_broken_sender_may_be_a_nats(file: Path) -> None:
    found = of_packets(file, [tunnelled("PARTIAL", "AGREES"), tunnelled("WRONG", "GOOD")])
    assert "a NAT hop behind such a sender" in found["findings"][0]["text"]
    assert "NAT" not in of_packets(file, [tunnelled("WRONG", "GOOD")])["findings"][0]["text"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("the-tcpdump-group+tcpdump__gso-ipv4-vxlan-ipv4.pcap", "harmless"),
        ("the-tcpdump-group+tcpdump__gso-ipv6-vxlan-ipv6.pcap", "harmless"),
        ("the-tcpdump-group+tcpdump__bigtcp-ipv4-vxlan-ipv4.pcap", "harmless"),
        ("OISF+suricata-verify__vxlan-non-zero-reserved-fields_input.pcap", "harmless"),
        ("zeek+zeek__vxlan-encapsulated-igmp-v2.pcap", "unclear"),
    ],
)
def test_captures_of_others(name: str, expected: str) -> None:
    (found,) = as_json(shared.path(f"captures/{name}"))
    assert verdicts(found) == [expected]
    assert found["repairable"] > 0


# --- floods -----------------------------------------------------------------------------------------------------------

MANY = 300_000
MEASURED = """
import re, runpy, sys, time
try:
    runpy.run_module("fixer", run_name="__main__")
finally:
    print(time.process_time(), re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
"""


def of_many_senders(many: int) -> list[bytes]:
    """An unfinished packet of each of so many VTEPs, of which the third one sends four."""
    unfinished = tunnelled("PARTIAL", "ZERO")
    return [of_vtep(unfinished, number) for number in (*range(many), 2, 2, 2)]


def test_of_a_flood_the_worst_are_named_and_the_others_counted_in_bounded_time_and_memory(file: Path) -> None:
    file.write_bytes(pcap(of_many_senders(MANY), link_type=101))
    done = subprocess.run([sys.executable, "-c", MEASURED, "scan", file], capture_output=True, text=True, check=True)
    text, (seconds, kilobytes) = done.stdout, map(float, done.stderr.split())
    assert f"{MANY + 3:,} frames, {MANY + 3:,} VXLAN" in text
    assert f"And {MANY - 20:,} others: all {MANY - 20:,} packets not sound." in flat(text)
    assert text.count("Taken on its own host") == 20
    first = flat(text).split("VTEP ")[1]
    assert first.startswith("10.0.0.2: unfinished inner checksums (VNI 4097) in all 4 packets"), "the worst one"
    assert seconds < 10
    assert kilobytes < 200 << 10


# --- files, errors, output --------------------------------------------------------------------------------------------


def test_a_cut_file_is_reported_up_to_the_cut(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = SWARM.read_bytes()
    file.write_bytes(whole[:-1])
    out = io.StringIO()
    assert scan_each([file], Settings(), as_json=True, console=Console(file=out)) == 65
    found = json.loads(out.getvalue())
    assert (found["frames"], found["repairable"]) == (1, 1)
    error = capsys.readouterr().err
    assert error == f"fixer: error: {found['error']}\n"
    assert "damaged after frame 1" in error


def test_every_file_is_read_and_the_worst_code_is_the_last_word(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_bytes(SWARM.read_bytes()[:-1])
    files = [file, file.with_name("absent.pcap"), SWARM]
    out = io.StringIO()
    assert scan_each(files, Settings(), as_json=True, console=Console(file=out)) == 66
    objects = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [found.get("frames") for found in objects] == [1, None, 2]
    assert set(objects[1]) == {"file", "error"}
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[:3] for line in errors] == [["fixer", "error", str(name)] for name in files[:2]]


def test_an_empty_capture_is_no_error(file: Path) -> None:
    file.write_bytes(pcap([]))
    (found,) = as_json(file)
    assert found["frames"] == 0
    assert found["vteps"] == {}
    text = as_text(file)
    assert "The capture is empty" in text
    assert "No VXLAN" not in text


def test_a_cut_anywhere_never_ends_in_a_traceback(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = SWARM.read_bytes()
    for cut in range(len(whole)):
        file.write_bytes(whole[:cut])
        code = scan_each([file], Settings(), console=Console(file=io.StringIO()))
        assert code == (66 if cut < 4 else 0 if cut in (24, 150) else 65), cut
        assert capsys.readouterr().err.count("\n") == (code != 0)


def test_nothing_in_a_name_or_an_address_is_markup(tmp_path: Path) -> None:
    """rich would take `[bold]` for a style and `:b:` for an emoji."""
    file = tmp_path / "[bold]:b:.pcap"
    packet = bytearray(tunnelled("PARTIAL", "ZERO", outer=6))
    packet[22:24] = b"\x00\x0b"  # the source becomes 2001:db8:ffff::b
    file.write_bytes(pcap([bytes(packet)], link_type=101))
    text = as_text(file)
    assert "[bold]:b:.pcap" in text
    assert "2001:db8:ffff::b:" not in text.split("VTEP")[0]
    assert "VTEP 2001:db8:ffff::b: unfinished" in flat(text)


def test_the_table_fits_eighty_columns() -> None:
    for line in as_text(SWARM, width=80).splitlines()[1:]:
        assert len(line) <= 80


def test_what_cannot_be_read_has_no_report(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for data in (b"", b"hello", pcap([b"abc"], link_type=127), pcap([])[:20], b"\x1f\x8b\x08\0"):
        file.write_bytes(data)
        assert as_text(file) == ""
        assert capsys.readouterr().err.count("\n") == 1


def test_frames_of_a_link_type_that_is_not_read_are_said(file: Path) -> None:
    packet = ethernet(tunnelled("PARTIAL", "AGREES"))
    file.write_bytes(section() + interface() + interface(220) + enhanced(packet) + enhanced(bytes(64), number=1) * 2)
    (found,) = as_json(file)
    assert (found["frames"], found["vxlan"], found["not_ip"], found["not_read"]) == (3, 1, 0, {"220": 2})
    assert "2 frames of link type 220 (USB) not read" in flat(as_text(file))


def test_bytes_behind_gzip_are_a_warning(file: Path) -> None:
    file.write_bytes(gzip.compress(SWARM.read_bytes()) + b"\nrotated\n")
    out = io.StringIO()
    assert scan_each([file], Settings(), console=Console(file=out, width=100)) == 0
    assert "bytes behind the end of its gzip stream" in flat(out.getvalue())
    assert as_json(file)[0]["repairable"] == 2


@pytest.mark.parametrize(
    ("name", "repairable", "said"),
    [
        ("two-sections-ethernet-then-cooked.pcapng", 3, ""),
        ("unknown-interface-in-the-middle.pcapng", 3, "link type 220"),
        ("bytes-behind-gzip.pcap.gz", 20, "bytes behind the end"),
        ("with-fcs.pcap", 3, ""),
    ],
)
def test_captures_of_the_field(name: str, repairable: int, said: str) -> None:
    (found,) = as_json(shared.path(f"field/{name}"))
    assert found["repairable"] == repairable
    assert said in " ".join(found.get("warnings", [""]))


# --- --write ----------------------------------------------------------------------------------------------------------


def test_write_mends_what_can_be_mended_and_nothing_else(tmp_path: Path, file: Path) -> None:
    packets = [
        ethernet(tunnelled("PARTIAL", "AGREES"), (0x8100, 5)),
        ethernet(tunnelled("VERIFIES", "GOOD")),
        ethernet(tunnelled("WRONG", "GOOD")),
        ethernet(tunnelled("PARTIAL", "PARTIAL", inner=6, outer=6, kind="udp")),
        b"\xff" * 12 + b"\x08\x06" + bytes(28),
        ethernet(tunnelled("PARTIAL", "AGREES"))[:-4],
    ]
    file.write_bytes(pcap(packets, nano=True, wire_lengths=[len(p) for p in packets[:-1]] + [len(packets[-1]) + 4]))
    out = tmp_path / "out.pcap"
    text = flat(as_text(file, write=out))
    assert "6 frames written, 2 of them repaired; 1 corrupt" in text
    with Capture(file) as before, Capture(out) as after:
        pairs = list(zip(before, after, strict=True))
    for was, now in pairs:
        assert (was.wire_length, was.when_ns, was.link_type) == (now.wire_length, now.when_ns, now.link_type)
    assert [was.data != now.data for was, now in pairs] == [True, False, False, True, False, False]
    (found,) = as_json(out)
    assert (found["repairable"], found["corrupt"]) == (0, 1)


def test_write_keeps_a_frame_check_sequence_right(tmp_path: Path, file: Path) -> None:
    """Where it was right; whether or not the file's header tells of it. A wrong one, or half a one, stays as it was."""

    def with_fcs(frame: bytes, flip: int = 0) -> bytes:
        return frame + (zlib.crc32(frame) ^ flip).to_bytes(4, "little")

    frames = [ethernet(tunnelled(state, "ZERO")) for state in ("PARTIAL", "VERIFIES")]
    out = tmp_path / "out.pcap"
    for link_type in (1, 1 | 0x44000000):
        file.write_bytes(pcap([with_fcs(frames[0]), with_fcs(frames[1]), with_fcs(frames[0], 1)], link_type=link_type))
        as_json(file, write=out)
        with Capture(out) as capture:
            mended, sound, bad = (frame.data for frame in capture)
        assert mended == with_fcs(mended[:-4]) != with_fcs(frames[0])
        assert sound == with_fcs(frames[1])
        assert (bad[:-4], bad[-4:]) == (mended[:-4], with_fcs(frames[0], 1)[-4:])
        assert out.read_bytes()[20:24] == link_type.to_bytes(4, "little")


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_finds_nothing_bad_in_what_was_written(tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    as_json(SWARM, write=out)
    command = [
        "tshark",
        "-r",
        str(out),
        "-o",
        "udp.check_checksum:TRUE",
        "-o",
        "tcp.check_checksum:TRUE",
        "-T",
        "fields",
    ]
    command += ["-e", "udp.checksum.status", "-e", "tcp.checksum.status"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "1\t1\n1\t1\n"


def test_a_monitoring_configuration_does_not_keep_write_from_mending(tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    scan_each([SWARM], Settings(monitor=True), write=out, console=Console(file=io.StringIO()))
    assert as_json(out)[0]["repairable"] == 0


def test_write_never_takes_an_input_for_its_output(tmp_path: Path, file: Path) -> None:
    shutil.copy(SWARM, file)
    link, hard = tmp_path / "link.pcap", tmp_path / "hard.pcap"
    link.symlink_to(file)
    hard.hardlink_to(file)
    for name in (file, link, hard):
        with pytest.raises(click.UsageError, match="choose another name"):
            as_json(file, write=name)
    assert file.read_bytes() == SWARM.read_bytes()
    with pytest.raises(click.UsageError, match="one FILE"):
        as_json(file, SWARM, write=tmp_path / "out.pcap")


def test_write_takes_one_link_layer(tmp_path: Path, file: Path) -> None:
    packet = tunnelled("PARTIAL", "AGREES")
    file.write_bytes(
        section() + interface(1) + interface(101) + enhanced(ethernet(packet)) + enhanced(packet, number=1)
    )
    assert as_json(file)[0]["repairable"] == 2
    with pytest.raises(CommandWrong, match="link layers"):
        as_json(file, write=tmp_path / "out.pcap")
    assert [path.name for path in tmp_path.iterdir()] == ["in.pcap"]


def test_write_of_a_cut_file_holds_its_whole_frames(tmp_path: Path, file: Path) -> None:
    file.write_bytes(SWARM.read_bytes()[:-1])
    out = tmp_path / "out.pcap"
    assert as_json(file, write=out)[0]["written"].startswith(f"{out}: 1 frame written")
    assert as_json(out)[0]["frames"] == 1


def test_write_that_cannot_be_done_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "absent/out.pcap"
    assert scan_each([SWARM], Settings(), write=out, console=Console(file=io.StringIO())) == 71
    assert capsys.readouterr().err == f"fixer: error: {out}: cannot be written: no such file or directory\n"


def test_pcapng_comments_and_name_blocks_are_stepped_over(file: Path) -> None:
    packet = ethernet(tunnelled("PARTIAL", "AGREES"))
    file.write_bytes(section() + interface() + block(4, bytes(8)) + enhanced(packet) + block(5, bytes(12)))
    assert as_json(file)[0]["repairable"] == 1
