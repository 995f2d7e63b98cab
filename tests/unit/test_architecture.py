"""docs/architecture.md: the generated parts are current, and the table of packages is complete."""

from __future__ import annotations

import re

from tests import structure
from tests.docs import TOP

PAGE = (TOP / "docs/architecture.md").read_text()


def test_the_picture_of_the_packages_is_current() -> None:
    shown = re.search(r"^<!-- rooms: .* -->\n(.*?)\n<!-- end rooms -->$", PAGE, re.MULTILINE | re.DOTALL)
    assert shown is not None
    assert shown[1] == structure.picture(TOP), "replace it by the output of `python3 -m tests.structure --picture`"


def test_the_table_lists_the_packages_from_bottom_to_top() -> None:
    section = PAGE.partition("\n## The packages\n")[2].partition("<!--")[0]
    rows = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", section, re.MULTILINE)
    assert (*rows, "__main__") == structure.ROOMS
