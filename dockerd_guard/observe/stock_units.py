"""The units that packages install, for configurations that are found without a docker.service.

Only settings that decide where dockerd listens are here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from dockerd_guard.model.names import SERVICE, SOCKET

if TYPE_CHECKING:
    from collections.abc import Collection

DIRECTORY = "/usr/lib/systemd/system"

SOCKET_FILE = f"{DIRECTORY}/{SOCKET}"

SERVICE_FILE = f"{DIRECTORY}/{SERVICE}"

_SERVICE = """\
[Unit]
Requires=docker.socket
[Service]
Type=notify
{environment}ExecStart=/usr/bin/dockerd{options}
ExecReload=/bin/kill -s HUP $MAINPID
"""

_SOCKET = b"""\
[Socket]
ListenStream=/run/docker.sock
SocketMode=0660
SocketUser=root
SocketGroup=docker
[Install]
WantedBy=sockets.target
"""

ROOTLESS = b"""\
[Service]
Type=notify
ExecStart=/usr/bin/dockerd-rootless.sh
"""
"""As dockerd-rootless-setuptool.sh writes it."""

SNAP = b"""\
[Service]
ExecStart=/snap/docker/current/bin/dockerd --config-file=%s
"""
"""What the wrapper of the docker snap executes, apart from its directories."""


class StockUnit(NamedTuple):
    """docker.service as a package installs it. `reads` are the environment files that it reads. Some start dockerd
    without a host, so that `hosts` in its configuration file is no conflict, and without docker.socket."""

    package: str
    reads: tuple[str, ...] = ()
    options: str = ""
    has_socket: bool = True

    @property
    def service(self) -> bytes:
        """The content of docker.service."""
        hosts = " -H fd:// --containerd=/run/containerd/containerd.sock" if self.has_socket else ""
        text = _SERVICE if self.has_socket else _SERVICE.replace("Requires=docker.socket\n", "")
        return text.format(environment="".join(f"EnvironmentFile=-{path}\n" for path in self.reads),
                           options=f"{hosts}{self.options}").encode()


_UNITS = (
    StockUnit("Debian's docker.io", ("/etc/default/docker",), " $DOCKER_OPTS"),
    StockUnit("Fedora's moby-engine", ("/etc/sysconfig/docker", "/etc/sysconfig/docker-storage",
                                       "/etc/sysconfig/docker-network"),
              " $OPTIONS $DOCKER_STORAGE_OPTIONS $DOCKER_NETWORK_OPTIONS"),
    StockUnit("Alpine's docker, which OpenRC starts", ("/etc/conf.d/docker",), " $DOCKER_OPTS",
              has_socket=False),
)

DOCKER_CE = StockUnit("docker-ce")

FLATCAR = StockUnit("Flatcar", (), " $DOCKER_OPTS")
"""https://www.flatcar.org/docs/latest/container-runtimes/customizing-docker/: a drop-in sets the variable."""

SUSE = StockUnit("SUSE's docker", ("/etc/sysconfig/docker",), " $DOCKER_NETWORK_OPTIONS $DOCKER_OPTS", has_socket=False)

_OF_SYSTEM = {
    **dict.fromkeys(("suse", "opensuse", "opensuse-leap", "opensuse-tumbleweed", "sles"), SUSE),
    "flatcar": FLATCAR,
    "coreos": FLATCAR,
    "synology": StockUnit("Synology's Container Manager", has_socket=False),
    "qnap": StockUnit("QNAP's Container Station", has_socket=False),
    "snap": StockUnit("the docker snap", has_socket=False),
    "windows": StockUnit("Docker on Windows", has_socket=False),
    "desktop": StockUnit("Docker Desktop", has_socket=False),
}
"""By ID= of os-release(5), or by what _CONFIG_FILE calls them."""

_CONFIG_FILE = re.compile(
    r"(?:\A|/)(?:(?P<synology>(?<!etc/docker/)dockerd\.json)|(?P<qnap>container-station/etc/docker\.json)"
    r"|(?P<snap>snap/docker/[^/]+/config/daemon\.json)|(?P<windows>(?i:ProgramData/docker/config/daemon\.json))"
    r"|(?P<desktop>\.docker/daemon\.json))\Z")
"""What the configuration file of dockerd is called where it is not /etc/docker/daemon.json: Synology's start script has
`dockerd --config-file /var/packages/ContainerManager/etc/dockerd.json`, and no host."""

ENVIRONMENT_FILES = tuple(path for unit in _UNITS for path in unit.reads)


def system_of(path: str) -> str:
    """The system with such a configuration file of dockerd, which starts dockerd without a host; empty for others."""
    found = _CONFIG_FILE.search(path)
    return (found.lastgroup or "") if found is not None else ""


def system_of_options(sysconfig: bytes) -> str:
    """The system whose /etc/sysconfig/docker has these variables: SUSE's reads DOCKER_OPTS, and Fedora's OPTIONS."""
    names = set(re.findall(rb"(?m:^)[ \t]{0,8}(DOCKER_OPTS|OPTIONS|other_args)=", sysconfig))
    return "suse" if names == {b"DOCKER_OPTS"} else ""


def stock_unit(paths: Collection[str], system: str = "") -> StockUnit:
    """Return the stock unit that reads one of these environment files, or that of a system (ID= of os-release(5), or
    as system_of() names it); docker-ce's, which reads none, otherwise."""
    of_system = _OF_SYSTEM.get(system, DOCKER_CE)
    units = (of_system, *_UNITS)
    return next((unit for unit in units if not set(unit.reads).isdisjoint(paths)), of_system)


def stock_files(paths: Collection[str], system: str = "") -> dict[str, bytes]:
    """Return the stock docker.service and docker.socket for a configuration with these environment files."""
    unit = stock_unit(paths, system)
    return {SERVICE_FILE: unit.service, **({SOCKET_FILE: _SOCKET} if unit.has_socket else {})}
