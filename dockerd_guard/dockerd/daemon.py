"""Where a dockerd started with these arguments listens, or why it refuses to start."""

from __future__ import annotations

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
from dockerd_guard.dockerd.version import NEWEST, OLD, Version
from dockerd_guard.model.address import Tls, Via
from dockerd_guard.model.location import Location

DEFAULT_CONFIG_FILE = "/etc/docker/daemon.json"
DEFAULT_EXEC_ROOT = "/var/run/docker"
DEFAULT_DATA_ROOT = "/var/lib/docker"


class Daemon(NamedTuple):
    """What dockerd makes of its arguments, environment and daemon.json.

    Where `starts` is false, `hosts` is everything written, as written, and `reason` is what dockerd
    prints. `certain` is false where a wrapper hides the real command line; where it hides all of it,
    `hosts` is empty and `reason` says that nobody can tell. `config_error` is why the file alone is
    refused or cannot be read. `flags` point into argv, `keys` into the file.
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
    config_file: str = DEFAULT_CONFIG_FILE,
) -> Daemon:
    """Tell what dockerd, started as `argv` (argv[0] included) with `environ`, does; never raises.

    `read` gives a file's content; it raises FileNotFoundError or tree.Unreadable (Tree.read fits).
    A `version` of None is one nobody knows: hosts and TLS are read as the newest release does, flags and
    keys that any release knew are let pass, `docker daemon` and `docker -d` among them, and settings are
    refused only where releases old and new agree.
    """
    program = program_of(argv, environ, version, read)
    if not program.certain and not program.words and program.reason is not None:
        return _unknown(program, config_file)
    environ = program.environ
    release = version or NEWEST
    line = parse(program.words, version)
    given = last(line.flags)
    rootless = bool(environ.get("ROOTLESSKIT_STATE_DIR"))
    explicit = "config-file" in given
    path = given["config-file"].value if explicit else _config_file(config_file, rootless, environ)
    file = config.load(path, read, version) if path else File(path, missing=True)
    settings = Settings(line.flags, file, release)
    tls = resolve_tls(given, file, environ, release)
    written = [HostEntry(flag.value, flag.value, Via.FLAG, flag.value_argument, flag.value_offset)
               for flag in line.flags if flag.name == "host"]
    written += [HostEntry(string.text, string.text, Via.DAEMON_JSON, location=string.location)
                for string in file.hosts]
    reason = program.reason or _refused(line, file, path, explicit, version)
    listening: list[HostEntry] = []
    if reason is None:
        try:
            listening = _normalise(written, release, _default(tls, rootless, environ))
        except InvalidHost as error:
            reason = str(error)
    if reason is None:
        opinions = (settings,) if version else (settings, settings._replace(version=OLD))
        reasons = [one.refusal() or startup.refusal(one, listening, read, rootless) for one in opinions]
        reason = reasons[0] if all(reasons) else None
    if reason is None and _only_validates(settings):
        reason = "configuration OK: dockerd --validate exits once it has checked its configuration"
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


def _unknown(program: Program, config_file: str) -> Daemon:
    return Daemon(True, False, program.reason, (), TlsSetting(Tls.NONE), config_file, None, False, "",
                  DEFAULT_EXEC_ROOT, DEFAULT_DATA_ROOT, (), (), program)


def _config_file(path: str, rootless: bool, environ: Mapping[str, str]) -> str:
    """With RootlessKit the default is the user's (pkg/homedir.GetConfigHome)."""
    if not rootless or path != DEFAULT_CONFIG_FILE:
        return path
    home = environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME', '')}/.config"
    return f"{home}/docker/daemon.json"


def _default(tls: TlsSetting, rootless: bool, environ: Mapping[str, str]) -> str:
    if tls.default_host:
        return hosts.TLS_DEFAULT
    return f"unix://{environ.get('XDG_RUNTIME_DIR', '')}/docker.sock" if rootless else hosts.UNIX_DEFAULT


def _refused(line: CommandLine, file: File, path: str, explicit: bool,
             version: Version | None) -> str | None:
    """What ends it before the hosts are looked at, in the order dockerd meets it."""
    if line.error is not None:
        return line.error
    for flag in line.flags:
        if flag.name in ("help", "version") and flag.is_true:
            return f"dockerd --{flag.name} prints and exits"
    if line.positionals:
        return '"dockerd" accepts no argument(s).'
    wrong = f"open {path}: no such file or directory" if file.missing and explicit and path else file.error
    # The keys are judged before their values are decoded.
    wrong = wrong or config.conflict(file, line.flags, version) or file.mismatch
    return f"unable to configure the Docker daemon with file {path}: {wrong}" if wrong else None


def _only_validates(settings: Settings) -> bool:
    """`--validate`; every bool flag is a key of daemon.json as well, this one too."""
    return settings.version >= Version(23) and settings.boolean("validate")


def _normalise(written: list[HostEntry], version: Version, default: str) -> list[HostEntry]:
    """opts.ParseHost for each, once each (and sorted since 23.0); raises InvalidHost."""
    settled: dict[str, HostEntry] = {}
    for entry in written:
        value = trim(entry.raw)
        if not value:
            # An empty one stands for the default until 29.2 (moby 8afb45b42f), and for nothing since.
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
        # Validated again once normalised: a zone in an IPv6 address does not survive it.
        hosts.validate(address, version)
    return sorted(settled.values(), key=lambda entry: entry.address.encode("utf-8", "surrogateescape"))
