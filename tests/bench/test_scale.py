"""The exponent that fits a cost."""

import pytest

from shardwave.bench.scale import exponent


def test_exponents_of_known_powers():
    assert exponent([(10, 3.0), (100, 30.0), (1000, 300.0)]) == pytest.approx(1.0)
    assert exponent([(1, 8.0), (2, 4.0), (4, 2.0)]) == pytest.approx(-1.0)
    assert exponent([(10, 1.0), (100, 100.0)]) == pytest.approx(2.0)
