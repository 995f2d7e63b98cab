"""The corpus: trees of configuration files with what the real programs of each release do with them.

tests/data/corpus/NN-name/ holds `root/`, the files below `/`, and `expected.json`. A file whose content is `@ca`,
`@cert` or `@key` is a certificate or key that the machine makes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.differential.layout import Layout
from tests.support.vectors import DATA


def roots() -> list[Path]:
    """Return the root directories."""
    return sorted((DATA / "corpus").glob("*/root"))


def expectation(root: Path) -> dict[str, Any]:
    """Return what expected.json holds: {"about": text, "expected": {release: outcome}}."""
    value: dict[str, Any] = json.loads((root.parent / "expected.json").read_text())
    return value


def layout(root: Path) -> Layout:
    """Return the tree as a value. Where it has TCP, dockerd starts all the way, so that TLS can be tried."""
    files, links = {}, {}
    for path in sorted(root.rglob("*")):
        name = f"/{path.relative_to(root)}"
        if path.is_symlink():
            links[name] = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
            files[name] = content.rstrip() if content.startswith(b"@") else content
    text = b"".join(files.values())
    return Layout(files, links, full=b"tcp" in text or b":23" in text or b"=23" in text)
