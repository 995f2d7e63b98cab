"""Relays to the API socket in files that are not evaluated: proxies, tunnels, programs that copy between sockets.

A relay names the socket as the target of something else: `unix:/run/docker.sock`, `PORT:/run/docker.sock`. Clients name
it as `unix:///run/docker.sock`, as the URL in DOCKER_HOST, or by its path alone.
"""

from __future__ import annotations

import re
from itertools import islice

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

_COPIES = rf"(?i:\bUNIX(?:-C[A-Z]{{3,8}})?:|(?:\A|[\s\"'])-[A-Za-z]{{0,8}}U[ \t]{{1,8}}){_PATH}"
_NETWORK = (
    r"\b(?i:TCP|SCTP|SSL|OPENSSL|DTLS|VSOCK|STDIO)[46]?(?:-[A-Za-z]{1,12}:|:|[ \t])"
    r"|\bn(?:c|cat|etcat)\b[^\n]{0,200}[ \t](?:-[A-KM-Za-km-z]{0,8}l|--listen)|\bserver_args\b"
    r"|\bStandardInput[ \t]{0,8}=[ \t]{0,8}socket")
"""socat(1) and nc(1): what they copy to and from the socket."""


def first_relay(text: str) -> int | None:
    """Return the offset of the first mention of the API socket as the target of a relay. Linear time."""
    for found in islice(re.finditer(_SOCKET, text), MAX_SOCKETS):
        before = text[max(0, found.start() - _WINDOW):found.start()]
        if _is_target(before) or _is_tunnel(before) or (
                re.search(_COPIES, before) is not None
                and re.search(_NETWORK, f"{before}{text[found.end():found.end() + _WINDOW]}") is not None):
            return found.start()
    return None


def _is_target(before: str) -> bool:
    target = re.search(_TARGET, before)
    return target is not None and re.search(_NO_TARGET, before[:target.start()]) is None


def _is_tunnel(before: str) -> bool:
    tunnel = re.search(_TUNNEL, before)
    if tunnel is None or (tunnel["blanks"] and re.search(r"Forward[ \t]{1,8}\Z", before[:tunnel.start()]) is None):
        return False
    is_open = tunnel["bind"] is not None and re.match(_LOOPBACK, tunnel["bind"]) is None
    return is_open or re.search(_OPENS_TUNNEL, before[:tunnel.start()]) is not None
