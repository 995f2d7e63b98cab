"""Limits of the configuration that is read, so that any input is judged in bounded time and memory."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """What read() accepts of one file and of a whole tree, so that any input is judged in bounded time and memory.

    `words` are separated by white space. `marks` are characters that are not letters, digits or one of `-_./:=#`: the
    parsers do something for each of them. No file that a person or a program writes for dockerd comes near a limit.
    """

    file_bytes: int = 1024 * 1024
    tree_bytes: int = 16 * 1024 * 1024
    tree_files: int = 5_000
    lines: int = 5_000
    words: int = 10_000
    marks: int = 50_000

    def excess(self, data: bytes) -> str | None:
        """Return why a file of these bytes is not read, as the end of a sentence; None if it is."""
        if len(data) > self.file_bytes:
            return f"is larger than {self.file_bytes >> 20} MiB"
        if len(data) <= min(self.lines, self.words, self.marks):
            return None
        if data.count(b"\n") + data.count(b"\r") + data.count(b"\0") > self.lines:
            return f"has more than {self.lines:,} lines"
        if len(data.split(None, self.words)) > self.words:
            return f"has more than {self.words:,} words"
        if len(data.translate(None, _ORDINARY)) > self.marks:
            return f"has more than {self.marks:,} special characters"
        return None


_ORDINARY = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=#"

LIMITS = Limits()

NO_LIMITS = Limits(*[1 << 40] * 6)
