"""systemd's own word on its units, and the way to make it act: its D-Bus API, through pystemd.

org.freedesktop.systemd1(5) describes every method and property used here. pystemd's proxies ask
for introspection data on each unit and cannot pass variants, so its bus is used directly.

pystemd holds the GIL while it waits for an answer: only the main thread talks here, and waits on
the descriptor, never in pystemd. One Manager is one connection; after an error other than a
refusal it is spent, and the next one begins anew.
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
"""How long a job may take: dockerd stops its containers first, and pauses 16 s on plain TCP."""

HEARTBEAT_S = 5.0
"""While a job is waited for, `heartbeat` is called at least this often: the agent's own watchdog."""


class Unavailable(Exception):
    """systemd cannot be asked: no bus, no systemd, or the connection broke."""


ALREADY_SUBSCRIBED = "org.freedesktop.systemd1.AlreadySubscribed"


class Refused(Exception):
    """systemd answered, and said no: its error name and message."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message or name)
        self.name = name


class JobFailed(Exception):
    """A job ended otherwise than `done`: the unit, the verb and systemd's result."""

    def __init__(self, unit: str, verb: str, result: str) -> None:
        super().__init__(f"{verb} of {unit}: job {result}")
        self.unit = unit
        self.verb = verb
        self.result = result


Prefix = tuple[int, bytes, int]
"""As IPAddressAllow= has it on the bus: address family, address, length of the prefix."""


class UnitState(NamedTuple):
    """A unit as PID 1 has it in memory: `properties` by their D-Bus names, text decoded."""

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

    @property
    def is_loaded(self) -> bool:
        return self.text("LoadState") == "loaded"

    @property
    def load_error(self) -> str:
        error = self.properties.get("LoadError")
        return str(error[1]) if isinstance(error, tuple) and len(error) > 1 else ""


class Manager:
    """A connection to systemd, the system manager."""

    def __init__(self) -> None:
        """Connect. Raises Unavailable."""
        try:
            from pystemd.dbuslib import DBus, apply_signature
        except ImportError as error:
            raise Unavailable(f"pystemd is not installed: {error}") from None
        # libsystemd would give up a reload after 25 s; systemctl waits as long as this.
        os.environ.setdefault("SYSTEMD_BUS_TIMEOUT", "180s")
        self._signature = apply_signature
        self._bus = DBus()
        self._open = False
        self._matches: list[Callable[..., None]] = []
        self._results: dict[str, str] = {}
        self._on_change: Callable[[str], None] | None = None
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
        """Close the connection. A second close would abort the process inside libsystemd."""
        if self._open:
            self._open = False
            self._bus.close()

    # --- asking ---------------------------------------------------------------------------

    def version(self) -> int:
        """The running systemd's version number, as 252 of `252.39-1~deb12u1`."""
        value = self._get(MANAGER_PATH, MANAGER, b"Version", b"s")
        digits = str(value).split(".")[0].split("~")[0].split("-")[0]
        return int(digits) if digits.isdecimal() else 0

    def environment(self) -> tuple[str, ...]:
        """The manager's environment block, `NAME=value`: what every service inherits."""
        value = self._get(MANAGER_PATH, MANAGER, b"Environment", b"as")
        return tuple(value) if isinstance(value, list) else ()

    def unit(self, name: str) -> UnitState:
        """Everything systemd says of a unit, after loading it where it was not (LoadUnit)."""
        path = self._call(MANAGER, b"LoadUnit", b"s", [name])
        properties = dict(self._properties(path, b"Unit"))
        suffix = name.rpartition(".")[2]
        if suffix in ("service", "socket"):
            properties |= self._properties(path, suffix.capitalize().encode())
        return UnitState(name, properties)

    def units(self, pattern: str) -> tuple[tuple[str, str], ...]:
        """Name and ActiveState of the units in memory whose names match a glob."""
        rows = self._call(MANAGER, b"ListUnitsByPatterns", b"asas", [[], [pattern]])
        return tuple((row[0], row[3]) for row in rows) if isinstance(rows, list) else ()

    # --- acting ---------------------------------------------------------------------------

    def reload(self) -> None:
        """`systemctl daemon-reload`: back when every unit file has been read again.

        It succeeds also when units are broken; LoadState tells.
        """
        self._call(MANAGER, b"Reload", b"", [])

    def run_job(self, verb: str, unit: str, timeout_s: float = JOB_TIMEOUT_S) -> None:
        """Start, stop or restart a unit (`verb` as `StartUnit`) and wait for its job.

        Raises JobFailed when the job ends otherwise than done or not in time, Refused when systemd
        will not take it.
        """
        self.subscribe()
        job = self._call(MANAGER, verb.encode(), b"ss", [unit, "replace"])
        end = time.monotonic() + timeout_s
        while job not in self._results:
            left = end - time.monotonic()
            if left <= 0:
                raise JobFailed(unit, verb, "timeout")
            self.process(min(left, HEARTBEAT_S))
            self.heartbeat()
        result = self._results.pop(job)
        if result != "done":
            raise JobFailed(unit, verb, result)

    def reset_failed(self, unit: str) -> None:
        """Forget a unit's failures and its start limit, so that it may be started again."""
        with contextlib.suppress(Refused):
            self._call(MANAGER, b"ResetFailedUnit", b"s", [unit])

    def ip_filter(self, unit: str) -> tuple[tuple[Prefix, ...], tuple[Prefix, ...]]:
        """What a unit's IPAddressAllow= and IPAddressDeny= are in memory."""
        state = self.unit(unit)
        allow, deny = (tuple((int(family), bytes(_encoded(address)), int(prefix))
                             for family, address, prefix in state.tuples(name))
                       for name in ("IPAddressAllow", "IPAddressDeny"))
        return allow, deny

    def set_ip_filter(self, unit: str, allow: Iterable[Prefix], deny: Iterable[Prefix]) -> None:
        """Set them until the next boot, in force at once (`systemctl set-property --runtime`)."""
        from pystemd.systemd1.unit_signatures import signature_array

        arguments = self._signature(b"sb", [unit.encode(), True]) + signature_array(
            {"IPAddressAllow": list(allow), "IPAddressDeny": list(deny)})
        self._guarded(lambda: self._bus.call_method(
            SYSTEMD, MANAGER_PATH, MANAGER, b"SetUnitProperties", arguments))

    # --- being told -----------------------------------------------------------------------

    def fileno(self) -> int:
        """The descriptor that becomes readable when there is something to process.

        Raises Unavailable when the other side hung up.
        """
        fd = int(self._guarded(self._bus.get_fd))
        if fd < 0:
            # libsystemd drops the connection while processing and pystemd hands its error code on.
            self.close()
            raise Unavailable(os.strerror(-fd))
        return fd

    def subscribe(self, on_change: Callable[[str], None] | None = None, units: tuple[str, ...] = ()) -> None:
        """Ask for signals. `on_change` is called with a word for each: `Reloading` (it is over),
        `UnitFilesChanged`, a unit whose job ended, or one of `units` whose state changed."""
        if on_change is not None:
            self._on_change = on_change
        if self._subscribed:
            return
        results = self._results
        told = self

        # pystemd keeps no reference to a callback and takes only plain functions.
        def job_removed(message: Any, error: object = None, userdata: object = None) -> None:
            message.process_reply(True)
            _, job, unit, result = _decoded(message.body)
            if len(results) > 1000:
                results.clear()
            results[job] = result
            if told._on_change is not None:
                told._on_change(unit)

        def reloading(message: Any, error: object = None, userdata: object = None) -> None:
            message.process_reply(True)
            if told._on_change is not None and not message.body:
                told._on_change("Reloading")

        def unit_files_changed(message: Any, error: object = None, userdata: object = None) -> None:
            message.process_reply(True)
            if told._on_change is not None:
                told._on_change("UnitFilesChanged")

        def properties_changed(message: Any, error: object = None, userdata: object = None) -> None:
            message.process_reply(True)
            if told._on_change is not None:
                told._on_change("PropertiesChanged")

        self._match(MANAGER_PATH, MANAGER, b"JobRemoved", job_removed)
        self._match(MANAGER_PATH, MANAGER, b"Reloading", reloading)
        self._match(MANAGER_PATH, MANAGER, b"UnitFilesChanged", unit_files_changed)
        for unit in units:
            self._match(_unit_path(unit), PROPERTIES, b"PropertiesChanged", properties_changed)
        # Nothing is sent to a client that did not ask (org.freedesktop.systemd1(5), Subscribe).
        try:
            self._call(MANAGER, b"Subscribe", b"", [])
        except Refused as error:
            # A new dbus-daemon gives names out from the first one again, and systemd has kept the old list.
            if error.name != ALREADY_SUBSCRIBED:
                raise
        self._subscribed = True

    def _match(self, path: bytes, interface: bytes, member: bytes, callback: Callable[..., None]) -> None:
        self._matches.append(callback)
        self._guarded(lambda: self._bus.match_signal(SYSTEMD, path, interface, member, callback, None))

    def process(self, timeout_s: float = 0.0) -> None:
        """Handle what has come, waiting at most `timeout_s` for something to come."""
        if not self._drain() and timeout_s > 0:
            select.select([self.fileno()], [], [], timeout_s)
            self._drain()

    def _drain(self) -> bool:
        any_came = False
        while not self._guarded(self._bus.process).is_empty():
            any_came = True
        return any_came

    # --- the wire -------------------------------------------------------------------------

    def _properties(self, path: str, interface: bytes) -> Iterator[tuple[str, Any]]:
        answer = self._guarded(lambda: self._bus.call_method(
            SYSTEMD, path.encode(), PROPERTIES, b"GetAll",
            self._signature(b"s", [SYSTEMD + b"." + interface])))
        for name, value in answer.body.items():
            yield name.decode(), _decoded(value)

    def _get(self, path: bytes, interface: bytes, name: bytes, signature: bytes) -> Any:
        return _decoded(self._guarded(
            lambda: self._bus.get_property(SYSTEMD, path, interface, name, signature)))

    def _call(self, interface: bytes, method: bytes, signature: bytes, values: list[Any]) -> Any:
        arguments = self._signature(signature, _encoded(values)) if signature else []
        answer = self._guarded(
            lambda: self._bus.call_method(SYSTEMD, MANAGER_PATH, interface, method, arguments))
        return _decoded(answer.body)

    def _guarded(self, call: Callable[[], Any]) -> Any:
        """Make pystemd's errors ours: a refusal by systemd, or a connection that is gone."""
        if not self._open:
            raise Unavailable("the connection to systemd is closed")
        try:
            with _undisturbed():
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
def _undisturbed() -> Iterator[None]:
    """Put signals off: one that came in while sd-bus waits would end the call with EINTR, half done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _unit_path(unit: str) -> bytes:
    """The object of a unit: all but letters and digits as _xx (sd_bus_path_encode(3))."""
    name = "".join(letter if letter.isascii() and letter.isalnum() else f"_{ord(letter):02x}" for letter in unit)
    return f"/org/freedesktop/systemd1/unit/{name}".encode()


def _message(error: Exception) -> str:
    return _text(getattr(error, "err_message", b"")) or str(error) or type(error).__name__


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def _encoded(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return [_encoded(item) for item in value] if isinstance(value, list) else value


def _decoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_decoded(item) for item in value)
    return value
