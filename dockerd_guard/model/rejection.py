"""A TCP address to block at the network. No I/O."""

from __future__ import annotations

from typing import NamedTuple


class Rejection(NamedTuple):
    """A TCP address to block, as shown by the kernel. `spared` are IP addresses on which its port stays open.
    `is_published`: Docker forwards its traffic to a container, so it is blocked before its destination is changed."""

    address: str
    spared: tuple[str, ...] = ()
    is_published: bool = False
