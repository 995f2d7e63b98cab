"""The page of each journal event (events.md), for `explain` and for systemd's message catalog.

`python3 -m dockerd_guard.report.events` prints the catalog (journalctl(1), --catalog).
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Mapping

from dockerd_guard.report.journal import Event

WIDTH = 78

_PAGE = re.compile(r"^# (?P<event>[a-z-]+): (?P<title>.*)\n(?P<text>(?:(?!# ).*\n)*)", re.MULTILINE)


def pages() -> Mapping[Event, tuple[str, str]]:
    """Return title and text (Markdown) of each event."""
    with open(f"{os.path.dirname(__file__)}/events.md", encoding="utf-8") as file:
        return {Event(found["event"]): (found["title"], found["text"].strip("\n") + "\n")
                for found in _PAGE.finditer(file.read())}


def page(event: Event) -> str:
    """Return the page of an event, in Markdown."""
    title, text = pages()[event]
    return f"# {event}: {title}\n\n{text}"


def catalog() -> str:
    """Return all pages in the format of systemd's message catalog (systemd.io/CATALOG)."""
    entries = []
    for event, (title, text) in pages().items():
        sections = re.sub(r"^## (.*)\n\n", r"\1: ", text, flags=re.MULTILINE).split("\n\n")
        body = "\n\n".join(textwrap.fill(section, WIDTH, break_on_hyphens=False, break_long_words=False)
                           for section in sections)
        entries.append(
            f"-- {event.message_id}\nSubject: {title[:1].upper()}{title[1:]}\nDefined-By: dockerd-guard\n"
            f"Documentation: man:dockerd-guard(8)\n\n{body}\n")
    return "\n".join(entries)


if __name__ == "__main__":
    print(catalog(), end="")
