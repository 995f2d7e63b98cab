"""dockerd's TLS settings for TCP, from flags, environment and daemon.json.

moby: cmd/dockerd/options.go (setDefaultOptions), daemon.go (loadDaemonCliConfig, newAPIServerTLSConfig);
docker/go-connections tlsconfig.Server.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from dockerd_guard.dockerd.config import File
from dockerd_guard.dockerd.flags import Flag, is_set
from dockerd_guard.dockerd.version import Version
from dockerd_guard.model.address import Tls

CERTIFICATES = (("tlscacert", "ca.pem"), ("tlscert", "cert.pem"), ("tlskey", "key.pem"))
"""The options for the files, and the default file names in DOCKER_CERT_PATH, DOCKER_CONFIG or ~/.docker."""


class Note(StrEnum):
    """Settings that provide less security than they appear to."""

    CERTIFICATES_ALONE = "certificates are given without tls or tlsverify: TCP has no TLS"
    ENVIRONMENT_IGNORED = "DOCKER_TLS_VERIFY does not enable TLS in dockerd since 20.10"
    NO_CA = "no CA is given: client certificates of any CA in the system's trust store are accepted"
    VERIFY_OFF = "tlsverify=false enables TLS without client certificates"


class TlsSetting(NamedTuple):
    """The TLS settings of all TCP sockets of the daemon, those through fd:// included.

    `ca`, `cert` and `key` are the effective paths, None if TLS is off or none is given; dockerd ignores a default
    `cert` or `key` whose file does not exist. `default_host`: without any host dockerd listens on
    tcp://localhost:2376.
    """

    mode: Tls
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    notes: tuple[Note, ...] = ()
    default_host: bool = False


def resolve_tls(given: Mapping[str, Flag], file: File, environ: Mapping[str, str],
                version: Version) -> TlsSetting:
    """Resolve the TLS settings from the flags (the last of each name), the environment and the file."""
    from_environ = bool(environ.get("DOCKER_TLS_VERIFY"))
    old = version < Version(20, 10)
    flag_tls, flag_verify = is_set(given, "tls"), is_set(given, "tlsverify")
    # --tlsverify enables TLS, even with =false. The environment variable is its default value.
    wants = bool(flag_tls) or flag_verify is not None or from_environ
    # Since 20.10 only flags that are given count. --tls=false shares its variable with the environment.
    tls: bool | None = wants if old or flag_tls is not None or flag_verify is not None else None
    verify = flag_verify if flag_verify is not None else from_environ if old else None
    # mergo.Merge: the value of the flag is used if the file has none or false.
    if file.boolean("tls") is not None:
        tls = file.boolean("tls") or bool(tls)
    if file.boolean("tlsverify") is not None:
        verify = file.boolean("tlsverify") or bool(verify)
    # Since 23.0 hosts are normalised before tlsverify in the file enables TLS.
    default_host = bool(tls)
    if "tlsverify" in file.flat:
        tls = True
    if version < Version(23):
        default_host = bool(tls)
    if verify is None:
        verify = bool(tls) and not old
    ca, cert, key = _paths(given, file, environ, wants)
    notes: list[Note] = []
    if not tls:
        if any(name in given or file.text(name) for name, _ in CERTIFICATES):
            notes.append(Note.CERTIFICATES_ALONE)
        if from_environ:
            notes.append(Note.ENVIRONMENT_IGNORED)
        return TlsSetting(Tls.NONE, notes=tuple(notes), default_host=default_host)
    if verify and ca is None:
        notes.append(Note.NO_CA)
    if not verify and not old:
        notes.append(Note.VERIFY_OFF)
    return TlsSetting(Tls.MUTUAL if verify else Tls.SERVER, ca, cert, key, tuple(notes), default_host)


def _paths(given: Mapping[str, Flag], file: File, environ: Mapping[str, str], wants: bool) -> list[str | None]:
    """Return the TLS files: from daemon.json, else from flags. Their defaults apply only if flags enable TLS."""
    directory = environ.get("DOCKER_CERT_PATH") or environ.get("DOCKER_CONFIG") or (
        f"{environ.get('HOME') or '/root'}/.docker")
    found: list[str | None] = []
    for name, default in CERTIFICATES:
        flag = given.get(name)
        path = f"{directory}/{default}" if flag is None else flag.value
        found.append(file.text(name) or (path if wants else "") or None)
    return found
