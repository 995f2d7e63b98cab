"""What `lint` found about one root directory, or about the files of its command line; and paths in a checkout."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dockerd_guard.model.finding import Finding

Read = Callable[[str], bytes]
"""Returns the content of a file that a finding points to. Raises FileNotFoundError or Unreadable."""


def _nothing(path: str) -> bytes:
    raise FileNotFoundError(path)


class LintResult(NamedTuple):
    """The findings of one root.

    `outside` are files that are not below the root: a policy given by --policy, files of the command line. `notes` say
    what was assumed. `unanswered` says why the answer is incomplete: without findings it is not "nothing wrong".
    `judged` is false if nothing was found that could be judged. `ignored` are the findings that a comment in a file
    ignores, each with the reason there; `hidden` is the number of those left out by --select and --ignore.
    """

    root: str
    findings: tuple[Finding, ...] = ()
    outside: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    judged: bool = True
    ignored: tuple[tuple[Finding, str], ...] = ()
    hidden: int = 0
    read: Read = _nothing
    main_file: str = ""
    """Where a finding without a location is shown by a service that requires one."""

    def path(self, file: str) -> str:
        """The path on this machine of a file that a finding points to."""
        return file if file in self.outside else f"{self.root.rstrip('/')}{file}"


def checkout() -> str:
    """The directory that paths in annotations are relative to: that of the checkout which contains the working
    directory, or else the working directory."""
    here = os.path.realpath(os.getcwd())
    workspace = os.environ.get("GITHUB_WORKSPACE")
    if workspace and (here + "/").startswith(os.path.realpath(workspace) + "/"):
        return os.path.realpath(workspace)
    above = here
    while True:
        if os.path.lexists(f"{above}/.git"):
            return above
        if above == "/":
            return here
        above = os.path.dirname(above)


def in_checkout(path: str) -> str | None:
    """The path relative to the checkout; None if it is not below it."""
    top = checkout()
    full = os.path.join(os.path.realpath(os.getcwd()), path)
    relative = os.path.relpath(full, top)
    return None if relative == ".." or relative.startswith("../") or top == "/" else relative
