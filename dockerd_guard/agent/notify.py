"""Notifications to the service manager (sd_notify(3)), by pystemd: readiness, the status line, the watchdog."""

from __future__ import annotations

import time

from dockerd_guard.report.journal import printable

START_S = 60.0
"""How long the start may go on after each sign of life (EXTEND_TIMEOUT_USEC=): longer than between two of them."""


class Notify:
    """Sends notifications. Does nothing without a service manager (no $NOTIFY_SOCKET)."""

    def __init__(self) -> None:
        self.watchdog_s = _watchdog_s()
        """How often to call `alive`, in seconds; None without a watchdog."""
        self._status = ""
        self._is_ready = False

    def ready(self, status: str) -> None:
        """Send READY=1: the start, or the reload, is complete."""
        self._status, self._is_ready = status, True
        _send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Send RELOADING=1. The reload ends with `ready`."""
        _send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def status(self, status: str) -> None:
        """Send STATUS=, the line that `systemctl status` shows, if it changed."""
        if status != self._status:
            self._status = status
            _send(f"STATUS={status}")

    def stopping(self) -> None:
        """Send STOPPING=1."""
        _send("STOPPING=1")

    def alive(self) -> None:
        """Send WATCHDOG=1 if the service has a watchdog (systemd.service(5), WatchdogSec=).

        Before READY=1 also extend the start: the first pass may correct, and wait for a docker.service that stops for
        longer than TimeoutStartSec=. systemd would kill this process in the middle of that.
        """
        states = ("WATCHDOG=1",) if self.watchdog_s is not None else ()
        if not self._is_ready:
            states = (*states, f"EXTEND_TIMEOUT_USEC={START_S * 1e6:.0f}")
        if states:
            _send(*states)


def _watchdog_s() -> float | None:
    """Return half of WatchdogSec=, as sd_watchdog_enabled(3) recommends; None without a watchdog for this process."""
    from pystemd import daemon

    try:
        return daemon.watchdog_enabled(False) / 1e6 / 2 or None
    except daemon.PystemdDaemonError:  # $WATCHDOG_USEC is not a number above 0
        return None


def _send(*states: str) -> None:
    from pystemd import daemon

    # A status may contain an address that is not UTF-8. pystemd raises UnicodeEncodeError for it.
    daemon.notify(False, *map(printable, states))
