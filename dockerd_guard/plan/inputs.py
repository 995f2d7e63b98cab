"""What a correction depends on, as digests: a failed one is retried when they differ (I9). Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.memory import digest
from dockerd_guard.plan.plan import Plan, files_of
from dockerd_guard.policy.model import Policy


def inputs(seen: Observation, plan: Plan, policy: Policy) -> str:
    """Return a digest of everything that a correction depends on: files, certificates, programs, environment, disk,
    unit states, policy (I9)."""
    return _digest(*_inputs(seen, plan, policy))


def foreign_inputs(seen: Observation, plan: Plan, policy: Policy, written: tuple[str, ...]) -> str:
    """Return a digest of those inputs that a correction, which wrote these files, does not change itself."""
    return _digest(repr(policy), *_file_inputs(seen, plan, frozenset(written)), *_programs(seen, plan),
                   *_environment(seen))


def foreign_contents(seen: Observation, plan: Plan, written: tuple[str, ...]) -> str:
    """Return a digest of what docker.service starts with, but these files."""
    contents = (f"{path} {digest(seen.rootfs.read_if_possible(path))}"
                for path in _paths(seen, plan, frozenset(written)))
    return _digest(*contents, *_programs(seen, plan), *_environment(seen))


def _digest(*lines: str) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _inputs(seen: Observation, plan: Plan, policy: Policy) -> Iterator[str]:
    yield repr(policy)
    yield seen.disk_problem
    yield from _file_inputs(seen, plan, frozenset())
    for change in plan.changes:
        yield f"{change.path} {digest(change.after)}"
    yield from _programs(seen, plan)
    yield from _environment(seen)
    if seen.loaded is not None:
        yield f"{seen.loaded.active_state} {sorted(seen.loaded.socket_states.items())}"


def _environment(seen: Observation) -> Iterator[str]:
    yield repr(sorted(seen.configured.environment.assigned.items()))
    if seen.loaded is not None:
        yield repr(sorted((seen.configured.manager_environment or {}).items()))


def _programs(seen: Observation, plan: Plan) -> Iterator[str]:
    """The program of each ExecStart=, which a package upgrade replaces: by size and time, since it has 70 MB."""
    for path in sorted({command.path for command in plan.after.service.exec_start}):
        found = seen.rootfs.stat_if_possible(path)
        yield f"{path} {found and (found.path, found.size, found.mtime_ns)}"


def _file_inputs(seen: Observation, plan: Plan, without: frozenset[str]) -> Iterator[str]:
    for path in _paths(seen, plan, without):
        for follow in (False, True):
            yield f"{path} {seen.rootfs.stat(path, follow=follow)}"


def _paths(seen: Observation, plan: Plan, without: frozenset[str]) -> Iterator[str]:
    tls = plan.after.daemon.tls
    paths = {*files_of(seen.configured), *files_of(plan.after), *(change.path for change in plan.changes),
             *(path for path in (tls.ca, tls.cert, tls.key) if path)}
    for path in sorted(paths):
        # systemd starts a service in /, so a relative path is one below it.
        if path not in without and seen.rootfs.resolve(path) not in without:
            yield path
