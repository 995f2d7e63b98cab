"""Which configurations of dockerd a tree of files contains: the system's, that of accounts (rootless), the snap's.

A tree below `--root` is an image, a backup, or what a repository installs. It may have daemon.json or a drop-in and
no docker.service, which a package brings later. Such a configuration is read with the stock unit of a package.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from dockerd_guard.model.location import Location
from dockerd_guard.model.names import SERVICE, SOCKET
from dockerd_guard.observe import stock_units
from dockerd_guard.rootfs import Rootfs, Unreadable
from dockerd_guard.systemd.lookup import SEARCH_PATH

if TYPE_CHECKING:
    from dockerd_guard.observe.observation import Configured

MAX_ACCOUNTS = 1000
"""Home directories looked at."""

DAEMON_JSON = "/etc/docker/daemon.json"

_USER_UNITS = ("/etc/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user")
_OWN_UNITS = (".config/systemd/user", ".local/share/systemd/user")

_HOME = rb"(?m:^)[^:\n]{1,255}:[^:\n]{0,255}:[0-9]{1,10}:[0-9]{1,10}:[^:\n]{0,255}:(/[A-Za-z0-9_./-]{1,255}):"
"""An account in /etc/passwd. Compiled where it is used: most trees have no accounts."""

_FIRST = "00-account.conf"

_SNAP = "/var/snap/docker"

FOREIGN_DAEMON_JSON = (
    "/ProgramData/docker/config/daemon.json", "/ProgramData/Docker/config/daemon.json",
    "/var/packages/ContainerManager/etc/dockerd.json", "/var/packages/Docker/etc/dockerd.json",
)
"""What is daemon.json to Docker on Windows, and to Synology's."""

QNAP_DAEMON_JSON = "/share/%s/.qpkg/container-station/etc/docker.json"
"""What it is to QNAP's, with the name of a volume."""

_STARTERS = (
    "/etc/service/docker/run", "/etc/sv/docker/run", "/etc/supervisord.conf", "/etc/inittab",
    "/var/lib/boot2docker/profile",
)
"""Files that start dockerd where systemd does not."""

_INIT_DIRECTORIES = ("/etc/init.d", "/etc/rc.d/init.d", "/etc/rc.d", "/etc/init", "/etc/dinit.d")
"""Directories of scripts and jobs that do so: those with docker in their name, as S60dockerd of Buildroot."""

_ALWAYS_STARTERS = ("/etc/rc.local", "/etc/rc.d/rc.local", "/etc/wsl.conf")
"""Files that may start a dockerd beside docker.service."""

_STARTER_DIRECTORIES = ("/etc/supervisor/conf.d", "/etc/supervisor.d", "/etc/local.d")

_DOCKERS = re.compile(r"docker\.(?:service|socket)(?:\.d)?")
_OF_DOCKERD = re.compile(rb"^Exec[^\n]{0,400}\bdockerd(?![\w-])|^Service[ \t]{0,80}=[ \t]{0,80}docker\.service",
                         re.MULTILINE)
"""What only a unit of dockerd contains. Others, as docker-prune.service, configure no dockerd."""

_STARTS_DOCKERD = re.compile(rb"dockerd|\bdocker[ \t]{1,8}(?:daemon|-d)\b|EXTRA_ARGS|DOCKER_(?:OPTS|HOST)")


class Domain(NamedTuple):
    """One dockerd that a tree configures.

    `rootfs` is the tree with assumed files on top. `unit` is its service there; None for the system's dockerd.
    `moved` maps files of `rootfs` to where they are in the tree, `assumed` are those that are not in it. `note` says
    what is assumed. `found` are the files and directories for which the stock unit of a package was taken.
    """

    rootfs: Rootfs
    note: str
    unit: str | None = None
    moved: Mapping[str, str] = {}
    assumed: frozenset[str] = frozenset()
    found: tuple[str, ...] = ()

    def place(self, location: Location) -> Location | None:
        """Where this place is in the tree; None in an assumed file."""
        if location.file in self.moved:
            return location._replace(file=self.moved[location.file])
        return None if location.file in self.assumed else location


def is_missing(configured: Configured) -> bool:
    """Whether no service of the system that runs dockerd was found."""
    return configured.service.unit.load_state == "not-found"


def with_stock_unit(rootfs: Rootfs) -> Domain | None:
    """Return the system's dockerd of a tree without docker.service; None if nothing of its configuration is there."""
    found = tuple(_system_files(rootfs))
    if not found:
        return None
    os_id = _os_id(rootfs) or stock_units.system_of_options(_read(rootfs, "/etc/sysconfig/docker"))
    foreign = next((path for path in found if stock_units.system_of(path)), None)
    if foreign is not None and rootfs.stat(DAEMON_JSON) is None:
        os_id = stock_units.system_of(foreign)
    files = dict(stock_units.stock_files(found, os_id))
    # A missing fragment with drop-ins is the reason to be here; a docker.socket of the tree stays.
    for directory in SEARCH_PATH:
        if rootfs.stat(f"{directory}/{SOCKET}") is not None:
            files.pop(stock_units.SOCKET_FILE, None)
    moved = {}
    if foreign is not None and rootfs.stat(DAEMON_JSON) is None:
        files[DAEMON_JSON] = _read(rootfs, foreign)
        moved[DAEMON_JSON] = foreign
    package = stock_units.stock_unit(found, os_id).package
    return Domain(rootfs.changed(files),
                  f"{found[0]} without {SERVICE}: judged with the stock unit of {package}",
                  moved=moved, assumed=frozenset(files) - moved.keys(), found=() if moved else found)


def _os_id(rootfs: Rootfs) -> str:
    """ID= of os-release(5)."""
    data = _read(rootfs, "/etc/os-release") or _read(rootfs, "/usr/lib/os-release")
    found = re.search(rb"(?m:^)ID=[\"']?([a-z0-9._-]{1,40})", data)
    return found[1].decode() if found is not None else ""


def _system_files(rootfs: Rootfs) -> Iterator[str]:
    """Yield the files and directories that belong to a dockerd of the system."""
    for path in stock_units.ENVIRONMENT_FILES:
        if _is_file(rootfs, path):
            yield path
    for name in _names(rootfs, "/etc/docker"):
        if name.endswith(".json") and name != "key.json":
            yield f"/etc/docker/{name}"
    for directory in SEARCH_PATH:
        for name in _names(rootfs, directory):
            path = f"{directory}/{name}"
            if _DOCKERS.fullmatch(name) is not None or ("docker" in name and name.endswith((".service", ".socket"))
                                                        and _OF_DOCKERD.search(_read(rootfs, path)) is not None):
                yield path
    for path in (*FOREIGN_DAEMON_JSON, *(QNAP_DAEMON_JSON % name for name in _names(rootfs, "/share"))):
        if _is_file(rootfs, path):
            yield path
    for home in _homes(rootfs):
        if _is_file(rootfs, f"{home}/.docker/daemon.json"):
            yield f"{home}/.docker/daemon.json"


def other_domains(rootfs: Rootfs) -> Iterator[Domain]:
    """Yield the dockerds of accounts and of the snap."""
    found = False
    for home in _homes(rootfs):
        domain = _rootless(rootfs, home.rpartition("/")[2], home, tuple(f"{home}/{path}" for path in _OWN_UNITS))
        if domain is not None:
            found = True
            yield domain
    if not found and (domain := _rootless(rootfs, "user", "/home/user", ())) is not None:
        yield domain
    for name in _names(rootfs, _SNAP):
        path = f"{_SNAP}/{name}/config/daemon.json"
        if _is_file(rootfs, path) and (entry := rootfs.stat(path)) is not None and entry.path == path:
            unit = "/etc/systemd/system/snap-docker-dockerd.service"
            yield Domain(rootfs.changed({unit: stock_units.SNAP % path.encode()}),
                         f"{path}: judged with the command of the docker snap", "snap-docker-dockerd.service",
                         moved={path: path}, assumed=frozenset((unit,)))


def _rootless(rootfs: Rootfs, user: str, home: str, own: tuple[str, ...]) -> Domain | None:
    """Return the dockerd of an account: its user unit, drop-ins and daemon.json, the unit under a name of its own."""
    directories = (*own, *_USER_UNITS)
    fragment = next((f"{directory}/{SERVICE}" for directory in directories
                     if _is_file(rootfs, f"{directory}/{SERVICE}")), None)
    drop_ins: dict[str, str] = {}
    for directory in directories:
        for name in _names(rootfs, f"{directory}/{SERVICE}.d"):
            drop_ins.setdefault(name, f"{directory}/{SERVICE}.d/{name}")
    daemon_json = f"{home}/.config/docker/daemon.json"
    has_json = _is_file(rootfs, daemon_json)
    if fragment is None and not drop_ins and not has_json:
        return None
    name = f"docker-{user.replace('-', '_')}.service"
    unit = f"/etc/systemd/system/{name}"
    moved = {f"{unit}.d/{file}": path for file, path in drop_ins.items() if file.endswith(".conf")}
    if fragment is not None:
        moved[unit] = fragment
    files = {place: _read(rootfs, path) for place, path in moved.items()}
    files.setdefault(unit, stock_units.ROOTLESS)
    # The user manager sets these. A drop-in that sorts first leaves them to be overridden.
    files[f"{unit}.d/{_FIRST}"] = (
        f'[Service]\nEnvironment=USER=user XDG_RUNTIME_DIR=/run/user/1000 "HOME={home}"\n'.encode())
    if has_json:
        moved[daemon_json] = daemon_json
    first = fragment or next(iter(moved.values()), daemon_json)
    return Domain(rootfs.changed(files), f"{first}: judged as a rootless dockerd", name, moved,
                  frozenset(files) - moved.keys())


def unread_starters(rootfs: Rootfs, *, without_systemd: bool) -> Iterator[str]:
    """Yield files that start dockerd by other means than a unit. What they pass to it is not evaluated."""
    paths = [*_ALWAYS_STARTERS]
    if without_systemd:
        paths += _STARTERS
        paths += [f"{directory}/{name}" for directory in _INIT_DIRECTORIES for name in _names(rootfs, directory)
                  if "docker" in name]
    paths += [f"{directory}/{name}" for directory in _STARTER_DIRECTORIES for name in _names(rootfs, directory)]
    for path in paths:
        if _is_file(rootfs, path) and _STARTS_DOCKERD.search(_read(rootfs, path)):
            yield path


def _homes(rootfs: Rootfs) -> Iterator[str]:
    """Yield home directories: below /home, those of accounts, and what a new account gets."""
    found = [f"/home/{name}" for name in _names(rootfs, "/home") if re.fullmatch(r"[A-Za-z0-9_.-]{1,255}", name)]
    accounts = rootfs.read_if_possible("/etc/passwd", is_table=True) or b""
    found += [match[1].decode() for match in re.finditer(_HOME, accounts)]
    yield from islice(dict.fromkeys((*found, "/etc/skel", "/root")), MAX_ACCOUNTS)


def _names(rootfs: Rootfs, directory: str) -> tuple[str, ...]:
    try:
        return rootfs.names(directory)
    except Unreadable:
        return ()


def _is_file(rootfs: Rootfs, path: str) -> bool:
    try:
        entry = rootfs.stat(path)
    except Unreadable:
        return False
    return entry is not None and entry.is_file


def _read(rootfs: Rootfs, path: str) -> bytes:
    try:
        return rootfs.read(path)
    except (FileNotFoundError, Unreadable):
        return b""
