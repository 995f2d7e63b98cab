"""Whether dockerd asks TCP clients for TLS, and for a certificate: flags and daemon.json together.

moby: cmd/dockerd/options.go (setDefaultOptions), daemon.go (loadDaemonCliConfig, newAPIServerTLSConfig).
"""

from __future__ import annotations

from typing import NamedTuple

from dockerd_guard.bindings import Tls
from dockerd_guard.source import Location


class TlsSetting(NamedTuple):
    """What holds for every TCP socket of the daemon.

    `origin` is the option that decided (`--tlsverify`, `daemon.json tls`), empty for the default.
    `ca`, `cert` and `key` are the effective paths, None where TLS is off or none is given.
    `arguments` are the indexes in argv of all tls words, `location` the deciding daemon.json value.
    """

    mode: Tls
    origin: str = ""
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    arguments: tuple[int, ...] = ()
    location: Location | None = None
    notes: tuple[str, ...] = ()
