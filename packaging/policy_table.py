"""Writes the table of keys into docs/policy.md: `policy_table.py` from the top of the checkout, on PYTHONPATH.

The table is the section "Keys", made of dockerd_guard/policy/keys.py. A unit test checks that it is current.
"""

from __future__ import annotations

import re
from pathlib import Path

from dockerd_guard.policy.keys import KEYS
from dockerd_guard.policy.schema import text_of, written

PAGE = Path(__file__).resolve().parents[1] / "docs/policy.md"
SECTION = re.compile(r"(?<=^## Keys\n\n)(\|.*\n)*", re.MULTILINE)


def table() -> str:
    """The keys as a Markdown table."""
    lines = ["| key | default | since | |", "|---|---|---|---|"]
    for key in KEYS:
        default = "required" if key.is_required else f"`{written(key)}`" if key.default is not None else ""
        example = f" Example: `{key.example}`." if key.example else ""
        lines.append(f"| `{key.name}` | {default} | {key.since} | {text_of(key)}{example} |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page with a current table in place of the one below the heading."""
    return SECTION.sub(lambda _: table(), text, count=1)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
