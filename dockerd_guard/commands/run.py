"""The verb `run`: the agent."""

from __future__ import annotations

import gc
import os
import traceback
from importlib import import_module
from typing import TYPE_CHECKING

from dockerd_guard.commands._common import require_libraries
from dockerd_guard.lazy_imports import ONLY_AT_IMPORT, ONLY_AT_START, defer, disable, drop
from dockerd_guard.policy.model import POLICY_FILE

if TYPE_CHECKING:
    from types import SimpleNamespace


LIBRARIES = ("pystemd", "structlog", "watchdog")
"""The extra `agent` of the Python package. The Debian package depends on them."""


def run(options: SimpleNamespace) -> int:
    """Run the agent on this host until SIGTERM. Returns the exit code. Raises Unanswerable if a library is missing."""
    require_libraries(*LIBRARIES)
    drop(*ONLY_AT_START)
    defer("locale")
    # The libraries first: the memory of what is dropped then serves the agent's own modules.
    for library in LIBRARIES:
        import_module(library)
    drop(*ONLY_AT_IMPORT)
    from dockerd_guard.agent import loop

    gc.enable()
    # OpenSSL would take 7 MB for as long as the agent runs (observe/certificates.py).
    disable("ssl")
    try:
        return loop.run(options.policy or POLICY_FILE, options.log_format)
    except Exception:
        traceback.print_exc()
        # systemd restarts the agent after this exit code (sysexits.h), but not after 2.
        return os.EX_SOFTWARE
