"""TCP hosts of dockerd in files that are not evaluated: scripts, Dockerfiles, playbooks, modules of NixOS; and other
ways to its socket: proxies, pods.

What such a file does is not known. That it names an address for dockerd is, and a tree with such a file is not
reported as free of findings.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from itertools import islice

from dockerd_guard.observe import (
    api_port_relays,
    container_commands,
    container_definitions,
    daemon_options,
    dockerd_commands,
    encoded_texts,
    exposed_pods,
    host_lists,
    shell_joins,
    socket_programs,
    socket_relays,
)

UTF_16, UTF_32 = (b"\xff\xfe", b"\xfe\xff"), (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
"""Byte order marks."""

_PROBE = 800
"""Bytes at the beginning of a file that show whether it is UTF-16 without such a mark."""

MAX_DEPTH = 2
"""Encoded texts within others."""

MAX_ADDRESSES = 2_000
"""Addresses looked at in one file; a file with more of them is named."""

MAX_FILES = 50
"""Variables with the name of a file of dockerd in one text."""

_WINDOW = 300
"""Characters before an address that may show that it is dockerd's."""

_NEAR = 2_000
"""Characters before and after an address in which dockerd may be mentioned."""

_ENGINE = r"(?i:docker|podman|\bbalena)"
"""Docker, and what is Docker by another name: balenaEngine of balenaOS."""

# Patterns are compiled where they are first used (re caches them): most trees need none.
_NOT_READ = (
    r"(?i:(?:\A|/)(?:readme|changelog|changes|news|history|license|copying|contributing)"
    r"(?:[._-](?!(?:sh|bash|ya?ml|json|service|socket|conf|py|rb)\Z)[a-z0-9]{1,20})?\Z|"
    r"\.(?:md|markdown|mdx|rst|adoc|asciidoc|org|html?|css|svg|po|pot|ipynb|[1-8]|patch|diff|lock|sum|log|"
    r"go|rs|c|h|cc|cpp|hpp|java|kt|scala|cs|swift|js|jsx|mjs|ts|tsx|php|"
    r"png|jpe?g|gif|ico|webp|pdf|zip|gz|tgz|xz|bz2|zst|tar|7z|jar|whl|deb|rpm|so|o|a|dll|exe|bin|img|iso|qcow2|"
    r"woff2?|ttf|otf|mp[34]|mov|pyc|map)\Z)")
"""Names of documentation, of programs that have a client of Docker, and of files that are no text."""

_COMMENT = r"(?m:^)[ \t]{0,200}(?:#|//|;)[^\n]*"
_COMMENT_OF_SHELL = r"(?m:^)[ \t]{0,200}#[^\n]*"

_ADDRESS = (
    r"tcp:(?:\\{0,3}/){0,2}(?P<any>0\.0\.0\.0|\[::\]|\*|:[0-9])?"
    r"|(?P<port>(?:(?:0\.0\.0\.0|\[::\]|\*):237[56]\b|(?<![\w.:-])[0-9]{2,5}:237[56]\b"
    r"|(?i:exposeDockerAPIOnTCP2375\W{1,8}true)"
    r"|\bguest\W{1,12}237[56]\b(?![^\n]{0,200}(?:\bdisabled\W{1,8}true\b|\bhost_ip\W{1,8}127\.))"
    r"|(?:hostPort|guestPort|nodePort|targetPort|containerPort|target|PublishPort)\W{1,12}237[56]\b"
    r"|(?:\bports[\"']?[ \t]{0,8}:|--publish\b)\W{1,12}237[56]\b"
    r"|ListenStream[ \t]{0,8}=[ \t]{0,8}(?:[^\s/]{0,60}:)?237[56]\b)(?!:[0-9]))"
    r"|(?:(?<=-H)|(?<=--host)|(?<=-opt host)|(?<=-opt=host)|(?<=-opt=.host))[= ][\"']?(?P<bare>"
    r"(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9a-fA-F:]{2,45}\])(?![\w.])|:[0-9]{1,5}\b)"
    r"|(?<=[\"' \[])(?P<listed>(?:0\.0\.0\.0|\[::\]):[0-9]{1,5}\b)"
    r"|(?P<stream>ListenStream(?:[ \t]{0,8}=[ \t]{0,8}[^/@%\s>]"
    r"|[\"']?(?:[ \t]{0,8}(?:=>|:)|[ \t])[ \t]{0,8}(?:\[[ \t]{0,4})?[\"']?[\w.*:{}$\[\]-]{0,80}[0-9}]"
    r"|[\"']?[ \t]{0,8}\n[ \t]{1,40}[\"']?value[\"']?:[ \t]{1,8}[\"']?[^/@%\s]))")
"""The ports include that of a machine of Vagrant which is forwarded."""

_HOSTS = r"\b(?:[hH]osts\\?[\"']?\s{0,8}(?:=>|[:=\[])|host[ \t]{1,4}\[)\W{0,40}"
_OTHER_HOSTS = r"(?:(?:fd|unix|npipe):(?:\\{0,3}/){2}[\w./@-]{0,100}\W{1,40})"
_OF_DOCKERD = rf"{_HOSTS}{_OTHER_HOSTS}{{1,3}}\Z|tcp_bind\W{{1,40}}\Z|docker\.sock[\"',]{{0,2}}\s{{1,8}}[\"']?\Z"
"""A list with another host of dockerd, or of Puppet's module docker; or the API socket, as in %w() of Ruby."""
_OPTION = (
    r"(?:docker[ \t]{1,8}(?:daemon|-d)\b|\bsystem[ \t]{1,8}service\b|(?:docker|engine)-opt|"
    r"DOCKERD?_?\w{0,20}(?:OPT|ARG|FLAG)\w{0,8}|\bOPTIONS|"
    r"other_args|EXTRA_ARGS|fd:(?:\\{0,3}/){2})(?:[^\n\\]|\\[\s\S])*\Z"
    r"|ExecStart(?:[^\n\\]|\\[\s\S])*(?:-H|--host)\W{0,12}\Z"
    r"|\bDOCKER_?(?:TCP|LISTEN)\w{0,20}[\"']?[ \t]{0,8}[:=][^\n]*(?:-H|--host)\W{1,4}\Z"
    r"|(?:dind\b|daemon)[\s\S]*(?:--host|-H)\W{1,12}\Z"
    r"|(?i:(?:extra|docker\w{0,20})_?(?:args|opts|options|flags))[\s\S]*(?:--host|-H)\W{1,12}\Z"
    r"|\bdocker_service(?:(?!\bend\b)[\s\S])*\shost[ \t]{1,4}[\"']\Z"
    rf"|[hH]osts\\?[\"']\W{{1,48}}(?:(?:append|extend|insert|push|unshift|add)\W{{1,16}})?\Z|{_OF_DOCKERD}")
"""A list of hosts whose key has quotation marks is one of JSON."""

_OF_OPTIONS = (
    r"(?:ExecStart|fd://|(?:docker|engine)-opt|\bOPTIONS|(?i:docker\w{0,20}_(?:opt|arg|flag))"
    r"|\bextraOptions|\bdocker[ \t]{1,8}(?:daemon|-d)\b)[^\n]*\Z")
_ABOUT_DOCKERD = (
    r"(?i:dockerd|\bdind\b|daemon\.json|fd://|podman|docker[ \t]{1,8}(?:daemon|-d)\b|"
    r"docker[\w.-]{0,20}(?:service|socket|daemon|opt|hosts))")
_CLIENT = (
    r"(?i:DOCKER_HOST\W{1,8}\Z)|(?<![\w.-])docker(?:-compose)?(?:(?:[ \t]|\\\n){1,80}+(?:compose|"
    r"(?!-d\b|-H|--host\b)--?[\w-]{1,40}+(?:[= ][\"']?(?!daemon\b)[^\s\"'-][^\s\"']{0,80}[\"']?)?+)){0,6}+"
    r"(?:[ \t]|\\\n){1,80}+(?:-H|--host)\W{0,12}\Z"
    r"|\b(?:endpoint|targets?)[\"']?\s{0,8}[:=]\s{0,8}\[?[^][\n{}=;]{0,200}\Z"
    r"|\b(?:grep|curl|wget)\b[^\n|&;`$]{0,200}\Z")
"""A client, with options before the host; `start-docker` is none. `docker -d` and `docker daemon` are old names of
dockerd."""

_MENTION = r"(?i:\bAPI is accessible on https?://\Z)"
"""A warning of dockerd in the output of `docker info`."""

_TESTED = r"\S{0,80}?[\"']?\s{1,8}not in\b"
"""An assertion of Ansible, or of a test, that an address is not used."""

_OF_FILE = r"daemon\.json|/docker\.(?:service|socket)\b"
"""A command with a file of dockerd in its line: `jq --arg h tcp://10.0.0.5:2375 FILTER /etc/docker/daemon.json`."""

_END_OF_LINE = r"(?<!\\)\n"
"""A command goes on after a backslash."""

_NAMED_FILE = rf"(?<![\w$])([A-Za-z_]\w{{0,60}}+)=[\"']?[^\s\"';=]{{0,200}}?(?:{_OF_FILE})"
"""A variable of a shell with the name of such a file."""

_SEARCH = r"\b(?:[ef]?grep|rg)\b[^|;&]*\Z"
"""A command that looks for an address, before it in the line. It changes no file."""

_OF_PATH = r"(?:OPT|ARG|FLAG)S?[\"']?[ \t]{0,8}[:=][^\n]*(?:-H|--host)\W{1,12}\Z"
"""A variable with options, in a directory of Docker: /etc/sv/docker/conf of runit."""

_FIREWALL = r"(?:--[sd]?ports?[= ]|\b(?:ufw|nft|firewall-cmd)[ \t][^\n]*)\Z"
"""A range of ports in iptables-extensions(8) and ufw(8) looks like a published port."""

_OF_SOCKET_UNIT = r"\b(?:docker|podman)(?:-[\w-]{0,40})?\.socket\b|\bService[ \t]{0,8}=[ \t]{0,8}docker\.service"
_OF_BOSH = (
    r"(?:\bdocker[\"']?:\s|\bname:[ \t]{1,8}[\"']?docker\b)[\s\S]{0,300}?"
    r"\btcp_address[\"']?:[ \t]{1,8}[\"']?(?!127\.|localhost\b|::1\b|null\b|[~\"'#])\S")
"""A property of the BOSH release of Docker (jobs/docker/spec), below `docker:` or that of its job."""

_WITHOUT_TLS = r"DOCKER_TLS=[\"']?no\b"
"""With this variable, boot2docker listens on 0.0.0.0:2375 (rootfs/etc/rc.d/docker)."""

_ACTIVATED = (
    r"\bsystemd-socket-activate\b(?=[^\n]{0,200}?[ \t](?:-l|--listen)[ \t=]{0,4}[\"']?[^\s/\"'])"
    r"[^\n]{0,200}?\bdockerd\b")
"""systemd-socket-activate(1) with a TCP address for dockerd."""

_EXTENSION = r"\bDockerExtension\b"
_PORT_OF_EXTENSION = r"\bdocker\W{0,4}\s{0,8}[:=]\s{0,8}\{[^{}]{0,400}?\bport\W{1,12}[0-9\[$]"
_CERTIFICATES = r"\bcerts\W{1,20}ca\b"
"""The extension of Azure's virtual machines, which opens a port if it is given one, with TLS if it has certificates."""

_SOCKET = r"(?:docker|podman)\.sock\b"
_HOST_NETWORK = r"hostNetwork\W{1,4}true|network_mode\W{1,4}host\b|--net(?:work)?[= ]host\b|\bNetwork=host\b"
_AT_BOOT = (
    r"(?m:^)[LCf][+!=~^-]{0,4}[ \t]{1,20}/(?:etc/docker/daemon\.json|"
    r"(?:etc|run)/systemd/system/docker\.(?:service|socket))\b")
"""A line of tmpfiles.d(5)."""


def may_set_a_host(path: str) -> bool:
    """Whether a file of this name may set the hosts of dockerd."""
    return re.search(_NOT_READ, path) is None


def decoded(data: bytes) -> str:
    """The text of a file; empty if it is no text. A shell skips NUL bytes of a script (bash(1) "EXECUTION", and
    preadbuffer() of dash)."""
    if data[:4] in UTF_32:
        return data.decode("utf-32", "replace")
    if data[:2] in UTF_16:
        return data.decode("utf-16", "replace")
    for codec, zeros, others in (("utf-16-le", data[1:_PROBE:2], data[:_PROBE:2]),
                                 ("utf-16-be", data[:_PROBE:2], data[1:_PROBE:2])):
        # An editor of Windows may leave out the mark. Text of ASCII has a zero in each character.
        if zeros.count(0) > 0.9 * len(zeros) and 0 not in others:
            return data.decode(codec, "replace")
    if data[:2] == b"#!":
        data = data.replace(b"\0", b"")
    return "" if b"\0" in data[:8192] else data.decode("utf-8", "surrogateescape")


def first_way(path: str, text: str, judged: Iterable[tuple[int, int]] = ()) -> tuple[int, str] | None:
    """Return the first line that names a TCP host for dockerd, or that hands its socket to the network in another way,
    and what it does; None if there is none. Comments do not count, nor do lines that are judged, given as first and
    last numbers. What is encoded in the text is part of it."""
    if judged:
        lines = text.split("\n")
        for first, last in judged:
            lines[first - 1:last] = [""] * len(lines[first - 1:last])
        text = "\n".join(lines)
    return _first_line(path, text)


def _first_line(
    path: str, text: str, depth: int = MAX_DEPTH, *, is_about_docker: bool = False
) -> tuple[int, str] | None:
    without_comments = re.sub(_COMMENT_OF_SHELL, "", text)
    is_script = text.startswith("#!") or path.endswith((".sh", ".bash", "Dockerfile"))
    plain = without_comments if is_script else re.sub(_COMMENT, "", text)
    about = (f"{_ENGINE}|:[ \\t]{{0,4}}237[56]\\b|hostPath|daemon[._-]?json|\\bdind\\b|{shell_joins.ABOUT}" + (
        f"|{api_port_relays.ABOUT}" if "2375" in text else ""))
    may_matter = is_about_docker or re.search(about, path) is not None or re.search(about, text) is not None or (
        host_lists.is_filter(path, text))
    if may_matter and (way := _first_place(path, plain)) is not None:
        return plain.count("\n", 0, way[0]) + 1, way[1]
    if may_matter and (joined := shell_joins.joined(plain)) is not None and (
            way := _first_place(path, joined)) is not None:
        return plain.count("\n", 0, shell_joins.origin(plain, way[0])) + 1, way[1]
    for place, inner in encoded_texts.encoded_texts(without_comments) if depth else ():
        found = (1, "has more encoded text than is read") if inner is None else _first_line(
            "", inner, depth - 1, is_about_docker=may_matter)
        if found is not None:
            return without_comments.count("\n", 0, place) + 1, found[1]
    return None


def _first_place(path: str, text: str) -> tuple[int, str] | None:
    has_host = any(word in text for word in (
        "tcp:", "237", "ListenStream", "-H", "host", "tcp_bind", "0.0.0.0:", "fd:"))
    may_define = container_definitions.may_define(path, text)
    if not has_host and not may_define and re.search(
            rf"{_SOCKET}|dind|hostPath|tmpfiles|\brun\b|\bcreate\b|\boptions:|(?i:\bunix-c)|tcp_address|DOCKER_TLS|"
            rf"{_EXTENSION}",
            f"{path}\n{text}") is None:
        return None
    mentions = _Mentions(text)
    for number, found in enumerate(re.finditer(_ADDRESS, text)) if has_host else ():
        if number >= MAX_ADDRESSES or _is_dockers(found, text, path, mentions):
            return found.start(), (
                "names a TCP address for dockerd" if number < MAX_ADDRESSES else f"more than {MAX_ADDRESSES} addresses")
    way = None
    if has_host:
        way = dockerd_commands.first_host(text) or daemon_options.first_host(path, text) or (
            host_lists.first_host(path, text))
    return way or _way_to_the_socket(text) or _other_way(path, text) or (
        container_definitions.first_way(path, text) if may_define else None)


def _way_to_the_socket(text: str) -> tuple[int, str] | None:
    relay = socket_relays.first_relay(text)
    if relay is not None or (relay := socket_programs.first_relay(text)) is not None:
        return relay, "forwards to the API socket"
    if (relay := api_port_relays.first_relay(text)) is not None:
        return relay, "forwards to the port of the API"
    if (pod := exposed_pods.first_mount(text)) is not None:
        return pod, "mounts the API socket into a pod that is reachable"
    command = container_commands.first_exposed(text)
    return (command, "runs a container with the API socket and a port") if command is not None else None


def _other_way(path: str, text: str) -> tuple[int, str] | None:
    if (dind := re.search(r"\bdind\b", text)) is not None and re.search(_HOST_NETWORK, text) is not None:
        return dind.start(), "runs docker-in-docker in the network of the host"
    if (extension := re.search(_EXTENSION, text)) is not None and re.search(_CERTIFICATES, text) is None and re.search(
            _PORT_OF_EXTENSION, text) is not None:
        return extension.start(), "opens a TCP port for dockerd"
    for pattern in (_WITHOUT_TLS, _ACTIVATED, *((_OF_BOSH,) if "tcp_address" in text else ())):
        if (setting := re.search(pattern, text)) is not None:
            return setting.end() - 1, "names a TCP address for dockerd"
    if "tmpfiles" in path and (line := re.search(_AT_BOOT, text)) is not None:
        return line.start(), "makes a file of dockerd at boot"
    return None


class _Mentions:
    """Where a text mentions dockerd. The whole text is searched once, however many addresses it has."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts: list[int] | None = None
        self._has_socket_unit: bool | None = None
        self._files = ""

    def files(self) -> str:
        """A pattern of what names a file of dockerd: a path, or a variable that has it."""
        if not self._files:
            names = "|".join(sorted(set(islice(re.findall(_NAMED_FILE, self._text), MAX_FILES))))
            self._files = rf"{_OF_FILE}|\$\{{?(?:{names})\b" if names else _OF_FILE
        return self._files

    def has_socket_unit(self, path: str) -> bool:
        """Whether the text is, or has, a socket unit of Docker."""
        if self._has_socket_unit is None:
            self._has_socket_unit = re.search(_OF_SOCKET_UNIT, f"{path}\n{self._text}") is not None
        return self._has_socket_unit

    def near(self, place: int) -> bool:
        if self._starts is None:
            self._starts = [found.start() for found in re.finditer(_ABOUT_DOCKERD, self._text)]
        return bisect_left(self._starts, place - _NEAR) < bisect_left(self._starts, place + _NEAR)


def _is_dockers(found: re.Match[str], text: str, path: str, mentions: _Mentions) -> bool:
    start = found.start("bare") if found["bare"] else found.start()
    before = text[max(0, start - _WINDOW):start]
    after = text[found.end():found.end() + _WINDOW]
    if (re.search(f"{_CLIENT}|{_MENTION}", before) is not None or re.match(_TESTED, after) is not None
            or (found["port"] and re.search(_FIREWALL, before) is not None)):
        return False
    if found["bare"]:
        # dockerd takes an address without a scheme for TCP. Other programs have such options as well, on other ports.
        return re.search(_OF_OPTIONS, before) is not None or re.match(
            r"(?:0\.0\.0\.0|\[::\])?:237[56]\b", text[start:start + 20]) is not None or re.search(
            r"dockerd?\.service", text[max(0, start - _WINDOW):start + _WINDOW]) is not None
    if found["listed"]:
        return re.search(_OF_DOCKERD, before) is not None
    if found["port"] or (found["any"] and _may_be_dockerds(found, text, mentions)):
        return True
    if found["stream"]:
        return mentions.has_socket_unit(path)
    return re.search(_OPTION, before) is not None or _is_for_a_file(before, after, path, mentions) or (
        # Programs that ask Docker have a list of hosts as well.
        re.search(rf"{_HOSTS}\Z", before) is not None and (
            mentions.near(start) or re.search(_ABOUT_DOCKERD, path) is not None))


def _is_for_a_file(before: str, after: str, path: str, mentions: _Mentions) -> bool:
    """Whether a file of dockerd is named in the line of an address, or the text is one with options of its own."""
    line = re.split(_END_OF_LINE, before)[-1], re.split(_END_OF_LINE, after, maxsplit=1)[0]
    return (re.search(_SEARCH, line[0]) is None and any(re.search(mentions.files(), part) for part in line)) or (
        re.search(r"(?:\A|/)dockerd?/", path) is not None and re.search(_OF_PATH, before) is not None)


def _may_be_dockerds(found: re.Match[str], text: str, mentions: _Mentions) -> bool:
    """Whether a wildcard address has a port of the Docker API, follows -H, or is near a mention of dockerd.
    `-b tcp://0.0.0.0:3000` in a Dockerfile is of a web server."""
    start = found.start()
    return (re.match(r"[^\s\"',]{0,80}:237[56]\b", text[start:start + 100]) is not None
            or re.search(r"(?:-H|--host)\W{1,12}\Z", text[max(0, start - 20):start]) is not None
            or mentions.near(start))
