"""dockerd's command line: spf13/pflag's grammar, and which flags each version knows."""

from __future__ import annotations

from typing import NamedTuple

from dockerd_guard.dockerd.version import Version


class Option(NamedTuple):
    """A flag dockerd knows; `key` is its name in daemon.json where that differs."""

    name: str
    kind: str
    short: str = ""
    key: str = ""
    since: Version = Version(0)
    until: Version = Version(9999)


class Flag(NamedTuple):
    """A flag as given.

    `argument` is the index of the word of argv it stands in and `offset` where its letters begin there (0 for a
    long flag, the shorthand's place in `-DH...` otherwise); `words` is 2 where it took the next
    word as its value. `value_argument` and `value_offset` say where the value stands (None for the
    implied `true`).
    """

    name: str
    value: str
    argument: int
    words: int
    offset: int
    value_argument: int | None
    value_offset: int


class CommandLine(NamedTuple):
    """What pflag makes of the words: flags up to the error, the words left over, the error."""

    flags: tuple[Flag, ...]
    positionals: tuple[int, ...]
    error: str | None


_BOOLS = (
    "validate tls tlsverify cri-containerd raw-logs experimental selinux-enabled iptables ip6tables ip-forward "
    "ip-forward-no-drop ip-masq ipv6 icc userland-proxy allow-direct-routing live-restore init "
    "no-new-privileges rootless help"
).split()
_VALUES = (
    "config-file log-format tlscacert tlscert tlskey exec-root containerd data-root mtu dns-search log-driver "
    "cluster-advertise cluster-store api-cors-header max-concurrent-downloads max-concurrent-uploads "
    "max-download-attempts shutdown-timeout network-diagnostic-port swarm-default-advertise-addr metrics-addr "
    "network-control-plane-mtu containerd-namespace containerd-plugins-namespace allow-nondistributable-artifacts "
    "fixed-cidr-v6 userland-proxy-path cgroup-parent userns-remap oom-score-adjust init-path cpu-rt-period "
    "cpu-rt-runtime seccomp-profile default-shm-size default-ipc-mode default-cgroupns-mode bip bip6 fixed-cidr "
    "default-gateway default-gateway-v6 ip default-runtime dns http-proxy https-proxy no-proxy"
).split()

OPTIONS = (
    Option("debug", "bool", "D"), Option("version", "bool", "v"), Option("restart", "bool", "r"),
    *(Option(name, "bool") for name in _BOOLS),
    *(Option(name, "value") for name in _VALUES),
    Option("host", "host", "H", "hosts"), Option("group", "value", "G"), Option("bridge", "value", "b"),
    Option("log-level", "value", "l"), Option("pidfile", "value", "p"), Option("storage-driver", "value", "s"),
    Option("graph", "value", "g", until=Version(24)),
    Option("storage-opt", "value", key="storage-opts"), Option("label", "value", key="labels"),
    Option("authorization-plugin", "value", key="authorization-plugins"),
    Option("exec-opt", "value", key="exec-opts"), Option("dns-opt", "value", key="dns-opts"),
    Option("log-opt", "value", key="log-opts"), Option("cluster-store-opt", "value", key="cluster-store-opts"),
    Option("node-generic-resource", "value", key="node-generic-resources"),
    Option("default-ulimit", "value", key="default-ulimits"), Option("add-runtime", "value", key="runtimes"),
    Option("registry-mirror", "value", key="registry-mirrors"),
    Option("insecure-registry", "value", key="insecure-registries"),
    Option("default-address-pool", "value", key="default-address-pools"),
    Option("default-network-opt", "value", key="default-network-opts"),
    Option("cdi-spec-dir", "value", key="cdi-spec-dirs"), Option("feature", "value", key="features"),
    Option("host-gateway-ip", "value", key="host-gateway-ips"),
)

TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


def options_of(version: Version) -> dict[str, Option]:
    """The flags of a version by long name and by `-x`."""
    known: dict[str, Option] = {}
    for option in OPTIONS:
        if option.since <= version < option.until:
            known[option.name] = option
            if option.short:
                known["-" + option.short] = option
    return known


def parse(words: tuple[str, ...], first: int, version: Version) -> CommandLine:
    """Read argv from index `first` on, as pflag's FlagSet.Parse with interspersed flags."""
    known = options_of(version)
    flags: list[Flag] = []
    positionals: list[int] = []
    at = first
    error: str | None = None
    while at < len(words) and error is None:
        word = words[at]
        if len(word) < 2 or word[0] != "-":
            positionals.append(at)
            at += 1
        elif word == "--":
            positionals += range(at + 1, len(words))
            break
        elif word[1] == "-":
            at, error = _long(words, at, known, flags)
        else:
            at, error = _short(words, at, known, flags)
    return CommandLine(tuple(flags), tuple(positionals), error)


def _long(words: tuple[str, ...], at: int, known: dict[str, Option], flags: list[Flag]) -> tuple[int, str | None]:
    word = words[at]
    name, equals, value = word[2:].partition("=")
    if not name or name[0] in "-=":
        return at, f"bad flag syntax: {word}"
    option = known.get(name)
    if option is None:
        return at, "pflag: help requested" if name == "help" else f"unknown flag: --{name}"
    if equals:
        flag = Flag(name, value, at, 1, 0, at, len(name) + 3)
    elif option.kind == "bool":
        flag = Flag(name, "true", at, 1, 0, None, 0)
    elif at + 1 < len(words):
        flag = Flag(name, words[at + 1], at, 2, 0, at + 1, 0)
    else:
        return at, f"flag needs an argument: {word}"
    flags.append(flag)
    return at + flag.words, _refusal(option, flag.value)


def _short(words: tuple[str, ...], at: int, known: dict[str, Option], flags: list[Flag]) -> tuple[int, str | None]:
    word = words[at]
    if word.startswith("-test."):
        return at + 1, None
    place = 1
    while place < len(word):
        letter = word[place]
        option = known.get("-" + letter)
        if option is None:
            return at, f"unknown shorthand flag: '{letter}' in {word}"
        if word[place + 1:place + 2] == "=" and len(word) > place + 2:
            flag = Flag(option.name, word[place + 2:], at, 1, place, at, place + 2)
        elif option.kind == "bool":
            flag = Flag(option.name, "true", at, 1, place, None, 0)
        elif place + 1 < len(word):
            flag = Flag(option.name, word[place + 1:], at, 1, place, at, place + 1)
        elif at + 1 < len(words):
            flag = Flag(option.name, words[at + 1], at, 2, place, at + 1, 0)
        else:
            return at, f"flag needs an argument: '{letter}' in {word}"
        flags.append(flag)
        error = _refusal(option, flag.value)
        if error is not None or flag.value_argument is not None:
            return at + flag.words, error
        place += 1
    return at + 1, None


def _refusal(option: Option, value: str) -> str | None:
    if option.kind == "bool" and value not in TRUE and value not in FALSE:
        shown = f"-{option.short}, --{option.name}" if option.short else f"--{option.name}"
        return f'invalid argument "{value}" for "{shown}" flag: strconv.ParseBool: parsing "{value}": invalid syntax'
    return None
