"""Notifications to the service manager (sd_notify(3)): readiness, the STATUS= line, the watchdog."""

from __future__ import annotations

import os
import time

from dockerd_guard.report.journal import shown


class Notify:
    """Sends notifications if NOTIFY_SOCKET is set."""

    def __init__(self) -> None:
        self._socket = os.environ.get("NOTIFY_SOCKET")
        usec = os.environ.get("WATCHDOG_USEC", "")
        pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
        on = usec.isdecimal() and pid == str(os.getpid())
        self.watchdog_s = int(usec) / 1e6 / 2 if on else None
        self._status = ""

    def ready(self, status: str) -> None:
        """The agent is ready, after its start or a reload."""
        self._status = status
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A new policy is being read (sd_notify(3), RELOADING=1)."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def status(self, status: str) -> None:
        """The line that `systemctl status` shows."""
        if status != self._status:
            self._status = status
            self._send(f"STATUS={status}")

    def stopping(self) -> None:
        """The agent is stopping."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Reset the service watchdog (systemd.service(5), WatchdogSec=)."""
        if self.watchdog_s is not None:
            self._send("WATCHDOG=1")

    def _send(self, *states: str) -> None:
        if self._socket:
            from pystemd import daemon

            # A socket address may be invalid UTF-8, which pystemd does not accept.
            daemon.notify(False, *map(shown, states))
