"""``fixer.toml`` to frozen, typed settings.

Everything is checked before anything is changed: an unknown key, a wrong type or a value out of range ends the command
with one line that names the file, the key, what was found and what is allowed (:class:`ConfigWrong`, exit code 78).
What is allowed is said once, in the ``description`` of each type below; errors quote it.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from fixer.datapath.diagnose import Diagnosis
from fixer.datapath.repair import DEFAULT_ACTIONS
from fixer.errors import ConfigWrong, FileUnreadable

DEFAULT_PATH = Path("/etc/fixer/fixer.toml")
"""Read if it is there and no other file is named."""

VNI_MAX = (1 << 24) - 1
"""A VNI has 24 bits (RFC 7348 section 5)."""

MAX_PORTS = 15
"""What one `-m multiport` rule holds."""

Switch = Annotated[bool, Meta(description="true or false")]
Port = Annotated[int, Meta(ge=1, le=65535)]
Ports = Annotated[
    tuple[Port, ...],
    Meta(min_length=1, max_length=MAX_PORTS, description="a list of 1 to 15 UDP ports, each 1 to 65535"),
]
VniNumber = Annotated[int, Meta(ge=0, le=VNI_MAX)]
VniRange = Annotated[str, Meta(pattern=r"^[0-9]{1,8}-[0-9]{1,8}$")]
Vnis = Annotated[
    tuple[VniNumber | VniRange, ...],
    Meta(description='a list of VNIs (0 to 16777215) and ranges of them, as in [4097, "8192-8200"]'),
]
Stale = Annotated[
    Literal["explained", "inner-verifies", "off"], Meta(description='"explained", "inner-verifies" or "off"')
]
Mend = Annotated[Literal["repair", "pass", "drop"], Meta(description='"repair", "pass" or "drop"')]
Unmendable = Annotated[
    Literal["pass", "drop"],
    Meta(description='"pass" or "drop" (never "repair": nothing vouches for what such a packet carries)'),
]
Fillable = Annotated[Literal["pass", "repair"], Meta(description='"pass" or "repair"')]
TimestampMode = Annotated[Literal["off", "strip", "normalise"], Meta(description='"off", "strip" or "normalise"')]
Sources = Annotated[
    tuple[str, ...],
    Meta(max_length=64, description='a list of at most 64 networks, as in ["192.0.2.1/32", "2001:db8::/64"]'),
]
QueueNumber = Annotated[int, Meta(ge=0, le=65535, description="a whole number, 0 to 65535")]
FlowCount = Annotated[int, Meta(ge=1024, le=4_194_304, description="a number of connections, 1024 to 4194304")]
WhenFull = Annotated[Literal["pass", "strip"], Meta(description='"pass" or "strip"')]
# None, the default, cannot be written in TOML.
FlowsQueue = Annotated[
    Annotated[int, Meta(ge=0, le=65535)] | None,
    Meta(description="a whole number, 0 to 65535"),
]
QueueCount = Annotated[int, Meta(ge=1, le=64, description="a number of queues, 1 to 64")]
Cpus = Annotated[
    tuple[Annotated[int, Meta(ge=0, le=8191)], ...],
    Meta(max_length=64, description="a list of CPU numbers, one for each queue's thread, as in [2, 3]"),
]
QueueLength = Annotated[int, Meta(ge=1, le=1_048_576, description="a number of packets, 1 to 1048576")]
# SO_RCVBUFFORCE doubles the value, into a signed 32-bit integer.
BufferBytes = Annotated[int, Meta(ge=65_536, le=1_073_741_823, description="a number of bytes, 65536 to 1073741823")]
Rate = Annotated[int, Meta(ge=0, le=1000, description="events a second, 0 to 1000")]
LogTo = Annotated[
    str,
    Meta(
        pattern=r"^(stdout|(unix:)?/[^\x00]+)$",
        description='"stdout", a file as "/var/log/fixer.json", or "unix:/path"',
    ),
]
# What Elasticsearch allows in the name of a data stream, and no "-", which parts it.
Namespace = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9_.]{0,99}$",
        description="1 to 100 small letters, digits, _ and ., beginning with a letter or a digit",
    ),
]
Labels = Annotated[
    dict[Annotated[str, Meta(pattern=r"^[a-zA-Z_][a-zA-Z0-9_-]{0,63}$")], Annotated[str, Meta(max_length=256)]],
    Meta(max_length=32, description='at most 32 names (letters, digits, _ and -) with texts, as in { env = "prod" }'),
]
Tags = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...],
    Meta(max_length=32, description='a list of at most 32 words, as in ["edge", "rack-7"]'),
]

Listen = Annotated[
    str,
    Meta(
        pattern=r"^$|^unix:/[^\x00]+$|^[0-9.]+:[0-9]{1,5}$|^\[[0-9A-Fa-f:.]+\]:[0-9]{1,5}$",
        description='an address and a port as "127.0.0.1:9479" or "[::1]:9479", "unix:" and a path, or "" for none',
    ),
]
Textfile = Annotated[
    str, Meta(pattern=r"^$|^/[^\x00]+\.prom$", description='a file\'s path that ends in .prom, or "" for none')
]
VtepCount = Annotated[int, Meta(ge=0, le=1000, description="a number of VTEPs, 0 to 1000")]


class _Table(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every table of the file has in common."""


class Vxlan(_Table, frozen=True):
    """``[vxlan]``: which packets are VXLAN, and which VNIs are known to be ours."""

    ports: Ports = (4789, 8472, 6784)
    vnis: Vnis = ()

    def __post_init__(self) -> None:
        for first, last in self.vni_ranges():
            if first > last:
                raise ValueError(f'vnis: the range "{first}-{last}" runs backwards; the smaller VNI comes first')
            if last > VNI_MAX:
                raise ValueError(f'vnis: the range "{first}-{last}" ends beyond the largest VNI, {VNI_MAX}')

    def vni_ranges(self) -> list[tuple[int, int]]:
        """The VNIs as inclusive (first, last) pairs; a single VNI is a range of one."""
        ranges = []
        for vni in self.vnis:
            first, _, last = str(vni).partition("-")
            ranges.append((int(first), int(last or first)))
        return ranges


def _by_default(diagnosis: str) -> Any:
    return DEFAULT_ACTIONS[Diagnosis[diagnosis.upper()]].name.lower()


class Policy(_Table, frozen=True):
    """``[policy]``: what to do with a packet of each diagnosis."""

    stale: Stale = "explained"
    trust_device: Switch = False
    inner_unfinished: Mend = _by_default("inner_unfinished")
    outer_unfinished: Mend = _by_default("outer_unfinished")
    both_unfinished: Mend = _by_default("both_unfinished")
    outer_stale: Mend = _by_default("outer_stale")
    stale_unfinished: Mend = _by_default("stale_unfinished")
    outer_wrong: Unmendable = _by_default("outer_wrong")
    outer_ip_wrong: Unmendable = _by_default("outer_ip_wrong")
    outer_absent6: Fillable = _by_default("outer_absent6")
    corrupt: Unmendable = _by_default("corrupt")

    def actions(self) -> dict[str, str]:
        """Diagnosis name (lower case) to ``repair``, ``pass`` or ``drop``."""
        not_actions = ("stale", "trust_device")
        return {name: value for name, value in msgspec.structs.asdict(self).items() if name not in not_actions}


class Timestamps(_Table, frozen=True):
    """``[timestamps]``: TCP timestamps of clients behind SNAT, for servers with ``tcp_tw_recycle``."""

    mode: TimestampMode = "off"
    sources: Sources = ()
    syn_ack: Switch = False
    flows: FlowCount = 65_536
    when_full: WhenFull = "pass"
    queue: FlowsQueue = None
    """See :attr:`Settings.timestamps_queue`."""

    def __post_init__(self) -> None:
        self.networks()
        if self.mode != "off" and not self.sources:
            raise ValueError(f'sources: mode "{self.mode}" needs the sources it is for, as in ["192.0.2.1/32"]')

    def networks(self) -> list[tuple[bytes, int]]:
        """The sources as (address in network order, prefix length)."""
        try:
            networks = [ip_network(source) for source in self.sources]
        except ValueError as error:
            raise ValueError(f"sources: {error}") from None
        return [(network.network_address.packed, network.prefixlen) for network in networks]


class Queue(_Table, frozen=True):
    """``[queue]``: the kernel's queue."""

    number: QueueNumber = 0
    length: QueueLength = 4096
    receive_buffer: BufferBytes = 33_554_432
    fail_open: Switch = True
    gso: Switch = True
    count: QueueCount = 1
    cpus: Cpus = ()

    def __post_init__(self) -> None:
        if self.number + self.count > 65536:
            raise ValueError(f"count: {self.count} queues from number {self.number} on end beyond 65535")
        if self.cpus and len(self.cpus) != self.count:
            raise ValueError(f"cpus: {len(self.cpus)} CPUs for {self.count} queues; give one for each, or none")

    @property
    def numbers(self) -> range:
        """The queues that are served: ``count`` of them, from ``number`` on."""
        return range(self.number, self.number + self.count)


class Rule(_Table, frozen=True):
    """``[rule]``: the rule that leads packets to the queue."""

    at_boot: Switch = False
    """Whether a daemon that starts where nobody has said what is wanted puts it in place; a reboot forgets that."""


_UNIX, _UNIX_BYTES = "unix:", 107
"""sun_path of unix(7) without the zero at its end."""


def _must_fit(name: str, where: str) -> None:
    length = len(where.removeprefix(_UNIX).encode(errors="surrogateescape"))
    if where.startswith(_UNIX) and length > _UNIX_BYTES:
        raise ValueError(f"{name}: a unix socket's path has {_UNIX_BYTES} bytes at most, and this one {length}")


class Log(_Table, frozen=True):
    """``[log]``: how much is told, where, and what goes with each line."""

    per_second: Rate = 5
    to: LogTo = "stdout"
    namespace: Namespace = "default"
    labels: Labels = {}
    tags: Tags = ()

    def __post_init__(self) -> None:
        _must_fit("to", self.to)


class Metrics(_Table, frozen=True):
    """``[metrics]``: what Prometheus may read, and where; nothing, unless one of the two is named."""

    listen: Listen = ""
    textfile: Textfile = ""
    vteps: VtepCount = 20

    def __post_init__(self) -> None:
        _must_fit("listen", self.listen)
        if self.listen and not self.listen.startswith("unix:"):
            address, _, port = self.listen.rpartition(":")
            try:
                ip_address(address.strip("[]"))
            except ValueError:
                raise ValueError(f"listen: {address} is no address; a name is not looked up") from None
            if not 1 <= int(port) <= 65535:
                raise ValueError(f"listen: {port} is no port, 1 to 65535")


class Settings(_Table, frozen=True):
    """The whole file, with every default filled in."""

    plain: Switch = False
    monitor: Switch = False
    vxlan: Vxlan = field(default_factory=Vxlan)
    policy: Policy = field(default_factory=Policy)
    timestamps: Timestamps = field(default_factory=Timestamps)
    queue: Queue = field(default_factory=Queue)
    rule: Rule = field(default_factory=Rule)
    log: Log = field(default_factory=Log)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        number = self.timestamps_queue
        if self.timestamps.mode != "normalise":
            return
        if number in self.queue.numbers:
            raise ValueError(f"timestamps.queue: {number} is an ordinary queue; normalising needs one of its own")
        if number > 65535:
            raise ValueError("timestamps.queue: no number is left behind the ordinary queues; name a free one")

    @property
    def timestamps_queue(self) -> int:
        """Where both directions of what is normalised go: the configured queue, or the one behind the ordinary ones."""
        if self.timestamps.queue is not None:
            return self.timestamps.queue
        return self.queue.number + self.queue.count

    @property
    def outgoing_queue(self) -> int:
        """Where what leaves goes to be completed: the first queue behind the ordinary ones that is nobody else's.

        It may be beyond 65535, which is no queue.
        """
        first = self.queue.number + self.queue.count
        return first + (self.timestamps.mode == "normalise" and self.timestamps_queue == first)

    def datapath(self) -> dict[str, Any]:
        """The keyword arguments of :class:`fixer.datapath.pipeline.Pipeline`."""
        return {
            "ports": list(self.vxlan.ports),
            "vnis": self.vxlan.vni_ranges(),
            "plain": self.plain,
            "monitor": self.monitor,
            "stale": self.policy.stale,
            "trust_device": self.policy.trust_device,
            "actions": self.policy.actions(),
            "timestamps": "strip" if self.timestamps.mode == "strip" else "off",
            "sources": self.timestamps.networks(),
            "syn_ack": self.timestamps.syn_ack,
            "when_full": self.timestamps.when_full,
            "events_per_second": self.log.per_second,
        }

    def overridden(
        self,
        *,
        queue: int | None = None,
        plain: bool = False,
        monitor: bool = False,
        textfile: Path | None = None,
        ports: Sequence[int] = (),
    ) -> Settings:
        """These settings with what the command line asks for on top; a flag that was not given changes nothing, and
        ``ports`` are read beside the configured ones.

        Raises :class:`ConfigWrong` where ``queue`` leaves no room for the configured number of queues, or there are
        too many ports.
        """
        number = self.queue.number if queue is None else queue
        metrics = self.metrics
        if textfile:
            metrics = msgspec.structs.replace(metrics, textfile=str(textfile.absolute()))
        try:
            queues = msgspec.structs.replace(self.queue, number=number)
            return msgspec.structs.replace(
                self,
                plain=self.plain or plain,
                monitor=self.monitor or monitor,
                queue=queues,
                metrics=metrics,
                vxlan=self._with_ports(ports),
            )
        except ValueError as error:
            raise ConfigWrong(f"--queue {number}: {error}") from None

    def _with_ports(self, ports: Sequence[int]) -> Vxlan:
        wanted = tuple(dict.fromkeys((*self.vxlan.ports, *ports)))
        if len(wanted) > MAX_PORTS:
            raise ConfigWrong(
                f"--port: with those of the configuration {len(wanted)} ports, {MAX_PORTS} are read at once"
            )
        return msgspec.structs.replace(self.vxlan, ports=wanted)


def load(path: Path | None = None) -> Settings:
    """Read and check a configuration file; without a path, ``/etc/fixer/fixer.toml`` if there, else the defaults.

    Raises :class:`FileUnreadable` (missing, a directory, no permission) or :class:`ConfigWrong` (everything else).
    """
    source = path or DEFAULT_PATH
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        if path is None:
            return Settings()
        raise FileUnreadable(f"{source}: no such file; name the configuration with --config FILE") from None
    except UnicodeDecodeError as error:
        raise ConfigWrong(f"{source}: not UTF-8 text (byte {error.start}); a TOML file must be") from None
    except OSError as error:
        raise FileUnreadable(f"{source}: cannot be read: {error.strerror}") from None
    return parse(text, str(source))


def parse(text: str, source: str) -> Settings:
    """Check the TOML text of one file; ``source`` is what errors call it. Raises :class:`ConfigWrong`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigWrong(f"{source}: not TOML: {error}") from None
    except RecursionError:
        raise ConfigWrong(f"{source}: not a configuration: nested too deeply") from None
    _refuse_unknown_keys(document, Settings, "", source)
    try:
        return msgspec.convert(document, Settings)
    except msgspec.ValidationError as error:
        raise ConfigWrong(f"{source}: {_explained(error, document)}") from None


def _refuse_unknown_keys(table: dict[str, Any], known: type[Struct], prefix: str, source: str) -> None:
    """msgspec refuses them too, but neither names the nearest key nor says what there is."""
    allowed = {each.name: each.type for each in msgspec.structs.fields(known)}
    for key, value in table.items():
        if key not in allowed:
            shown = key if re.fullmatch(r"[\w-]+", key) else json.dumps(key)
            raise ConfigWrong(f"{source}: unknown key {prefix}{shown}; {_nearest(key, prefix, list(allowed))}")
        if isinstance(value, dict) and _is_table(allowed[key]):
            _refuse_unknown_keys(value, allowed[key], f"{prefix}{key}.", source)


def _nearest(key: str, prefix: str, here: list[str]) -> str:
    """What the writer probably meant: a near miss in this table or in another one, or else all there is here."""
    elsewhere = {name.rpartition(".")[2]: name for name in every_key()}
    for candidates in ({name: prefix + name for name in here}, elsewhere):
        if near := difflib.get_close_matches(key.lower().replace("-", "_"), candidates, n=1):
            return f"did you mean {candidates[near[0]]}?"
    return f"allowed here: {', '.join(here)}"


def every_key(table: type[Struct] = Settings, prefix: str = "") -> list[str]:
    """Every key there is, dotted: ``plain``, ``vxlan.ports``, ..."""
    found = []
    for each in msgspec.structs.fields(table):
        found += every_key(each.type, f"{prefix}{each.name}.") if _is_table(each.type) else [prefix + each.name]
    return found


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _explained(error: msgspec.ValidationError, document: dict[str, Any]) -> str:
    """msgspec's message (``... - at `$.vxlan.ports[1]```) as a line for the person who wrote the file."""
    path = str(error).partition(" - at `$.")[2].rstrip("`")
    if isinstance(error.__cause__, ValueError):  # raised by a __post_init__ above, which says everything itself
        return f"{path}.{error.__cause__}" if path else str(error.__cause__)
    found: Any = document
    kind: Any = Settings
    for step in re.findall(r"\w+", path):
        if isinstance(found, list):
            found = found[int(step)]
        else:
            found = found[step]
            kind = next(each.type for each in msgspec.structs.fields(kind) if each.name == step)
    allowed = f"a table, [{path}]" if _is_table(kind) else kind.__metadata__[0].description
    return f"{path} = {_shown(found)} is not allowed; allowed: {allowed}"


def _shown(value: Any) -> str:
    """A value as TOML writes it, cut to what fits a line."""
    if isinstance(value, bool | str | list | int | float):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = "a table" if isinstance(value, dict) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
