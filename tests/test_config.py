"""fixer.toml: what is accepted, and that every refusal names the file, the key, the value and what is allowed."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixer import config
from fixer.config import Settings, load, parse
from fixer.errors import ConfigWrong, FileUnreadable

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "systemd" / "fixer.toml"
MANUAL = ROOT / "docs" / "configuration.md"


def refusal(text: str) -> str:
    with pytest.raises(ConfigWrong) as caught:
        parse(text, "f.toml")
    line = str(caught.value)
    assert line.startswith("f.toml: ")
    assert "\n" not in line
    return line.removeprefix("f.toml: ")


def test_an_empty_file_is_the_defaults() -> None:
    assert parse("", "f.toml") == Settings()


def test_everything_can_be_set() -> None:
    settings = parse(
        """
        plain = true
        monitor = true
        [vxlan]
        ports = [1, 65535]
        vnis = [4097, "8192-8200", "7-7"]
        [policy]
        stale = "inner-verifies"
        trust_device = true
        inner_unfinished = "pass"
        outer_wrong = "drop"
        outer_ip_wrong = "drop"
        outer_absent6 = "repair"
        corrupt = "pass"
        [timestamps]
        mode = "strip"
        sources = ["192.0.2.1", "2001:db8::/64"]
        syn_ack = true
        [queue]
        number = 65535
        length = 1
        receive_buffer = 65536
        fail_open = false
        gso = false
        [log]
        per_second = 0
        """,
        "f.toml",
    )
    assert settings.queue == config.Queue(number=65535, length=1, receive_buffer=65536, fail_open=False, gso=False)
    assert settings.datapath() == {
        "ports": [1, 65535],
        "vnis": [(4097, 4097), (8192, 8200), (7, 7)],
        "plain": True,
        "monitor": True,
        "stale": "inner-verifies",
        "trust_device": True,
        "actions": {
            "inner_unfinished": "pass",
            "outer_unfinished": "repair",
            "both_unfinished": "repair",
            "outer_stale": "repair",
            "stale_unfinished": "repair",
            "outer_wrong": "drop",
            "outer_ip_wrong": "drop",
            "outer_absent6": "repair",
            "corrupt": "pass",
        },
        "timestamps": "strip",
        "sources": [(bytes([192, 0, 2, 1]), 32), (bytes.fromhex("20010db8") + bytes(12), 64)],
        "syn_ack": True,
        "when_full": "pass",
        "events_per_second": 0,
    }


PORTS = "a list of 1 to 15 UDP ports, each 1 to 65535"
VNIS = 'a list of VNIs (0 to 16777215) and ranges of them, as in [4097, "8192-8200"]'
NEVER_REPAIRED = '"pass" or "drop" (never "repair": nothing vouches for what such a packet carries)'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[vxlan]\nports = [4789, 65536]", f"vxlan.ports[1] = 65536 is not allowed; allowed: {PORTS}"),
        ("[vxlan]\nports = [0]", f"vxlan.ports[0] = 0 is not allowed; allowed: {PORTS}"),
        ("[vxlan]\nports = []", f"vxlan.ports = [] is not allowed; allowed: {PORTS}"),
        ("[vxlan]\nports = 4789", f"vxlan.ports = 4789 is not allowed; allowed: {PORTS}"),
        ('[vxlan]\nports = ["4789"]', f'vxlan.ports[0] = "4789" is not allowed; allowed: {PORTS}'),
        ("[vxlan]\nvnis = [16777216]", f"vxlan.vnis[0] = 16777216 is not allowed; allowed: {VNIS}"),
        ('[vxlan]\nvnis = [1, "a-b"]', f'vxlan.vnis[1] = "a-b" is not allowed; allowed: {VNIS}'),
        (
            '[vxlan]\nvnis = ["9-3"]',
            'vxlan.vnis: the range "9-3" runs backwards; the smaller VNI comes first',
        ),
        (
            '[vxlan]\nvnis = ["0-16777216"]',
            'vxlan.vnis: the range "0-16777216" ends beyond the largest VNI, 16777215',
        ),
        ('[policy]\ncorrupt = "repair"', f'policy.corrupt = "repair" is not allowed; allowed: {NEVER_REPAIRED}'),
        (
            '[policy]\nouter_wrong = "repair"',
            f'policy.outer_wrong = "repair" is not allowed; allowed: {NEVER_REPAIRED}',
        ),
        (
            '[policy]\nouter_ip_wrong = "repair"',
            f'policy.outer_ip_wrong = "repair" is not allowed; allowed: {NEVER_REPAIRED}',
        ),
        (
            '[policy]\nouter_absent6 = "drop"',
            'policy.outer_absent6 = "drop" is not allowed; allowed: "pass" or "repair"',
        ),
        (
            '[policy]\ninner_unfinished = "fix"',
            'policy.inner_unfinished = "fix" is not allowed; allowed: "repair", "pass" or "drop"',
        ),
        (
            "[policy]\nstale = true",
            'policy.stale = true is not allowed; allowed: "explained", "inner-verifies" or "off"',
        ),
        ("[queue]\nnumber = 70000", "queue.number = 70000 is not allowed; allowed: a whole number, 0 to 65535"),
        ("[queue]\nnumber = -1", "queue.number = -1 is not allowed; allowed: a whole number, 0 to 65535"),
        ("[queue]\nnumber = true", "queue.number = true is not allowed; allowed: a whole number, 0 to 65535"),
        ("[queue]\nnumber = 1.0", "queue.number = 1.0 is not allowed; allowed: a whole number, 0 to 65535"),
        ("[queue]\nfail_open = 1", "queue.fail_open = 1 is not allowed; allowed: true or false"),
        ("[queue]\nlength = 0", "queue.length = 0 is not allowed; allowed: a number of packets, 1 to 1048576"),
        (f"plain = {'9' * 80}", f"plain = {'9' * 57}... is not allowed; allowed: true or false"),
        ("queue = 3", "queue = 3 is not allowed; allowed: a table, [queue]"),
        ("[[queue]]\nnumber = 3", 'queue = [{"number": 3}] is not allowed; allowed: a table, [queue]'),
        ("[vxlan]\nport = [1]", "unknown key vxlan.port; did you mean vxlan.ports?"),
        ("[queue]\nfail-open = true", "unknown key queue.fail-open; did you mean queue.fail_open?"),
        ("[qeue]\nnumber = 1", "unknown key qeue; did you mean queue?"),
        ("number = 1", "unknown key number; did you mean queue.number?"),
        ("[log]\ncorrupt = 'drop'", "unknown key log.corrupt; did you mean policy.corrupt?"),
        ("[log]\nxyz = 1", "unknown key log.xyz; allowed here: per_second, to, namespace, labels, tags"),
        (
            '"a\\nb" = 1',
            'unknown key "a\\nb"; allowed here: plain, monitor, vxlan, policy, timestamps, queue, rule, log, metrics',
        ),
        ("plain = true\nx = = 1", "not TOML: Invalid value (at line 2, column 5)"),
        ("a=" + "[" * 100_000, "not a configuration: nested too deeply"),
    ],
)
def test_a_refusal_says_where_what_and_what_is_allowed(text: str, line: str) -> None:
    assert refusal(text) == line


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1), st.one_of(st.integers(), st.text(), st.booleans(), st.lists(st.text()))))
def test_no_document_is_a_traceback(document: dict[str, object]) -> None:
    """Whatever a TOML file holds, it is settings or one line."""
    text = "".join(f"{_quoted(key)} = {_quoted(value)}\n" for key, value in document.items())
    for table in ("", "[queue]\n", "[vxlan]\n"):
        try:
            parse(table + text, "f.toml")
        except ConfigWrong as error:
            line = str(error)
            assert "\n" not in line


def _quoted(value: object) -> str:
    if isinstance(value, str):
        return '"' + "".join(c if c.isascii() and c.isalnum() else f"\\U{_scalar(c):08x}" for c in value) + '"'
    if isinstance(value, list):
        return f"[{', '.join(map(_quoted, value))}]"
    return str(value).lower()


def _scalar(character: str) -> int:
    return ord(character) if not 0xD800 <= ord(character) <= 0xDFFF else 0xFFFD


@given(st.integers())
def test_port_range(port: int) -> None:
    if 1 <= port <= 65535:
        assert parse(f"[vxlan]\nports = [{port}]", "f.toml").vxlan.ports == (port,)
    else:
        assert "vxlan.ports[0]" in refusal(f"[vxlan]\nports = [{port}]")


def test_a_missing_file_is_the_users_fault_only_if_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "nowhere.toml"
    with pytest.raises(FileUnreadable, match=re.escape(f"{missing}: no such file")):
        load(missing)
    monkeypatch.setattr(config, "DEFAULT_PATH", missing)
    assert load() == Settings()
    missing.write_text("[queue]\nnumber = 3\n")
    assert load().queue.number == 3


def test_a_directory_and_binary_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match="cannot be read: Is a directory"):
        load(tmp_path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"plain = \xff")
    with pytest.raises(ConfigWrong, match=re.escape("not UTF-8 text (byte 8)")):
        load(binary)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    locked = tmp_path / "locked.toml"
    locked.touch(mode=0)
    with pytest.raises(FileUnreadable, match="Permission denied"):
        load(locked)


def test_the_command_line_overrides_only_what_it_names() -> None:
    settings = parse("plain = true\n[queue]\nnumber = 5\nlength = 9", "f.toml")
    assert settings.overridden() == settings
    changed = settings.overridden(queue=0, monitor=True)
    assert (changed.queue.number, changed.queue.length, changed.plain, changed.monitor) == (0, 9, True, True)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().queue.number = 1  # type: ignore[misc]


def test_sources_of_timestamps() -> None:
    assert config.parse('[timestamps]\nsources = ["192.0.2.0/24"]', "f.toml").datapath()["timestamps"] == "off"
    for text, said in (
        ('mode = "strip"', 'timestamps.sources: mode "strip" needs the sources it is for'),
        ('sources = ["192.0.2.1/24"]', "timestamps.sources: 192.0.2.1/24 has host bits set"),
        ('sources = ["here"]', "timestamps.sources: 'here' does not appear to be an IPv4 or IPv6 network"),
        ('mode = "normalise"', 'timestamps.sources: mode "normalise" needs the sources it is for'),
        ('mode = "normalize"', 'timestamps.mode = "normalize" is not allowed; allowed: "off", "strip" or "normalise"'),
        ("flows = 1000", "timestamps.flows = 1000 is not allowed; allowed: a number of connections, 1024 to 4194304"),
        ("queue = 65536", "timestamps.queue = 65536 is not allowed; allowed: a whole number, 0 to 65535"),
        ('when_full = "drop"', 'timestamps.when_full = "drop" is not allowed; allowed: "pass" or "strip"'),
    ):
        with pytest.raises(ConfigWrong, match=re.escape(said)):
            config.parse(f"[timestamps]\n{text}", "f.toml")


NORMALISE = '[timestamps]\nmode = "normalise"\nsources = ["192.0.2.1/32"]\n'


def test_what_is_normalised_has_a_queue_of_its_own() -> None:
    assert config.parse(NORMALISE, "f.toml").timestamps_queue == 1
    settings = config.parse(f"{NORMALISE}[queue]\nnumber = 7\ncount = 3", "f.toml")
    assert settings.timestamps_queue == 10
    assert settings.overridden(queue=20).timestamps_queue == 23
    named = config.parse(f"{NORMALISE}queue = 9\n[queue]\nnumber = 7\ncount = 2", "f.toml")
    assert named.timestamps_queue == 9
    assert named.datapath()["timestamps"] == "off"
    with pytest.raises(ConfigWrong, match=r"^f\.toml: timestamps\.queue: 8 is an ordinary queue; normalising needs"):
        config.parse(f"{NORMALISE}queue = 8\n[queue]\nnumber = 7\ncount = 2", "f.toml")
    with pytest.raises(ConfigWrong, match=r"^f\.toml: timestamps\.queue: no number is left behind the ordinary queues"):
        config.parse(f"{NORMALISE}[queue]\nnumber = 65535", "f.toml")
    with pytest.raises(ConfigWrong, match=r"^--queue 9: timestamps\.queue: 9 is an ordinary queue"):
        named.overridden(queue=9)
    unused = config.parse("[queue]\nnumber = 65535\n[timestamps]\nqueue = 65535", "f.toml")
    assert unused.overridden(queue=3) != unused, "who does not normalise needs no such queue"


def test_several_queues() -> None:
    settings = config.parse("[queue]\nnumber = 65534\ncount = 2\ncpus = [3, 1]", "f.toml")
    assert list(settings.queue.numbers) == [65534, 65535]
    with pytest.raises(ConfigWrong, match=r"queue\.count: 3 queues from number 65534 on end beyond 65535"):
        config.parse("[queue]\nnumber = 65534\ncount = 3", "f.toml")
    with pytest.raises(ConfigWrong, match=r"queue\.cpus: 1 CPUs for 2 queues"):
        config.parse("[queue]\ncount = 2\ncpus = [3]", "f.toml")
    with pytest.raises(ConfigWrong, match="--queue 65535: "):
        settings.overridden(queue=65535)


def every_default() -> dict[str, Any]:
    """The defaults as they are written, and the one that follows from others as it comes out."""
    defaults: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(Settings()))
    defaults["timestamps"]["queue"] = Settings().timestamps_queue
    return defaults


def test_the_example_shows_every_key_at_its_default() -> None:
    text = EXAMPLE.read_text()
    assert parse(text, str(EXAMPLE)) == Settings()
    shown = re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE)
    assert tomllib.loads(shown) == every_default()


def test_the_manual_has_every_key_with_its_default() -> None:
    manual = MANUAL.read_text()
    defaults = every_default()
    for key in config.every_key():
        value = defaults
        for step in key.split("."):
            value = value[step]
        shown = msgspec.json.encode(value).decode().replace(",", ", ")
        assert f"| `{key}` | `{shown}` |" in manual, key
    assert set(re.findall(r"^\| `([\w.]+)` \|", manual, re.MULTILINE)) == set(config.every_key())


@pytest.mark.parametrize("key", ["log.to", "metrics.listen"])
def test_a_unix_sockets_path_fits_the_kernel(key: str) -> None:
    def text(path: str) -> str:
        table, _, name = key.partition(".")
        return f'[{table}]\n{name} = "{path}"\n'

    longest = "/\N{LATIN SMALL LETTER E WITH ACUTE}" + "x" * 104
    assert len(longest.encode()) == 107
    parse(text(f"unix:{longest}"), "f.toml")
    said = refusal(text(f"unix:{longest}x"))
    assert f"{key}: a unix socket's path has 107 bytes at most, and this one 108" in said
    if key == "log.to":
        parse(text(f"{longest}x"), "f.toml")  # a file's may be longer
