"""Text output: bindings as a table, findings with the source line and a caret.

Text from a host's files is sanitized: no control, formatting or lone combining characters reach the terminal.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, TextIO

from dockerd_guard.model.finding import SEVERITIES
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import LAYERS
from dockerd_guard.rootfs import Unreadable
from dockerd_guard.systemd.syntax import lines_of

if TYPE_CHECKING:
    from dockerd_guard.model.address import Binding
    from dockerd_guard.model.finding import Finding
    from dockerd_guard.observe.observation import Layer, Observation
    from dockerd_guard.report.lint_result import Read

MAX_LINE_CELLS = 150
"""A longer source line is shortened to the part around the finding."""

TAB_CELLS = 4

_PLAIN = re.compile(r"[ -~]*\Z")
_CI_COMMAND = re.compile(
    r"(?<=#)#(?=[A-Za-z]{0,16}\[)|(?:\A|(?<=[\r\v\f\x85\u2028\u2029]))(\s{0,80}):(?=:[A-Za-z-]{1,40}(?:\s|::))")

_COLOURS = {"error": "1;31", "warning": "1;33", "info": "1;36"}


def wants_colour(stream: TextIO, when: str = "auto") -> bool:
    """Whether to use colour. `auto`: on a terminal, unless NO_COLOR is set (no-color.org)."""
    if when != "auto":
        return when == "always"
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def clean(text: str) -> str:
    """Text for one line of a terminal; control and formatting characters become U+FFFD."""
    return defused(text if _PLAIN.match(text) else "".join(shown for shown, _ in _cells(text)))


def defused(text: str) -> str:
    """A line that no CI system reads as a command: GitHub's runner looks for `::` at the start of a line and for
    `##[` anywhere in it; a carriage return ends a line too. Azure Pipelines for `##vso[`. The length is the same."""
    if "##" not in text and "::" not in text:
        return text
    return _CI_COMMAND.sub(lambda found: f"{found[1] or ''}\N{REPLACEMENT CHARACTER}", text)


def sockets(seen: Observation, *, verbose: bool = False) -> Iterator[str]:
    """The bindings of each layer, with the lines that configure them; if `verbose`, with the evidence for those of the
    running dockerd."""
    configured = seen.configured
    dockerd = f"dockerd {configured.dockerd_version}"
    if not configured.is_dockerd_known:
        dockerd = f"dockerd of unknown version, read as {configured.dockerd_version}"
    versions = f"{configured.service.unit.name}, systemd {configured.systemd_version}, {dockerd}"
    known = {layer.name: layer for layer in seen.layers}
    for name in LAYERS:
        layer = known.get(name)
        if layer is None:
            continue
        note = f" ({versions})" if layer is configured.layer else ""
        yield f"{name}{note}: {clean(_state(layer))}".rstrip(" ")
        yield from _table([_row(binding, verbose=verbose) for binding in layer.bindings])
    for process, bindings, *_ in seen.others:
        by = f" of {process.unit}" if process.unit else ""
        yield clean(f"another dockerd{by} (pid {process.pid}):") + ("" if bindings else " nothing")
        yield from _table([_row(binding, verbose=verbose) for binding in bindings])


def _state(layer: Layer) -> str:
    if not layer.starts:
        return f"does not start, {layer.refused_by} refuses: {layer.reason}"
    if layer.reason:
        return layer.reason
    return "" if layer.bindings else "nothing"


def _row(binding: Binding, *, verbose: bool) -> tuple[str, ...]:
    tls = f"tls {binding.tls}" if binding.is_tcp else "-"
    namespace = f"in the network namespace {binding.namespace}" if binding.namespace else ""
    row = binding.address, binding.scope, tls, binding.via, _place(binding.source), namespace
    return (*row, *_evidence(binding)) if verbose else row


def _evidence(binding: Binding) -> tuple[str, str]:
    """What the address and the TLS rest on; of a layer that describes files, nothing."""
    if binding.evidence is None:
        return "", ""
    tls = f"tls by {binding.tls_evidence or 'nothing: it counts as none'}" if binding.is_tcp else ""
    return f"by {binding.evidence}", tls


def _place(location: Location | None) -> str:
    return f"{location.file}:{location.line}" if location is not None and location.line else ""


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    cleaned = [tuple(map(clean, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cleaned, strict=True)]
    for row in cleaned:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield ("  " + "  ".join(cells)).rstrip()


def findings(found: Iterable[Finding], read: Read, *, colour: bool, columns: int | None = None) -> Iterator[str]:
    """Each finding as FILE:LINE:COLUMN: severity: message [CODE], with the source line and a caret.

    `columns` is the width of the terminal; None: long lines are not broken.
    """
    lines = Lines(read)
    for finding in found:
        where = finding.location
        place = clean(f"{where}: ") if where is not None else ""
        severity = f"{finding.severity}:"
        shown = folded(f"{place}{severity} {clean(finding.message)} [{finding.code}]", columns, then="  ")
        for number, words in enumerate(shown):
            if number == 0 and words.startswith(f"{place}{severity}"):
                shown_severity = painted(severity, _COLOURS[finding.severity], colour)
                yield f"{painted(place, '1', colour)}{shown_severity}{words.removeprefix(f'{place}{severity}')}"
            else:
                yield words
        line = lines.at(where) if where is not None else None
        # A finding about a whole file has no excerpt.
        if where is not None and line is not None and (where.line, where.column, where.end_column) != (1, 1, 1):
            number_ = str(where.line)
            room = MAX_LINE_CELLS if columns is None else min(max(columns - len(number_) - 10, 10), MAX_LINE_CELLS)
            source, caret = excerpt(line, where.column, where.end_column, room)
            yield f" {number_} | {source}"
            yield f" {' ' * len(number_)} | {painted(caret, '1;32', colour)}"


def statistics(found: Iterable[Finding], titles: Mapping[str, str]) -> Iterator[str]:
    """The number of findings of each rule, most frequent first."""
    counts: dict[str, int] = {}
    for finding in found:
        counts[finding.code] = counts.get(finding.code, 0) + 1
    for code in sorted(counts, key=lambda code: (-counts[code], code)):
        yield f"{counts[code]:>5}  {code}  {titles[code]}"


def summary(found: tuple[Finding, ...], ignored: int = 0, hidden: int = 0, verb: str = "fix") -> str:
    """The numbers of findings, of those that the verb can fix, and of those ignored by comments or left out."""
    left_out = ", ".join([f"{ignored} ignored by comments"] * bool(ignored)
                         + [f"{hidden} left out by --select or --ignore"] * bool(hidden))
    totals = _totals(found, verb) if found else "no other findings" if left_out else "nothing wrong"
    return f"{totals}; {left_out}" if left_out else totals


def _totals(found: tuple[Finding, ...], verb: str) -> str:
    counts = [(severity, sum(finding.severity == severity for finding in found))
              for severity in SEVERITIES]
    totals = ", ".join(counted(number, severity) for severity, number in counts if number)
    fixable = sum(finding.fix is not None for finding in found)
    if not fixable:
        return totals
    codes = ", ".join(sorted({finding.code for finding in found if finding.fix is not None}))
    totals += f"; {fixable} fixable with `dockerd-guard {verb}` ({codes})"
    notes = {
        "disruptive": "by a restart that stops running containers, because live-restore is off",
        "unsafe": "by changing a file that dockerd-guard does not own",
    }
    for fix, how in notes.items():
        number = sum(finding.fix == fix for finding in found)
        if number:
            totals += f", {number} {how}"
    return totals


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 error`, `2 errors`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def painted(text: str, code: str, colour: bool) -> str:
    """The text in a colour (ECMA-48 SGR), unless it is blank."""
    return f"\033[{code}m{text}\033[0m" if colour and text.strip() else text


def folded(text: str, columns: int | None, *, first: str = "", then: str = "") -> Iterator[str]:
    """The text in lines of `columns`, one line if None. The first line is indented by `first`, others by `then`."""
    if columns is None:
        yield text
    else:
        import textwrap

        yield from textwrap.wrap(text, max(columns, 20), initial_indent=first, subsequent_indent=then,
                                 break_on_hyphens=False)


def stamp(at: datetime, zone: tzinfo | None) -> str:
    """Date and time in this zone, by default local."""
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M:%S}"


class Lines:
    """Lines of files; each file is read and split once."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._files: dict[str, list[str]] = {}

    def at(self, where: Location) -> str | None:
        if where.file not in self._files:
            self._files[where.file] = self._split(where.file)
        lines = self._files[where.file]
        return lines[where.line - 1] if 0 < where.line <= len(lines) else None

    def _split(self, file: str) -> list[str]:
        try:
            text = self._read(file).decode("utf-8", "surrogateescape")
        except (OSError, Unreadable):
            return []
        return lines_of(file, text)


def excerpt(line: str, column: int, end_column: int, room: int = MAX_LINE_CELLS) -> tuple[str, str]:
    """A source line for the terminal, and the caret line below it. A line of more than `room` cells is shortened.

    >>> excerpt("ExecStart=/usr/bin/dockerd -H fd://", 31, 36)
    ('ExecStart=/usr/bin/dockerd -H fd://', '                              ^~~~~')
    """
    # Only the part around the finding is measured: a line may have a megabyte.
    begin = max(0, column - 1 - MAX_LINE_CELLS)
    cells = _cells(line[begin:column - 1 + 2 * MAX_LINE_CELLS])
    first = min(column - 1 - begin, len(cells))
    last = min(max(end_column - 1 - begin, first + 1), len(cells))
    before, words, after = cells[:first], cells[first:last], cells[last:]
    words_width = max(_width(words), 1)
    beside = max(room - words_width, 0)
    kept = _fitting(before[::-1], max(beside // 2, beside - _width(after)))[::-1]
    shown_words = _fitting(words, room)
    rest = _fitting(after, max(0, room - _width(kept) - words_width))
    left = "..." if begin or len(kept) < len(before) else ""
    cut = len(shown_words) < len(words) or len(rest) < len(after) or len(line) > begin + len(cells)
    text = defused("".join(shown for shown, _ in (*kept, *shown_words, *rest)).rstrip())
    caret = " " * (len(left) + _width(kept)) + "^" + "~" * (max(_width(shown_words), 1) - 1)
    return left + text + ("..." if cut else ""), caret


_Cell = tuple[str, int]
"""The replacement for a character, and its width in columns."""


def _fitting(cells: list[_Cell], room: int) -> list[_Cell]:
    taken = 0
    for index, (_, width) in enumerate(cells):
        taken += width
        if taken > room:
            return cells[:index]
    return cells


def _width(cells: Iterable[_Cell]) -> int:
    return sum(width for _, width in cells)


def _cells(line: str) -> list[_Cell]:
    if line.isascii() and line.isprintable():
        return [(char, 1) for char in line]
    cells: list[_Cell] = []
    bare = False  # whether the last cell can take a combining character
    for char in line:
        before, bare = bare, not unicodedata.combining(char) and char.isprintable() and char != " "
        if " " <= char <= "~":
            cells.append((char, 1))
        elif char == "\t":
            cells.append((" " * TAB_CELLS, TAB_CELLS))
        elif unicodedata.combining(char):
            # Stacked combining characters would overlap the lines around.
            cells.append((char, 0) if before else ("\N{REPLACEMENT CHARACTER}", 1))
        elif not char.isprintable() and not char.isspace():
            cells.append(("\N{REPLACEMENT CHARACTER}", 1))
        elif char.isspace():
            cells.append((" ", 1))
        else:
            cells.append((char, 2 if unicodedata.east_asian_width(char) in "WF" else 1))
    return cells
