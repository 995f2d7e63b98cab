"""Docker Engine versions, as `dockerd --version` and the distributions' packages write them."""

from __future__ import annotations

import re
from typing import NamedTuple

_NUMBERS = r"(?:[0-9]+:)?([0-9]+)\.([0-9]+)(?:\.([0-9]+))?"


class Version(NamedTuple):
    """A release of the engine; compares in release order."""

    major: int
    minor: int = 0
    patch: int = 0

    def __str__(self) -> str:
        return f"{self.major}.{self.minor:02d}.{self.patch}" if self.major in (17, 18, 19) \
            else f"{self.major}.{self.minor}.{self.patch}"

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read `20.10.24+dfsg1`, `5:28.5.2-1~debian.12~bookworm`, `28.5.2-ce`; raises ValueError."""
        found = re.match(_NUMBERS, text.strip().removeprefix("docker-").removeprefix("v"))
        if found is None:
            raise ValueError(f"not a Docker Engine version: {text!r}")
        major, minor, patch = found.groups(default="0")
        return cls(int(major), int(minor), int(patch))


NEWEST = Version(29, 7, 2)
"""The newest release whose reading of its options is known here."""

OLD = Version(20, 10, 24)
"""The release asked for a second opinion where nobody knows which one it is."""
