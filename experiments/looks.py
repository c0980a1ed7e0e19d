"""What each strategy looks like in figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.colors import to_hex

from experiments.strategies import STRATEGIES
from experiments.variants import Variant

Look = dict[str, Any]

# Colours that stay apart under the common colour-blindnesses (Okabe and Ito), with a line style
# or marker of their own where a colour has to serve twice. SI is the only heavy line.
LOOKS: dict[str, Look] = {
    "naive": {"color": "#8a8a8a", "marker": "x"},
    "si": {"color": "#d55e00", "linewidth": 2.8, "marker": "o", "zorder": 5},
    "si-avalanche": {"color": "#000000", "linestyle": (0, (2, 2)), "marker": "."},
    "ewc": {"color": "#0072b2", "marker": "s"},
    "ewc-online": {"color": "#0072b2", "marker": "s", "linestyle": (0, (4, 2)), "mfc": "white"},
    "mas": {"color": "#009e73", "marker": "^"},
    "lwf": {"color": "#cc79a7", "marker": "v"},
    "rwalk": {"color": "#56b4e9", "marker": "D"},
    "replay": {"color": "#e69f00", "marker": "P"},
    "cumulative": {"color": "#6a3d9a", "marker": "X"},
    "joint": {"color": "#6a3d9a", "marker": "*", "markersize": 9, "linestyle": "none"},
}
_SPARE_COLOURS = ("#44aa99", "#882255", "#117733", "#332288", "#aa4499")
_MARKERS = "osD^vPX<>ph"
_PLAIN: Look = {"linewidth": 1.3, "markersize": 4.5}
# The lightest end of the map is lost on white paper.
_LIGHTEST = 0.88


def looks_for(variants: Sequence[Variant]) -> list[Look]:
    """Choose what tells the variants of one figure apart.

    :param variants: what the figure shows.
    :return: keyword arguments of matplotlib's ``plot``, one for each: a strategy's own look, or
        shades from dark to light for a strategy that comes several times.
    """
    names = [variant.description.strategy for variant in variants]
    return [
        look_of(name)
        if names.count(name) == 1
        else _shade(names[:i].count(name), names.count(name))
        for i, name in enumerate(names)
    ]


def look_of(strategy: str) -> Look:
    """Look up a strategy.

    :param strategy: its name.
    :return: its look; one from the spare colours if the table has none for it.
    """
    if strategy in LOOKS:
        return {**_PLAIN, **LOOKS[strategy]}
    rest = [name for name in STRATEGIES if name not in LOOKS]
    place = rest.index(strategy) if strategy in rest else len(rest)
    return {
        **_PLAIN,
        "color": _SPARE_COLOURS[place % len(_SPARE_COLOURS)],
        "marker": _MARKERS[place % len(_MARKERS)],
        "linestyle": (0, (5, 1.5)),
    }


def _shade(place: int, count: int) -> Look:
    shade = to_hex(colormaps["viridis"](_LIGHTEST * place / (count - 1)))
    return {**_PLAIN, "color": shade, "marker": _MARKERS[place % len(_MARKERS)]}
