"""`lint --fix`: edits of given files that cannot open, close or move a socket that works today."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from dockerd_guard.commands._common import Unanswerable
from dockerd_guard.model.finding import Finding

_UNUSED_COMMENT = re.compile(r"this comment ignores (DG[0-9]{3}), which is not reported here")
_EXEC_START = re.compile(r"[ \t]*ExecStart[ \t]*=[ \t]*\S")
_SOCKET_MODE = re.compile(r"([ \t]*SocketMode[ \t]*=[ \t]*)[0-7]+([ \t]*)\Z")


class Edited(NamedTuple):
    """A file before and after. Lines keep their ends."""

    file: str
    before: str
    after: str

    def diff(self) -> str:
        """The change as a unified diff."""
        import difflib

        lines = (self.before.splitlines(keepends=True), self.after.splitlines(keepends=True))
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
                       for line in difflib.unified_diff(*lines, f"a/{self.file}", f"b/{self.file}"))


def fixed(findings: Iterable[Finding], read: Callable[[str], bytes]) -> tuple[tuple[Finding, ...], tuple[Edited, ...]]:
    """Return the findings, those that an edit resolves with fix=safe, and the edits."""
    lines: dict[str, list[str]] = {}
    marked: list[Finding] = []
    # From the end of each file, so that the line numbers before stay.
    for finding in sorted(findings, key=lambda finding: finding.order, reverse=True):
        where = finding.location
        resolved = False
        if where is not None and where.line:
            if where.file not in lines:
                with contextlib.suppress(OSError):
                    lines[where.file] = read(where.file).decode("utf-8", "surrogateescape").split("\n")
            if where.line <= len(lines.get(where.file, ())):
                resolved = _edit(finding, lines[where.file], where.line - 1)
        marked.append(finding._replace(fix="safe" if resolved else None))
    edits = []
    for file, content in sorted(lines.items()):
        before, after = read(file).decode("utf-8", "surrogateescape"), "\n".join(content)
        if before != after:
            edits.append(Edited(file, before, after))
    return tuple(sorted(marked, key=lambda finding: finding.order)), tuple(edits)


def _edit(finding: Finding, lines: list[str], index: int) -> bool:
    """Edit the line of a finding. Returns whether this resolves it."""
    line = lines[index].removesuffix("\r")
    end = lines[index][len(line):]
    if finding.code == "DG204":
        # Of several commands in one file, which one is meant is not known.
        if sum(_EXEC_START.match(other) is not None for other in lines) != 1 or not _EXEC_START.match(line):
            return False
        indent = line[:len(line) - len(line.lstrip())]
        lines.insert(index, f"{indent}ExecStart={end}")
        return True
    if finding.code == "DG106" and (mode := _SOCKET_MODE.match(line)) is not None:
        lines[index] = f"{mode[1]}0660{mode[2]}{end}"
        return True
    if finding.code == "DG501" and (unused := _UNUSED_COMMENT.match(finding.message)) is not None:
        head, equals, tail = line.partition("=")
        codes, blank, reason = tail.strip().partition(" ")
        rest = [code for code in codes.split(",") if code.upper().strip(":") != unused[1]]
        if rest == codes.split(",") or not equals:
            return False
        if rest:
            lines[index] = f"{head}={','.join(rest)}{blank}{reason}{end}"
        else:
            del lines[index]
        return True
    return False


def write(edits: Iterable[Edited]) -> None:
    """Replace the files, mode kept; through a symbolic link its target. Raises Unanswerable."""
    for edit in edits:
        path = os.path.realpath(edit.file)
        draft = f"{path}.dockerd-guard-new"
        try:
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with open(fd, "wb") as file:
                    file.write(edit.after.encode("utf-8", "surrogateescape"))
                    os.fchmod(fd, os.stat(path).st_mode & 0o7777)
                os.replace(draft, path)
            except OSError:
                os.unlink(draft)
                raise
        except OSError as error:
            raise Unanswerable(f"{edit.file}: {error.strerror or error}") from None
