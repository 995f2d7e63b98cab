"""Containers and listening addresses in files that are not evaluated: jobs of Nomad, Terraform, modules of NixOS,
devcontainer.json, task definitions, Chef, Puppet, Salt.

What such a file defines is not known. That it names the API socket and a port for one container is.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from itertools import islice

MAX_FOUND = 200
"""Mounts of the API socket, and ports, that are looked at in one file; if there are more, any port counts."""

MAX_BRACES = 20_000
"""Blocks in one file; if there are more, any port counts."""

MAX_BLOCKS = 8
"""Blocks around a mount that may be the definition of the container."""

# Patterns are compiled where they are first used (re caches them): most trees need none.
_FILES = (
    r"(?i:\.(?:hcl|nomad|tf|tofu|nix|json5?|jsonc|jsonnet|libsonnet|toml|rb|pp|sls|py|star|cue|dhall)\Z)")
_DIRECTORY = r"(?:/|/(?:var/)?run(?:/podman)?/?)"
_MOUNT = (
    r"(?:docker|podman)\.sock(?![\w-]|\.\w)"
    rf"|[\"']{_DIRECTORY}:/"
    rf"|\b(?:src|source)={_DIRECTORY}(?=[,\"'])"
    rf"|\b(?:host_path|sourcePath|source)[\"']?\s{{0,8}}[=:]\s{{0,8}}[\"']{_DIRECTORY}[\"']")
"""A mount of the API socket, or of a directory with it."""

_OF_CLIENT = r"unix:[^\s\"',]{0,100}\Z"

_IS = r"[\"']?\s{0,8}(?:=>|[=:])\s{0,8}"
_PUBLISHES = (
    r"(?i:\b(?:ports|appPort|portMappings|port_map|port_bindings|published_ports|extraPortMappings)[\"']?\s{0,8}"
    r"(?:\{|(?:=>|[=:(])\s{0,40}(?:-\s{1,4})?(?:[\[{(]\s{0,80}[^\s\]})]|[\"'0-9]))"
    r"|\bport[\"']?\s{1,8}[\"'](?:[\w-]{1,60}[\"']\s{0,8}\{|[0-9.:]{0,40}[0-9]:)"
    rf"|\b(?:hostPort|host_port|static|external){_IS}[\"']?[1-9]"
    rf"|\b(?:publish_all_ports|host_?network){_IS}true|\bnetwork_?mode{_IS}[\"']?host\b"
    r"|[\"'](?:-p(?:[\"'][\s,]{1,8}[\"'][0-9$\[]|=?[0-9$\[])|(?-i:-P)[\"']|--publish)"
    r"|--net(?:work)?[\"']?[\s=,]{1,4}[\"']?host\b)")
_LISTENS = r"\b(?:listenOptions|listenStreams|ListenStream)\s{0,8}=[\s\[]"
_STREAM = r"\"(?:[0-9]{1,5}|[^\"/@\s]{1,100}:[0-9]{1,5})\""
"""Addresses of docker.socket in a module of NixOS (nixos/modules/virtualisation/docker.nix)."""


def may_define(path: str) -> bool:
    """Whether a file of this name may define containers. Compose files are read."""
    return re.search(_FILES, path) is not None and "compose" not in path.rpartition("/")[2]


def first_way(path: str, text: str) -> tuple[int, str] | None:
    """Return the offset of the first mount of the API socket in the definition of a container that has a port, or of
    the first TCP address of docker.socket, and what it does; None if there is none. Linear time."""
    for listens in islice(re.finditer(_LISTENS, text), MAX_FOUND) if path.endswith(".nix") else ():
        if re.search(_STREAM, re.split(r"[\];]", text[listens.end():listens.end() + 400], maxsplit=1)[0]) is not None:
            return listens.start(), "names a TCP address for dockerd"
    mounts = [found.start() for found in islice(re.finditer(_MOUNT, text), MAX_FOUND)
              if re.search(_OF_CLIENT, text[max(0, found.start() - 120):found.start()]) is None]
    ports = [found.start() for found in islice(re.finditer(_PUBLISHES, text), MAX_FOUND)] if mounts else []
    is_whole = MAX_FOUND in (len(mounts), len(ports)) or text.count("{") > MAX_BRACES or not path.endswith(
        (".nix", ".tf", ".tofu"))
    ends, around = ({}, {}) if is_whole else _blocks(text, mounts)
    for mount in mounts if ports else ():
        # A resource of Terraform is a block at the top; a container of NixOS is the innermost one with an image.
        opened = around.get(mount, ())
        start = next((each for each in reversed(opened) if text.find("image", each, ends.get(each)) >= 0), 0) \
            if path.endswith(".nix") else opened[0] if opened else 0
        if bisect_left(ports, start) < bisect_left(ports, ends.get(start, len(text))):
            return mount, "runs a container with the API socket and a port"
    return None


def _blocks(text: str, mounts: list[int]) -> tuple[dict[int, int], dict[int, tuple[int, ...]]]:
    """Return where blocks in braces end, by their beginnings; and the beginnings of the blocks around each mount: the
    outermost one, and the innermost ones."""
    ends: dict[int, int] = {}
    around: dict[int, tuple[int, ...]] = {}
    opened: list[int] = []
    todo = list(reversed(mounts))
    for brace in re.finditer(r"[{}]|\Z", text):
        while todo and todo[-1] < brace.start():
            around[todo.pop()] = (*opened[:1], *opened[max(1, len(opened) - MAX_BLOCKS):])
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] and opened:
            ends[opened.pop()] = brace.start()
    return ends, around
