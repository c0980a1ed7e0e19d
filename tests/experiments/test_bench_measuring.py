"""What the bench measures, and in what order."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.bench import lives, through_avalanche, timing
from experiments.bench.lives import measure_tasks
from experiments.bench.memory import Seen, look_at
from experiments.bench.method import Method
from experiments.bench.methods import GROWING, METHODS, OURS, Entry, Ours
from experiments.bench.steps import measure_steps
from experiments.bench.through_avalanche import measure_iterations
from experiments.bench.timing import How, in_turn, ratios, spread
from experiments.bench.trainee import make_adam, trainees
from experiments.bench.workloads import bank, extent_on, mlp, small_resnet
from experiments.quiet import quiet
from si_avalanche import SIPlugin
from tests.experiments.small_bench import HOW, PARAMETERS, TINY

pytestmark = pytest.mark.usefixtures("_single_calls")


def test_all_are_timed_in_turn_and_every_round_begins_with_another() -> None:
    calls: list[str] = []

    def statement(name: str) -> Callable[[], None]:
        return lambda: calls.append(name)

    names = ("a", "b", "c")
    seconds = in_turn({name: statement(name) for name in names}, replace(HOW, rounds=4))
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert {name: len(taken) for name, taken in seconds.items()} == dict.fromkeys(names, 4)
    assert min(min(taken) for taken in seconds.values()) > 0


def test_short_calls_are_timed_many_at_once_on_the_threads_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timing, "_SECONDS_AT_ONCE", 10.0)
    threads = []
    seconds = in_turn(
        {"one": lambda: threads.append(torch.get_num_threads())}, replace(HOW, threads=2)
    )
    # One call tells how long it takes; each timing makes two before.
    assert len(threads) == 1 + 2 * (2 + 200)
    assert set(threads[1:]) == {2}
    assert len(seconds["one"]) == 2


def test_threads_are_given_back_whatever_happens() -> None:
    before = torch.get_num_threads()

    def fail() -> None:
        with replace(HOW, threads=before + 1).on_its_threads():
            assert torch.get_num_threads() == before + 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.get_num_threads() == before


def test_ratios_are_of_the_same_round() -> None:
    assert ratios([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == [2.0, 3.0, 1.0]
    assert spread([2.0, 3.0, 1.0]) == timing.Spread(1.0, 2.0, 3.0)


def test_every_method_has_a_row_with_its_ratios_to_both_optimisers() -> None:
    rows = measure_steps(TINY, ["step"], HOW)
    assert [row.method for row in rows] == [entry.label for entry in METHODS.values()]
    for row in rows:
        assert (row.part, row.what, row.rounds) == ("step", "step", 2)
        assert (row.parameters, row.tensors) == (PARAMETERS, 4)
        assert row.seconds_min is not None
        assert row.seconds_max is not None
        assert 0 < row.seconds_min <= row.seconds_max
    default, fused, *others = rows
    assert (default.ratio_min, default.ratio_max) == (1.0, 1.0)
    assert (fused.fused_ratio_min, fused.fused_ratio_max) == (1.0, 1.0)
    assert all(row.ratio_median != 1.0 for row in (fused, *others))
    assert all(row.fused_ratio_median != 1.0 for row in (default, *others))


FUSED = ("plain-fused", "ours-fused", "one-pass-fused")


def test_everything_is_trained_by_the_adam_that_its_row_names() -> None:
    made = trainees(TINY, METHODS, "cpu")
    for name, trainee in made.items():
        assert type(trainee.optimizer) is torch.optim.Adam
        (group,) = trainee.optimizer.param_groups
        assert group["fused"] == (True if name in FUSED else None)


OURS_BY_NAME = [name for name, entry in METHODS.items() if entry.label.startswith(OURS)]


def test_steps_are_of_a_later_task_unless_the_row_is_of_the_first() -> None:
    made = trainees(TINY, {name: METHODS[name] for name in OURS_BY_NAME}, "cpu")
    assert len(made) == 6
    for name, trainee in made.items():
        assert isinstance(trainee.method, Ours)
        assert trainee.method.si.tasks == (0 if name == "ours-first-task" else 1)
        before = trainee.method.si.steps
        trainee.step()
        assert trainee.method.si.steps == before + 1


def test_all_start_alike_and_train_alike_but_for_the_penalty() -> None:
    made = trainees(TINY, {name: METHODS[name] for name in ("plain", "ours-first-task")}, "cpu")
    assert made["plain"].model is not made["ours-first-task"].model
    pairs = zip(*(each.model.parameters() for each in made.values()), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


BYTES = {
    "plain": 0,
    "plain-fused": 0,
    "ours": 4,
    "ours-fused": 4,
    "one-pass": 3,
    "one-pass-fused": 3,
    "ours-three-calls": 4,
    "ours-first-task": 4,
    "three-calls": 4,
    "van-de-ven": 4,
    "mammoth": 3,
    "avalanche": 7,
    "ema": 1,
}
WIDE = replace(TINY, make=lambda: mlp(5, 1000, 3))


def test_the_state_weighs_what_each_method_holds() -> None:
    rows = measure_steps(WIDE, ["memory"], HOW)
    methods = [name for name, entry in METHODS.items() if entry.is_method]
    found = {name: row.state_bytes for name, row in zip(methods, rows, strict=True)}
    weights = 4 * (5 * 1000 + 1000 + 1000 * 3 + 3)
    for name, times in BYTES.items():
        # Beside the tensors one pass keeps some numbers, the three calls one, the EMA its count.
        more = {"one-pass": 1000, "one-pass-fused": 1000, "ours-three-calls": 4, "ema": 8}
        assert 0 <= (found.pop(name) or 0) - weights * times <= more.get(name, 0)
    assert not found
    for row in rows:
        assert row.parameter_bytes == weights
        assert row.seconds_median is None
        assert row.waits is None
        assert row.peak_bytes is not None
    assert (rows[0].peak_bytes, rows[1].peak_bytes) == (0, 0)


class Wasteful(Method):
    """Makes two tensors in each step and keeps one of them until the next."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, c: float) -> None:
        super().__init__(model, optimizer, c)
        self.kept = torch.zeros(10_000)

    def after_backward(self) -> None:
        fresh = torch.ones(10_000)
        self.kept = fresh * torch.ones(1_000_000).sum()


def test_the_peak_is_what_a_method_takes_beyond_plain_training() -> None:
    entries = {name: METHODS[name] for name in ("plain", "plain-fused")}
    entries["wasteful"] = Entry("wasteful", Wasteful)
    plain, _, wasteful = measure_steps(TINY, ["memory"], HOW, entries)
    assert wasteful.state_bytes == 40_000
    # What is kept, the fresh tensor, and the largest: all at once, less what plain training has
    # at its own worst moment.
    assert wasteful.peak_bytes == pytest.approx(4_080_000, abs=2_000)
    assert plain.peak_bytes == 0


def test_the_peak_is_beyond_training_without_si_with_the_same_optimiser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rises = iter([100, 10, 105, 25])
    monkeypatch.setattr("experiments.bench.steps.look_at", lambda *_: Seen(next(rises), waits=None))
    names = ("plain", "plain-fused", "ours", "ours-fused")
    rows = measure_steps(TINY, ["memory"], HOW, {name: METHODS[name] for name in names})
    assert [(row.peak_bytes or 0) - (row.state_bytes or 0) for row in rows] == [0, 0, 5, 15]


def test_a_look_counts_what_is_held_at_a_time_and_not_what_was_before() -> None:
    held: list[Tensor] = []

    def before() -> None:
        held.append(torch.empty(5_000))

    def call() -> None:
        held.clear()
        torch.empty(1_000).fill_(0)
        both = torch.empty(2_000), torch.empty(1_000)
        del both

    seen = look_at(call, "cpu", before)
    # 20,000 bytes are freed first: the rest never goes beyond what was there.
    assert seen.rise == 0
    seen = look_at(call, "cpu")
    assert seen.rise == 12_000


def test_growing_networks_are_trained_with_both_optimisers_by_hooks_and_in_one_pass() -> None:
    rows = measure_steps(bank("grown", 400, 4), ["parameters"], HOW, GROWING)
    assert [row.method for row in rows] == [
        "no SI",
        "no SI, fused Adam",
        "si-avalanche",
        "si-avalanche, one pass, fused Adam",
    ]
    assert {(row.part, row.parameters, row.tensors) for row in rows} == {("parameters", 400, 4)}


@pytest.mark.parametrize(("parameters", "tensors"), [(10**4, 4), (10**6, 2000), (1, 1)])
def test_a_bank_has_the_tensors_asked_for_and_about_the_parameters(
    parameters: int, tensors: int
) -> None:
    model, inputs, labels = bank("any", parameters, tensors).draw("cpu")
    model(inputs).log_softmax(1)[:, labels].mean().backward()
    own = list(model.parameters())
    assert len(own) == tensors
    assert sum(p.numel() for p in own) == pytest.approx(parameters, rel=0.05)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in own)


def test_the_small_resnet_takes_small_pictures() -> None:
    network = small_resnet()
    assert sum(p.numel() for p in network.parameters()) == 11_181_642
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_the_least_traffic_is_eleven_passes_and_touches_nothing_else() -> None:
    trainee = trainees(TINY, {"floor": METHODS["least-traffic"]}, "cpu")["floor"]
    before = [p.detach().clone() for p in trainee.model.parameters()]
    copied: list[int] = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, _types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func.overloadpacket.__name__ == "copy_":
                copied.append(args[0].numel())
            return func(*args, **(kwargs or {}))

    with Count():  # type: ignore[no-untyped-call]
        trainee.method.after_backward()
        six = 2 * sum(copied)
        trainee.method.after_step()
    assert six == 6 * PARAMETERS
    assert 2 * sum(copied) == 11 * PARAMETERS - PARAMETERS % 2
    assert all(map(torch.equal, before, trainee.model.parameters()))


def test_tasks_follow_each_other_and_are_told_ten_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = []

    def end_task(self: Ours) -> None:
        self.si.update_omega()
        ends.append(self.si.tasks)

    monkeypatch.setattr(Ours, "end_task", end_task)
    rows = measure_tasks(TINY, 30, HOW)
    assert ends == [*range(1, 31)] * 2
    assert [(row.tasks, row.what) for row in rows if row.method == OURS] == [
        (tasks, what) for tasks in (10, 20, 30) for what in ("step", "consolidation")
    ]
    assert {row.state_bytes for row in rows if row.method == OURS} == {16 * PARAMETERS}
    assert {row.rounds for row in rows} == {2}


def test_a_life_counts_in_a_round_with_the_median_of_ten_tasks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def life(first: float) -> dict[str, list[float]]:
        # One of ten that the machine slowed down leaves the median as it is.
        return {
            "plain": [9.0] * 10 + [1.0] * 10,
            "ours": [9.0] * 10 + [first] * 9 + [100.0],
            "consolidation": [9.0] * 10 + [3.0] * 10,
        }

    invented = iter([life(2.0), life(4.0)])

    def live(_plain: object, _ours: object, tasks: int, state: list[int]) -> object:
        state += [7] * tasks
        return next(invented)

    monkeypatch.setattr(lives, "_live", live)
    *_, plain, ours, consolidation = measure_tasks(TINY, 20, HOW)
    assert (ours.ratio_min, ours.ratio_median, ours.ratio_max) == (2.0, 3.0, 4.0)
    assert (plain.seconds_median, consolidation.seconds_median) == (1.0, 3.0)
    assert ours.state_bytes == 7


class Counting(SIPlugin, supports_distributed=True):  # type: ignore[call-arg]
    """Counts the experiences that have begun."""

    begun = 0

    def before_training_exp(self, *args: Any, **kwargs: Any) -> None:
        self.begun += 1
        super().before_training_exp(*args, **kwargs)


def test_through_avalanche_all_are_timed_amid_their_second_experience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Counting] = []

    def counting(fused: bool) -> Callable[[], list[Counting]]:
        def make() -> list[Counting]:
            made.append(Counting(1.0, fused=fused))
            return made[-1:]

        return make

    seen = []

    def watched(statements: dict[str, Callable[[], object]], how: How) -> dict[str, list[float]]:
        before = [each.si.steps for each in made]
        taken = in_turn(statements, how)
        for each, steps in zip(made, before, strict=True):
            seen.append((each.begun, each.experiences, each.si.steps - steps))
            assert each.si.total_importance() > 0
        return taken

    for name in through_avalanche.PLUGINS:
        if name.startswith("SIPlugin"):
            ours = counting("one pass" in name), "fused Adam" in name
            monkeypatch.setitem(through_avalanche.PLUGINS, name, ours)
    monkeypatch.setattr(through_avalanche, "in_turn", watched)
    with quiet():
        rows = measure_iterations(TINY, HOW)
    # One call to learn how long it takes, and two rounds.
    assert seen == [(2, 1, 3)] * 4
    assert [row.method for row in rows] == [
        "Naive",
        "Naive, fused Adam",
        "SIPlugin",
        "SIPlugin, fused Adam",
        "SIPlugin, one pass",
        "SIPlugin, one pass, fused Adam",
        "Avalanche's SI plugin",
    ]
    assert [row.state_bytes for row in rows[:4]] == [0, 0, 16 * PARAMETERS, 16 * PARAMETERS]
    assert [row.peak_bytes for row in rows[:2]] == [0, 0]
    assert (rows[0].ratio_median, rows[1].fused_ratio_median) == (1.0, 1.0)
    assert all(None not in (row.ratio_median, row.fused_ratio_median) for row in rows)


def test_through_avalanche_rows_have_the_optimiser_and_the_state_that_they_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def made(model: nn.Module, fused: bool) -> Optimizer:
        asked.append(fused)
        return make_adam(model, fused)

    monkeypatch.setattr(through_avalanche, "make_adam", made)
    with quiet():
        rows = measure_iterations(WIDE, HOW)
    assert asked == [row.method.endswith("fused Adam") for row in rows]
    for row in rows:
        if "one pass" in row.method:
            assert row.state_bytes == pytest.approx(3 * (row.parameter_bytes or 0), abs=1000)


def test_on_a_cpu_the_small_network_is_trained_on_one_thread() -> None:
    *others, small = extent_on("cpu").workloads
    assert {each.threads for each in others} == {None}
    model, inputs, _ = small.draw("cpu")
    shapes = [tuple(p.shape) for p in model.parameters() if p.dim() == 2]
    assert shapes == [(100, 64), (100, 100), (10, 100)]
    assert (small.threads, inputs.shape) == (1, (32, 64))


def test_on_a_gpu_larger_networks_are_trained() -> None:
    assert [each.name for each in extent_on("cuda:0").workloads] == [
        "ResNet-18, batch 128",
        "ViT-B/16, batch 128",
    ]
    assert {each.batch for each in extent_on("cuda").workloads} == {128}
