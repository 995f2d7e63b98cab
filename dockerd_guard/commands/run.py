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
    """Run the agent on this host until SIGTERM; returns the exit code."""
    gc.enable()
    # OpenSSL would take 7 MB for as long as the agent runs (observe/certificates.py).
    disable("ssl")
    try:
        return loop.run(options.policy or POLICY_FILE, options.log_format)
    except Exception:
        traceback.print_exc()
        # systemd does not start the agent again after exit code 2, and does after this one (sysexits.h).
        return os.EX_SOFTWARE
