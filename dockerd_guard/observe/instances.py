"""Templates of systemd (docker@.service): hosts with the name of an instance, which no file has.

Such a name is judged as an expression of a template is: an address that may be any.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from itertools import islice

from dockerd_guard.observe import templates

_TEMPLATE = re.compile(r"@\.(?:service|socket)(?:\.d/|\Z)")
_HOST = re.compile(r"(?:(?<=\s)(?:-H|--host)[ \t=]{0,8}|Listen(?:Stream|SequentialPacket)[ \t]{0,8}=[ \t]{0,8})"
                   r"[\"']?(?P<host>[^\s\"']{1,200})")
_INSTANCE = re.compile(r"(?<!%)(?:%%){0,100}(%[iIf])")
_MARK = "{{}}"


def renderings(name: str, text: str, place: str) -> list[templates.Rendered]:
    """Return a unit with values for the instance in its TCP hosts; empty if it is no template with such a host."""
    if _TEMPLATE.search(place) is None:
        return []
    # One more than are replaced: of the rest it is said that it is not known.
    found = list(islice((host.start("host") + specifier.start(1) for host in _HOST.finditer(text)
                         if host["host"].startswith("tcp:") or "/" not in host["host"]
                         for specifier in _INSTANCE.finditer(host["host"])), templates.MAX_EXPRESSIONS + 1))
    if not found:
        return []
    ends = [0, *(each + 2 for each in found)]
    marked = "".join(f"{text[end:each]}{{{{{text[each:each + 2]}}}}}" for end, each in zip(ends, found, strict=False))
    marked += text[ends[-1]:]
    # Where the marks begin in the marked text: each is longer than the specifier.
    starts = [each + len(_MARK) * number for number, each in enumerate(found)]

    def original(offset: int) -> int:
        return offset - len(_MARK) * bisect_left(starts, offset)

    return [each._replace(
        origins=tuple(map(original, each.origins)), expressions=tuple(
            expression._replace(text=re.sub(r"\A\{\{(%[iIf])\}\}\Z", r"\1", expression.text))
            for expression in each.expressions)) for each in templates.renderings(name, marked, "unit")]
