"""The units that packages install, for configurations that are found without a docker.service.

Only settings that decide where dockerd listens are here.
"""

from __future__ import annotations

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
{environment}ExecStart=/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock{options}
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
    """docker.service as a package installs it. `reads` are the environment files that it reads."""

    package: str
    reads: tuple[str, ...] = ()
    options: str = ""

    @property
    def service(self) -> bytes:
        """The content of docker.service."""
        return _SERVICE.format(environment="".join(f"EnvironmentFile=-{path}\n" for path in self.reads),
                               options=self.options).encode()


_UNITS = (
    StockUnit("Debian's docker.io", ("/etc/default/docker",), " $DOCKER_OPTS"),
    StockUnit("Fedora's moby-engine", ("/etc/sysconfig/docker", "/etc/sysconfig/docker-storage",
                                       "/etc/sysconfig/docker-network"),
              " $OPTIONS $DOCKER_STORAGE_OPTIONS $DOCKER_NETWORK_OPTIONS"),
    StockUnit("Alpine's docker, which OpenRC starts", ("/etc/conf.d/docker",), " $DOCKER_OPTS"),
)

DOCKER_CE = StockUnit("docker-ce")

FLATCAR = StockUnit("Flatcar", (), " $DOCKER_OPTS")
"""https://www.flatcar.org/docs/latest/container-runtimes/customizing-docker/: a drop-in sets the variable."""

ENVIRONMENT_FILES = tuple(path for unit in _UNITS for path in unit.reads)


def stock_unit(paths: Collection[str], os_id: str = "") -> StockUnit:
    """Return the stock unit that reads one of these environment files, or of this distribution (ID= of os-release(5));
    docker-ce's, which reads none, otherwise."""
    default = FLATCAR if os_id in ("flatcar", "coreos") else DOCKER_CE
    return next((unit for unit in _UNITS if not set(unit.reads).isdisjoint(paths)), default)


def stock_files(paths: Collection[str], os_id: str = "") -> dict[str, bytes]:
    """Return the stock docker.service and docker.socket for a configuration with these environment files."""
    return {SERVICE_FILE: stock_unit(paths, os_id).service, SOCKET_FILE: _SOCKET}
