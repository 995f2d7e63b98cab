"""The verb `run`: the agent."""

from __future__ import annotations

import gc
import os
import traceback
from typing import TYPE_CHECKING

from dockerd_guard.agent import loop
from dockerd_guard.lazy_imports import disable
from dockerd_guard.policy.model import POLICY_FILE

if TYPE_CHECKING:
    from argparse import Namespace


def run(options: Namespace) -> int:
    """Run the agent on this host until SIGTERM. Returns the exit code."""
    gc.enable()
    # OpenSSL would take 7 MB for as long as the agent runs (observe/certificates.py).
    disable("ssl")
    try:
        return loop.run(options.policy or POLICY_FILE, options.log_format)
    except Exception:
        traceback.print_exc()
        # systemd restarts the agent after this exit code (sysexits.h), but not after 2.
        return os.EX_SOFTWARE
