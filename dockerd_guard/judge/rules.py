"""All rules, and their pages."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from dockerd_guard.judge import (
    dg101,
    dg102,
    dg103,
    dg104,
    dg105,
    dg106,
    dg107,
    dg201,
    dg202,
    dg203,
    dg204,
    dg205,
    dg206,
    dg207,
    dg208,
    dg301,
    dg302,
    dg303,
    dg304,
    dg305,
    dg306,
    dg307,
    dg308,
    dg309,
    dg401,
    dg402,
)

if TYPE_CHECKING:
    from dockerd_guard.judge.finding import Finding
    from dockerd_guard.observe.observation import Observation
    from dockerd_guard.policy import Policy


class Rule(Protocol):
    """What a rule's module holds."""

    __name__: str
    TITLE: str

    def check(self, seen: Observation, policy: Policy | None) -> Iterable[Finding]:
        """All that this rule finds; without a policy, what needs none."""


RULES: tuple[Rule, ...] = (
    dg101,
    dg102,
    dg103,
    dg104,
    dg105,
    dg106,
    dg107,
    dg201,
    dg202,
    dg203,
    dg204,
    dg205,
    dg206,
    dg207,
    dg208,
    dg301,
    dg302,
    dg303,
    dg304,
    dg305,
    dg306,
    dg307,
    dg308,
    dg309,
    dg401,
    dg402,
)
"""In the order of their codes. DG501, about waivers, looks at what these have found."""

TITLES = {
    **{rule.__name__.rpartition(".")[2].upper(): rule.TITLE for rule in RULES},
    "DG501": "a waiver that is expired or matches nothing",
}
"""Every code there is, and what it says. A code is never reused."""


def page(code: str) -> str:
    """The documentation of a rule, in Markdown; raises KeyError for no such code."""
    TITLES[code]
    with open(f"{os.path.dirname(__file__)}/{code.lower()}.md", encoding="utf-8") as file:
        return file.read()
