"""Spaces: what they draw, and what a YAML file may say."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from shardwave.common.errors import UsageError
from shardwave.models.networks.registry import NETWORKS
from shardwave.models.training.config import CUTS, MODEL_FIELDS, REGULARISERS, defaults
from shardwave.search.recorded import STARTS
from shardwave.search.space import SPACES, Choice, Grid, LogUniform, Space, Uniform, parameters, space_for


def test_every_model_has_a_space_of_its_own_options() -> None:
    assert set(SPACES) == set(NETWORKS)
    for model, space in SPACES.items():
        assert set(space) <= set(parameters(model)) <= {*MODEL_FIELDS, *REGULARISERS, *CUTS, "inputs"}
        for name, dimension in space.items():
            values = (
                dimension.values if isinstance(dimension, Choice | Grid) else (dimension.low, dimension.high)
            )
            for value in values:
                assert getattr(defaults(model, **{name: value}), name) == value
    assert [name for name, dimension in SPACES["mlp"].items() if isinstance(dimension, Grid)] == [
        "batch_size",
        "hidden_size",
    ]


def test_points_cover_the_grid_evenly_and_draw_other_parameters_randomly() -> None:
    space = space_for("mlp")
    cells = space.cells()
    assert len(cells) == 12
    points = [space.point(number, 3) for number in range(30)]
    count = Counter((point["batch_size"], point["hidden_size"]) for point in points)
    assert len(count) == 12 and set(count.values()) == {2, 3}
    assert len(Counter((point["batch_size"], point["hidden_size"]) for point in points[:12])) == 12
    assert len({point["learning_rate"] for point in points}) == 30
    assert all(space.contains(point) for point in points)
    ordered = [space.point(number, 3, shuffle=False) for number in range(12)]
    assert [{name: point[name] for name in cells[0]} for point in ordered] == cells


def test_points_depend_only_on_number_and_seed() -> None:
    space = space_for("cnn")
    assert space.point(7, 1) == space.point(7, 1)
    assert space.point(7, 1) != space.point(7, 2)
    # what a file or an option fixes does not change what the others draw
    fixed = space_for("cnn", fixed={"dropout": 0.1}).point(7, 1)
    assert {**space.point(7, 1), "dropout": 0.1} == fixed


def test_draws_are_uniform_on_a_linear_or_logarithmic_scale() -> None:
    space = Space(
        {"plain": Uniform(-1.0, 3.0), "log": LogUniform(1e-6, 1e-2), "one": Choice(("a", "b", "c", "d"))}
    )
    points = [space.point(number, 0) for number in range(2000)]
    for values, low, high in (
        ([point["plain"] for point in points], -1.0, 3.0),
        ([math.log10(point["log"]) for point in points], -6.0, -2.0),
    ):
        ranks = sorted((value - low) / (high - low) for value in values)
        distance = max(abs(rank - (i + 0.5) / len(ranks)) for i, rank in enumerate(ranks))
        assert (
            ranks[0] >= 0 and ranks[-1] <= 1 and distance < 1.63 / math.sqrt(len(ranks))
        )  # Kolmogorov-Smirnov, 1 %
    assert all(430 <= count <= 570 for count in Counter(point["one"] for point in points).values())


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "space.yaml"
        path.write_text(text)
        return path

    return write


def test_a_file_overrides(write) -> None:
    text = (
        "hidden_size: 64\nlearning_rate: {log_uniform: [1e-4, 2e-3]}\nhidden_layers: "
        "{choice: [1, 2]}\nmixup: {uniform: [0, 1]}"
    )
    space = space_for("mlp", write(text))
    assert space.fixed == {"hidden_size": 64}
    assert space.dimensions["learning_rate"] == LogUniform(1e-4, 2e-3)  # YAML reads 1e-4 as text
    assert space.dimensions["hidden_layers"] == Choice((1, 2)) and space.dimensions["mixup"] == Uniform(
        0.0, 1.0
    )
    assert (
        "hidden_size" not in space.dimensions
        and space.dimensions["batch_size"] == SPACES["mlp"]["batch_size"]
    )
    assert space.contains(space.point(0, 0)) and space.point(0, 0)["hidden_size"] == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "conv1_kernel: 3",
            "conv1_kernel is not a hyper-parameter of mlp; choose from batch_size, hidden_size",
        ),
        ("dropout: {normal: [0, 1]}", "dropout must be one of grid: .*or one fixed value; got"),
        (
            "dropout: {uniform: [0.5, 0.1]}",
            "dropout: uniform takes .low, high. with low < high, got .0.5, 0.1.",
        ),
        ("learning_rate: {log_uniform: [0, 1]}", "learning_rate: log_uniform needs low > 0, got 0.0"),
        (
            "hidden_size: {uniform: [16, 64]}",
            "hidden_size takes whole numbers: use grid or choice, not uniform",
        ),
        ("hidden_size: {grid: [16, 16]}", "hidden_size: grid contains a value twice"),
        ("hidden_size: {grid: []}", "hidden_size: grid takes a list, got"),
        ("hidden_size: {grid: [1.5]}", "hidden_size takes whole numbers, got 1.5"),
        ("hidden_size: large", "hidden_size takes numbers, got 'large'"),
        ("hidden_size: true", "hidden_size takes numbers, got True"),
        ("- a list", "must map parameter names to rules"),
        ("a: [", "is not YAML"),
    ],
)
def test_invalid_space_files_are_refused(write, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        space_for("mlp", write(text))


def test_other_wrong_usage(write, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        space_for("mlp", tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="model must be one of mlp, cnn"):
        space_for("rnn")
    everything = "\n".join(f"{name}: 1" for name in SPACES["mlp"])
    with pytest.raises(UsageError, match="the search space is empty"):
        space_for("mlp", write(everything))


def test_the_starts_are_the_recorded_values_moved_into_the_space() -> None:
    first, *others = STARTS["mlp"]
    assert [dict(start) for start in space_for("mlp").starts] == [first, *others]
    narrow = space_for("mlp", {"learning_rate": LogUniform(1e-5, 1e-3), "batch_size": Choice((32, 64))})
    assert narrow.starts[0] == {"learning_rate": 1e-3, "batch_size": 32} and len(narrow.starts) == 1
    space = space_for("mlp", fixed={"dropout": 0.1})
    assert space.starts and all("dropout" not in start for start in space.starts)
    assert space_for("mlp", {"inputs": Choice(("features", "aisfx"))}).starts == ()
    assert space.first_trial(1, "recorded") == space.starts[1] and space.first_trial(9, "recorded") is None
    assert space.first_trial(0, "sampled") is None and space.first_trial(1, "default") is None
    with pytest.raises(UsageError, match="starts must hold values of the search space, got x=2"):
        Space({"x": Uniform(0, 1)}, starts=({"x": 2},))


def test_the_starts_of_cnn_leave_the_kernels_to_the_sampler() -> None:
    starts = space_for("cnn").starts
    assert len(starts) == 5 and all("conv1_kernel" not in start for start in starts)
    assert space_for("vgg16").starts == ()


def test_the_prior_holds_the_default_values_moved_into_the_space() -> None:
    space = space_for("mlp")
    # defaults: 512 is above the largest hidden_size, the others lie in the space
    assert space.prior == {
        "batch_size": 64,
        "hidden_size": 256,
        "dropout": 0.5,
        "learning_rate": 2e-3,
        "weight_decay": 0.05,
    }
    narrow = space_for("mlp", {"learning_rate": LogUniform(1e-5, 1e-3), "inputs": Choice(("features",))})
    assert narrow.prior == {"learning_rate": 1e-3}  # `inputs` has no default among its values
    assert narrow.first_trial(0, "default") == {"learning_rate": 1e-3}
    assert space_for("mlp", fixed={"dropout": 0.1}).prior.keys() == space.prior.keys() - {"dropout"}
    for model in SPACES:
        space = space_for(model)
        assert space.contains({**space.point(0, 0), **space.prior})
    with pytest.raises(UsageError, match="prior must hold values of the search space, got x=2"):
        Space({"x": Uniform(0, 1)}, prior={"x": 2})


def test_a_description_gives_the_space_back() -> None:
    space = Space({"x": Uniform(0.0, 1.0), "kind": Choice(("a", "b"))}, {"fixed": 3}, {"x": 0.5})
    assert space.describe() == {
        "x": {"Uniform": [0.0, 1.0], "prior": 0.5},
        "kind": {"Choice": [["a", "b"]]},
        "fixed": 3,
    }
    assert Space.from_description(space.describe()) == space
