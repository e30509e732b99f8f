"""Options: light to import, checked when built."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shardwave.common.errors import UsageError
from shardwave.models.networks.registry import NETWORKS
from shardwave.models.training.config import TrainConfig, defaults, defaults_table


def test_every_model_has_defaults_and_changes_apply() -> None:
    for model in NETWORKS:
        assert defaults(model).model == model
        assert defaults(model, epochs=3, seed=4).epochs == 3
    assert set(defaults("cnn").params()) >= {
        "batch_size",
        "hidden_size",
        "conv1_kernel",
        "conv2_channels",
        "mixup",
    }


def test_the_command_line_can_import_it_without_torch() -> None:
    heavy = "('torch', 'numpy', 'lightning')"
    code = (
        "import sys, shardwave.models.training.config; "
        f"sys.exit(any(name in sys.modules for name in {heavy}))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_search_trials_do_not_import_lightning() -> None:
    heavy = "('lightning', 'torchvision', 'sklearn', 'matplotlib')"
    code = (
        f"import sys, shardwave.models.training.fit; sys.exit(any(name in sys.modules for name in {heavy}))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be an integer, 1 or more, got 0"),
        ({"hidden_layers": -1}, "hidden_layers must be an integer, 0 or more, got -1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative, got -1.0"),
        ({"precision": "8-bit"}, "precision must be one of auto, 32-true, .*, got 8-bit"),
        ({"folds": "some"}, "folds must be one of all, got some"),
        ({"folds": "all", "val_fold": 0}, "without --val-fold and --test-fold"),
        ({"val_fold": 2, "test_fold": 2}, "val_fold and test_fold must differ, got 2 for both"),
        ({"epochs": 3, "stop_after": 4}, "stop_after must be between 1 and epochs, got 4"),
        ({"conv1_kernel": 2.5}, "conv1_kernel must be an integer"),
        ({"mix_powers": 1.5, "mixup": 0.0}, "mix_powers must lie between 0 and 1, got 1.5"),
        ({"mix_powers": 1.0, "mixup": 0.3}, "mix_powers and mixup 0.3 both mix samples: use --mixup 0"),
        ({"random_gain": -1.0}, "random_gain must not be negative"),
        ({"slice_stretch": "0.8,1.25"}, "use it with --random-slices"),
        ({"slice_stretch": "2"}, "slice_stretch must be two factors such as 0.8,1.25, got 2"),
        ({"slice_stretch": "1.2,0.8", "random_slices": True}, "two ascending factors from 0.1 to 10"),
        ({"slices": 2, "slice_seconds": 1.0}, "slice_seconds replaces slices: use one of them"),
        ({"random_slices": True, "train_view": "full"}, "use it with --train-view slice or both"),
        ({"model": "vgg16", "random_slices": True}, "stores the outputs of its frozen part once"),
        ({"model": "mlp", "slices": 4}, "slices changes images, and model mlp takes vectors"),
    ],
)
def test_invalid_settings_name_the_rule(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(**{"model": "cnn", **options})  # type: ignore[arg-type]


def test_defaults_table_agrees_with_defaults() -> None:
    head, *rows = defaults_table()
    assert head == ["", *NETWORKS]
    cells = {row[0]: dict(zip(NETWORKS, row[1:], strict=True)) for row in rows}
    assert cells["--train-view"]["mlp"] == "full" and cells["--conv1-kernel"]["mlp"] == "-"
    for model in NETWORKS:
        assert cells["--epochs"][model] == str(defaults(model).epochs)
        assert cells["--learning-rate"][model] == str(defaults(model).learning_rate)
    assert cells["--time-shift"]["cnn"] == "yes"
