"""Where a dockerd started with these arguments listens, or why it refuses to start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from dockerd_guard.bindings import Tls, Via
from dockerd_guard.dockerd import config, flags, hosts
from dockerd_guard.dockerd.command import Program, program_of
from dockerd_guard.dockerd.flags import CommandLine, Flag
from dockerd_guard.dockerd.hosts import HostEntry, InvalidHost
from dockerd_guard.dockerd.tls import TlsSetting
from dockerd_guard.dockerd.version import NEWEST, Version

DEFAULT_CONFIG_FILE = "/etc/docker/daemon.json"


class Daemon(NamedTuple):
    """What dockerd makes of its arguments, environment and daemon.json.

    Where `starts` is false, `hosts` is everything written, as written, and `reason` is what dockerd
    prints. `certain` is false where a wrapper hides the real command line.
    """

    starts: bool
    certain: bool
    reason: str | None
    hosts: tuple[HostEntry, ...]
    tls: TlsSetting
    config_file: str
    config_error: str | None
    live_restore: bool
    metrics_addr: str
    flags: tuple[Flag, ...]
    keys: tuple[config.Key, ...]
    program: Program
    problems: tuple[str, ...] = ()


def resolve_daemon(
    argv: tuple[str, ...],
    environ: Mapping[str, str],
    read: Callable[[str], bytes],
    version: Version = NEWEST,
    config_file: str = DEFAULT_CONFIG_FILE,
) -> Daemon:
    """Tell what dockerd `version`, started as `argv` with `environ`, does; never raises.

    `read` gives a file's content; it raises FileNotFoundError or tree.Unreadable.
    """
    program = program_of(argv)
    line = flags.parse(argv, program.first, version) if program.first < len(argv) else CommandLine((), (), None)
    given = {flag.name: flag for flag in line.flags}
    explicit = given.get("config-file")
    path = explicit.value if explicit else config_file
    file = config.load(path, read, version)
    reason = program.reason or _refused(line, file, explicit is not None, path, version)
    tls, useful = _tls(given, file, environ, version)
    entries = [HostEntry(flag.value, flag.value, Via.FLAG, flag.value_argument, flag.value_offset)
               for flag in line.flags if flag.name == "host"]
    entries += [HostEntry(string.text, string.text, Via.DAEMON_JSON, location=string.location)
                for string in file.hosts]
    try:
        settled = _settle(entries, version, useful, environ)
    except InvalidHost as error:
        reason = reason or str(error)
        settled = []
    for entry in settled:
        reason = reason or hosts.why_not_listenable(entry.address, version)
    return Daemon(reason is None, program.certain, reason,
                  tuple(entries) if reason is not None else tuple(settled), tls, path, file.error,
                  file.is_true("live-restore") or given.get("live-restore", _OFF).value in flags.TRUE,
                  file.text("metrics-addr") or given.get("metrics-addr", _OFF).value, line.flags, file.keys, program)


_OFF = Flag("", "", 0, 0, 0, None, 0)


def _refused(line: CommandLine, file: config.File, explicit: bool, path: str, version: Version) -> str | None:
    if line.error is not None:
        return line.error
    for flag in line.flags:
        if flag.name == "host" and flag.value.strip(hosts.BLANKS):
            try:
                hosts.parse_host(flag.value.strip(hosts.BLANKS), version)
            except InvalidHost as error:
                return f'invalid argument "{flag.value}" for "-H, --host" flag: {error}'
    if any(flag.name in ("help", "version") and flag.value in flags.TRUE for flag in line.flags):
        return "prints and exits"
    if line.positionals:
        return '"dockerd" accepts no argument(s).'
    wrong = file.error
    if file.missing:
        wrong = f"open {path}: no such file or directory" if explicit else None
    wrong = wrong or config.conflict(file, line.flags, version)
    return f"unable to configure the Docker daemon with file {path}: {wrong}" if wrong else None


def _settle(entries: list[HostEntry], version: Version, use_tls: bool, environ: Mapping[str, str]) -> list[HostEntry]:
    rootless = "ROOTLESSKIT_STATE_DIR" in environ
    default = (hosts.TLS_DEFAULT if use_tls
               else f"unix://{environ.get('XDG_RUNTIME_DIR', '')}/docker.sock" if rootless else hosts.UNIX_DEFAULT)
    settled: dict[str, HostEntry] = {}
    for entry in entries:
        value = entry.raw.strip(hosts.BLANKS)
        if not value and version >= Version(29, 2):
            continue
        address = hosts.parse_host(value, version) if value else default
        settled.setdefault(address, entry._replace(address=address))
    if not settled:
        settled[default] = HostEntry("", default, Via.DEFAULT)
    found = list(settled.values())
    return sorted(found, key=lambda entry: entry.address) if version >= Version(23) else found


def _tls(given: dict[str, Flag], file: config.File, environ: Mapping[str, str],
         version: Version) -> tuple[TlsSetting, bool]:
    """The setting, and whether the default host is the TLS one."""
    def flag(name: str) -> bool | None:
        return given[name].value in flags.TRUE if name in given else None

    tls, verify = flag("tls"), flag("tlsverify")
    origin = "--tlsverify" if verify is not None else "--tls" if tls is not None else ""
    by_flag = bool(tls) or verify is not None
    if verify is not None:
        tls = True
    if file.boolean("tls") is not None:
        tls = file.boolean("tls") or tls
        origin = origin or "daemon.json tls"
    use = bool(tls)
    if file.boolean("tlsverify") is not None:
        verify, tls = file.boolean("tlsverify") or bool(verify), True
        origin = "daemon.json tlsverify"
    if version < Version(23):
        use = bool(tls)
    if not tls:
        return TlsSetting(Tls.NONE, origin), use
    mutual = verify if verify is not None else version >= Version(20, 10)
    directory = environ.get("DOCKER_CERT_PATH") or environ.get("DOCKER_CONFIG") or environ.get("HOME", "") + "/.docker"
    paths = [file.text(key) or (given[key].value if key in given else f"{directory}/{name}" if by_flag else None)
             for key, name in (("tlscacert", "ca.pem"), ("tlscert", "cert.pem"), ("tlskey", "key.pem"))]
    arguments = tuple(sorted(given[name].argument for name in ("tls", "tlsverify") if name in given))
    return TlsSetting(Tls.MUTUAL if mutual else Tls.SERVER, origin, paths[0], paths[1], paths[2], arguments), use
