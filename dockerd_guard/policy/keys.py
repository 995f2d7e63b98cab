"""The keys of the policy: the one table that everything about them is derived from.

The reader takes names, types, defaults, ranges and hints from it, `policy/schema.py` the JSON Schema,
`packaging/man.py` dockerd-guard.yaml(5), `packaging/policy_table.py` the table in docs/policy.md. A new key of an
existing type needs a row here, a field in `policy/model.py` and a line in config.example.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

from dockerd_guard.model.address import Tls
from dockerd_guard.policy.model import LockKind, Mode, Restart, Unreachable

FIRST_VERSION = "0.1"


class Type(StrEnum):
    """The type of a value; the text is what an error message expects."""

    VERSION = "1, the only version of this format"
    MAPPING = "a mapping"
    LIST = "a list"
    CHOICE = "one of"
    BOOLEAN = "true or false"
    ADDRESS = "an address: fd://, unix:///PATH or tcp://IP:PORT"
    LISTEN_STREAM = "a ListenStream= address: /PATH, @NAME, PORT, IPv4:PORT or [IPv6]:PORT"
    PATH = "an absolute path"
    DURATION = "a duration such as 100ms, 5min or 1h"
    BUDGET = "a budget such as 3/1h (three restarts an hour)"
    WINDOW = "a window such as Sat,Sun 02:00-05:00 Europe/Berlin"
    URL = "a URL such as https://etcd1:2379"
    GROUP = "a group of 1 to 64 letters, digits, dots and hyphens"
    COUNT = "a number from 1 to 999"
    RULE = "a rule code such as DG103"
    TEXT = "text"
    DATE = "a date such as 2027-03-31"


class PolicyKey(NamedTuple):
    """One key.

    `name` is its path: `correct.budget`; `waive[].rule` is a key of a mapping in the list `waive`. `text` is plain text
    of one line. `default` is the value as written in YAML; None: there is none. `items` is the type of the scalars in a
    list. `within` are the shortest and the longest duration. `since` is the first version that has the key.

    For hints in error messages: `synonyms` are other words for the key; `suggested` are the values that may be
    suggested for a mistyped one (None: all), never the less safe ones; `value_synonyms` are other words for values.
    """

    name: str
    type: Type
    text: str
    default: str | bool | tuple[str, ...] | None = None
    is_required: bool = False
    values: tuple[str, ...] = ()
    items: Type | None = None
    within: tuple[str, str] | None = None
    example: str = ""
    since: str = FIRST_VERSION
    synonyms: tuple[str, ...] = ()
    suggested: tuple[str, ...] | None = None
    value_synonyms: Mapping[str, str] = MappingProxyType({})

    @property
    def word(self) -> str:
        """The last part of the name, as it is written in the file."""
        return self.name.rpartition(".")[2]

    @property
    def expected(self) -> str:
        """What an error message expects as the value."""
        return f"{self.type} {', '.join(self.values)}" if self.type is Type.CHOICE else str(self.type)


KEYS = (
    PolicyKey("version", Type.VERSION, "Version of this format.", is_required=True),
    PolicyKey("mode", Type.CHOICE,
        "observe: report every drift in the journal, change nothing. enforce: also correct it.",
        default=Mode.OBSERVE, values=tuple(Mode)),
    PolicyKey("sockets", Type.LIST,
        "All addresses where the Docker API listens, and no others. Each item is an address in the syntax of dockerd's "
        "-H (fd://, unix:///PATH, tcp://IP:PORT), or a mapping with address and tls. fd:// stands for the sockets that "
        "docker.socket passes to dockerd. Host names other than localhost are not allowed, since what they resolve to "
        "can change.",
        is_required=True, items=Type.ADDRESS, example="[fd://, {address: tcp://10.0.0.5:2376, tls: mutual}]",
        synonyms=("hosts", "host", "addresses", "bindings")),
    PolicyKey("sockets[].address", Type.ADDRESS,
        "The address. As in dockerd, the default port is 2375 and the default host is localhost.", is_required=True,
        synonyms=("host", "listen")),
    PolicyKey("sockets[].tls", Type.CHOICE,
        "TLS of a TCP address. mutual: clients need a certificate. server: TLS without client certificates. none: no "
        "TLS. dockerd has a single TLS setting for all TCP sockets.",
        default=Tls.MUTUAL, values=(Tls.MUTUAL, Tls.SERVER, Tls.NONE), suggested=(Tls.MUTUAL,),
        value_synonyms=MappingProxyType({"verify": Tls.MUTUAL, "tlsverify": Tls.MUTUAL, "client": Tls.MUTUAL})),
    PolicyKey("socket_unit", Type.MAPPING, "The socket units that fd:// stands for."),
    PolicyKey("socket_unit.listen", Type.LIST,
        "ListenStream= of docker.socket and of other socket units that start docker.service (systemd.socket(5)): an "
        "absolute path, @NAME, PORT, IPv4:PORT or [IPv6]:PORT.",
        default=("/run/docker.sock",), items=Type.LISTEN_STREAM, synonyms=("ListenStream", "address")),
    PolicyKey("tls", Type.MAPPING, "Files passed to dockerd when a socket uses TLS."),
    PolicyKey("tls.ca", Type.PATH, "CA certificate that client certificates are verified against.",
        default="/etc/docker/ca.pem", synonyms=("tlscacert", "cacert")),
    PolicyKey("tls.cert", Type.PATH, "Certificate of this server.", default="/etc/docker/server-cert.pem",
        synonyms=("tlscert", "certificate")),
    PolicyKey("tls.key", Type.PATH, "Private key of that certificate.", default="/etc/docker/server-key.pem",
        synonyms=("tlskey",)),
    PolicyKey("correct", Type.MAPPING, "Limits of corrections, in mode: enforce and for dockerd-guard fix.",
        synonyms=("fix", "correction")),
    PolicyKey("correct.restart", Type.CHOICE,
        "When dockerd may be restarted. live-restore: only if containers keep running. always: even if containers "
        "stop. never: not at all.",
        default=Restart.LIVE_RESTORE, values=tuple(Restart), suggested=(Restart.LIVE_RESTORE, Restart.NEVER)),
    PolicyKey("correct.window", Type.WINDOW,
        "Restart dockerd only during these hours: [DAYS] HH:MM-HH:MM ZONE. Without a window: at any time.",
        example="Sat,Sun 02:00-05:00 Europe/Berlin"),
    PolicyKey("correct.budget", Type.BUDGET, "Maximum number of restarts of dockerd in a period: COUNT/PERIOD.",
        default="3/1h"),
    PolicyKey("correct.splay", Type.DURATION,
        "Spread the restarts of a fleet over this time: each host restarts dockerd after a part of it that depends on "
        "its machine ID and its policy. It counts from when the restart became necessary, or the window opened.",
        default="0s", within=("0s", "1d"), since="0.2", synonyms=("jitter", "random_delay", "RandomizedDelaySec")),
    PolicyKey("correct.fleet", Type.MAPPING,
        "A lock that the hosts of a group share: only a host with one of its slots restarts dockerd. Changes of files, "
        "reloads, and starts of a Docker that is down need none.", since="0.2"),
    PolicyKey("correct.fleet.lock", Type.CHOICE,
        "Protocol of the lock service. etcd: the JSON gateway of etcd 3.4 or later. fleetlock: FleetLock, as zincati "
        "and airlock use it for reboots.", is_required=True, values=tuple(LockKind), since="0.2"),
    PolicyKey("correct.fleet.endpoints", Type.LIST,
        "URLs of the lock service; the first that answers is asked. http:// is allowed to a loopback address only. "
        "dockerd-guard-fleet@.service needs each address as IPAddressAllow=.",
        is_required=True, items=Type.URL, since="0.2", synonyms=("endpoint", "url", "urls")),
    PolicyKey("correct.fleet.group", Type.GROUP, "The group of hosts that share the slots.", is_required=True,
        since="0.2"),
    PolicyKey("correct.fleet.slots", Type.COUNT,
        "How many hosts of the group may restart dockerd at once. With fleetlock the service decides.", default="1",
        since="0.2", synonyms=("max", "concurrency")),
    PolicyKey("correct.fleet.tls", Type.MAPPING,
        "Files of the TLS client. dockerd-guard-fleet@.service gets them by LoadCredential=, which has to name the "
        "same files.", since="0.2"),
    PolicyKey("correct.fleet.tls.ca", Type.PATH,
        "CA certificate that the lock service is verified against. Without it: the CAs of the system.", since="0.2"),
    PolicyKey("correct.fleet.tls.cert", Type.PATH, "Certificate of this host for the lock service.", since="0.2"),
    PolicyKey("correct.fleet.tls.key", Type.PATH, "Private key of that certificate.", since="0.2"),
    PolicyKey("correct.fleet.lease", Type.DURATION,
        "How long a slot outlives an agent that was killed. It is renewed each third of this time. etcd only.",
        default="2min", within=("30s", "1h"), since="0.2", synonyms=("ttl",)),
    PolicyKey("correct.fleet.timeout", Type.DURATION, "Maximum duration of one request to the lock service.",
        default="2s", within=("100ms", "5s"), since="0.2"),
    PolicyKey("correct.fleet.unreachable", Type.CHOICE,
        "What happens while the lock service cannot be reached. hold: dockerd is not restarted. proceed: it is, as "
        "without a lock.", default=Unreachable.HOLD, values=tuple(Unreachable), suggested=(Unreachable.HOLD,),
        since="0.2"),
    PolicyKey("correct.foreign_files", Type.BOOLEAN,
        "Move a drop-in aside, or edit daemon.json, where no drop-in of dockerd-guard can override it. The previous "
        "content is kept as NAME.dockerd-guard-saved.", default=True),
    PolicyKey("correct.contain", Type.BOOLEAN, "Block an exposure at the network while it cannot be corrected.",
        default=True),
    PolicyKey("watch", Type.MAPPING, "How this host is watched."),
    PolicyKey("watch.settle", Type.DURATION, "Time without further changes before a change is evaluated.",
        default="100ms", within=("1ms", "60s")),
    PolicyKey("watch.resync", Type.DURATION, "Interval after which everything is read again.",
        default="5min", within=("1s", "1d")),
    PolicyKey("waive", Type.LIST,
        "Accepted findings. A waiver that has expired or matches nothing is itself a finding (DG501).",
        default=(), example="[{rule: DG103, address: 'tcp://127.0.0.1:2375', reason: 'CI runner, loopback only', "
        "until: 2027-03-31}]",
        synonyms=("ignore", "exceptions", "allow")),
    PolicyKey("waive[].rule", Type.RULE, "Code of the rule; dockerd-guard explain lists them.", is_required=True,
        synonyms=("code",)),
    PolicyKey("waive[].address", Type.ADDRESS,
        "Address of the finding. Without it, the waiver applies to every address.",
        synonyms=("socket", "host")),
    PolicyKey("waive[].unit", Type.TEXT,
        "Unit of the process that listens, such as socat.service (DG107, DG110). Without it, the waiver applies to "
        "every unit.", since="0.2", synonyms=("service",)),
    PolicyKey("waive[].container", Type.TEXT,
        "Name of the container (DG107, DG108). Without it, the waiver applies to every container.", since="0.2"),
    PolicyKey("waive[].image", Type.TEXT,
        "Image of the container, with or without its tag (DG107, DG108). Without it, the waiver applies to every "
        "image.", since="0.2"),
    PolicyKey("waive[].reason", Type.TEXT, "Why the finding is accepted.", is_required=True,
        synonyms=("why", "comment")),
    PolicyKey("waive[].until", Type.DATE, "Last day of the waiver, YYYY-MM-DD. Without it, the waiver does not expire.",
        synonyms=("expires",)),
)


@cache
def key_of(name: str) -> PolicyKey:
    """The key with this full name. Raises StopIteration."""
    return next(key for key in KEYS if key.name == name)


@cache
def keys_in(name: str) -> dict[str, PolicyKey]:
    """The keys of a mapping by the word in the file, in the order of the table.

    `name` is the full name of the mapping: the empty string for the whole policy, `waive[]` for an item of a list.
    """
    return {key.word: key for key in KEYS if key.name == (f"{name}.{key.word}" if name else key.word)}
