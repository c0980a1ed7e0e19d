"""A matplotlib figure as SVG that can stand in an HTML page, with others beside it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

# Text stays text: it can be read aloud, searched and copied. A dollar sign means nothing here.
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "legend.fontsize": 8.5,
    "axes.linewidth": 0.6,
}
_DOTS_PER_INCH = 144
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_FONT_FAMILY = re.compile(r"font-family:[^;]*;?\s*")
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r"url\(#([^)]*)\)")


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw and save figures in the page's style while the body runs."""
    with matplotlib.rc_context(_STYLE):
        yield


def inline(figure: Figure, key: str, label: str) -> Markup:
    """Write a figure as an SVG element.

    :param figure: the figure, drawn under :func:`figure_style`.
    :param key: begins every id in the element, so that no other figure's is the same.
    :param label: what the figure shows, for those who cannot see it.
    :return: the element, all text in it escaped.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", dpi=_DOTS_PER_INCH, metadata=_NO_METADATA)
    # Matplotlib wrote this just now; nothing in it comes from elsewhere unescaped.
    root = ElementTree.fromstring(file.getvalue())
    _strip(root)
    _rename_ids(root, key)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib.update({"role": "img", "aria-label": label})
    title = ElementTree.Element("title")
    title.text = label
    root.insert(0, title)
    return Markup(ElementTree.tostring(root, encoding="unicode", method="html"))


def _strip(root: ElementTree.Element) -> None:
    for parent in root.iter():
        # Inside HTML an SVG element needs no namespace, and a style would count for the page.
        for child in list(parent):
            if child.tag.endswith("}style"):
                parent.remove(child)
        parent.tag = parent.tag.rpartition("}")[2]
        parent.attrib = {
            name.rpartition("}")[2]: _shorten(name, value) for name, value in parent.attrib.items()
        }
        if parent.tag != "text" and not (parent.text or "").strip():
            parent.text = None
        parent.tail = None


def _shorten(name: str, value: str) -> str:
    if value.startswith("data:"):
        return "".join(value.split())
    if name == "style":
        value = _FONT_FAMILY.sub("", value)
    return _NUMBER.sub(lambda match: f"{float(match[0]):.2f}", " ".join(value.split()))


def _rename_ids(root: ElementTree.Element, key: str) -> None:
    used = {
        found
        for element in root.iter()
        for name, value in element.attrib.items()
        for found in [*_REFERENCE.findall(value), *([value[1:]] if name == "href" else [])]
    }
    new = {old: f"{key}-{number}" for number, old in enumerate(sorted(used))}
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            if name == "id" and value not in used:
                del element.attrib[name]
            elif name == "id":
                element.attrib[name] = new[value]
            elif name == "href" and value.startswith("#"):
                element.attrib[name] = "#" + new[value[1:]]
            else:
                element.attrib[name] = _REFERENCE.sub(lambda m: f"url(#{new[m[1]]})", value)
