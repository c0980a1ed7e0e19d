"""Where the importance lies: each parameter's share at the end of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from experiments.records import Result
from experiments.report.tables import Cell, percent
from experiments.statistics import estimate
from experiments.variants import Panel, Variant, best_of_each


@dataclass(frozen=True)
class Share:
    """One parameter's importance.

    :param share: of the total, in percent, as text.
    :param total: mean over seeds, as text.
    :param width: of its bar, in percent of the largest.
    """

    parameter: str
    share: Cell
    total: str
    width: float


@dataclass(frozen=True)
class Importance:
    """Where a variant's importance lies.

    :param n: seeds that recorded it.
    """

    title: str
    shares: tuple[Share, ...]
    n: int


def importances(panel: Panel) -> list[Importance]:
    """Tell the importance of each parameter at the end of training.

    :param panel: what was measured on the same data.
    :return: one for the best variant of each strategy that recorded any.
    """
    recorded = [
        variant for variant in panel.ended if any(r.importance for r in variant.results.values())
    ]
    return [_importance(panel, variant) for variant in best_of_each(recorded)]


def _importance(panel: Panel, variant: Variant) -> Importance:
    results = [result for result in variant.results.values() if result.importance]
    shares = [_shares(result) for result in results]
    names = list(dict.fromkeys(name for each in shares for name in each))
    means = {name: fmean(each.get(name, 0.0) for each in shares) for name in names}
    largest = max(means.values()) or 1.0
    lines = [
        Share(
            name,
            percent(estimate([each.get(name, 0.0) for each in shares])),
            f"{fmean(result.importance.get(name, 0.0) for result in results):.3g}",
            max(0.0, 100 * means[name] / largest),
        )
        for name in names
    ]
    return Importance(f"{variant.label}: {panel.title}", tuple(lines), len(results))


def _shares(result: Result) -> Mapping[str, float]:
    total = sum(result.importance.values()) or 1.0
    return {name: value / total for name, value in result.importance.items()}
