"""Expected output in files beside its input. `python3 -m tests.data.renew lint` renews them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.support.vectors import DATA

IS_RENEWED = os.environ.get("DOCKERD_GUARD_RENEW") == "1"


def check(text: str, name: str) -> None:
    """Check that the text is what the file of this name below tests/data holds."""
    path: Path = DATA / name
    if IS_RENEWED:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"{name} differs: `python3 -m tests.data.renew lint` renews it"


def check_json(value: Any, name: str) -> None:
    """The same for JSON, on several lines."""
    check(json.dumps(value, indent=1, ensure_ascii=False) + "\n", name)
