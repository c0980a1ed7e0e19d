from pathlib import Path

import pytest
import torch
from avalanche.training.templates import SupervisedTemplate

from experiments.errors import BadValueError
from experiments.quiet import quiet
from experiments.records import Data, Description, Network, Place, Result, Training
from experiments.strategies import STRATEGIES
from experiments.streams import make_benchmark
from experiments.streams.online import online_parts
from experiments.trial import run_trial
from experiments.untyped import Experience
from si_avalanche import SIPlugin
from tests.experiments.tiny import NOT_ONLINE


def experience(data_root: Path) -> Experience:
    data = Data("split_mnist", "online")
    return make_benchmark(data, 0, data_root, global_labels=False).train_stream[3]


def pictures(parts: list[Experience]) -> list[bytes]:
    return [sample[0].numpy().tobytes() for part in parts for sample in part.dataset]


# 24 samples: once in parts that are all full, once not.
@pytest.mark.parametrize(("size", "lengths"), [(6, [6] * 4), (7, [7, 7, 7, 3]), (50, [24])])
def test_parts_hold_each_sample_once_and_tell_where_their_experience_ends(
    size: int, lengths: list[int], data_root: Path
) -> None:
    whole = experience(data_root)
    parts = online_parts(whole, size, 0, drop_last=False)
    assert [len(part.dataset) for part in parts] == lengths
    assert sorted(pictures(parts)) == sorted(pictures([whole]))
    assert [part.is_first_subexp for part in parts] == [True] + [False] * (len(parts) - 1)
    assert [part.is_last_subexp for part in parts] == [False] * (len(parts) - 1) + [True]
    for part in parts:
        assert part.access_task_boundaries
        assert part.current_experience == 3
        assert list(part.task_labels) == [0]
        assert {int(label) for _, label, _ in part.dataset} <= {6, 7}


@pytest.mark.parametrize(("size", "lengths"), [(6, [6] * 4), (7, [7] * 3)])
def test_a_part_that_is_not_full_can_be_left_out(
    size: int, lengths: list[int], data_root: Path
) -> None:
    parts = online_parts(experience(data_root), size, 0, drop_last=True)
    assert [len(part.dataset) for part in parts] == lengths
    assert parts[-1].is_last_subexp


def test_an_experience_of_which_nothing_is_left_is_an_error(data_root: Path) -> None:
    with pytest.raises(BadValueError, match="choose a smaller batch"):
        online_parts(experience(data_root), 25, 0, drop_last=True)


def test_the_seed_alone_decides_about_the_order(data_root: Path) -> None:
    whole = experience(data_root)
    first = pictures(online_parts(whole, 6, 0, drop_last=False))
    state = torch.get_rng_state()
    assert pictures(online_parts(whole, 6, 0, drop_last=False)) == first
    assert pictures(online_parts(whole, 6, 1, drop_last=False)) != first
    assert torch.equal(torch.get_rng_state(), state)


def describe(
    strategy: str, strength: float | None = None, *, reset: str = "all", memory: int = 12
) -> Description:
    return Description(
        data=Data("split_mnist", "online"),
        strategy=strategy,
        strength=strength,
        network=Network(hidden=(8,)),
        training=Training(batch_size=6, learning_rate=1e-2, epochs=1, reset=reset),
        seed=0,
        memory=memory,
    )


def run(description: Description, data_root: Path) -> Result:
    with quiet():
        return run_trial(description, Place(str(data_root)))


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name not in NOT_ONLINE])
def test_accuracies_are_taken_after_whole_experiences(strategy: str, data_root: Path) -> None:
    strength = 1.0 if STRATEGIES[strategy].strength else None
    outcome = run(describe(strategy, strength), data_root)
    rows = 1 if STRATEGIES[strategy].trains_once else 5
    assert [len(row) for row in outcome.accuracy] == [5] * rows


@pytest.mark.parametrize("strategy", NOT_ONLINE)
def test_what_goes_over_the_data_again_at_each_mini_batch_is_refused(
    strategy: str, data_root: Path
) -> None:
    with pytest.raises(BadValueError, match="not for an online stream"):
        run(describe(strategy, 1.0), data_root)


def test_each_sample_is_trained_on_once_in_an_order_of_the_seeds(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[torch.Tensor] = []
    forward = SupervisedTemplate.forward

    def spy(self: SupervisedTemplate) -> torch.Tensor:
        if self.is_training:
            batches.append(self.mb_x.clone())
        return forward(self)

    monkeypatch.setattr(SupervisedTemplate, "forward", spy)
    outcome = run(describe("naive"), data_root)
    assert outcome.extra_passes == 0
    first = torch.cat(batches)
    assert [len(batch) for batch in batches] == [6] * 20
    assert len(torch.unique(first.flatten(1), dim=0)) == 120
    batches.clear()
    run(describe("si", 0.0), data_root)
    assert torch.equal(torch.cat(batches), first)


@pytest.mark.parametrize(
    ("reset", "steps"), [("all", [1, 2, 3, 4] * 5), ("nothing", list(range(1, 21)))]
)
def test_the_optimiser_forgets_at_each_experience_not_at_each_part(
    reset: str, steps: list[int], data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    step = torch.optim.Adam.step

    def spy(self: torch.optim.Adam, *args: object) -> object:
        returned = step(self, *args)
        found.append(int(self.state[self.param_groups[0]["params"][0]]["step"]))
        return returned

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    run(describe("naive", reset=reset), data_root)
    assert found == steps


def test_si_consolidates_after_whole_experiences(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: list[int] = []
    after = SIPlugin.after_training_exp

    def spy(self: SIPlugin, strategy: object, **kwargs: object) -> None:
        before = {name: kept.clone() for name, kept in self.si.omega.items()}
        after(self, strategy, **kwargs)
        now = self.si.omega
        changes.append(any(name not in before or not before[name].equal(now[name]) for name in now))

    monkeypatch.setattr(SIPlugin, "after_training_exp", spy)
    run(describe("si", 1.0), data_root)
    assert changes == [False, False, False, True] * 5


def test_a_replay_buffer_holds_samples_of_every_experience(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avalanche.training.plugins import ReplayPlugin

    held: set[int] = set()
    after = ReplayPlugin.after_training_exp

    def spy(self: ReplayPlugin, strategy: object, **kwargs: object) -> None:
        after(self, strategy, **kwargs)
        held.clear()
        held.update(int(label) for label in self.storage_policy.buffer.targets)

    monkeypatch.setattr(ReplayPlugin, "after_training_exp", spy)
    # Fewer places than there are mini-batches: an equal share for each of them would be nothing.
    run(describe("replay", memory=15), data_root)
    assert {label // 2 for label in held} == set(range(5))


def test_avalanches_own_forgetting_compares_experiences(data_root: Path) -> None:
    outcome = run(describe("naive"), data_root)
    learnt = [outcome.accuracy[i][i] for i in range(4)]
    lost = [then - now for then, now in zip(learnt, outcome.accuracy[-1][:4], strict=True)]
    assert outcome.avalanche_forgetting == pytest.approx(sum(lost) / 4)
    assert outcome.avalanche_backward_transfer == pytest.approx(-sum(lost) / 4)
