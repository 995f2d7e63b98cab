"""Places (FILE:LINE:COLUMN) in the output of `lint`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_PLACE = re.compile(r"(?:^|[\s('\"])([^\s('\":]*[^\s('\":0-9.][^\s('\":]*):([0-9]+)(?::([0-9]+))?(?=[\s:;,).'\"]|$)",
                    re.MULTILINE)


def wrong_places(text: str, top: Path) -> Iterator[str]:
    """Yield the places in a text whose file is not below `top`, or has no such line."""
    for found in _PLACE.finditer(text):
        file = found[1]
        if "//" in file or "=" in file or file.startswith("[") or not ("/" in file or "." in file):
            continue
        # A path is below the root, or it is one of this machine. Absolute links are those of the root.
        paths = top / file.lstrip("/"), Path(file)
        path = next((path for path in paths if path.is_symlink() or path.is_file()), None)
        if path is not None and path.is_symlink() and path.readlink().is_absolute():
            path = top / str(path.readlink()).lstrip("/")
        if path is None:
            yield found[0].strip()
            continue
        lines = path.read_bytes().decode("utf-8", "replace").split("\n")
        line, column = int(found[2]), int(found[3] or 1)
        if line > len(lines) or column > len(lines[line - 1]) + 1:
            yield found[0].strip()
