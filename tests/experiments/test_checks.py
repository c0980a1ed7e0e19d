import re
from dataclasses import replace
from typing import Any

import pytest

from experiments.checks import require_runnable
from experiments.errors import BadValueError, UnknownNameError
from experiments.records import Data, Description, Network, Training
from experiments.streams import SCENARIOS, STREAMS, require_possible

GOOD = Description(
    data=Data("split_mnist", "task"),
    strategy="naive",
    strength=None,
    network=Network(head="multi"),
    training=Training(batch_size=8, learning_rate=1e-3, epochs=1),
    seed=0,
)


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("stream", STREAMS)
def test_every_stream_is_possible_in_every_scenario(stream: str, scenario: str) -> None:
    require_possible(Data(stream, scenario))
    network = Network(head="multi" if scenario == "task" else "single")
    require_runnable(replace(GOOD, data=Data(stream, scenario), network=network))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"stream": "split_minst"}, "nearest name is 'split_mnist'"),
        ({"scenario": "tasks"}, "nearest name is 'task'"),
        ({"inputs": "pad"}, "nearest name is 'padded'"),
        ({"evaluation": "tests"}, "nearest name is 'test'"),
        ({"experiences": 3}, "3 experiences; allowed: 1, 2, 5, 10"),
        ({"experiences": 0}, "0 experiences; allowed"),
        ({"stream": "permuted_mnist", "experiences": 0}, "allowed: 1 or more"),
        ({"stream": "digits", "experiences": 4}, "allowed: 1, 2, 5, 10"),
        ({"stream": "split_cifar110", "experiences": 10}, "allowed: 2, 3, 5, 6, 11, 21"),
        ({"stream": "zenke_cifar", "experiences": 12}, "allowed: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10"),
        ({"stream": "core50", "experiences": 10}, "allowed: 9"),
        ({"stream": "core50", "scenario": "domain", "experiences": 9}, "leave the number"),
        ({"stream": "digits", "inputs": "padded"}, "shape (64,); use inputs 'unit'"),
        ({"stream": "split_cifar10", "inputs": "normalised"}, "known for split_mnist, permuted"),
        ({"first_plain": True}, "for permuted_mnist, not for 'split_mnist'"),
        ({"stream": "rotated_mnist", "shuffled_classes": True}, "all have the same ones"),
    ],
)
def test_data_that_no_stream_has_are_one_clear_error(given: dict[str, Any], said: str) -> None:
    data = replace(GOOD.data, **given)
    with pytest.raises((BadValueError, UnknownNameError), match=re.escape(said)):
        require_possible(data)
    with pytest.raises((BadValueError, UnknownNameError), match=re.escape(said)):
        require_runnable(replace(GOOD, data=data))


CNN = Network("cnn", (512,), "multi")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"network": Network(kind="cmn")}, "nearest name is 'cnn'"),
        ({"network": Network(head="mult")}, "nearest name is 'multi'"),
        ({"network": Network(initial="xavier")}, "unknown initial weights"),
        ({"network": replace(CNN, hidden=(512, 512))}, "one dense layer"),
        ({"network": replace(CNN, normalised=True)}, "no batch normalisation"),
        ({"network": CNN, "data": Data("digits", "task")}, "not inputs of shape (64,)"),
        ({"data": Data("split_mnist", "domain")}, "'domain' has none; use head 'single'"),
        (
            {"data": Data("split_mnist", "class"), "network": Network(head="task")},
            "head 'task' goes by task labels",
        ),
        ({"training": Training(8, 1e-3)}, "by epochs or by iterations"),
        ({"training": Training(8, 1e-3, epochs=1, iterations=2)}, "not 1 and 2"),
        ({"training": Training(8, 1e-3, epochs=1, reset="never")}, "unknown reset"),
        (
            {
                "data": Data("split_mnist", "online"),
                "network": Network(),
                "training": Training(8, 1e-3, epochs=2),
            },
            "an online stream is seen once",
        ),
    ],
)
def test_parts_that_do_not_go_together_are_one_clear_error(
    given: dict[str, Any], said: str
) -> None:
    with pytest.raises((BadValueError, UnknownNameError), match=re.escape(said)):
        require_runnable(replace(GOOD, **given))


def test_a_convolutional_network_takes_the_images_of_mnist_and_of_cifar() -> None:
    for stream in ("split_mnist", "split_cifar10"):
        require_runnable(replace(GOOD, data=Data(stream, "task"), network=CNN))
