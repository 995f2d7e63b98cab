"""Dockerfiles: the images that their stages begin with (docs.docker.com/reference/dockerfile)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dockerd_guard.observe.compose_variables import interpolated

MAX_INSTRUCTIONS = 1_000
"""Instructions FROM and ARG, and documents within instructions, of one file."""

# Patterns are compiled where they are first used (re caches them): most trees need none.
_CONTINUED = r"\\[ \t]{0,80}\r?\n"
_INSTRUCTION = (
    r"(?m:^)[ \t]{0,80}(?:(?P<name>(?i:FROM|ARG))[ \t]{1,80}(?P<words>[^\n]{0,2000})"
    r"|(?i:RUN|COPY|ADD)[ \t][^\n]{0,2000}?<<-?[\"']?(?P<end>[A-Za-z_]\w{0,80}))")
_ARGUMENT = r"([A-Za-z_]\w{0,200})(?:=(?:\"([^\"]{0,400})\"|'([^']{0,400})'|(\S{0,400})))?(?=\s|\Z)"


def images_of(text: str, arguments: Mapping[str, str], contexts: Mapping[str, str]) -> dict[str, str] | None:
    """Return the image that each stage begins with, by its name in lower case, by its number, and by "" for the last
    one; None if there are more instructions than are read. `arguments` have precedence over the defaults of ARG,
    `contexts` are images in place of those that FROM names."""
    text = re.sub(_CONTINUED, "", text)
    found: dict[str, str] = {}
    known: dict[str, str] = {}
    instructions, count, position = re.compile(_INSTRUCTION), 0, 0
    stages, has_documents = 0, True
    while (each := instructions.search(text, position)) is not None:
        position, count = each.end(), count + 1
        if count > MAX_INSTRUCTIONS:
            return None
        if each["end"]:
            # One that does not end is a shift, as `1<<N`. The text is searched for the end of one such document only.
            ending = re.compile(rf"\n\t{{0,80}}{each['end']}\r?(?=\n|\Z)")
            end = ending.search(text, position) if has_documents else None
            position, has_documents = (end.end(), True) if end is not None else (position, False)
        elif each["name"].upper() == "ARG" and not stages:
            for name, *values in re.findall(_ARGUMENT, each["words"]):
                known[name] = arguments.get(name, interpolated("".join(values), known))
        elif each["name"].upper() == "FROM":
            image, name = _stage(each["words"], known)
            image = contexts.get(image, found.get(image.lower(), image))
            found |= {str(stages): image, "": image} | ({name: image} if name else {})
            stages += 1
    return found


def _stage(words: str, known: Mapping[str, str]) -> tuple[str, str]:
    """The image and the name of a stage."""
    image, *rest = [word for word in words.split() if not word.startswith("--")] or [""]
    return interpolated(image, known), rest[1].lower() if len(rest) > 1 and rest[0].lower() == "as" else ""
