"""A tree of configuration files as a value: written below a root, sent to a machine, printed."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, NamedTuple


class Layout(NamedTuple):
    """Files (path: content), links (path: target) and directories, all by absolute path.

    With `full`, dockerd starts completely, so that TLS can be probed. A file whose content is `@ca`, `@cert` or `@key`
    is a certificate or key that the machine makes.
    """

    files: dict[str, bytes]
    links: dict[str, str]
    directories: tuple[str, ...] = ()
    full: bool = False

    def write(self, root: Path) -> None:
        """Write the tree below a directory."""
        for path in self.directories:
            (root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        for path, content in self.files.items():
            place = root / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        for path, target in self.links.items():
            place = root / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(target)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that the judge reads."""
        return {"files": {path: base64.b64encode(content).decode() for path, content in self.files.items()},
                "links": self.links, "directories": list(self.directories), "full": self.full}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Layout:
        return cls({path: base64.b64decode(content) for path, content in value["files"].items()},
                   value["links"], tuple(value["directories"]), value["full"])

    def __str__(self) -> str:
        """Return the tree as text. Characters that cannot be printed are escaped."""
        lines = []
        for path, content in sorted(self.files.items()):
            lines.append(f"=== {path}")
            lines += [_shown(line) for line in content.split(b"\n")] if content else ["(empty)"]
        lines += [f"=== {path} -> {target}" for path, target in sorted(self.links.items())]
        lines += [f"=== {path}/" for path in self.directories]
        return "\n".join(lines)


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", "surrogateescape")
    if len(text) > 2000:
        text = f"{text[:60]}[... {len(text)} characters ...]{text[-60:]}"
    return "".join(map(_shown_character, text))


def _shown_character(each: str) -> str:
    if "\udc80" <= each <= "\udcff":
        return f"<{ord(each) & 0xFF:02X}>"
    return each if each == "\t" or each.isprintable() else f"<{ord(each):02X}>"
