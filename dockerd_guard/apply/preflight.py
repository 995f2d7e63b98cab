"""Checks before a correction: would dockerd start with the corrected configuration on this host?

Each check yields messages with a location. None of them changes anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from dockerd_guard.model.address import Tls, canonical
from dockerd_guard.observe.configured import values
from dockerd_guard.observe.network import Network
from dockerd_guard.plan.plan import Plan
from dockerd_guard.policy.model import Policy, declared_bindings
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.lookup import UnitFiles

VALIDATE_TIMEOUT_S = 20.0
VALIDATE_SINCE = (23, 0, 0)
"""`dockerd --validate` exists since 23.0. It binds nothing and does not access the data directory."""

MAX_PEM_BYTES = 1024 * 1024


class Preflight(NamedTuple):
    """The checks for one corrected configuration of this host."""

    plan: Plan
    policy: Policy
    ours: frozenset[str]
    """Canonical addresses that dockerd, or systemd for it, listens on already."""
    network: Network

    def problems(self) -> tuple[str, ...]:
        """Messages of all checks; empty if nothing would fail."""
        return (*self.traps(), *self.addresses(), *self.bad_tls_files(), *self.refused_arguments())

    def traps(self) -> Iterator[str]:
        """Unit files of any unit that would make PID 1 hang on a reload."""
        with Rootfs() as rootfs:
            for path in UnitFiles(rootfs, self.plan.after.systemd_version).traps():
                yield f"{path} is not a regular file; systemd would hang reading it"

    def addresses(self) -> Iterator[str]:
        """Declared addresses that dockerd could not bind: not on this host, or in use by another program."""
        for declared in declared_bindings(self.policy):
            if not declared.is_tcp or canonical(declared.address) in self.ours:
                continue
            if wrong := self.network.unbindable(declared.address):
                yield f"{declared.location}: {wrong}"

    def bad_tls_files(self) -> Iterator[str]:
        """TLS files that are missing, unreadable, out of date, or that do not match."""
        if self.policy.tcp_tls in (None, Tls.NONE):
            return
        from dockerd_guard.observe.certificates import check_pair, validity

        tls = self.plan.after.daemon.tls
        paths = {"cert": tls.cert, "key": tls.key, **({"ca": tls.ca} if self.policy.tcp_tls is Tls.MUTUAL else {})}
        usable: dict[str, bytes] = {}
        for role, path in paths.items():
            try:
                with open(path or "", "rb") as file:
                    content = file.read(MAX_PEM_BYTES)
                # dockerd would start with a certificate that is out of date, and every client would refuse it.
                if role != "key" and (problem := validity(content).problem(datetime.now(UTC))):
                    yield f"{path} {problem}"
            except OSError as error:
                yield f"{path} cannot be used: {error.strerror}"
            except ValueError as error:
                yield f"{path} cannot be used: {error}"
            else:
                usable[role] = content
        if "cert" in usable and "key" in usable:
            try:
                check_pair(usable["cert"], usable["key"])
            except (OSError, ValueError) as error:
                yield f"{tls.cert} and {tls.key} cannot be used: {error}"

    def refused_arguments(self) -> Iterator[str]:
        """The error of `dockerd --validate` for the new arguments, if this dockerd has that flag."""
        after = self.plan.after
        command = after.service.exec_start[-1:]
        # A wrapper may ignore --validate and start dockerd.
        if after.dockerd_version < VALIDATE_SINCE or not command or not command[0].path.endswith("/dockerd"):
            return
        import subprocess

        argv = [command[0].path, *after.layer.argv[1:], "--validate"]
        environ = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                   **values(after.environment)}
        # daemon.json is validated in its corrected form, which is not written yet.
        with os.fdopen(os.memfd_create("daemon.json"), "wb") as edited:
            path = os.path.realpath(after.daemon.config_file)
            if content := next((change.after for change in self.plan.changes if change.path == path), None):
                edited.write(content)
                edited.flush()
                argv.append(f"--config-file=/proc/self/fd/{edited.fileno()}")
            try:
                done = subprocess.run(argv, env=environ, stdin=subprocess.DEVNULL, capture_output=True,
                                      timeout=VALIDATE_TIMEOUT_S, check=False, pass_fds=(edited.fileno(),))
            except (OSError, subprocess.TimeoutExpired) as error:
                yield f"{argv[0]} --validate: {error}"
                return
        if done.returncode != 0:
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            yield f"dockerd --validate: {last[0] if last else f'exit code {done.returncode}'}"
