"""Shared by the verbs: exit codes, the observation of each root, output.

`lint` and `sockets` need only the standard library and PyYAML: everything else is imported where it is used.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from dockerd_guard.policy.model import POLICY_FILE, Policy, PolicyError
from dockerd_guard.policy.reader import load_policy, read_policy
from dockerd_guard.rootfs import Rootfs, Unreadable

if TYPE_CHECKING:
    from types import SimpleNamespace

    from dockerd_guard.dockerd.version import Version
    from dockerd_guard.model.finding import Finding
    from dockerd_guard.observe.observation import Observation
    from dockerd_guard.systemd.manager import Manager

OK = 0
FOUND = 1
UNANSWERED = 2
"""Exit codes: no findings; findings; no answer is possible. After an internal error the agent exits with EX_SOFTWARE
(sysexits.h) instead, because systemd does not restart it after 2."""


NO_POLICY = f"no policy at {POLICY_FILE}: only rules that need no policy apply"


class Unanswerable(Exception):
    """No answer is possible. The message has one or more lines."""


class Look(NamedTuple):
    """One host: its root as given, the observation, and the policy for it. `notes` say what was not used or found."""

    root: str
    seen: Observation
    policy: Policy | None
    policy_is_outside: bool
    notes: tuple[str, ...] = ()

    def read(self, path: str) -> bytes:
        """The content of a file that a finding points to."""
        if self.policy_is_outside and self.policy is not None and path == self.policy.file:
            with Rootfs() as host:
                return host.read(os.path.abspath(path))
        return self.seen.rootfs.read(path)

    @property
    def outside(self) -> frozenset[str]:
        """Files that findings may point to and that are not below the root."""
        return frozenset([self.policy.file] if self.policy_is_outside and self.policy is not None else ())


def say(message: str) -> None:
    """Print a message to standard error, each line with the prefix `dockerd-guard: `."""
    from dockerd_guard.report.text import clean, folded

    sys.stdout.flush()
    columns = None
    if sys.stderr.isatty():
        import shutil

        columns = shutil.get_terminal_size().columns
    for line in message.split("\n"):
        for part in folded(f"dockerd-guard: {clean(line)}", columns, then="  "):
            print(part, file=sys.stderr)


def write_output(path: str, text: str) -> None:
    """Write to a file, or to standard output for `-`. Raises Unanswerable."""
    if path == "-":
        print(text, end="")
        return
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Unanswerable(f"{path}: {error.strerror or error}") from None


def terminal() -> dict[str, Any]:
    """The width of standard output (None: no terminal), and whether to use colour."""
    import shutil

    from dockerd_guard.report.text import wants_colour

    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return {"columns": columns, "colour": wants_colour(sys.stdout)}


def require_libraries(*names: str) -> None:
    """Raise Unanswerable if one of these Python packages is missing. They are those of the extra `agent`."""
    from importlib.util import find_spec

    if missing := [name for name in names if find_spec(name) is None]:
        # No command with the name of this package, which is in no index: anybody may register it.
        raise Unanswerable(
            f"this needs {', '.join(missing)}: install the extra `agent`, in a clone pip install '.[agent]' (pystemd "
            "is compiled: gcc, pkg-config, python3-dev, libsystemd-dev), or on Debian the package dockerd-guard or "
            f"{' '.join(f'python3-{name}' for name in missing)}")


def require_policy(policy: Policy | None) -> Policy:
    """The policy. Raises Unanswerable for None."""
    if policy is None:
        raise Unanswerable(f"no policy: write one to {POLICY_FILE}, or use --policy")
    return policy


def each(
    options: SimpleNamespace, show: Callable[[Look], int], *, with_policy: bool,
    adapted: Callable[[Look], Look] = lambda look: look
) -> int:
    """Observe each root and call `show` for it. Returns the highest exit code."""
    worst = OK
    if len(options.root) > 1:
        gc.enable()
    for root in options.root or ("/",):
        if len(options.root) > 1 and options.format == "text":
            print(f"{root}:")
        try:
            with Rootfs(root) as rootfs:
                look = adapted(look_at(rootfs, options, with_policy=with_policy))
                for text in (*look.notes, *(trouble.text for trouble in look.seen.troubles), *unit_note(look)):
                    say(text)
                worst = max(worst, show(look))
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            worst = _no_answer(options, root, f"{root}: {error.strerror or error}")
        except (Unanswerable, PolicyError, Unreadable) as error:
            worst = _no_answer(options, root, str(error))
    return worst


def with_root(root: str, text: str) -> str:
    """A text about one of several roots, which may begin with it."""
    return text if text.startswith(f"{root}: ") else f"{root}: {text}"


def _no_answer(options: SimpleNamespace, root: str, why: str) -> int:
    if len(options.root) > 1:
        why = "\n".join(with_root(root, line) for line in why.split("\n"))
        if options.format == "json":
            from dockerd_guard.report import json_output

            print(json_output.dump({"schema": json_output.SCHEMA, "error": why}, root=root))
    say(why)
    return UNANSWERED


def look_at(rootfs: Rootfs, options: SimpleNamespace, *, with_policy: bool) -> Look:
    """Observe a root and read its policy. Raises Unanswerable or PolicyError."""
    is_live = not options.root
    notes: list[str] = []
    policy, outside = None, False
    if with_policy and (is_live or options.policy is not None or rootfs.stat(POLICY_FILE) is None):
        policy, outside = policy_for(rootfs, options.policy)
        # Below --root no policy is expected.
        notes += [NO_POLICY] if policy is None and is_live else []
    elif with_policy:
        # Otherwise a pull request could waive what it introduces.
        notes.append(f"{POLICY_FILE} below {rootfs.root} is not used, because a tree must not waive its own findings; "
                     "use --policy to name a policy")
    observe = observe_live if is_live else observe_files
    seen = observe(rootfs, options.docker_version)
    if rootfs.denied:
        raise Unanswerable("\n".join(f"{path}: {reason}" for path, reason in sorted(rootfs.denied.items())))
    return Look(rootfs.root, seen, policy, outside, tuple(notes))


def unit_note(look: Look) -> tuple[str, ...]:
    """Why the unit of dockerd is not loaded, if it is not."""
    unit = look.seen.configured.service.unit
    if unit.load_state not in ("not-found", "masked", "error"):
        return ()
    where = f" (below {look.root})" if look.root != "/" else ""
    return (f"{unit.reason or unit.name + ' is ' + unit.load_state}{where}",)


def policy_for(rootfs: Rootfs, path: str | None) -> tuple[Policy | None, bool]:
    """The policy at `path` on this machine, or else that of the root, if any; and whether it is outside of the
    root. Raises PolicyError."""
    if path is not None:
        return load_policy(path, require_root_owned=False), True
    if rootfs.stat(POLICY_FILE) is not None:
        return read_policy(rootfs), False
    return None, False


def observe_files(rootfs: Rootfs, dockerd: Version | None) -> Observation:
    """Observe the configured layer only."""
    from dockerd_guard.observe.configured import observe_configured
    from dockerd_guard.observe.observation import Observation

    return Observation(rootfs, observe_configured(rootfs, dockerd=dockerd))


def observe_live(rootfs: Rootfs, dockerd: Version | None) -> Observation:
    """Observe all available layers of this host, and other ways to its Docker API."""
    from dockerd_guard.observe.live import NOWHERE
    from dockerd_guard.observe.observation import Trouble
    from dockerd_guard.systemd.manager import Manager, Unavailable

    try:
        with Manager() as manager:
            return observe_probed(rootfs, manager, dockerd)
    except Unavailable as error:
        seen = observe_probed(rootfs, None, dockerd)
        return seen._replace(troubles=(*seen.troubles, Trouble(NOWHERE, f"systemd: {error}")))


def observe_probed(rootfs: Rootfs, manager: Manager | None, dockerd: Version | None = None) -> Observation:
    """Observe this host with what its TCP sockets answer, which root alone can record, and with other ways to its
    Docker API. Raises Unavailable."""
    from dockerd_guard.apply.state_files import StateFiles
    from dockerd_guard.nethelper.local import LocalNetwork
    from dockerd_guard.observe.kernel import HostKernel, is_active
    from dockerd_guard.observe.live import observe_host
    from dockerd_guard.observe.probes import Known, Prober

    kernel, network, state = HostKernel(), LocalNetwork(), StateFiles()
    prober = Prober(network.probe, state, is_active=lambda: is_active(manager))
    seen = prober(observe_host(rootfs, manager, kernel, dockerd=dockerd,
                               known=Known(state.load().start, prober.probes)))
    return seen._replace(access_paths=kernel.access_paths(seen, network, manager))


def misses(findings: Iterable[Finding]) -> bool:
    """Whether a socket is missing or undeclared, and that is not waived."""
    return any(finding.code in ("DG101", "DG102") for finding in findings)


def root_name(options: SimpleNamespace, look: Look) -> str | None:
    return look.root if len(options.root) > 1 else None


def print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)
