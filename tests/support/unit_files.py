"""Unit files as values, written below a root or packed for a machine.

UNIT stands for the unit's name without its type.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Link(NamedTuple):
    """A symbolic link and its text."""

    target: str


class Directory(NamedTuple):
    """A directory."""


Content = str | bytes | Link | Directory


def put(root: Path, files: Mapping[str, Content], stem: str) -> None:
    """Write files, with UNIT replaced in names and content."""
    for name, content in files.items():
        path = root / name.lstrip("/").replace("UNIT", stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content.target.replace("UNIT", stem))
        elif isinstance(content, Directory):
            path.mkdir()
        else:
            path.write_bytes(_data(content, stem))


def named(value: Any, stem: str) -> Any:
    """Return the value with UNIT replaced in all texts."""
    if isinstance(value, str):
        return value.replace("UNIT", stem)
    if isinstance(value, list):
        return [named(item, stem) for item in value]
    return {key: named(item, stem) for key, item in value.items()} if isinstance(value, dict) else value


def archive(units: Iterable[tuple[str, Mapping[str, Content]]]) -> bytes:
    """Pack the files of several units, each given by its stem, as a tar archive of `/`."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive_:
        for stem, files in units:
            for path, content in files.items():
                _add(archive_, path.replace("UNIT", stem).lstrip("/"), content, stem)
    return packed.getvalue()


def _add(archive_: tarfile.TarFile, path: str, content: Content, stem: str) -> None:
    member = tarfile.TarInfo(path)
    member.mode = 0o644
    data = b""
    if isinstance(content, Link):
        member.type, member.linkname = tarfile.SYMTYPE, content.target.replace("UNIT", stem)
    elif isinstance(content, Directory):
        member.type, member.mode = tarfile.DIRTYPE, 0o755
    else:
        data = _data(content, stem)
    member.size = len(data)
    archive_.addfile(member, io.BytesIO(data))


def _data(content: str | bytes, stem: str) -> bytes:
    return (content if isinstance(content, bytes) else content.encode()).replace(b"UNIT", stem.encode())
