"""The registry of rules: code, module and documentation of each. Codes are never reused."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from dockerd_guard.rules import unused_waiver

if TYPE_CHECKING:
    from dockerd_guard.model.finding import Finding
    from dockerd_guard.observe.observation import Observation
    from dockerd_guard.policy.model import Policy


class Rule(Protocol):
    """The names that the module of a rule defines. Its documentation is the Markdown file beside the module."""

    __name__: str
    CODE: str
    TITLE: str

    def check(self, seen: Observation, policy: Policy | None) -> Iterable[Finding]:
        """Yield the findings of this rule. Without a policy (None), yield only those that do not need one."""


_MODULES = (
    "undeclared_socket",
    "missing_socket",
    "unauthenticated_tcp",
    "tcp_through_socket_unit",
    "weak_tls",
    "loose_socket_mode",
    "other_access_path",
    "exposed_container",
    "rootless_tcp_host",
    "containerd_tcp",
    "hosts_conflict",
    "fd_without_socket_unit",
    "invalid_host",
    "multiple_exec_start",
    "refused_configuration",
    "bad_tls_files",
    "unavailable_address",
    "socket_path_conflict",
    "port_claimed_twice",
    "ignored_dropin",
    "skipped_line",
    "overriding_dropin",
    "edited_vendor_unit",
    "unused_variable",
    "ineffective_key",
    "pending_reload",
    "pending_restart",
    "stale_socket_unit",
    "input_beyond_limit",
    "loose_file_mode",
    "live_restore_off",
)
"""The modules of the rules, sorted by code."""

RULES = tuple(cast(Rule, import_module(f"dockerd_guard.rules.{name}")) for name in _MODULES)
"""All rules but `unused_waiver`, which runs on the findings of these."""

TITLES = {**{rule.CODE: rule.TITLE for rule in RULES}, unused_waiver.CODE: unused_waiver.TITLE}
"""The title of each code."""

_PAGES = {**{rule.CODE: rule.__name__ for rule in RULES}, unused_waiver.CODE: unused_waiver.__name__}


def page(code: str) -> str:
    """Return the documentation of a rule, in Markdown. Raises KeyError for an unknown code."""
    with open(page_file(code), encoding="utf-8") as file:
        return file.read()


def page_file(code: str) -> str:
    """Return the path of the documentation of a rule. Raises KeyError for an unknown code."""
    return f"{os.path.dirname(__file__)}/{_PAGES[code].rpartition('.')[2]}.md"
