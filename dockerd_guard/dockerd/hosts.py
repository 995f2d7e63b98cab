"""Parser for a `-H` value or `hosts` entry. Implements moby's opts/hosts.go and Go's net/url, by version."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from dockerd_guard.dockerd.gotext import quote, trim
from dockerd_guard.dockerd.version import Version
from dockerd_guard.model.address import IPV4, Via
from dockerd_guard.model.location import Location

UNIX_DEFAULT = "unix:///var/run/docker.sock"
TLS_DEFAULT = "tcp://localhost:2376"
NO_SOCKETS = ("failed to load listeners: no sockets found via socket activation: make sure the service was "
              "started by systemd")
"""dockerd's error for fd:// without passed sockets (moby daemon/listeners/listeners_linux.go)."""
_STRICT_BRACKETS = Version(28, 5, 1)
"""Since this version releases are built with a Go that accepts only IPv6 addresses in brackets (1.24.8, 1.25.2:
CVE-2025-47912)."""
_UNIX_PATH_BYTES = 107
"""Maximum length of sun_path without the final NUL (unix(7))."""
_SIMPLE = {"unix": "/var/run/docker.sock", "npipe": "//./pipe/docker_engine"}
_HOST_CHARACTERS = r"[A-Za-z0-9\-_.~!$&'()*+,;=:\[\]<>\"\x80-\U0010ffff]*"
"""Characters that net/url does not escape in a host (shouldEscape with encodeHost)."""
_PORT = r"(:[0-9]*)?"
_USER_INFO = r"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*"
_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?"
_ORDINARY = re.compile(rf"tcp://{IPV4}:[1-9][0-9]{{0,3}}")
"""A host that every version takes as it is. A file may have thousands of them."""
_RESOLVABLE = rf"{_LABEL}(\.{_LABEL})*\.?"
"""Approximately isDomainName in Go's net package. Other names are not looked up."""


class HostEntry(NamedTuple):
    """One address that dockerd is configured to listen on.

    `raw` is as written, `address` as normalised by this version (as written if dockerd refuses it). `argument`
    is the index in argv of the word with the value, and `offset` the offset of the value there. `location`
    is that of the string in daemon.json. A default has neither.
    """

    raw: str
    address: str
    via: Via
    argument: int | None = None
    offset: int = 0
    location: Location | None = None


class InvalidHost(Exception):
    """dockerd refuses the value. The message is dockerd's."""


def without_credentials(text: str) -> str:
    """Return an error or a host without user, password, query and fragment, which are not parts of an address (I11)."""
    # The lookbehind keeps this linear.
    text = re.sub(r"(?<![^/\s\"'()])[^/\s\"'()]+@", "...@", text)
    return re.sub(r"[?#][^\s\"'()]+", "?...", text)


def validate(value: str, version: Version) -> None:
    """opts.ValidateHost, applied to flags and to every host of daemon.json. Raises InvalidHost."""
    trimmed = trim(value)
    if trimmed:
        parse_host(trimmed, version)


def parse_host(value: str, version: Version) -> str:
    """opts.parseDaemonHost: return the normalised address. Raises InvalidHost."""
    if _ORDINARY.fullmatch(value) is not None:
        return value
    proto, separator, rest = value.partition("://")
    if not separator and proto:
        proto, rest = "tcp", proto
    if proto == "tcp":
        return _tcp(value, version) if version >= Version(23) else _old_tcp(rest)
    if proto in _SIMPLE:
        return _simple(proto, rest, value, version)
    if proto == "fd":
        return value
    raise InvalidHost(f"invalid bind address ({value}): unsupported proto '{proto}'" if version >= Version(23)
                      else f"Invalid bind address format: {value}")


def _simple(proto: str, address: str, value: str, version: Version) -> str:
    if version < Version(24):
        address = address.removeprefix(f"{proto}://")
    if "://" in address:
        raise InvalidHost(f"invalid bind address ({value}): invalid {proto} address: {address}"
                          if version >= Version(23) else f"Invalid proto, expected {proto}: {address}")
    return f"{proto}://{address or _SIMPLE[proto]}"


def _tcp(value: str, version: Version) -> str:
    """opts.ParseTCPAddr since 23.0."""
    address = value if "://" in value else f"tcp://{value}"
    try:
        authority, path = _parse_url(address, version >= _STRICT_BRACKETS)
    except InvalidHost as error:
        raise InvalidHost(f"invalid bind address ({value}): {error}") from None
    if path:
        raise InvalidHost(f"invalid bind address ({value}): should not contain a path element")
    host, colon, port = authority.rpartition(":")
    if not colon or not re.fullmatch("[0-9]*", port):
        host, port = authority, ""
    if port and not 0 < int(port[:30]) < 2**63:
        raise InvalidHost(f"invalid bind address ({value}): invalid port: {port}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return _join(host or "localhost", port or "2375")


def _old_tcp(rest: str) -> str:
    """opts.ParseTCPAddr until 20.10, which keeps a path and accepts IPv6 without brackets."""
    if rest in ("", "tcp://"):
        return "tcp://localhost:2375"
    address = rest.removeprefix("tcp://")
    if "://" in address or not address:
        raise InvalidHost(f"Invalid proto, expected tcp: {rest}")
    if address.endswith("]:"):
        address += "2375"
    authority, path = _parse_url(f"tcp://{address}", strict=False)
    split = _split_host_port(authority) or _split_host_port(_join(authority, "2375").removeprefix("tcp://"))
    if split is None:
        raise InvalidHost(f"Invalid bind address format: {rest}")
    return _join(split[0] or "localhost", split[1] or "2375") + path


def _join(host: str, port: str) -> str:
    """net.JoinHostPort: a host with a colon is IPv6."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _split_host_port(text: str) -> tuple[str, str] | None:
    """net.SplitHostPort; None if it fails."""
    colon = text.rfind(":")
    if colon < 0:
        return None
    after_open = after_close = 0
    if text.startswith("["):
        end = text.find("]")
        if end < 0 or end + 1 != colon:
            return None
        host, after_open, after_close = text[1:end], 1, end + 1
    else:
        host = text[:colon]
        if ":" in host:
            return None
    if "[" in text[after_open:] or "]" in text[after_close:]:
        return None
    return host, text[colon + 1:]


def _parse_url(url: str, strict: bool) -> tuple[str, str]:
    """url.Parse for a `tcp://` address: return the authority without user, unescaped, and the path."""
    main, _, fragment = url.partition("#")
    try:
        if any(letter < " " or letter == "\x7f" for letter in main):
            raise InvalidHost("net/url: invalid control character in URL")
        rest = main[len("tcp://"):].partition("?")[0]
        authority, slash, path = rest.partition("/")
        host = parse_authority(authority, strict)
        path = _unescape(slash + path, "path")
    except InvalidHost as error:
        raise InvalidHost(f"parse {quote(main)}: {error}") from None
    try:
        _unescape(fragment, "fragment")
    except InvalidHost as error:
        raise InvalidHost(f"parse {quote(url)}: {error}") from None
    return host, path


def parse_authority(authority: str, strict: bool) -> str:
    """net/url's parseAuthority: return host and port, unescaped. Raises InvalidHost.

    `strict`: brackets must contain an IPv6 address, as in Go since 1.24.8 and 1.25.2.
    """
    user, at, host = authority.rpartition("@")
    found = _parse_bracketed(host, strict) if host.startswith("[") or (strict and "[" in host) else None
    if found is None:
        colon = host.rfind(":")
        if colon >= 0 and not re.fullmatch(_PORT, host[colon:]):
            raise InvalidHost(f"invalid port {quote(host[colon:])} after host")
        found = _unescape(host, "host")
    if at:
        if not re.fullmatch(_USER_INFO, user):
            raise InvalidHost("net/url: invalid userinfo")
        _unescape(user, "user")
    return found


def _parse_bracketed(host: str, strict: bool) -> str:
    start = host.rfind("[") if strict else 0
    if start > 0:
        raise InvalidHost("invalid IP-literal")
    end = host.rfind("]")
    if end < 0:
        raise InvalidHost("missing ']' in host")
    port = host[end + 1:]
    if not re.fullmatch(_PORT, port):
        raise InvalidHost(f"invalid port {quote(port)} after host")
    zone = host.find("%25", start, end)
    inside = (_unescape(host[start + 1:end], "host") if zone < 0 else
              _unescape(host[start + 1:zone], "host") + _unescape(host[zone:end], "zone"))
    if strict:
        address, percent, name = inside.partition("%")
        try:
            ipaddress.IPv6Address(address)
        except ValueError:
            raise InvalidHost("invalid IP-literal" if is_ipv4(inside) else
                              f"invalid host: ParseAddr({quote(inside)}): unable to parse IP") from None
        if percent and not name:
            raise InvalidHost(f"invalid host: ParseAddr({quote(inside)}): zone must be a non-empty string")
    return f"[{inside}]{port}"


def _unescape(text: str, mode: str) -> str:
    """net/url's unescape. Bytes that are not UTF-8 are surrogates."""
    if "%" not in text:
        _check_characters(text, mode)
        return text
    done: list[bytes] = []
    parts = text.split("%")
    for place, part in enumerate(parts):
        rest = part
        if place:
            code = part[:2]
            if not re.fullmatch("[0-9a-fA-F]{2}", code):
                raise InvalidHost(f"invalid URL escape {quote(_first_three_bytes('%' + '%'.join(parts[place:])))}")
            byte = int(code, 16)
            # A host may have escapes of % and of non-ASCII bytes, a zone those of %, space and characters of a host.
            if (mode == "host" and byte < 0x80 and code != "25") or (
                    mode == "zone" and code != "25" and byte != 0x20
                    and (byte >= 0x80 or not re.fullmatch(_HOST_CHARACTERS, chr(byte)))):
                raise InvalidHost(f"invalid URL escape {quote('%' + code)}")
            done.append(bytes((byte,)))
            rest = part[2:]
        _check_characters(rest, mode)
        done.append(rest.encode("utf-8", "surrogateescape"))
    return b"".join(done).decode("utf-8", "surrogateescape")


def _first_three_bytes(text: str) -> str:
    return text.encode("utf-8", "surrogateescape")[:3].decode("utf-8", "surrogateescape")


def _check_characters(text: str, mode: str) -> None:
    if mode in ("host", "zone"):
        end = re.match(_HOST_CHARACTERS, text).end()  # type: ignore[union-attr]
        if end < len(text):
            raise InvalidHost(f"invalid character {quote(text[end])} in host name")


def _is_digits(text: str) -> bool:
    return text.isascii() and (text.isdigit() or not text)


def is_ipv4(text: str) -> bool:
    return re.fullmatch(IPV4, text) is not None


def listen_error(address: str, version: Version, go_resolver: bool = False) -> str | None:
    """Return dockerd's error if it can never listen on a normalised address, or None.

    Only errors that follow from the text are found: a host name may resolve, a port may be free, an address may
    belong to this host. `go_resolver`: dockerd uses Go's resolver, for which `0`, `127.1` and `2375` are not
    addresses; for the C library they are.
    moby: daemon/listeners, cmd/dockerd (loadListeners, allocateDaemonPort).
    """
    if _ORDINARY.fullmatch(address) is not None:
        return None
    proto, _, rest = address.partition("://")
    error: str | None = None
    if proto == "npipe":
        error = 'invalid protocol format: "npipe"'
    elif proto == "fd" and rest not in ("", "*"):
        if not re.fullmatch("[+-]?[0-9]+", rest):
            error = f"failed to parse systemd fd address: should be a number: {rest}"
    elif proto == "tcp":
        error = tcp_listen_error(rest, version, go_resolver)
    elif proto == "unix":
        if rest.startswith("@"):
            # dockerd calls chown(2) on the name after binding, as for a file (go-connections, NewUnixSocket).
            error = f"can't create unix socket {rest}: chown {rest}: no such file or directory"
        elif "\0" in rest:
            error = f"can't create unix socket {rest}: invalid argument"
        elif len(rest.encode("utf-8", "surrogateescape")) > _UNIX_PATH_BYTES:
            error = f"can't create unix socket {rest}: listen unix {rest}: bind: invalid argument"
    return error and f"failed to load listeners: {error}"


def tcp_listen_error(rest: str, version: Version, go_resolver: bool = False) -> str | None:
    """Return the error for listening on HOST:PORT, or None."""
    host, _, port = rest.rpartition(":")
    if not port.isascii() or not port.isdigit():
        # A path, which is kept until 20.10, becomes part of the port.
        return f"listen tcp: lookup tcp/{port}: unknown port"
    if int(port[:30]) > 65535:
        return f"listen tcp: address {port}: invalid port"
    bare = host[1:-1] if host.startswith("[") else host
    if ":" in bare:
        try:
            ipaddress.IPv6Address(bare.partition("%")[0])
        except ValueError:
            return _no_such_host(bare, version)
        return None
    if go_resolver and not is_ipv4(bare) and bare.replace(".", "").isdigit():
        return _no_such_host(bare, version)
    return None if re.fullmatch(_RESOLVABLE, bare) or "%" in bare else _no_such_host(bare, version)


def needs_resolver(address: str) -> bool:
    """Whether the meaning of an address depends on the resolver: `tcp://0:2375`, `tcp://127.1:2375`."""
    host = address.removeprefix("tcp://").rpartition(":")[0]
    return address.startswith("tcp://") and host.replace(".", "").isdigit() and not is_ipv4(host)


_RESERVED = ("invalid", "test", "example")
"""Top-level domains that no public name server has (RFC 6761)."""


def never_resolves(address: str) -> str | None:
    """Return why no name server has the host of a normalised address; None if it is an address or may be a name.

    /etc/hosts may have it all the same. A name whose last label is a number, such as `0.0.0.0.2375`, cannot be in the
    DNS: no top-level domain is one (RFC 3696, section 2). inet_aton(3) accepts `0`, `127.1` and `0x7f.1`.
    """
    if not address.startswith("tcp://"):
        return None
    host = address.removeprefix("tcp://").rpartition(":")[0]
    last = host.rstrip(".").rpartition(".")[2].lower()
    if not host or host.startswith("[") or is_ipv4(host):
        return None
    if last.isascii() and last.isdigit():
        from socket import inet_aton

        try:
            inet_aton(host)
        except OSError:
            return "is no IP address, and no name ends with a number"
    elif last in _RESERVED and "." in host:
        return f"ends with .{last}, which is reserved for documentation and tests"
    return None


def uses_go_resolver(nsswitch: bytes) -> bool:
    """Whether Go uses its own resolver with this nsswitch.conf: `hosts` has only files and dns (net/conf.go)."""
    for line in nsswitch.decode("utf-8", "replace").splitlines():
        name, colon, sources = line.partition("#")[0].partition(":")
        if colon and name.strip() == "hosts":
            return set(sources.split()) <= {"files", "dns"}
    return False


def _no_such_host(host: str, version: Version) -> str:
    return (f"failed to lookup {host} address in host specification" if version >= Version(23)
            else f"listen tcp: lookup {host}: no such host")
