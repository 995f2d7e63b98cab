"""Lists of Compose files in commands of scripts and Makefiles: `docker compose -f A -f B`, COMPOSE_FILE=A:B, and
`docker stack deploy -c A -c B`.

Such files are merged, and no others are (docs.docker.com/reference/cli/docker/compose).
"""

from __future__ import annotations

import re

MAX_LISTS = 50
"""Lists in one text."""

_COMMAND = re.compile(r"(?:[^\n;|&\\]|\\\n?){0,8000}+")
_FILE = re.compile(
    r"(?<!\S)(?:-f|--file|-c|--compose-file)(?:[ \t]{1,8}|=)[\"']?(?P<file>[^\s\"'=]{1,300}\.ya?ml)(?=[\s\"']|\Z)"
    r"|\bCOMPOSE_FILE(?:[ \t]{0,8}[:?]?=[ \t]{0,8}|:[ \t]{1,8})[\"']?(?P<files>[^\s\"']{1,2000})")
_DIRECTORY = re.compile(r"\A(?:(?:\$\([^)]{1,80}\)|\$\{[^}]{1,80}\}|\$\w{1,80}|\.)/)+")
"""A directory that is a variable, as that of the script."""


def file_lists(text: str) -> tuple[tuple[str, ...], ...]:
    """Return the lists of files that commands in a text name, each once. Linear time."""
    found: dict[tuple[str, ...], None] = {}
    position = 0
    while position < len(text) and len(found) < MAX_LISTS:
        command = _COMMAND.match(text, position)
        position = max(command.end() if command is not None else 0, position + 1)
        files: list[str] = []
        for each in _FILE.finditer(command[0] if command is not None else ""):
            files += [each["file"]] if each["file"] else filter(None, each["files"].split(":"))
        if files:
            found[tuple(_DIRECTORY.sub("", file) for file in files)] = None
    return tuple(found)
