"""Relays to port 2375 in files that are not evaluated: proxies, tunnels and rules of a firewall that hand on a dockerd
that listens on the loopback address.

Clients name the port as well, in URLs and in DOCKER_HOST. What counts is the directive of a program that forwards.
"""

from __future__ import annotations

import re

from dockerd_guard.observe import socket_programs

MAX_PORTS = 200
"""Mentions of the port looked at in one file; one with more of them counts as one with a relay."""

_WINDOW = 300
"""Characters before and after the port that may show what names it."""

_PORT = r"(?<![\w.])2375(?![\w.])"

# Patterns are compiled where they are first used (re caches them): most trees need none.
_HOST = r"(?:[\w.${}-]{1,80}|\[[0-9a-fA-F:]{2,45}\])"
_URL = rf"[\"']?(?:(?:https?|tcp):(?://)?)?{_HOST}:"
_IS = r"[\"']?[ \t]{0,8}[:=][ \t]{0,8}[\"']?"
_DIRECTIVE = (
    rf"(?:\b(?:proxy_pass|ProxyPass\w{{0,10}}(?:[ \t]{{1,8}}[^\s:]{{1,80}})?|BalancerMember)[ \t]{{1,8}}{_URL}"
    rf"|\bserver(?:-template[ \t]{{1,8}}[\w.-]{{1,80}}[ \t]{{1,8}}[0-9-]{{1,9}})?"
    rf"[ \t]{{1,8}}(?:(?!tcp:|http)[\w.-]{{1,80}}[ \t]{{1,8}})?{_HOST}:"
    rf"|\b(?:reverse_proxy|upstream)[ \t][^\n]{{0,120}}?{_HOST}:|\bdial{_IS}(?:\[\s{{0,8}}[\"'])?(?:tcp/)?{_HOST}:"
    r"|\b(?i:servers?|loadbalancer)\b[^\n]{0,20}"
    rf"(?:\s|[\[{{}}\]\"',.-]|(?!(?:url|address)\b)\w{{1,20}}{_IS}|\[\[[\w.-]{{1,80}}\]\]){{0,20}}+"
    rf"\b(?:url|address){_IS}{_URL}"
    rf"|\bloadbalancer\.server\.port{_IS}|\bport_value{_IS}|\blocal_?[pP]ort{_IS}|\bconnectport[ \t]{{0,4}}="
    rf"|(?m:^)[ \t]{{0,80}}connect[ \t]{{0,8}}=[ \t]{{0,8}}(?:{_HOST}:)?"
    rf"|\bconnect[=:][ \t]{{0,4}}[\"']?tcp:{_HOST}:"
    rf"|--to(?:-destination|-ports?)?[ \t=]{{1,4}}(?:{_HOST}?:)?"
    rf"|\b(?:dnat|redirect)[ \t](?:ip6?[ \t])?to[ \t]{{1,4}}{_HOST}?:"
    r"|:toport=|(?m:^)[ \t]{0,8}(?:[0-9]{1,3}\.){3}[0-9]{1,3}"
    rf"[ \t]{{1,8}}[0-9]{{1,5}}(?:/tcp)?[ \t]{{1,8}}{_HOST}[ \t]{{1,8}}"
    rf"|\bredirect[ \t]{{0,8}}=[ \t]{{0,8}}{_HOST}[ \t]{{1,8}}"
    rf"|\bsystemd-socket-proxyd[ \t](?:[^\n]{{0,120}}[ \t])?{_HOST}:"
    rf"|\bspiped\b[^\n]{{0,120}}[ \t]-t[ \t]{{0,4}}{_HOST}:"
    rf"|\bservice{_IS}(?:https?|tcp)://{_HOST}:|\baddr{_IS}(?:{_HOST}:)?"
    r"|\b(?:tailscale[ \t]{1,4}(?:serve|funnel)|ngrok[ \t]{1,4}(?:tcp|http)|bore[ \t]{1,4}local|localtunnel)[ \t]"
    rf"(?:[^\n|;&]{{0,80}}[ \t:])?"
    rf"|\bR:(?:{_HOST}:)?[0-9]{{1,5}}:(?:{_HOST}:)?"
    rf"|\bkind{_IS}(?:Endpoints|EndpointSlice)\b[\s\S]{{0,240}}\bport{_IS}"
    rf"|\bn(?:c|cat|etcat)\b[^\n]{{0,120}}[ \t](?:-[A-Za-z]{{0,8}}l|--listen)[^\n]{{0,120}}\b{_HOST}[ \t]{{1,4}})\Z")
"""The target of nginx, Apache, HAProxy, Caddy, Traefik, Envoy, frp, netsh, stunnel, LXD, iptables, nft, firewall-cmd,
rinetd, xinetd, systemd-socket-proxyd, spiped, cloudflared, Tailscale, ngrok, chisel, nc, and Endpoints of
Kubernetes."""

_TUNNEL = (
    rf"(?:[ \t]-[A-Za-z]{{0,8}}R|\bRemoteForward)[ \t]{{0,8}}[\"']?(?:{_HOST}:|\*:)?[0-9]{{1,5}}[: \t]{_HOST}:\Z"
    rf"|\bssh\b[^\n]{{0,200}}[ \t]-(?:[A-Za-z]{{0,8}}g|o[ \t]{{0,4}}GatewayPorts[ =]yes)[^\n]{{0,120}}:{_HOST}:\Z"
    rf"|[ \t]-[A-Za-z]{{0,8}}L[ \t]{{0,4}}[\"']?(?:\*|0\.0\.0\.0|\[::\]):[0-9]{{1,5}}:{_HOST}:\Z")
"""A port at the other host of ssh(1), or one at which it listens on all addresses."""

_COPIES = rf"\bsocat\b(?:[^\n\\]|\\[\s\S])*\bTCP[46]?(?:-CONNECT)?:{_HOST}:\Z"
_LISTENS = (
    r"\b(?i:TCP|SSL|OPENSSL|SCTP|VSOCK)[46]?-(?i:L)\w{0,8}:"
    r"(?![^\s\"']{0,200}\b(?i:bind)=\[?(?:127\.|localhost\b|::1\]))")
"""socat(1), and what it listens on: not the loopback address alone."""

ABOUT = r"(?i:\b(?:ngrok|tailscale|connectport|localtunnel|bore)\b)|(?:[0-9]{1,3}\.){3}[0-9]{1,3}[ \t]{1,8}2375\b"
"""What a text has that names the port to such a program, and need not mention Docker."""


_CONNECTS = (
    r"\b(?:connect|create_connection|open_connection|createConnection|TCPSocket\.(?:new|open)|PeerAddr|PeerPort)\b"
    r"[^\n;]{0,80}\Z")
"""A program that connects to the port."""


def first_relay(text: str) -> int | None:
    """Return the offset of the first mention of the port as the target of a relay; None if there is none. Linear
    time."""
    listens: bool | None = None
    for number, found in enumerate(re.finditer(_PORT, text)):
        before = text[max(0, found.start() - _WINDOW):found.start()]
        if number >= MAX_PORTS or re.search(_DIRECTIVE, before) is not None or re.search(_TUNNEL, before) is not None:
            return found.start()
        if re.search(rf"(?i:{_COPIES})", before) is not None and re.search(
                _LISTENS, before.rpartition("socat")[2] + text[found.end():found.end() + _WINDOW].partition("\n")[0]):
            return found.start()
        if listens is not False and re.search(_CONNECTS, before) is not None:
            listens = socket_programs.listens(text)
            if listens:
                return found.start()
    return None
