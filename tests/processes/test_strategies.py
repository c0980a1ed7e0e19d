"""SIPlugin in Avalanche's strategies, each rank with its share of the stream."""

from collections.abc import Callable
from typing import Any

import pytest

from si_avalanche import SIPlugin
from tests.digits import Network
from tests.lifecycle.test_heads import Incremental, MultiHead
from tests.processes.compare import assert_all_ranks_agree, assert_same_as_one_process
from tests.processes.strategies import Digits, Wrapping, train, warnings_about
from tests.saving import through_file

Together = Callable[..., list[Any]]


class Inheriting(SIPlugin):
    """A subclass that does not say whether it supports several processes."""


@pytest.mark.parametrize(
    ("ranks", "digits"),
    [
        (2, Digits(Network)),
        (4, Digits(Network, adam=True)),
        (2, Digits(Incremental, Wrapping, adam=True)),
        (2, Digits(Incremental, Wrapping, evaluates=True)),
        (2, Digits(MultiHead, Wrapping, task_labels=True)),
        (4, Digits(MultiHead, Wrapping, task_labels=True, adam=True)),
    ],
    ids=str,
)
def test_all_ranks_of_a_strategy_hold_the_state_of_one_process(
    together: Together, ranks: int, digits: Digits
) -> None:
    results = [noted for noted, _ in together(ranks, train, digits)]
    assert_all_ranks_agree(results)
    assert_same_as_one_process(results[0], train(0, 1, digits)[0])


def test_what_a_rank_saves_goes_on_in_one_process_with_the_bare_model(together: Together) -> None:
    whole, _ = train(0, 1, Digits(Network, end=3))
    (_, saved), *_ = together(2, train, Digits(Network, end=2))
    resumed, _ = train(0, 1, Digits(Network, begin=2, end=3), through_file(saved))
    assert_same_as_one_process(resumed, whole[4:])


def test_what_one_process_saves_goes_on_in_two(together: Together) -> None:
    whole, _ = train(0, 1, Digits(Network, end=3))
    _, saved = train(0, 1, Digits(Network, end=2))
    resumed = [
        r for r, _ in together(2, train, Digits(Network, begin=2, end=3), through_file(saved))
    ]
    assert_all_ranks_agree(resumed)
    assert_same_as_one_process(resumed[0], whole[4:])


def test_avalanche_takes_the_plugin_as_fit_for_several_processes(together: Together) -> None:
    assert SIPlugin.supports_distributed is True
    assert together(2, warnings_about, SIPlugin) == [[], []]


def test_a_subclass_has_to_say_so_itself_or_avalanche_warns_and_trains_all_the_same(
    together: Together,
) -> None:
    assert Inheriting.supports_distributed is False
    for messages in together(2, warnings_about, Inheriting):
        assert [m for m in messages if "not compatible" in m and "distributed" in m] == messages
        assert len(messages) == 1
