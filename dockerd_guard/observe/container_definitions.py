"""Containers and listening addresses in files that are not evaluated: jobs of Nomad, Terraform, modules of NixOS,
devcontainer.json, task definitions, Chef, Puppet, Salt, Ansible, Hiera, CloudFormation.

What such a file defines is not known. That it names the API socket and a port for one container is.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from itertools import islice

MAX_FOUND = 200
"""Mounts of the API socket that are looked at in one file; if there are more, any port counts."""

MAX_BRACES = 20_000
"""Blocks in one file; if there are more, any port counts."""

MAX_BLOCKS = 8
"""Blocks around a mount that may be the definition of the container."""

# Patterns are compiled where they are first used (re caches them): most trees need none.
_FILES = (
    r"(?i:\.(?:hcl|nomad|tf|tofu|nix|json5?|jsonc|jsonnet|libsonnet|toml|rb|pp|sls|py|star|cue|dhall)\Z)")
_YAML = r"(?i:\.e?ya?ml(?:\.\w{1,12})?\Z)"
_YAML_IMAGE = r"(?m:^)[ \t]{0,80}(?:-[ \t]{1,8})?image:[ \t]"
SEPARATOR = r"(?m:^)---"
DIRECTORY = r"(?:/|/(?:var/)?run(?:/podman)?/?)"
_MOUNT = (
    r"(?:docker|podman)\.sock(?![\w-]|\.\w)"
    rf"|[\"']{DIRECTORY}:/"
    rf"|\b(?:src|source)={DIRECTORY}(?=[,\"'])"
    rf"|\b(?:host_path|sourcePath|source)[\"']?\s{{0,8}}[=:]\s{{0,8}}[\"']{DIRECTORY}[\"']")
"""A mount of the API socket, or of a directory with it."""

_EXPRESSION = r"\{\{[^\n{}]{0,80}\}\}"
_WORD = rf"(?:[^\s\"',:{{]|{_EXPRESSION}|\{{){{0,100}}"
_ITEM = r"(?:(?m:^)[ \t]{0,200}-[ \t]{1,8}|[\[,]\s{0,80}|:[ \t]{1,8})[\"']?"
_SOURCE = r"\b(?i:source|src|host_?path|sourcepath|volume)[\"']?:[ \t]{1,8}[\"']?"
_YAML_MOUNT = (
    rf"{_ITEM}{DIRECTORY}:/|{_SOURCE}{DIRECTORY}(?=[\"'\s,}}])|(?P<socket>(?:docker|podman)\.sock\b(?P<is_source>:)?)")
_BEFORE_SOURCE = rf"{_ITEM}{_WORD}\Z"
_BEFORE_OTHERS = rf"(?:{_ITEM}{_EXPRESSION}:/|{_SOURCE}){_WORD}\Z"
"""The same as a value in YAML. `docker run -v ...` in a script is none."""

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
_YAML_PUBLISHES = (
    r"(?i:\b(?:ports|published_ports|publish|published|portMappings|extraPortMappings)[\"']?:"
    r"(?:[ \t]{1,8}(?![~#]|null\b|\[\s{0,8}\]|\{\s{0,8}\}|[\"']{2})\S|\s{1,200}-[ \t]{1,8}\S)"
    r"|\bpublish_all(?:_ports)?[\"']?:[ \t]{1,8}[\"']?(?:true|yes|on)\b"
    r"|\b(?:networks?|network_?mode)[\"']?:\s{1,200}(?:-[ \t]{1,8}|\[[ \t]{0,8})?(?:\{?[ \t]{0,8}name:[ \t]{1,8})?"
    r"[\"']?host\b)")
_YAML_DEFINES = r"(?i:\bimage\b|(?:docker|podman)_container\b|docker_swarm_service\b)"
"""What the block of a container has in YAML."""

_RUNS = (
    r"(?i:\bcontainers?\.(?:run|create)\b|\bservices\.create\b|create_(?:container|service)\b|"
    r"\b(?:docker|podman)\w{0,8}[._]?(?:container|operator|service|run)\b|\bContainer\()")
"""Calls of Python that run containers."""

_LISTENS = r"\b(?:listenOptions|listenStreams|ListenStream)\s{0,8}=[\s\[]"
_STREAM = (
    r"\"(?:[0-9]{1,5}|[^\"/@\s]{1,100}:[0-9]{1,5})\"|\[(?:[^]\"]|\"[^\"]{0,200}\")*?(?<=[\s\[(])(?!lib\b|mk\w)[A-Za-z_][\w.'-]{0,80}(?=[\s\])])")
"""Addresses of docker.socket in a module of NixOS (nixos/modules/virtualisation/docker.nix)."""


def may_define(path: str, text: str) -> bool:
    """Whether a file may define containers. Compose files are read. Any text may have one in YAML: a script that writes
    it, or user data."""
    return "compose" not in path.rpartition("/")[2] and (
        re.search(f"{_FILES}|{_YAML}", path) is not None or re.search(_YAML_IMAGE, text) is not None)


def first_way(path: str, text: str) -> tuple[int, str] | None:
    """Return the offset of the first mount of the API socket in the definition of a container that has a port, or of
    the first TCP address of docker.socket, and what it does; None if there is none. Linear time."""
    for listens in islice(re.finditer(_LISTENS, text), MAX_FOUND) if path.endswith(".nix") else ():
        if re.search(_STREAM, re.split(r"[\];]", text[listens.end():listens.end() + 400], maxsplit=1)[0]) is not None:
            return listens.start(), "names a TCP address for dockerd"
    is_yaml = re.search(_FILES, path) is None
    mounts = [found.end() - 1 for found in islice(re.finditer(_YAML_MOUNT if is_yaml else _MOUNT, text), MAX_FOUND)
              if _is_mount(found, text[max(0, found.start() - 120):found.start()], is_yaml=is_yaml)]
    ports = starts(f"{_YAML_PUBLISHES}|{_PUBLISHES}" if is_yaml else _PUBLISHES, text) if mounts else []
    if not ports:
        return None
    is_whole = len(mounts) == MAX_FOUND or text.count("{") > MAX_BRACES or not (
        is_yaml or path.endswith((".nix", ".tf", ".tofu", ".py")))
    ends, around = ({}, {}) if is_whole else _yaml_blocks(text, mounts) if is_yaml else _blocks(
        text, mounts, "{[(" if path.endswith(".py") else "{")
    # A container of NixOS or of YAML is the innermost block with an image; a resource of Terraform, or a call of
    # Python, is the outermost block. Python may run a container with a mount that is a variable.
    inner = _YAML_DEFINES if is_yaml else "image" if path.endswith(".nix") else ""
    images = starts(inner, text) if inner else []
    # A cluster of k3d has no block of its own.
    separators = starts(SEPARATOR, text) if is_yaml else []
    is_anywhere = is_yaml or (not path.endswith(".py") or re.search(_RUNS, text) is not None)
    for mount in mounts:
        opened = around.get(mount, ())
        start = next((each for each in reversed(opened) if has_any(images, each, ends.get(each))), None) \
            if inner else next(iter(opened), None)
        span = (start, ends.get(start)) if start is not None else document(separators, mount)
        if (start is not None or is_whole or is_anywhere) and has_any(ports, *span):
            return mount, "runs a container with the API socket and a port"
    return None


def _is_mount(found: re.Match[str], before: str, *, is_yaml: bool) -> bool:
    if is_yaml and found["socket"]:
        return re.search(_BEFORE_OTHERS, before) is not None or (
            found["is_source"] is not None and re.search(_BEFORE_SOURCE, before) is not None)
    return re.search(_OF_CLIENT, before) is None


def starts(pattern: str, text: str) -> list[int]:
    return [found.start() for found in re.finditer(pattern, text)]


def document(separators: list[int], place: int) -> tuple[int, int | None]:
    """Where the document of YAML with this place begins and ends."""
    after = bisect_left(separators, place)
    return separators[after - 1] if after else 0, separators[after] if after < len(separators) else None


def has_any(places: list[int], start: int, end: int | None) -> bool:
    """Whether any of the places is in a block."""
    return bisect_left(places, start) < (len(places) if end is None else bisect_left(places, end))


def _yaml_blocks(text: str, mounts: list[int]) -> tuple[dict[int, int], dict[int, tuple[int, ...]]]:
    """Return the same as _blocks for lines of YAML, each of which is a block with the lines that are indented more.
    Items may stand in the column of their key."""
    ends: dict[int, int] = {}
    around: dict[int, tuple[int, ...]] = {}
    opened: list[tuple[int, int]] = []
    todo = list(reversed(mounts))
    for line in re.finditer(r"(?m:^)([ \t]*)(-(?=\s|\Z))?(?=[^\s#]).*", text):
        level = 2 * len(line[1]) + (line[2] is not None)
        while opened and opened[-1][0] >= level:
            ends[opened.pop()[1]] = line.start()
        opened.append((level, line.start()))
        while todo and todo[-1] <= line.end():
            around[todo.pop()] = tuple(start for _, start in opened[-MAX_BLOCKS:])
    return ends, around


def _blocks(text: str, mounts: list[int], marks: str) -> tuple[dict[int, int], dict[int, tuple[int, ...]]]:
    """Return where blocks in these marks end, by their beginnings; and the beginnings of the blocks around each mount:
    the outermost one, and the innermost ones."""
    ends: dict[int, int] = {}
    around: dict[int, tuple[int, ...]] = {}
    opened: list[int] = []
    todo = list(reversed(mounts))
    for brace in re.finditer(r"[][(){}]|\Z" if len(marks) > 1 else r"[{}]|\Z", text):
        while todo and todo[-1] < brace.start():
            around[todo.pop()] = (*opened[:1], *opened[max(1, len(opened) - MAX_BLOCKS):])
        if brace[0] and brace[0] in marks:
            opened.append(brace.start())
        elif brace[0] and opened:
            ends[opened.pop()] = brace.start()
    return ends, around
