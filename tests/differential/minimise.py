"""Leave out of a layout all that a mismatch does not need: files, then lines, then words."""

from __future__ import annotations

from collections.abc import Iterator

from tests.differential.bench import Bench, Verdict
from tests.differential.layout import Layout

MAX_ROUNDS = 30


def minimise(bench: Bench, verdict: Verdict) -> Verdict:
    """Give the smallest verdict found whose first mismatch is of the same kind."""
    kind = verdict.mismatches[0].what
    for _ in range(MAX_ROUNDS):
        candidates = list(enumerate(_smaller(verdict.layout)))
        good = [each for each in bench.judge(candidates) if each.mismatches and each.mismatches[0].what == kind]
        if not good:
            return verdict
        verdict = min(good, key=lambda each: _size(each.layout))
    return verdict


def _size(layout: Layout) -> int:
    return sum(len(path) + len(content) for path, content in layout.files.items()) + 50 * len(layout.links)


def _smaller(layout: Layout) -> Iterator[Layout]:
    for path in layout.files:
        yield layout._replace(files={other: content for other,
                                     content in layout.files.items() if other != path})
    for path in layout.links:
        yield layout._replace(links={other: target for other,
                                     target in layout.links.items() if other != path})
    for path, content in layout.files.items():
        lines = content.split(b"\n")
        for at in range(len(lines)):
            yield _with(layout, path, b"\n".join(lines[:at] + lines[at + 1:]))
        if len(lines) > 6:
            for at in range(0, len(lines), 3):
                yield _with(layout, path, b"\n".join(lines[:at] + lines[at + 3:]))
        if len(content) < 2000:
            for at, line in enumerate(lines):
                words = line.split(b" ")
                for word in range(len(words)) if len(words) > 1 else ():
                    shorter = b" ".join(words[:word] + words[word + 1:])
                    yield _with(layout, path, b"\n".join([*lines[:at], shorter, *lines[at + 1:]]))


def _with(layout: Layout, path: str, content: bytes) -> Layout:
    return layout._replace(files={**layout.files, path: content})
