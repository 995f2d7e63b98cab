"""Docker Engine versions, in the formats of `dockerd --version` and of distribution packages."""

from __future__ import annotations

import re
from typing import NamedTuple

_NUMBERS = r"(?:[0-9]+:)?([0-9]+)\.([0-9]+)(?:\.([0-9]+))?"


class Version(NamedTuple):
    """A release of the engine. Compares in release order."""

    major: int
    minor: int = 0
    patch: int = 0

    def __str__(self) -> str:
        return f"{self.major}.{self.minor:02d}.{self.patch}" if self.major in (17, 18, 19) \
            else f"{self.major}.{self.minor}.{self.patch}"

    @classmethod
    def parse(cls, text: str) -> Version:
        """Parse `20.10.24+dfsg1`, `5:28.5.2-1~debian.12~bookworm`, `28.5.2-ce`. Raises ValueError."""
        found = re.match(_NUMBERS, text.strip().removeprefix("docker-").removeprefix("v"))
        if found is None:
            raise ValueError(f"not a Docker Engine version: {text!r}")
        major, minor, patch = found.groups(default="0")
        return cls(int(major), int(minor), int(patch))


NEWEST_DOCKERD = Version(29, 7, 2)
"""The newest release that is implemented here."""

OLDEST_TESTED = Version(20, 10, 24)
"""The oldest release that was tested. If the release is unknown, settings are refused only if it refuses them, too."""
