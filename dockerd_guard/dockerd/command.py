"""Which words of a command line are dockerd's own options, and whether it is dockerd at all."""

from __future__ import annotations

import re
from typing import NamedTuple


class Program(NamedTuple):
    """`first` is the index in argv of dockerd's first own word; `reason` why no daemon comes of it."""

    first: int
    certain: bool = True
    reason: str | None = None


_DAEMON = re.compile(r"dockerd(-current|-latest|-ce|-rootless\.sh)?")
_CLIENT = re.compile(r"docker(-current|-latest)?")


def program_of(argv: tuple[str, ...]) -> Program:
    """Look at argv, argv[0] included."""
    name = argv[0].rpartition("/")[2] if argv else ""
    if _DAEMON.fullmatch(name):
        return Program(1)
    if _CLIENT.fullmatch(name):
        if len(argv) > 1 and argv[1] in ("daemon", "-d", "--daemon"):
            return Program(2)
        return Program(len(argv), True, "the docker client without a daemon sub-command starts no daemon")
    return Program(len(argv), False)
