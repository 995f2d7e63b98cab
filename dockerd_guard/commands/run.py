"""The verb `run`: the agent."""

from __future__ import annotations

import gc
import os
import traceback
from importlib.util import find_spec
from typing import TYPE_CHECKING

from dockerd_guard.commands._common import Unanswerable
from dockerd_guard.lazy_imports import ONLY_AT_START, disable, drop
from dockerd_guard.policy.model import POLICY_FILE

if TYPE_CHECKING:
    from types import SimpleNamespace


LIBRARIES = ("pystemd", "structlog", "watchdog")
"""The extra `agent` of the Python package. The Debian package depends on them."""


def run(options: SimpleNamespace) -> int:
    """Run the agent on this host until SIGTERM. Returns the exit code. Raises Unanswerable if a library is missing."""
    if missing := [name for name in LIBRARIES if find_spec(name) is None]:
        raise Unanswerable(
            f"the agent needs {', '.join(missing)}: install the extra `agent`, pip install 'dockerd-guard[agent]' "
            "(pystemd is compiled: gcc, pkg-config, python3-dev, libsystemd-dev), or on Debian the package "
            "dockerd-guard or "
            f"{' '.join(f'python3-{name}' for name in missing)}")
    drop(*ONLY_AT_START)
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
