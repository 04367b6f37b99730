"""What reports and tables show of foreign words is shown, never rendered or obeyed."""

from __future__ import annotations

import html.parser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.evaluation.small_set import Darker
from tests.hostile.amounts import amounts, holds_for
from tests.hostile.strategies import TEXTS
from tooncrafter_jax.curation.decision import decide
from tooncrafter_jax.curation.report import write_report as write_curation_report
from tooncrafter_jax.curation.splits import SplitRule
from tooncrafter_jax.curation.thresholds import Thresholds
from tooncrafter_jax.curation.workspace import Workspace
from tooncrafter_jax.data.clip_sets import ClipReference, ClipSet, write_clips
from tooncrafter_jax.data.records import clip_of_pictures
from tooncrafter_jax.errors import printable
from tooncrafter_jax.evaluation.metrics.psnr import Psnr
from tooncrafter_jax.evaluation.report import write_report
from tooncrafter_jax.evaluation.row_store import RowStore
from tooncrafter_jax.evaluation.run import Evaluation
from tooncrafter_jax.evaluation.true_clips import TrueClips, WindowRule
from tooncrafter_jax.io.markup import html_text, markdown_code, markdown_text
from tooncrafter_jax.verification.comparison import Row
from tooncrafter_jax.verification.report import table

MARKDOWN = MarkdownIt("gfm-like", {"linkify": False})
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![pixel](http://example.invalid/pixel.png)",
    "[click](javascript:alert(1))",
    "`code` ``two`` ```",
    "a | b | c",
    "**bold** _x_ ~~gone~~ $x^2$",
    "http://example.invalid/a www.example.invalid",
    "\x1b]0;owned\x07\x1b[2J",
    "one\n\n# two\n- three",
    "\u202egnp.exe",
    "&lt;b&gt; &#60;b&#62; \\",
)
pieces = st.sampled_from((*HOSTILE, *TEXTS)) | st.text("`*_[]()<>!|\\&;#$~:/\"'= \n\x1bab", max_size=20)
hostile_texts = st.lists(pieces, max_size=3).map("".join)


class Elements(html.parser.HTMLParser):
    """Collects the elements of a page, and what its text says."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.names: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


@amounts
def test_any_text_in_markdown_is_that_text(examples: int) -> None:
    def holds(text: str) -> None:
        shown = " ".join(printable(text).split())
        page = Elements(MARKDOWN.render(f"before {markdown_text(text)} after"))
        assert page.names == ["p"] and " ".join(page.text.split()) == f"before {shown} after".replace("  ", " ")
        row = Elements(MARKDOWN.render(f"| a | b |\n|---|---|\n| {markdown_text(text)} | end |"))
        assert row.names.count("td") == 2 and not {"a", "img", "script", "em", "code"} & {*row.names}

    holds_for(examples, hostile_texts, holds)


@amounts
def test_any_text_in_code_is_that_text(examples: int) -> None:
    def holds(text: str) -> None:
        page = Elements(MARKDOWN.render(f"before {markdown_code(text)} after"))
        assert page.names == ["p", "code"]
        assert page.text.split() == f"before {printable(text)} after".split()

    holds_for(examples, hostile_texts, holds)


@amounts
def test_any_text_in_html_is_that_text(examples: int) -> None:
    def holds(text: str) -> None:
        page = Elements(f'<p title="{html_text(text)}">{html_text(text)}</p>')
        assert page.names == ["p"] and page.text == printable(text)

    holds_for(examples, hostile_texts, holds)


def noise_clip(number: int, identity: str, caption: str, frames: int = 4) -> Any:
    pictures = np.random.default_rng(number).integers(0, 255, (frames, 32, 32, 3), np.uint8)
    return clip_of_pictures(pictures, id=identity, source=identity, fps=12.0, caption=caption)


@pytest.mark.gate
def test_the_report_of_an_evaluation(tmp_path: Path) -> None:
    """Clip ids, captions and a rival's folder are named by anybody."""
    pytest.importorskip("matplotlib", reason="needs the extra 'eval'")
    references = [
        ClipReference(f"{number} {text}", 1000, lambda n=number, t=text: noise_clip(n, f"{n} {t}", t))
        for number, text in enumerate(HOSTILE)
    ]
    write_clips(tmp_path / "set", {"test": references})
    clips = TrueClips(ClipSet(tmp_path / "set", "test"), WindowRule(4, 32, 32))
    methods = [Darker(10, text) for text in (HOSTILE[0], HOSTILE[2], HOSTILE[4], HOSTILE[5], "$\\frac{")]
    store = RowStore(tmp_path / "out", {}, {method.name: {} for method in methods})
    run = Evaluation(clips, methods, [Psnr()], store, batch=4)
    page = write_report(run, run.run(), {"set": "`x` <script>"}, shown=range(len(clips))).read_text()
    rendered = Elements(MARKDOWN.render(page))
    assert {"script", "em", "s"}.isdisjoint(rendered.names)
    assert all(link.startswith(("cases/", "plots/")) for link in rendered.links)
    assert all(character.isprintable() or character == "\n" for character in page)
    for text in HOSTILE:
        assert " ".join(printable(text).split()) in " ".join(rendered.text.split())


def test_the_report_of_a_curation(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'data'")
    workspace = Workspace(tmp_path / "workspace")
    results = [
        workspace.write(text, ("0" * 32,), iter([(noise_clip(number, text, text), ())]), 0.0)
        for number, text in enumerate(HOSTILE)
    ]
    results.append(workspace.write_failure(HOSTILE[1], f"'{HOSTILE[1]}' is cut off", "Traceback", 0.0))
    clips = [clip for result in results for clip in result.clips]
    run = {"production": HOSTILE[0], "stages": [{"name": HOSTILE[1]}]}
    page = write_curation_report(
        tmp_path / "report", run, results, decide(clips, Thresholds(), SplitRule()), workspace, Thresholds()
    ).read_text()
    shown = Elements(page)
    assert "script" not in shown.names and all("/" not in link and link.endswith(".png") for link in shown.links)
    assert "\x1b" not in page and HOSTILE[0] in shown.text


def test_the_table_of_a_verification() -> None:
    row = Row("a\x1b[2J.npz", "key\nFAKE  passed", "case\x07", verdict="FAIL", note="\x9b31m")
    lines = list(table([row]))
    assert all(line.isprintable() for line in lines) and len(lines) == 4
