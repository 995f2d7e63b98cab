"""Names of files that are those that dockerd reads but for a slip. The agent loads this, and no reader of templates."""

from __future__ import annotations

import re


def is_near_daemon_json(name: str) -> bool:
    """Whether the name of a file is daemon.json but for a slip: `deamon.json`, `daemon.jsn`, `daemon.json.txt`.
    `daemon-prod.json` and `daemon.json5` are installed under another name."""
    from difflib import get_close_matches

    letters = re.sub(r"[._-]", "", name.lower()).removesuffix("txt")
    return name != "daemon.json" and letters.isalpha() and not letters.endswith("jsonc") and (
        abs(len(letters) - len("daemonjson")) <= 1 and bool(get_close_matches("daemonjson", [letters], 1, 0.84)))
