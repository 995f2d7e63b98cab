"""Lists of Compose files in commands of scripts and Makefiles: `docker compose -f A -f B`, COMPOSE_FILE=A:B, and
`docker stack deploy -c A -c B`.

Such files are merged, and no others are (docs.docker.com/reference/cli/docker/compose).
"""

from __future__ import annotations

import re

MAX_LISTS = 50
"""Lists in one text."""

_END = re.compile(r"[;|&]|(?<!\\)\n")
"""The end of a command."""

_FILE = re.compile(
    r"(?<!\S)(?:-f|--file|-c|--compose-file)(?:[ \t]{1,8}|=)[\"']?(?P<file>[^\s\"'=]{1,300}\.ya?ml)(?=[\s\"']|\Z)"
    r"|\bCOMPOSE_FILE(?:[ \t]{0,8}[:?]?=[ \t]{0,8}|:[ \t]{1,8})[\"']?(?P<files>[^\s\"']{1,2000})")
_DIRECTORY = re.compile(r"\A(?:(?:\$\([^)]{1,80}\)|\$\{[^}]{1,80}\}|\$\w{1,80}|\.)/)+")
"""A directory that is a variable, as that of the script."""


def file_lists(text: str) -> tuple[tuple[str, ...], ...]:
    """Return the lists of files that commands in a text name, each once. Linear time."""
    if ".y" not in text and "COMPOSE_FILE" not in text:
        return ()
    found: dict[tuple[str, ...], None] = {}
    files, position = list[str](), 0
    for each in _FILE.finditer(text):
        if _END.search(text, position, each.start()) is not None:
            found[tuple(files)] = None
            files = []
        files += (_DIRECTORY.sub("", file) for file in (each["file"] or each["files"]).split(":") if file)
        position = each.end()
        if len(found) > MAX_LISTS:
            break
    found[tuple(files)] = None
    return tuple(filter(None, found))
