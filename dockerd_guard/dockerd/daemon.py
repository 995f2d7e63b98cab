"""The hosts that a dockerd with given arguments listens on, or why it does not start."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from typing import NamedTuple

from dockerd_guard.dockerd import config, hosts, startup
from dockerd_guard.dockerd.command import Program, program_of
from dockerd_guard.dockerd.config import File, Key
from dockerd_guard.dockerd.flags import CommandLine, Flag, last, parse
from dockerd_guard.dockerd.gotext import trim
from dockerd_guard.dockerd.hosts import HostEntry, InvalidHost
from dockerd_guard.dockerd.settings import Settings
from dockerd_guard.dockerd.tls import TlsSetting, resolve_tls
from dockerd_guard.dockerd.version import NEWEST_DOCKERD, OLDEST_TESTED, Version
from dockerd_guard.model.address import Tls, Via
from dockerd_guard.model.location import Location

DEFAULT_CONFIG_FILE = "/etc/docker/daemon.json"
DEFAULT_EXEC_ROOT = "/var/run/docker"
DEFAULT_DATA_ROOT = "/var/lib/docker"


class Daemon(NamedTuple):
    """The configuration of dockerd, resolved from its arguments, environment and daemon.json.

    If `starts` is false, `hosts` are all hosts as written, and `reason` is dockerd's error message without
    the values of options (I11), except hosts. `certain` is
    false if a wrapper hides the command line. If it hides all of it, `hosts` is empty and `reason` is why
    it cannot be determined. `config_error` is why daemon.json alone is refused or cannot be read. `flags`
    refer to argv, `keys` to the file.
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
    exec_root: str
    data_root: str
    flags: tuple[Flag, ...]
    keys: tuple[Key, ...]
    program: Program
    config_error_at: Location | None = None


def resolve_daemon(
    argv: tuple[str, ...],
    environ: Mapping[str, str],
    read: Callable[[str], bytes],
    version: Version | None = None,
    directory: str = "/",
) -> Daemon:
    """Resolve the configuration of dockerd with `argv`, argv[0] included, and `environ`, started in a working
    directory. Never raises.

    `read` returns the content of a file and raises FileNotFoundError or rootfs.Unreadable, as Rootfs.read does.
    If `version` is None (unknown), hosts and TLS are read as in the newest release, flags and keys of all
    releases are accepted, `docker daemon` and `docker -d` included, and settings are refused only if
    both OLDEST_TESTED and NEWEST_DOCKERD refuse them.
    """
    program = program_of(argv, environ, version, read)
    if not program.certain and not program.words and program.reason is not None:
        return _unknown_daemon(program)
    environ = program.environ
    release = version or NEWEST_DOCKERD
    line = parse(program.words, version)
    given = last(line.flags)
    rootless = bool(environ.get("ROOTLESSKIT_STATE_DIR"))
    explicit = "config-file" in given
    path = given["config-file"].value if explicit else _config_file(rootless, environ)
    # dockerd passes the path to os.ReadFile() as it is given (moby daemon/config/config.go).
    path = posixpath.join(directory, path) if path else path
    file = config.load(path, read, version) if path else File(path, missing=True)
    settings = Settings(line.flags, file, release)
    tls = resolve_tls(given, file, environ, release)
    written = [HostEntry(flag.value, flag.value, Via.FLAG, flag.value_argument, flag.value_offset)
               for flag in line.flags if flag.name == "host"]
    written += [HostEntry(string.text, string.text, Via.DAEMON_JSON, location=string.location)
                for string in file.hosts]
    reason = program.reason or _configuration_error(line, file, path, explicit, version)
    listening: list[HostEntry] = []
    if reason is None:
        try:
            listening = _normalise(written, release, _default(tls, rootless, environ))
        except InvalidHost as error:
            reason = hosts.without_credentials(str(error))
    if reason is None:
        candidates = (settings,) if version else (settings, settings._replace(version=OLDEST_TESTED))
        reasons = [candidate.refusal() or startup.refusal(candidate, listening, read, rootless)
                   for candidate in candidates]
        reason = reasons[0] if all(reasons) else None
    # Like every bool flag, --validate is also a key of daemon.json.
    if reason is None and release >= Version(23) and settings.boolean("validate"):
        reason = "configuration OK: dockerd --validate exits after checking the configuration"
    return Daemon(
        starts=reason is None,
        certain=program.certain and file.unreadable is None,
        reason=reason,
        hosts=tuple(listening if reason is None else written),
        tls=tls,
        config_file=path,
        config_error=file.error or file.mismatch or file.unreadable,
        live_restore=settings.boolean("live-restore"),
        metrics_addr=settings.text("metrics-addr"),
        exec_root=settings.text("exec-root") or DEFAULT_EXEC_ROOT,
        data_root=settings.text("data-root") or settings.text("graph") or DEFAULT_DATA_ROOT,
        flags=line.flags,
        keys=file.keys,
        program=program,
        config_error_at=file.error_at,
    )


def _unknown_daemon(program: Program) -> Daemon:
    return Daemon(True, False, program.reason, (), TlsSetting(Tls.NONE), DEFAULT_CONFIG_FILE, None, False, "",
                  DEFAULT_EXEC_ROOT, DEFAULT_DATA_ROOT, (), (), program)


def _config_file(rootless: bool, environ: Mapping[str, str]) -> str:
    """Return the default path of daemon.json, under RootlessKit in the user's home (homedir.GetConfigHome)."""
    if not rootless:
        return DEFAULT_CONFIG_FILE
    home = environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME', '')}/.config"
    return f"{home}/docker/daemon.json"


def _default(tls: TlsSetting, rootless: bool, environ: Mapping[str, str]) -> str:
    if tls.default_host:
        return hosts.TLS_DEFAULT
    return f"unix://{environ.get('XDG_RUNTIME_DIR', '')}/docker.sock" if rootless else hosts.UNIX_DEFAULT


def _configuration_error(line: CommandLine, file: File, path: str, explicit: bool,
             version: Version | None) -> str | None:
    """Return the first error before dockerd parses hosts, in dockerd's order, or None."""
    if line.error is not None:
        return line.error
    for flag in line.flags:
        if flag.name in ("help", "version") and flag.is_true:
            return f"dockerd --{flag.name} prints and exits"
    if line.positionals:
        return '"dockerd" accepts no argument(s).'
    message = f"open {path}: no such file or directory" if file.missing and explicit and path else file.error
    # dockerd checks the keys before it decodes their values.
    message = message or config.conflict(file, line.flags, version) or file.mismatch
    return f"unable to configure the Docker daemon with file {path}: {message}" if message else None


def _normalise(written: list[HostEntry], version: Version, default: str) -> list[HostEntry]:
    """opts.ParseHost() for each host, without duplicates, sorted since 23.0. Raises InvalidHost."""
    settled: dict[str, HostEntry] = {}
    for entry in written:
        value = trim(entry.raw)
        if not value:
            # An empty host means the default before 29.2 (moby 8afb45b42f), and is ignored since.
            if version < Version(29, 2):
                settled.setdefault(default, entry._replace(address=default))
            continue
        if value != entry.raw and version >= Version(29):
            hosts.parse_host(entry.raw, version)
        address = hosts.parse_host(value, version)
        settled.setdefault(address, entry._replace(address=address))
    if not settled:
        settled[default] = HostEntry("", default, Via.DEFAULT)
    if version < Version(23):
        return list(settled.values())
    for address in settled:
        # dockerd validates the normalised address again, which refuses a zone in an IPv6 address.
        hosts.validate(address, version)
    return sorted(settled.values(), key=lambda entry: entry.address.encode("utf-8", "surrogateescape"))
