"""A terminal's text as SVG, which contains only text. `make docs` creates docs/demo.svg from the output of `make demo`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape

COLUMNS = 110
LINE_PX = 19
CHARACTER_PX = 8.4
MARGIN_PX = 22
BAR_PX = 34

STYLE = """
text { font: 14px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #c9d1d9; white-space: pre }
.title { fill: #79c0ff; font-weight: bold } .seen { fill: #7ee787 } .command { fill: #ffffff; font-weight: bold }
.text { fill: #8b949e } .wait { fill: #d29922 } .open { fill: #ff7b72; font-weight: bold }
"""

_KINDS = (
    ("title", r"━━ "), ("open", r" ✓ from outside, anybody is root"), ("seen", r" ✓ "),
    ("command", r"   (#|outside\$) "),
    ("wait", r"   … "), ("text", r"\S"),
)


def terminal(lines: Iterable[str], title: str) -> str:
    """Return the lines as an SVG terminal. The beginning of a line, as `make demo` prints it, selects its colour."""
    shown = [piece for line in lines for piece in _wrapped(line.rstrip())]
    width = round(COLUMNS * CHARACTER_PX + 2 * MARGIN_PX)
    height = BAR_PX + len(shown) * LINE_PX + MARGIN_PX
    return "\n".join((
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>',
        *(f'<circle cx="{MARGIN_PX + 20 * number}" cy="18" r="6" fill="{colour}"/>'
          for number, colour in enumerate(("#ff5f56", "#ffbd2e", "#27c93f"))),
        f'<text x="{width // 2}" y="23" text-anchor="middle" class="text">{escape(title)}</text>',
        *_texts(shown),
        "</svg>", ""))


def _texts(shown: list[str]) -> Iterator[str]:
    for number, line in enumerate(shown):
        if line:
            kind = next((name for name, begin in _KINDS if re.match(begin, line)), "")
            style = f' class="{kind}"' if kind else ""
            y = BAR_PX + (number + 1) * LINE_PX
            yield f'<text x="{MARGIN_PX}" y="{y}"{style} xml:space="preserve">{escape(line)}</text>'


def _wrapped(line: str) -> Iterator[str]:
    """Yield the parts of a long line, with the same indentation."""
    indent = len(line) - len(line.lstrip())
    while len(line) > COLUMNS:
        cut = line.rfind(" ", indent + 1, COLUMNS + 1)
        cut = cut if cut > 0 else COLUMNS
        yield line[:cut]
        line = " " * (indent + 2) + line[cut:].lstrip()
    yield line
