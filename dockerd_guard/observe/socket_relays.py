"""Relays to the API socket in files that are not evaluated: proxies, tunnels, programs that copy between sockets.

A relay names the socket as the target of something else: `unix:/run/docker.sock`, `PORT:/run/docker.sock`. Clients name
it as `unix:///run/docker.sock`, as the URL in DOCKER_HOST, or by its path alone. A relay that listens on the loopback
address only is none, where its address is in the same words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from dockerd_guard.observe import command_words

MAX_SOCKETS = 500
"""Mentions of the API socket looked at in one file."""

_WINDOW = 300
"""Characters before and after the socket that may show what names it."""

_SOCKET = r"(?:docker|podman)\.sock\b"
_PATH = r"[^\s\"':]{0,100}\Z"

# Patterns are compiled where they are first used (re caches them): most trees need none.
_TARGET = (
    rf"(?i:\bunix(?:[:@]/(?!/)|//)|\bserver[ \t]{{1,8}}(?:[\w.-]{{1,80}}[ \t]{{1,8}})?/"
    r"|\bpipe[\"']?:\s{0,80}\{?\s{0,80}[\"']?path[\"']?:\s{0,8}[\"']?/"
    r"|(?:(?m:^)[ \t]{0,80}connect|(?:(?<=[\s{])\.|\bplugin_unix_|\bunix)path)[ \t]{0,8}=[ \t]{0,8}[\"']?/)"
    rf"{_PATH}")
"""The target of nginx, HAProxy, Caddy, Apache, Envoy, stunnel, Varnish, frp, LXD, cloudflared, ghostunnel."""

_WORDS = r"(?:[^\n\\]|\\[\s\S]){0,200}?"
_SERVES = (
    rf"\bspiped\b{_WORDS}[ \t]-t[ \t]{{0,8}}[\"']?/{_PATH}"
    rf"|\bproxy\.server\b[^\n]{{0,200}}[\"'](?:host|socket)[\"'][ \t]{{0,8}}=>[ \t]{{0,8}}[\"']/{_PATH}"
    rf"|\b(?:systemd-socket-proxyd|(?:s6-)?t(?:cp|ls)server[46d]?|tcpsvd|sslsvd)[ \t]{_WORDS}/{_PATH}")
"""The target of spiped, lighttpd and systemd-socket-proxyd, and in the command of a server that starts one for each
connection."""

_NO_TARGET = r"(?i:\b(?:listen|bind)[ \t]{1,8}|(?:\bDOCKER_?HOST(?:\W{1,20}value)?|\s-H|--host|--unix-socket)\W{1,8})\Z"
"""What listens at the socket, or is a client."""

_TUNNEL = (
    r"(?<![\w.:@${-])(?P<bind>(?:\*|\[[0-9a-fA-F:]{2,45}\]|[\w.${}-]{0,80}):)?(?:[0-9]{1,5}|\$\{?\w{1,40}\}?)"
    rf"(?::|(?P<blanks>[ \t]{{1,8}}))/{_PATH}")
"""[ADDRESS:]PORT:SOCKET of ssh(1), or the same in two words of ssh_config(5)."""

_LOOPBACK = r"(?:localhost|127\.[0-9.]{1,12}|\[::1\]):"
_OPENS_TUNNEL = (
    r"(?:[ \t]-[A-Za-z]{0,8}R|\bRemoteForward)[ \t]{0,8}\Z"
    r"|\bssh\b[^\n]{0,200}[ \t]-(?:[A-Za-z]{0,8}g|o[ \t]{0,4}GatewayPorts[ =]yes)[^\n]{0,200}\Z")
"""A port at the other host, or one at which ssh listens on all addresses."""

_COPIES = rf"(?i:\bUNIX(?:-C[A-Z]{{0,8}})?:|(?:\A|[\s\"'])-[A-Za-z]{{0,8}}U[ \t]{{1,8}}){_PATH}"
_NETWORK = (
    r"\b(?i:TCP|SCTP|SSL|OPENSSL|DTLS|VSOCK|STDIO)[46]?(?:-[A-Za-z]{1,12}:|:|[ \t])|\b(?i:WS-L)"
    r"|\bn(?:c|cat|etcat)\b[^\n]{0,200}[ \t](?:-[A-KM-Za-km-z]{0,8}l|--listen)|\bserver_args\b"
    r"|\bStandardInput[ \t]{0,8}=[ \t]{0,8}socket")
"""socat(1), nc(1) and websocat: what they copy to and from the socket."""

_SOCAT = r"\bsocat\b(?:[^\n\\]|\\[\s\S])*\Z"
"""A command of socat, whose addresses show what it copies."""

_COPIES_VARIABLE = (
    r"(?:\b(?i:UNIX(?:-C[A-Z]{0,8})?:)|[\s\"']-[A-Za-z]{0,8}U[ \t]{1,8})"
    r"(?P<word>[\"']?(?:\$(?:\{[^\n\s}]{1,200}\}|\w{1,80})|\{\{[^\n}]{1,80}\}\})"
    r"[^\s\"',]{0,100})")
_NAMES_SOCKET = r"(?i:docker_?(?:\w{1,20}_?)?(?:sock|host\b))"
"""A variable with the path of the socket, by its name."""

_LOCAL = (
    r"\b(?i:TCP|SSL|OPENSSL|DTLS|SCTP)[46]?-(?i:L)[A-Za-z]{0,8}:[^\s\"']{0,200}?\b(?i:bind)=\[?"
    r"(?:127\.|localhost\b|::1\])[^\s\"']{0,200}"
    r"|\|[ \t]{0,8}(?:sudo[ \t]{1,8})?(?:/[\w./-]{1,40}/)?socat\b(?=[^\n|;&]{0,200}\bSTDIO\b)[^\n|;&]{0,200}")
"""A listener on the loopback address, and a client that gets a request from a pipe."""


def first_relay(text: str) -> int | None:
    """Return the offset of the first mention of the API socket as the target of a relay. Linear time."""
    for found in islice(re.finditer(_SOCKET, text), MAX_SOCKETS):
        before = text[max(0, found.start() - _WINDOW):found.start()]
        if _is_tunnel(before) or re.search(_SERVES, before) is not None or (
                _is_target(before) and re.search(_SOCAT, before) is None) or (
                re.search(_COPIES, before) is not None and _copies_to_network(text, found)):
            return found.start()
    return next(_variables(text), None)


def _variables(text: str) -> Iterator[int]:
    """Yield the offsets of variables with the path of the socket, which socat(1) or nc(1) connects to the network."""
    known: dict[str, list[str]] | None = None
    for found in islice(re.finditer(_COPIES_VARIABLE, text), MAX_SOCKETS):
        if not _copies_to_network(text, found):
            continue
        known = command_words.variables(text) if known is None else known
        words = islice(command_words.expanded(found["word"].strip("\"'"), known), MAX_SOCKETS)
        if re.search(_NAMES_SOCKET, found["word"]) is not None or any(re.search(_SOCKET, word) for word in words):
            yield found.start()


def _copies_to_network(text: str, found: re.Match[str]) -> bool:
    around = text[max(0, found.start() - _WINDOW):found.end() + _WINDOW]
    return re.search(_NETWORK, re.sub(_LOCAL, "", around)) is not None


def _is_target(before: str) -> bool:
    target = re.search(_TARGET, before)
    return target is not None and re.search(_NO_TARGET, before[:target.start()]) is None


def _is_tunnel(before: str) -> bool:
    tunnel = re.search(_TUNNEL, before)
    if tunnel is None or (tunnel["blanks"] and re.search(r"Forward[ \t]{1,8}\Z", before[:tunnel.start()]) is None):
        return False
    is_open = tunnel["bind"] is not None and re.match(_LOOPBACK, tunnel["bind"]) is None
    return is_open or re.search(_OPENS_TUNNEL, before[:tunnel.start()]) is not None
