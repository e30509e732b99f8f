"""Augmentation keeps what it should keep."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from shardwave.models.training import augment


def images(count: int = 64) -> torch.Tensor:
    return torch.rand(count, 1, 12, 20, generator=torch.Generator().manual_seed(0)) + 1


def test_time_shift_rolls_each_image_by_its_own_amount() -> None:
    torch.manual_seed(0)
    before = images()
    after = augment.time_shift(before)
    shifts = set()
    for one, other in zip(before, after, strict=True):
        found = [shift for shift in range(20) if torch.equal(one.roll(shift, 2), other)]
        assert len(found) == 1
        shifts.add(found[0])
    assert len(shifts) > 10


def test_masks_are_bands_up_to_the_maximum_width_at_random_positions() -> None:
    torch.manual_seed(0)
    before = images(400)
    for axis, other_axis, size in ((2, 3, 12), (3, 2, 20)):
        masked = augment.mask(before, axis, 0.25) == 0
        lines = masked.all(other_axis)[:, 0]
        assert torch.equal(masked.any(other_axis)[:, 0], lines)  # whole rows or columns
        widths = lines.sum(1)
        assert set(widths.tolist()) == set(range(size // 4 + 1))  # every width from none to the widest
        assert ((lines[:, 1:] != lines[:, :-1]).sum(1) <= 2).all()  # one band each
        assert lines.any(0)[:-1].all()  # at the edges as well; torchaudio's masks never reach the last line


def test_mixup_weighs_the_own_sample_at_least_as_much_as_the_partner() -> None:
    torch.manual_seed(0)
    before = images()
    seen = []
    for _ in range(50):
        mixed, partner, weight = augment.mixup(before, 0.4)
        assert torch.allclose(mixed, weight * before + (1 - weight) * before[partner], atol=1e-6)
        assert sorted(partner.tolist()) == list(range(64))
        seen.append(float(weight))
    assert min(seen) >= 0.5 and max(seen) <= 1 and min(seen) < 0.7 < 0.95 < max(seen)


def test_mixup_draws_its_weight_without_a_copy_from_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU such a copy waits for all former work of the device, in every step."""

    def copy(*_: Any, **__: Any) -> None:
        raise AssertionError("a tensor is built from Python numbers")

    before = images()
    for name in ("tensor", "as_tensor", "from_numpy"):
        monkeypatch.setattr(torch, name, copy)
    assert 0.5 <= augment.mixup(before, 0.4)[2] <= 1


def test_mixed_powers_are_those_of_between_class_learning() -> None:
    torch.manual_seed(0)
    floor = -80.0
    levels = torch.randint(0, 256, (200, 6, 8), dtype=torch.uint8)
    levels[:100] //= 2  # 40 dB quieter
    mixed, partner, ratio = augment.mix_powers(levels, floor, 0.75)
    power = 10 ** (floor * (1 - levels.double() / 255) / 10)
    pressure = power.mean((1, 2)).sqrt()
    p = 1 / (1 + pressure / pressure[partner] * (1 - ratio.double()) / ratio.double())
    weight, rest = (p**2)[:, None, None], ((1 - p) ** 2)[:, None, None]
    expected = 10 * torch.log10((weight * power + rest * power[partner]) / (weight + rest))
    torch.testing.assert_close(floor * (1 - mixed.double() / 255), expected, atol=2e-3, rtol=0)
    alone = ratio == 1
    assert 20 < alone.sum() < 80 and sorted(partner.tolist()) == list(range(200))
    torch.testing.assert_close(mixed[alone], levels[alone].float(), atol=2e-2, rtol=0)
    assert ratio.min() < 0.05 and ratio[~alone].max() > 0.95 and len(ratio.unique()) > 100
    assert mixed.min() >= 0 and mixed.max() <= 255


def test_a_random_gain_shifts_all_levels_of_an_image() -> None:
    torch.manual_seed(0)
    levels = torch.randint(50, 200, (100, 6, 8), dtype=torch.uint8)
    shifts = augment.random_gain(levels, -80.0, 6.0) - levels
    assert torch.allclose(shifts.amax((1, 2)), shifts.amin((1, 2)), atol=1e-4)
    assert -6 * 255 / 80 <= shifts.min() < -15 and 15 < shifts.max() <= 6 * 255 / 80
    assert augment.random_gain(torch.zeros(50, 2, 2), -80.0, 6.0).min() == 0
