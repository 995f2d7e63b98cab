"""Variables of Compose files: the file `.env` beside them, and `${NAME}` in their values.

The syntax is that of Compose (docs.docker.com/reference/compose-file/interpolation, compose-go's dotenv). The
environment of the shell, which has precedence, is not known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

MAX_TEXT, MAX_VALUE = 2_000, 256
"""Characters of a value in which variables are replaced, and of the value of a variable."""

MAX_VALUES = 2_000_000
"""Characters of all values of a file. In the rest of it, variables stay as they are."""

MAX_DEPTH = 5
"""Variables within the default values of others."""

_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,200}"
_SETTING = re.compile(
    rf"^[ \t]*(?:export[ \t]+)?(?P<name>{_NAME})[ \t]*[=:][ \t]*(?:'(?P<single>[^']*)'|\"(?P<double>(?:[^\"\\]|\\.)*)\""
    r"|(?P<plain>[^\n]*))", re.MULTILINE | re.DOTALL)
_VARIABLE = re.compile(
    rf"\$(?:\$|(?P<name>{_NAME})|\{{(?P<braced>{_NAME})(?:(?P<operator>:?[-+?])(?P<word>[^{{}}$]{{0,400}}))?\}})")


@lru_cache(maxsize=1)
def variables_of(text: str) -> Mapping[str, str]:
    """Return the variables that a file `.env` sets. A later line may use those before it. The files of Compose in one
    directory have the same."""
    found: dict[str, str] = {}
    room = MAX_VALUES
    for setting in _SETTING.finditer(text.replace("\r\n", "\n")):
        if setting["single"] is not None:
            value = setting["single"]
        else:
            value = re.sub(r"\\([\\\"])", r"\1", setting["double"]) if setting["double"] is not None else re.split(
                r"(?:\A|[ \t])#", setting["plain"], maxsplit=1)[0].strip()
            value = interpolated(value, found) if room > 0 else value
        room -= len(value)
        found[setting["name"]] = value
    return {name: value for name, value in found.items() if len(value) <= MAX_VALUE}


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """Replace variables by their values, or by the default that the text has for them. What is not known stays."""
    if "$" not in text or len(text) > MAX_TEXT:
        return text
    for _ in range(MAX_DEPTH):
        before, text = text, _VARIABLE.sub(lambda found: _value(found, variables), text)
        if text == before or len(text) > MAX_TEXT:
            break
    return text.replace("$$", "$")


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    value = variables.get(found["name"] or found["braced"] or "")
    operator, word = found["operator"] or "", found["word"] or ""
    is_set = value is not None and (value != "" or not operator.startswith(":"))
    if operator.endswith("+"):
        return word if is_set else "" if value is not None else found[0]
    if operator.endswith("-") and not is_set:
        return word
    return value if value is not None and len(value) <= MAX_VALUE else found[0]
