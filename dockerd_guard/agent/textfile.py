"""The metrics file for node_exporter's textfile collector."""

from __future__ import annotations

import contextlib
import os

from dockerd_guard.apply import files

DIRECTORY = "/var/lib/prometheus/node-exporter"
"""Debian's --collector.textfile.directory. The node_exporter package creates it, owned by root, mode 0755."""

FILE = "dockerd-guard.prom"


def publish(text: str, directory: str = DIRECTORY) -> None:
    """Write the metrics atomically; does nothing if the directory does not exist. Raises OSError."""
    # A directory that was removed while the agent runs is still mounted in the sandbox; creating a file in it fails.
    with contextlib.suppress(FileNotFoundError):
        if os.path.isdir(directory):
            files.write_new(f"{directory}/{FILE}", text.encode(), replace=True)
