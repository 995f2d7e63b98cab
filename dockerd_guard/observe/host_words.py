"""Hosts of dockerd in text that is not evaluated, with variables in them: which are of TCP, and which are not known."""

from __future__ import annotations

import re

TEMPLATE = r"\{\{[^\n{}]{0,80}\}\}|\$\{[^\n{}]{0,80}\}|\$\([^\n()]{0,80}\)|#\{[^\n{}]{0,80}\}|<%[^\n%]{0,80}%>"
"""An expression of a shell, of Terraform, or of a template."""

# Patterns are compiled where they are first used (re caches them): most trees need none.
_EXPRESSION = rf"(?:{TEMPLATE}|\$\w{{1,80}}|\{{[^\n{{}}]{{0,80}}\}}|%[sv])"
_LOCAL = r"(?i:(?:unix|fd|npipe)(?::|\Z))|/|\Z"
_TCP = (
    rf"tcp:|://|(?:[\w.*-]|{_EXPRESSION}){{0,200}}:(?:[0-9]{{1,5}}(?![\w.])|[0-9]{{0,5}}{_EXPRESSION})"
    r"|(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w.])|\[[0-9a-fA-F:.%]{2,45}\](?::|\Z)")
_UNKNOWN = r"\$\{?[A-Za-z_0-9@*]|\$\(|(?:\$ENV|env)\.[A-Za-z_]|\{\{|<%|#\{"


def is_local(word: str) -> bool:
    """Whether a host is a UNIX socket, a named pipe, one that systemd passes, or empty."""
    return re.match(_LOCAL, word) is not None


def is_tcp(word: str) -> bool:
    """Whether a host is one of TCP: it has a port or the scheme, or is an IP address. Variables may be part of it."""
    return re.match(_TCP, word) is not None


def is_unknown(word: str) -> bool:
    """Whether a host begins with a variable, whose value may be an address."""
    return re.match(_UNKNOWN, word) is not None
