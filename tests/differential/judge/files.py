"""The files of a layout, written into the machine."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from tests.differential.judge.machine import REAL, STAGED


def put(layout: dict[str, Any], made: list[str], below: tuple[str, ...] | None = None) -> None:
    """Write the layout, or its part below some directories. Append the created paths to `made`, in order."""

    def directory(path: str) -> None:
        missing = []
        while path and not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for each in reversed(missing):
            os.mkdir(each)
            made.append(each)

    def wanted(path: str) -> bool:
        return below is None or path.startswith(tuple(each + "/" for each in below))

    for path in layout["directories"]:
        if wanted(path):
            directory(path)
    for path, content in layout["files"].items():
        if wanted(path):
            directory(os.path.dirname(path))
            with open(path, "wb") as file:
                file.write(content_of(base64.b64decode(content)))
            made.append(path)
    for path, target in layout["links"].items():
        if wanted(path):
            directory(os.path.dirname(path))
            os.symlink(target, path)
            made.append(path)


def content_of(content: bytes) -> bytes:
    """Return a file's content. `@ca`, `@cert` and `@key` are replaced by the machine's own."""
    if content in (b"@ca", b"@cert", b"@key"):
        return Path(REAL, content[1:].decode() + ".pem").read_bytes()
    return content


def staged(layout: dict[str, Any]) -> dict[str, Any]:
    """Return the layout with files of generator directories moved to where GENERATOR copies them from."""
    def where(path: str) -> str:
        return STAGED + path.removeprefix("/run/systemd") if path.startswith("/run/systemd/generator") else path

    return {**layout, "directories": [where(path) for path in layout["directories"]],
            "files": {where(path): content for path, content in layout["files"].items()},
            "links": {where(path): target for path, target in layout["links"].items()}}
