"""The verb `sockets`: where the Docker API listens, in each layer, with the configuring lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dockerd_guard.commands._common import OK, Look, each, print_lines, root_name
from dockerd_guard.report import json_output, text

if TYPE_CHECKING:
    from types import SimpleNamespace


def run(options: SimpleNamespace) -> int:
    """Print the layers of each root. Returns the exit code."""
    def show(look: Look) -> int:
        if options.format == "json":
            print(json_output.dump(json_output.sockets(look.seen), root=root_name(options, look)))
        else:
            print_lines(text.sockets(look.seen, verbose=options.verbose))
        return OK

    return each(options, show, with_policy=False)
