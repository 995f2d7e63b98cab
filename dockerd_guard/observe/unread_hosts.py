"""TCP hosts of dockerd in files that are not evaluated: scripts, Dockerfiles, playbooks, modules of NixOS.

What such a file does is not known. That it names an address for dockerd is, and a tree with such a file is not
reported as free of findings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_ADDRESSES = 2_000
"""Addresses looked at in one file; a file with more of them counts as one that sets a host."""

_WINDOW = 300
"""Characters before an address that may show that it is dockerd's."""

_NEAR = 2_000
"""Characters before and after an address in which dockerd may be mentioned."""

# Patterns are compiled where they are first used (re caches them): most trees need none.
_NOT_READ = (
    r"(?i:(?:\A|/)(?:readme|changelog|changes|news|history|license|copying|contributing)[^/]{0,40}\Z|"
    r"\.(?:md|markdown|mdx|rst|adoc|asciidoc|org|html?|css|svg|po|pot|ipynb|[1-8]|patch|diff|lock|sum|log|"
    r"go|rs|c|h|cc|cpp|hpp|java|kt|scala|cs|swift|js|jsx|mjs|ts|tsx|php|"
    r"png|jpe?g|gif|ico|webp|pdf|zip|gz|tgz|xz|bz2|zst|tar|7z|jar|whl|deb|rpm|so|o|a|dll|exe|bin|img|iso|qcow2|"
    r"woff2?|ttf|otf|mp[34]|mov|pyc|map)\Z)")
"""Names of documentation, of programs that have a client of Docker, and of files that are no text."""

_COMMENT = r"(?m:^)[ \t]{0,200}(?:#|//|;)[^\n]*"

_ADDRESS = (
    r"tcp:(?://)?(?P<any>0\.0\.0\.0|\[::\]|\*|:[0-9])?"
    r"|(?P<port>(?:0\.0\.0\.0|\[::\]|\*):237[56]\b|\b237[56]:237[56]\b|(?:hostPort|nodePort|published)\W{1,8}237[56]\b"
    r"|ListenStream[ \t]{0,8}=[ \t]{0,8}(?:[^\s/]{0,60}:)?237[56]\b)"
    r"|(?P<stream>ListenStream[ \t]{0,8}=[ \t]{0,8}[^/@\s])")
_OPTION = (
    r"(?:dockerd|docker[ \t]{1,8}(?:daemon|-d)\b|docker-opt|DOCKERD?_?\w{0,20}(?:OPT|ARG|FLAG)\w{0,8}|\bOPTIONS|"
    r"other_args|EXTRA_ARGS|ExecStart|fd://)(?:[^\n\\]|\\[\s\S])*\Z"
    r"|(?:dockerd|dind\b|daemon)[\s\S]*(?:--host|-H)\W{1,12}\Z"
    r"|\b(?:[hH]osts\\?[\"']?\s{0,8}(?:=>|[:=\[])|host[ \t]{1,4}\[)\W{0,40}(?:(?:fd|unix|npipe)://[\w./@-]{0,100}\W{1,40}){0,3}\Z"
    r"|tcp_bind\W{1,40}\Z")
_ABOUT_DOCKERD = (
    r"(?i:dockerd|\bdind\b|daemon\.json|fd://|podman|docker[ \t]{1,8}(?:daemon|-d)\b|"
    r"docker[\w.-]{0,20}(?:service|socket|daemon|opt|hosts))")
_CLIENT = (
    r"(?i:DOCKER_HOST\W{1,8}\Z|\bdocker[ \t]{1,8}(?:--?tls[^\s]{0,80}[ \t]{1,8}){0,4}(?:-H|--host)\W{1,12}\Z)")


def may_set_a_host(path: str) -> bool:
    """Whether a file of this name may set the hosts of dockerd."""
    return re.search(_NOT_READ, path) is None


def decoded(data: bytes) -> str:
    """The text of a file; empty if it is no text."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return "" if b"\0" in data[:8192] else data.decode("utf-8", "surrogateescape")


def line_of_host(path: str, text: str, judged: Iterable[tuple[int, int]] = ()) -> int | None:
    """Return the first line that names a TCP host for dockerd; None if there is none. Comments do not count, nor do
    lines that are judged, given as first and last numbers."""
    if not ("tcp:" in text or "237" in text or "ListenStream" in text):
        return None
    if "docker" not in path.lower() and re.search("(?i:docker|:237[56])", text) is None:
        return None
    if judged:
        lines = text.split("\n")
        for first, last in judged:
            lines[first - 1:last] = [""] * len(lines[first - 1:last])
        text = "\n".join(lines)
    text = re.sub(_COMMENT, "", text)
    for number, found in enumerate(re.finditer(_ADDRESS, text)):
        if number >= MAX_ADDRESSES or _is_dockers(found, text):
            return text.count("\n", 0, found.start()) + 1
    return None


def _is_dockers(found: re.Match[str], text: str) -> bool:
    before = text[max(0, found.start() - _WINDOW):found.start()]
    if re.search(_CLIENT, before) is not None:
        return False
    if found["port"] or (found["any"] and _may_be_dockerds(found, text)):
        return True
    if found["stream"]:
        return "docker.socket" in text
    return re.search(_OPTION, before) is not None


def _may_be_dockerds(found: re.Match[str], text: str) -> bool:
    """Whether a wildcard address has a port of the Docker API, follows -H, or is near a mention of dockerd.
    `-b tcp://0.0.0.0:3000` in a Dockerfile is of a web server."""
    start = found.start()
    return (re.match(r"[^\s\"',]{0,80}:237[56]\b", text[start:start + 100]) is not None
            or re.search(r"(?:-H|--host)\W{1,12}\Z", text[max(0, start - 20):start]) is not None
            or re.search(_ABOUT_DOCKERD, text[max(0, start - _NEAR):start + _NEAR]) is not None)
