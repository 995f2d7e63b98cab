"""More vectors and configurations, where they lie beside this checkout (../shared).

The tests need none of them: what they rely on is in tests/data. With DOCKERD_GUARD_SHARED=required, which .ci/run sets
where the directory is there, it is an error when one of them is missing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

SHARED = Path(__file__).parents[2].parent / "shared"
IS_REQUIRED = os.environ.get("DOCKERD_GUARD_SHARED") == "required"
PARTS = ("vectors/systemd.json", "vectors/dockerd.json", "corpus", "cases")

MISSING = tuple(part for part in PARTS if not (SHARED / part).exists())
IS_THERE = not MISSING


def vectors(name: str) -> Any:
    """Return the vectors of a program."""
    return json.loads((SHARED / f"vectors/{name}.json").read_text())


def corpus() -> list[Path]:
    """Return the directories of the published configurations; none where they are not there."""
    return sorted(path.parent for path in (SHARED / "corpus").glob("*/case.json"))
