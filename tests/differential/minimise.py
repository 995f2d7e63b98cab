"""Reduce a layout to what a mismatch needs: remove files, then lines, then words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from tests.differential.bench import Bench, Verdict
from tests.differential.layout import Layout


def minimise(bench: Bench, verdict: Verdict) -> Verdict:
    """Return the smallest verdict found whose first mismatch is of the same kind."""
    for smaller in (_without_a_file, _without_lines, _without_a_word):
        verdict = _exhaust(bench, verdict, smaller)
    return verdict


def _exhaust(bench: Bench, verdict: Verdict, smaller: Callable[[Layout], Iterator[Layout]]) -> Verdict:
    kind = verdict.mismatches[0].what
    at = 0
    # A part that could not be removed is not tried again: one pass, in time linear in the layout.
    while (candidate := next(islice(smaller(verdict.layout), at, None), None)) is not None:
        (found,) = bench.judge([(verdict.number, candidate)])
        if found.mismatches and found.mismatches[0].what == kind:
            verdict = found
        else:
            at += 1
    return verdict


def _without_a_file(layout: Layout) -> Iterator[Layout]:
    for path in layout.files:
        yield layout._replace(files={other: content for other, content in layout.files.items() if other != path})
    for path in layout.links:
        yield layout._replace(links={other: target for other, target in layout.links.items() if other != path})


def _without_lines(layout: Layout) -> Iterator[Layout]:
    for path, content in layout.files.items():
        lines = content.split(b"\n")
        for count in (len(lines) // 2, len(lines) // 4, 2, 1):
            for at in range(0, len(lines), count) if count else ():
                yield _with(layout, path, b"\n".join(lines[:at] + lines[at + count:]))


def _without_a_word(layout: Layout) -> Iterator[Layout]:
    for path, content in layout.files.items():
        lines = content.split(b"\n")
        for at, line in enumerate(lines):
            words = line.split(b" ")
            for word in range(len(words)) if 1 < len(words) < 100 else ():
                shorter = b" ".join(words[:word] + words[word + 1:])
                yield _with(layout, path, b"\n".join([*lines[:at], shorter, *lines[at + 1:]]))


def _with(layout: Layout, path: str, content: bytes) -> Layout:
    return layout._replace(files={**layout.files, path: content})
