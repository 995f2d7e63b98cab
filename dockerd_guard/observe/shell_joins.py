"""Words of a shell that are written in parts: `docker""d`, `dock'er'd`, `d\\ockerd`, and a word of two lines.

A shell joins what stands side by side (POSIX Shell Command Language, 2.2 "Quoting"), and removes a backslash with the
end of its line.
"""

from __future__ import annotations

import re

# Patterns are compiled where they are first used (re caches them): most trees need none.
_JOINT = (
    r"\\(?:(?<=[\w./:=-]\\)\r?\n(?=[\w./:=-])|(?<![\w\\]\\)(?=[A-Za-z]{2})|(?<=[A-Za-z-]\\)(?=[A-Za-z]))"
    r"|\$(?<=[\w./\"'-]\$)(?=[\"'])"
    r"|\"(?<=[\w./\"'$-]\")(?P<a>[\w./:=-]{0,100})\"|'(?<=[\w./\"'$-]')(?P<b>[\w./:=-]{0,100})'"
    r"|\"(?P<c>[\w./:=-]{1,100})\"(?=[\w./\"'$-])|'(?P<d>[\w./:=-]{1,100})'(?=[\w./\"'$-])")
_WORD = r"\g<a>\g<b>\g<c>\g<d>"
"""What joins a word, and what is left of it."""

ABOUT = r"[\"'\\$\r\n]{0,4}".join("docker")
"""The name of Docker in parts."""

_MATTERS = (
    r"dockerd\b|tcp:|(?<![\w-])(?:-H|--host)\b|docker\.(?:sock|service|socket)\b|daemon\.json|ListenStream|socat\b")


def joined(text: str) -> str | None:
    """Return a text with its words in one part; None if that makes no word that may matter. Linear time."""
    result = re.sub(_JOINT, _WORD, text)
    if len(result) == len(text) or len(re.findall(_MATTERS, result)) <= len(re.findall(_MATTERS, text)):
        return None
    return result


def origin(text: str, place: int) -> int:
    """The offset in a text of a place in what joined() makes of it."""
    for joint in re.finditer(_JOINT, text):
        removed = joint.end() - joint.start() - len(joint.expand(_WORD))
        if joint.start() >= place:
            break
        place += removed
    return place
