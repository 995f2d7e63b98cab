"""Configuration trees from a seed: common configurations, common mistakes, and rare cases.

A tree is determined by (seed, number), on every release, as long as this package stays as it is. It starts as a
distribution's own units. Changes are then applied to it: a drop-in, an environment file, a second socket unit, a link,
a mask; some texts are damaged.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.differential.generate.links import Links
from tests.differential.layout import Layout

CHANGES: dict[Callable[[Links], None], float] = {
    Links.drop_in: 34, Links.own_fragment: 12, Links.mask: 7, Links.add_links: 9, Links.socket_drop_in: 10,
    Links.socket_fragment: 4, Links.second_socket: 6, Links.daemon_json: 22, Links.environment_file_story: 10,
    Links.move_hosts: 3, Links.rootless: 2, Links.by_another_program: 5,
}
"""The changes and their weights."""


def generate(seed: int, number: int) -> Layout:
    """Return the tree of (seed, number)."""
    made = Links(seed, number)
    made.base()
    for _ in range(made.random.choices((1, 2, 3, 4, 6), (26, 32, 24, 12, 6))[0]):
        made.random.choices(list(CHANGES), list(CHANGES.values()))[0](made)
    return made.layout()
