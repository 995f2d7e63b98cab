"""A stock host below a directory."""

from __future__ import annotations

from pathlib import Path

from dockerd_guard.observe.configured import observe_configured
from dockerd_guard.observe.observation import (
    Observation,
)
from dockerd_guard.rootfs import Rootfs

STOCK = {
    "/usr/lib/systemd/system/docker.service": """\
[Unit]
Requires=docker.socket
[Service]
Type=notify
ExecStart=/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock
ExecReload=/bin/kill -s HUP $MAINPID
""",
    "/usr/lib/systemd/system/docker.socket": """\
[Socket]
ListenStream=/run/docker.sock
SocketMode=0660
SocketUser=root
SocketGroup=docker
""",
}


def put(root: Path, path: str, content: bytes, mode: int) -> None:
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    target.write_bytes(content)
    target.chmod(mode)


OVERRIDE = "/etc/systemd/system/docker.service.d/override.conf"
SERVICE = "/usr/lib/systemd/system/docker.service"


class Host:
    """A stock host in a directory. Tests add files to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for path, text in STOCK.items():
            self.put(path, text)

    def put(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        put(self.root, path, text.encode() if isinstance(text, str) else text, mode)

    def start(self, arguments: str) -> None:
        self.put(OVERRIDE, f"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd {arguments}\n")

    def see(self) -> Observation:
        rootfs = Rootfs(str(self.root))
        return Observation(rootfs, observe_configured(rootfs))
