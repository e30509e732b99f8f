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
