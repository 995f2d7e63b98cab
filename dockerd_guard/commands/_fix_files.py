"""`lint --fix`: edits of given files that cannot open, close or move a socket that works today."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterable
from typing import NamedTuple

from dockerd_guard.model.finding import Finding

_FIXABLE = ("DG106", "DG204", "DG501")
_SETTINGS = ("DG106", "DG204")
"""Rules about settings of units."""

_DRAFT = ".dockerd-guard-new"
_UNUSED_COMMENT = re.compile(r"this comment ignores (DG[0-9]{3}), which is not reported here")
_OTHER_LINE_END = re.compile(r"\r(?!\n)|\0")
_EXEC_START = re.compile(r"[ \t]*ExecStart[ \t]*=[ \t]*\S")
_OPENS = re.compile(r"\$|(?<![\w-])(?:-[A-Za-z]{0,8}?H|--host\b)[ \t=\"']*+(?!fd:|unix:)|tcp:")
"""What may open a TCP socket in a command: a host that is none of systemd and no path, or the value of a variable."""
_SETTING = re.compile(r"[ \t]*[A-Za-z]+[ \t]*=")
_LISTEN = re.compile(r"([ \t]*)Listen[A-Za-z]+[ \t]*=")
_SOCKET_MODE = re.compile(r"([ \t]*SocketMode[ \t]*=[ \t]*)[0-7]+([ \t]*)\Z")


class Edited(NamedTuple):
    """A file before and after. Lines keep their ends."""

    file: str
    before: str
    after: str

    def diff(self) -> str:
        """The change as a unified diff."""
        import difflib

        # str.splitlines() divides at carriage returns and form feeds too, which patch(1) does not.
        before, after = (re.findall("[^\n]*\n|[^\n]+", text) for text in (self.before, self.after))
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
                       for line in difflib.unified_diff(before, after, f"a/{self.file}", f"b/{self.file}"))


class Fixed(NamedTuple):
    """The findings, those that an edit resolves with fix=safe; the edits; and why files are not edited."""

    findings: tuple[Finding, ...]
    edits: tuple[Edited, ...] = ()
    refusals: tuple[str, ...] = ()


def fixed(findings: Iterable[Finding], read: Callable[[str], bytes], is_given: Callable[[str], bool]) -> Fixed:
    """Return what an edit resolves. Files that only units of given files refer to are not edited."""
    lines: dict[str, list[str]] = {}
    refusals: dict[str, str] = {}
    marked: list[Finding] = []
    # From the end of each file, so that the line numbers before stay.
    for finding in sorted(findings, key=lambda finding: finding.order, reverse=True):
        where = finding.location
        resolved = False
        if where is not None and where.line and finding.code in _FIXABLE:
            if where.file not in lines:
                lines[where.file] = []
                with contextlib.suppress(OSError):
                    text = read(where.file).decode("utf-8", "surrogateescape")
                    lines[where.file] = text.split("\n")
                    if (why := _refusal(where.file, text) if is_given(where.file) else "it is no argument") is not None:
                        refusals[where.file] = why
            if where.file not in refusals and where.line <= len(lines[where.file]):
                resolved = _edit(finding, lines[where.file], where.line - 1)
                if not resolved and finding.code in _SETTINGS and _SETTING.match(
                        lines[where.file][where.line - 1]) is None:
                    refusals[where.file] = "the text of the unit in it is quoted or encoded"
                elif not resolved and finding.code == "DG204":
                    refusals[where.file] = (
                        "its ExecStart= may open a TCP socket, which systemd refuses as it is"
                        if _OPENS.search(_command(lines[where.file], where.line - 1)) is not None
                        else "it has several ExecStart=, and which one is meant is not known")
        marked.append(finding._replace(fix="safe" if resolved else None))
    edits = []
    for file, content in sorted((file, content) for file, content in lines.items() if content):
        before, after = read(file).decode("utf-8", "surrogateescape"), "\n".join(content)
        if before != after:
            edits.append(Edited(file, before, after))
    return Fixed(tuple(sorted(marked, key=lambda finding: finding.order)), tuple(edits),
                 tuple(f"{file}: not edited: {why}" for file, why in sorted(refusals.items())))


def _refusal(file: str, text: str) -> str | None:
    """Why a file is not edited, as far as that can be seen before."""
    if _OTHER_LINE_END.search(text) is not None:
        # Their numbers are not those of systemd.
        return "it has lines that end in a lone carriage return or NUL"
    path = os.path.realpath(file)
    if os.stat(path).st_nlink > 1:
        return "it has another hard link, which would keep the old text"
    if os.path.lexists(f"{path}{_DRAFT}"):
        return f"{path}{_DRAFT} exists, of an edit that did not end; remove it"
    return None if os.access(os.path.dirname(path), os.W_OK) else "its directory is not writable"


def _edit(finding: Finding, lines: list[str], index: int) -> bool:
    """Edit the line of a finding. Returns whether this resolves it."""
    line = lines[index].removesuffix("\r")
    end = lines[index][len(line):]
    if finding.code == "DG204":
        # Of several commands in one file, which one is meant is not known.
        if sum(_EXEC_START.match(other) is not None for other in lines) != 1 or not _EXEC_START.match(line) or (
                _OPENS.search(_command(lines, index)) is not None):
            return False
        indent = line[:len(line) - len(line.lstrip())]
        lines.insert(index, f"{indent}ExecStart={end}")
        return True
    if finding.code == "DG106":
        return _edit_mode(finding, lines, index)
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


def _edit_mode(finding: Finding, lines: list[str], index: int) -> bool:
    """Change SocketMode=, or put it before the ListenStream= of a unit that has none."""
    line = lines[index].removesuffix("\r")
    end = lines[index][len(line):]
    if (mode := _SOCKET_MODE.match(line)) is not None:
        lines[index] = f"{mode[1]}0660{mode[2]}{end}"
        return True
    listen = _LISTEN.match(line) if "has no SocketMode=" in finding.message else None
    if listen is None or lines[index - 1].rstrip("\r").endswith("\\"):
        return False
    lines.insert(index, f"{listen[1]}SocketMode=0660{end}")
    return True


def _command(lines: list[str], index: int) -> str:
    """A setting with the lines that continue it."""
    end = index
    while end + 1 < len(lines) and lines[end].rstrip("\r").endswith("\\"):
        end += 1
    return "\n".join(lines[index:end + 1])


def write(edits: Iterable[Edited]) -> tuple[list[str], list[str]]:
    """Replace the files, with their owner and mode; through a symbolic link its target. Returns the files that were
    replaced, and why others were not."""
    written, refusals = [], []
    for edit in edits:
        try:
            _replace(os.path.realpath(edit.file), edit)
            written.append(edit.file)
        except OSError as error:
            refusals.append(f"{edit.file}: not edited: {error.strerror or error}")
    return written, refusals


def _replace(path: str, edit: Edited) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or file.read() != edit.before.encode("utf-8", "surrogateescape"):
            raise OSError(0, "it has changed since it was read")
    if (why := _refusal(path, edit.before)) is not None:
        raise OSError(0, why)
    draft = f"{path}{_DRAFT}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(edit.after.encode("utf-8", "surrogateescape"))
            file.flush()
            created = os.fstat(fd)
            if (created.st_uid, created.st_gid) != (status.st_uid, status.st_gid):
                os.fchown(fd, status.st_uid, status.st_gid)
            os.fchmod(fd, status.st_mode & 0o7777)
            os.fsync(fd)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
