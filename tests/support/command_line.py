"""The command line, called in this process or as the package installed it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
IS_INSTALLED = not (REPOSITORY / "dockerd_guard").exists()
"""Without the source next to them, these tests run the installed package (tests/system/test_installed.py)."""

PROGRAM = ["/usr/bin/dockerd-guard"] if IS_INSTALLED else [sys.executable, "-m", "dockerd_guard"]


class Said:
    """The result of a command line."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Said]


def run(*words: object, **settings: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*PROGRAM, *map(str, words)], cwd=REPOSITORY,
                          timeout=60, capture_output=True, check=False, **settings)
