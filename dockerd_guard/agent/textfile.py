"""The file of metrics for node_exporter's textfile collector, which the agent leaves where that reads it."""

from __future__ import annotations

import contextlib
import os

from dockerd_guard.apply import files

DIRECTORY = "/var/lib/prometheus/node-exporter"
"""Debian's --collector.textfile.directory; the package of node_exporter makes it, root's and open to all to read."""

FILE = "dockerd-guard.prom"


def publish(text: str, directory: str = DIRECTORY) -> None:
    """Put the metrics there, whole or not at all; without that directory nobody reads them. Raises OSError."""
    # Taken away while the agent runs, it is still there as a mount of the sandbox, and nothing can be made in it.
    with contextlib.suppress(FileNotFoundError):
        if os.path.isdir(directory):
            files.write_new(f"{directory}/{FILE}", text.encode(), replace=True)
