"""What the invariants remember of a history, independently of the agent."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from dockerd_guard.policy.model import Policy
from tests.simulation.host import Meanwhile, SimulatedHost

DROPINS = "/etc/systemd/system/docker.service.d"
INPUTS = (DROPINS, "/etc/systemd/system/docker.socket.d", "/etc/docker/daemon.json", "/srv/config/daemon.json",
          "/etc/default/docker")
"""Files that a correction depends on."""

Files = Mapping[str, bytes]


class Correction(NamedTuple):
    """The files that a correction of a running dockerd changed, as it left them, when, and what all others held."""

    files: Mapping[str, bytes | None]
    at: float
    others: Mapping[str, bytes]


class Watch:
    """One for each history."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        """Invariants that an action itself broke."""
        self.left: dict[str, bytes | None] = {}
        """The files that we changed, as we left them."""
        self.ours: set[tuple[str, bytes | None]] = set()
        """Every content that we ever left a file with. Who wrote the same again cannot be distinguished."""
        self.undone: Counter[tuple[str, bytes | None]] = Counter()
        """How often somebody else changed such a file from that content."""
        self.correction: Correction | None = None
        self.policy: tuple[Policy, float] | None = None
        """The policy in force, and since when."""
        self.failure: tuple[object, str] | None = None
        """The last failed correction that was held, and the inputs then."""

    def in_force_since(self, policy: Policy, seconds: float) -> float:
        """Since when this policy is in force, of which a pass has taken note that began then."""
        if self.policy is None or self.policy[0] != policy:
            self.policy = policy, seconds
        return self.policy[1]

    def others_changed(self, files: Files) -> None:
        """Take in what others did before a pass."""
        for path, content in list(self.left.items()):
            if files.get(path) != content:
                self.undone[path, content] += 1
                del self.left[path]
        if self.correction is not None and any(files.get(path) != content
                                               for path, content in self.correction.files.items()):
            self.correction = None

    def with_others(self, files: Files, events: Iterable[Meanwhile]) -> Files:
        """The files before a pass, as if others had done before what they did during it."""
        result = dict(files)
        for event in events:
            result.update({path: content for path, content in event.files.items() if content is not None})
            for path, content in event.files.items():
                if content is None:
                    result.pop(path, None)
                if event.before.get(path) != files.get(path):
                    self.undone[path, event.before.get(path)] += 1
        return result

    def we_changed(self, before: Files, now: Files) -> Mapping[str, bytes | None]:
        """Take in what a pass did. Returns the files that it changed, with their content now."""
        changed = {path: now.get(path) for path in {*before, *now} if before.get(path) != now.get(path)}
        self.left.update(changed)
        self.ours.update(changed.items())
        return changed


def files(host: SimulatedHost) -> dict[str, bytes]:
    """The content of every file below /etc and /srv, of the units of packages, and of dockerd."""
    found = {}
    for top in ("etc", "srv", "usr/lib/systemd", "usr/bin"):
        for path in sorted((host.root / top).rglob("*")):
            name = "/" + str(path.relative_to(host.root))
            if path.is_symlink():
                found[name] = f"link {path.readlink()}".encode()
            elif path.is_file():
                found[name] = path.read_bytes()
    return found


def inputs(host: SimulatedHost, now: Files, policy: Policy) -> str:
    """A digest of what a correction depends on: files, the environment, the disk, the policy in force."""
    read = [(path, content) for path, content in sorted(now.items())
            if path.startswith(INPUTS) and not path.endswith("-saved") and "-saved." not in path]
    return hashlib.sha256(repr((policy, read, sorted(host.environment.items()), host.disk_errno)).encode()).hexdigest()
