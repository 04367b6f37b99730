"""Foreign words (captions, ids, names) in HTML and Markdown, where they are shown and never obeyed."""

from __future__ import annotations

import html
import re

from tooncrafter_jax.errors import printable

_ACTIVE = re.compile(r"[\\`*\[\]!|~$@]|(?<!\w)_|_(?!\w)|:(?=//)")
"""What Markdown, with GitHub's tables, bare links, mentions and formulas, can take for more than a character."""


def html_text(text: object) -> str:
    """Any text as the content of an element, or of an attribute in quotation marks."""
    return html.escape(printable(text))


def markdown_text(text: object) -> str:
    """Any text inside a line or a table's cell of Markdown: no HTML, no link, no picture, no emphasis comes of it."""
    escaped = _ACTIVE.sub(lambda found: "\\" + found[0], printable(text))
    escaped = re.sub(r"(?i)\b(www)\.", r"\1\\.", escaped)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_code(text: object) -> str:
    """Any text as code in Markdown, whatever backticks are in it; not for a table's cell."""
    shown = printable(text)
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    space = " " if longest or not shown.strip() or shown[0] == " " == shown[-1] else ""
    return f"{fence}{space}{shown}{space}{fence}"


def plot_text(text: object) -> str:
    """Any text in a plot, whose library takes what stands between dollars for a formula."""
    return printable(text).replace("$", r"\$")
