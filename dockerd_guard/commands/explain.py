"""The verb `explain`: the page of a rule or of a journal event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dockerd_guard.commands._common import OK, Unanswerable, print_lines
from dockerd_guard.report import events
from dockerd_guard.report.journal import Event
from dockerd_guard.rules.registry import TITLES, page

if TYPE_CHECKING:
    from types import SimpleNamespace


def run(options: SimpleNamespace) -> int:
    """Print the requested pages, or all titles. Returns the exit code."""
    titles = {str(event): title for event, (title, _) in events.pages().items()}
    if not options.code:
        print_lines(f"{code}  {title}" for code, title in {**TITLES, **titles}.items())
        return OK
    for code in options.code:
        if code.upper() not in TITLES and code.lower() not in titles:
            raise Unanswerable(f"no rule or event {code}; `dockerd-guard explain` lists all")
    for number, code in enumerate(options.code):
        text = page(code.upper()) if code.upper() in TITLES else events.page(Event(code.lower()))
        print("\n" * (number > 0) + text, end="")
    return OK
