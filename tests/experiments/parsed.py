"""A written report as a browser sees it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from experiments.records import Row
from experiments.report import write_report

_HTML = """html head meta title style body header main nav section h1 h2 h3 p a b i ul li dl dt dd
    div span table caption thead tbody tr th td figure figcaption details summary code pre"""
_SVG = "svg g path text tspan use defs image rect clippath"
ALLOWED = {*_HTML.split(), *_SVG.split()}
_VOID = ("meta",)
_CELLS = ("dt", "dd", "th", "td", "caption")


class Page(HTMLParser):
    """Elements in order and text by section; fails on what is not closed in its place."""

    def __init__(self, written: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.sections: dict[str, str] = {}
        self._open: list[str] = []
        self._section = ""
        self.feed(written)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "section":
            self._section = self.elements[-1][1]["id"]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag in _CELLS:
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        self.sections[self._section] = self.sections.get(self._section, "") + data

    def all_of(self, name: str) -> list[str]:
        """The values of an attribute, wherever it stands."""
        return [attributes[name] for _, attributes in self.elements if name in attributes]

    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]

    def told(self, section: str) -> str:
        """A section's text, dashes as one types them."""
        return " ".join(self.sections[section].split()).replace("\N{EN DASH}", "-")


def page_of(rows: list[Row], folder: Path, title: str = "A study", *notes: str) -> Page:
    return Page(write_report(rows, folder, title, notes).read_text(encoding="utf-8"))
