"""systemd's D-Bus API (org.freedesktop.systemd1(5)), through pystemd.

pystemd's proxies fetch introspection data for each unit and cannot pass variants, so its bus object is used
directly. pystemd holds the GIL while it waits for a reply: only the main thread uses this module, and it waits
on the file descriptor, never in pystemd. A Manager is one connection. After any error but Refused it is closed,
and a new Manager has to be created.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Self

SYSTEMD = b"org.freedesktop.systemd1"
MANAGER_PATH = b"/org/freedesktop/systemd1"
MANAGER = b"org.freedesktop.systemd1.Manager"
PROPERTIES = b"org.freedesktop.DBus.Properties"

JOB_TIMEOUT_S = 240.0
"""Timeout of a job. dockerd stops its containers first, and pauses 16 s before it binds TCP without TLS."""

HEARTBEAT_S = 0.25
"""Interval at which `heartbeat` is called while waiting for a job: the agent feeds its watchdog and keeps a block."""


class Unavailable(Exception):
    """systemd cannot be reached: no bus, no systemd, or the connection was lost."""


ALREADY_SUBSCRIBED = "org.freedesktop.systemd1.AlreadySubscribed"


class Refused(Exception):
    """systemd returned an error: its D-Bus error name and message."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message or name)
        self.name = name


class JobFailed(Exception):
    """A job did not end with `done`: the unit, the verb and systemd's result."""

    def __init__(self, unit: str, verb: str, result: str) -> None:
        super().__init__(f"{verb} of {unit}: job {result}")
        self.unit = unit
        self.verb = verb
        self.result = result


Prefix = tuple[int, bytes, int]
"""An element of IPAddressAllow= on the bus: address family, address, prefix length."""


SET_BACK_NS = 1_000_000_000
"""Less than this is the jitter of two clocks, or an adjustment of the running clock, and no change of the time."""


def wall_clock_ns(recorded_us: int, monotonic_us: int, wall_ns: int, monotonic_ns: int) -> int:
    """Return a timestamp of systemd in nanoseconds of the wall clock, or 0 for none.

    systemd records the wall clock of then. Where that was set back since, files that were written later have earlier
    times than that; CLOCK_MONOTONIC tells when it was by the clock of now, `wall_ns` and `monotonic_ns`.
    """
    recorded_ns = recorded_us * 1000
    by_now_ns = wall_ns - monotonic_ns + monotonic_us * 1000
    return by_now_ns if monotonic_us and recorded_ns - by_now_ns > SET_BACK_NS else recorded_ns


class UnitState(NamedTuple):
    """A unit in the memory of PID 1: `properties` by their D-Bus names, strings decoded."""

    name: str
    properties: Mapping[str, Any]

    def text(self, name: str) -> str:
        value = self.properties.get(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> int:
        value = self.properties.get(name)
        return value if isinstance(value, int) else 0

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.properties.get(name)
        return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()

    def tuples(self, name: str) -> tuple[tuple[Any, ...], ...]:
        value = self.properties.get(name)
        return tuple(item for item in value if isinstance(item, tuple)) if isinstance(value, list) else ()

    def hexadecimal(self, name: str) -> str:
        """A property of bytes (`ay`, in pystemd a list of numbers), in hexadecimal."""
        value = self.properties.get(name)
        return bytes(value).hex() if isinstance(value, list) else ""

    @property
    def load_error(self) -> str:
        error = self.properties.get("LoadError")
        return str(error[1]) if isinstance(error, tuple) and len(error) > 1 else ""


class Manager:
    """A connection to the system manager."""

    def __init__(self) -> None:
        """Connect. Raises Unavailable."""
        try:
            from pystemd.dbuslib import DBus, apply_signature
        except ImportError as error:
            raise Unavailable(f"{error}: install the extra `agent` of the Python package, or on Debian "
                              "python3-pystemd") from None
        # libsystemd's default timeout of 25 s is too short for a daemon-reload. systemctl uses this one.
        os.environ.setdefault("SYSTEMD_BUS_TIMEOUT", "180s")
        self._signature = apply_signature
        self._bus = DBus()
        self._open = False
        self._matches: list[Callable[..., None]] = []
        self._results: dict[str, str] = {}
        self._on_change: Callable[[str], None] = lambda _: None
        self.heartbeat: Callable[[], None] = lambda: None
        self._subscribed = False
        try:
            self._bus.open()
            self._open = True
        except Exception as error:
            raise Unavailable(_message(error)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. May be called again: a second sd_bus_close() would abort the process."""
        if self._open:
            self._open = False
            self._bus.close()

    # --- Queries --------------------------------------------------------------------------

    def version(self) -> int:
        """Return the major version of the running systemd: 252 for `252.39-1~deb12u1`."""
        value = self._get(MANAGER_PATH, MANAGER, b"Version", b"s")
        digits = str(value).split(".")[0].split("~")[0].split("-")[0]
        return int(digits) if digits.isdecimal() else 0

    def environment(self) -> tuple[str, ...]:
        """Return the manager's environment block, which every service inherits, as `NAME=value`."""
        value = self._get(MANAGER_PATH, MANAGER, b"Environment", b"as")
        return tuple(value) if isinstance(value, list) else ()

    def units_loaded_ns(self) -> int:
        """Return when systemd began to load the files of units for the last time, by the wall clock; 0: not known.

        UnitsLoadTimestamp is that of a daemon-reload, and 0 before the first one after the boot (systemd 252 to 262).
        """
        for name in (b"UnitsLoadTimestamp", b"UnitsLoadStartTimestamp"):
            with contextlib.suppress(Refused):
                if loaded_us := int(self._get(MANAGER_PATH, MANAGER, name, b"t")):
                    monotonic_us = int(self._get(MANAGER_PATH, MANAGER, name + b"Monotonic", b"t"))
                    return self.wall_clock_ns(loaded_us, monotonic_us)
        return 0

    def wall_clock_ns(self, recorded_us: int, monotonic_us: int) -> int:
        """Return the same of a timestamp by the two clocks of this host."""
        return wall_clock_ns(recorded_us, monotonic_us, time.time_ns(), time.monotonic_ns())

    def booted_ns(self) -> int:
        """Return when systemd itself was started by the kernel, by the wall clock (UserspaceTimestamp)."""
        name = b"UserspaceTimestamp"
        return self.wall_clock_ns(*(
            int(self._get(MANAGER_PATH, MANAGER, each, b"t")) for each in (name, name + b"Monotonic")))

    def unit(self, name: str) -> UnitState:
        """Return all properties of a unit. Loads it if necessary (LoadUnit)."""
        path = self._call(MANAGER, b"LoadUnit", b"s", [name])
        properties = dict(self._properties(path, b"Unit"))
        suffix = name.rpartition(".")[2]
        if suffix in ("service", "socket"):
            properties |= self._properties(path, suffix.capitalize().encode())
        return UnitState(name, properties)

    def units(self, pattern: str) -> tuple[tuple[str, str], ...]:
        """Return name and ActiveState of the units in memory whose names match a glob pattern."""
        rows = self._call(MANAGER, b"ListUnitsByPatterns", b"asas", [[], [pattern]])
        return tuple((row[0], row[3]) for row in rows) if isinstance(rows, list) else ()

    # --- Actions --------------------------------------------------------------------------

    def reload(self) -> None:
        """Reload all unit files (`systemctl daemon-reload`). Returns when systemd has read them.

        Succeeds even if units are broken; check LoadState.
        """
        self._call(MANAGER, b"Reload", b"", [])

    def run_job(self, verb: str, unit: str, timeout_s: float = JOB_TIMEOUT_S) -> None:
        """Start, stop or restart a unit (`verb` as `StartUnit`) and wait for its job.

        Raises JobFailed if the job does not end with `done` or in time, and Refused if systemd does
        not accept it.
        """
        self.subscribe()
        job = self._call(MANAGER, verb.encode(), b"ss", [unit, "replace"])
        deadline = time.monotonic() + timeout_s
        while job not in self._results:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise JobFailed(unit, verb, "timeout")
            self.process(min(remaining_s, HEARTBEAT_S))
            self.heartbeat()
        result = self._results.pop(job)
        if result != "done":
            raise JobFailed(unit, verb, result)

    def reset_failed(self, unit: str) -> None:
        """Reset the failed state and the start limit of a unit."""
        with contextlib.suppress(Refused):
            self._call(MANAGER, b"ResetFailedUnit", b"s", [unit])

    def ip_filter(self, unit: str) -> tuple[tuple[Prefix, ...], tuple[Prefix, ...]]:
        """Return IPAddressAllow= and IPAddressDeny= of a unit in memory."""
        state = self.unit(unit)
        allow, deny = (tuple((int(family), bytes(_encode(address)), int(prefix))
                             for family, address, prefix in state.tuples(name))
                       for name in ("IPAddressAllow", "IPAddressDeny"))
        return allow, deny

    def set_ip_filter(self, unit: str, allow: Iterable[Prefix], deny: Iterable[Prefix]) -> None:
        """Set IPAddressAllow= and IPAddressDeny= until the next boot (`systemctl set-property --runtime`)."""
        from pystemd.systemd1.unit_signatures import signature_array

        arguments = self._signature(b"sb", [unit.encode(), True]) + signature_array(
            {"IPAddressAllow": list(allow), "IPAddressDeny": list(deny)})
        self._translate_errors(lambda: self._bus.call_method(
            SYSTEMD, MANAGER_PATH, MANAGER, b"SetUnitProperties", arguments))

    # --- Signals --------------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the file descriptor that becomes readable when there is something to process.

        Raises Unavailable if systemd closed the connection.
        """
        fd = int(self._translate_errors(self._bus.get_fd))
        if fd < 0:
            # libsystemd closes the connection while processing, and pystemd returns its error code here.
            self.close()
            raise Unavailable(os.strerror(-fd))
        return fd

    def subscribe(self, on_change: Callable[[str], None] | None = None, units: tuple[str, ...] = ()) -> None:
        """Subscribe to signals. `on_change` is called with `Reloading` (a reload has finished),
        `UnitFilesChanged`, `PropertiesChanged` (one of `units` changed state), or the name of a unit
        whose job has ended."""
        if on_change is not None:
            self._on_change = on_change
        if self._subscribed:
            return
        # pystemd keeps no reference to a callback and accepts only plain functions.
        def job_removed(message: Any, error: object = None, userdata: object = None) -> None:
            message.process_reply(True)
            _, job, unit, result = _decode(message.body)
            if len(self._results) > 1000:
                self._results.clear()
            self._results[job] = result
            self._on_change(unit)

        def callback_for(change: str) -> Callable[..., None]:
            def changed(message: Any, error: object = None, userdata: object = None) -> None:
                message.process_reply(True)
                # The body of Reloading is true when a reload begins.
                if change != "Reloading" or not message.body:
                    self._on_change(change)

            return changed

        self._match(MANAGER_PATH, MANAGER, b"JobRemoved", job_removed)
        for change in ("Reloading", "UnitFilesChanged"):
            self._match(MANAGER_PATH, MANAGER, change.encode(), callback_for(change))
        for unit in units:
            self._match(_unit_path(unit), PROPERTIES, b"PropertiesChanged", callback_for("PropertiesChanged"))
        # systemd sends signals only to subscribed clients (org.freedesktop.systemd1(5), Subscribe).
        try:
            self._call(MANAGER, b"Subscribe", b"", [])
        except Refused as error:
            # A restarted dbus-daemon reuses connection names, and systemd has kept its list of subscribers.
            if error.name != ALREADY_SUBSCRIBED:
                raise
        self._subscribed = True

    def _match(self, path: bytes, interface: bytes, member: bytes, callback: Callable[..., None]) -> None:
        self._matches.append(callback)
        self._translate_errors(lambda: self._bus.match_signal(SYSTEMD, path, interface, member, callback, None))

    def process(self, timeout_s: float = 0.0) -> None:
        """Process incoming messages. Waits at most `timeout_s` for the first one."""
        if not self._drain() and timeout_s > 0:
            select.select([self.fileno()], [], [], timeout_s)
            self._drain()

    def _drain(self) -> bool:
        processed = False
        while not self._translate_errors(self._bus.process).is_empty():
            processed = True
        return processed

    # --- Messages -------------------------------------------------------------------------

    def _properties(self, path: str, interface: bytes) -> Iterator[tuple[str, Any]]:
        answer = self._translate_errors(lambda: self._bus.call_method(
            SYSTEMD, path.encode(), PROPERTIES, b"GetAll",
            self._signature(b"s", [SYSTEMD + b"." + interface])))
        for name, value in answer.body.items():
            yield name.decode(), _decode(value)

    def _get(self, path: bytes, interface: bytes, name: bytes, signature: bytes) -> Any:
        return _decode(self._translate_errors(
            lambda: self._bus.get_property(SYSTEMD, path, interface, name, signature)))

    def _call(self, interface: bytes, method: bytes, signature: bytes, values: list[Any]) -> Any:
        arguments = self._signature(signature, _encode(values)) if signature else []
        answer = self._translate_errors(
            lambda: self._bus.call_method(SYSTEMD, MANAGER_PATH, interface, method, arguments))
        return _decode(answer.body)

    def _translate_errors(self, call: Callable[[], Any]) -> Any:
        """Call and translate pystemd's exceptions: Refused for an error reply, Unavailable for a lost connection."""
        if not self._open:
            raise Unavailable("the connection to systemd is closed")
        try:
            with _signals_blocked():
                return call()
        except Exception as error:
            kind = type(error).__name__
            name = _text(getattr(error, "err_name", b"")) or kind
            if name.startswith("org.freedesktop.systemd1.") or kind in _REFUSALS:
                raise Refused(name, _message(error)) from None
            self.close()
            raise Unavailable(_message(error)) from None


_REFUSALS = frozenset({
    "DBusNoSuchUnitError", "DBusAccessDeniedError", "DBusInteractiveAuthorizationRequiredError",
    "DBusLimitsExceededError", "DBusInvalidArgsError", "DBusUnitExistsError",
})


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals: sd-bus would return EINTR from a wait, in the middle of a call."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _unit_path(unit: str) -> bytes:
    """Return the object path of a unit; all but letters and digits are encoded as _xx (sd_bus_path_encode(3))."""
    name = "".join(letter if letter.isascii() and letter.isalnum() else f"_{ord(letter):02x}" for letter in unit)
    return f"/org/freedesktop/systemd1/unit/{name}".encode()


def _message(error: Exception) -> str:
    return _text(getattr(error, "err_message", b"")) or str(error) or type(error).__name__


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def _encode(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return [_encode(item) for item in value] if isinstance(value, list) else value


def _decode(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_decode(item) for item in value)
    return value
