"""Warm-up, alternation, and when repeating stops."""

import time

import pytest

from shardwave.bench.harness.timing import Case, Plan, Seconds, done, measure, timed, wait_until_idle


def test_every_second_round_is_reversed():
    calls = []
    cases = [Case(name, "ours", lambda name=name: calls.append(name)) for name in "abc"]
    taken = measure(cases, Plan(minimum=2, maximum=2, warmup=1, seconds=60, limit=60))
    assert "".join(calls) == "abc" + "abc" + "cba"
    assert [len(values) for values in taken.values()] == [2, 2, 2]


def test_repeats_stop_when_the_spread_is_small_or_at_the_maximum():
    steady, wild = iter([1.0] * 99), iter([1.0, 9.0] * 99)
    cases = [
        Case("steady", "ours", lambda: Seconds(next(steady))),
        Case("wild", "ours", lambda: Seconds(next(wild))),
    ]
    taken = measure(cases, Plan(minimum=3, maximum=8, spread=0.05, seconds=60, limit=60, warmup=0))
    assert (len(taken["steady"]), len(taken["wild"])) == (3, 8)


def test_time_limits_end_the_repeats():
    slow = Case("slow", "ours", lambda: time.sleep(0.02))
    assert (
        len(measure([slow], Plan(minimum=3, maximum=50, spread=-1, seconds=0, limit=60, warmup=0))["slow"])
        == 3
    )
    assert (
        len(measure([slow], Plan(minimum=3, maximum=50, spread=-1, seconds=0, limit=0, warmup=0))["slow"])
        == 1
    )


def test_a_case_measured_once_is_not_warmed_up():
    calls = []
    measure([Case("once", "peer", lambda: calls.append(1), once=True)], Plan(minimum=5, seconds=60))
    assert len(calls) == 1


def test_preparation_of_a_repeat_is_not_timed():
    case = Case("c", "ours", lambda: None, before=lambda: time.sleep(0.05))
    assert max(measure([case], Plan(minimum=2, maximum=2, warmup=0))["c"]) < 0.04


def test_rates_times_and_skipped_cases_become_records_with_fractions_of_their_limits():
    cases = [
        Case("ours", "ours", lambda: Seconds(0.5), work=100, least=0.2),
        Case("reference", "baseline", lambda: Seconds(0.25), work=100),
        Case("absent", "peer", skipped="not installed", least=0.2),
        Case(
            "limit: memory copy",
            "limit",
            lambda: pytest.fail("a computed limit is not run"),
            work=100,
            least=0.2,
        ),
    ]
    plan = Plan(minimum=1, maximum=1, warmup=0)
    ours, reference, absent, limit = timed("s", "samples/s", cases, plan)
    assert (ours.median, ours.of_limit) == (200.0, 0.4)
    assert (reference.median, reference.of_limit) == (400.0, None), "a baseline is no limit"
    assert (list(limit.repeats), limit.role, limit.of_limit) == ([500.0], "limit", None)
    assert (list(absent.repeats), absent.skipped, absent.of_limit) == ([], "not installed", None)
    (seconds,) = timed("s", "s", [Case("a", "ours", lambda: Seconds(10.0), least=4.0)], plan)
    assert seconds.of_limit == 0.4
    (per_trial,) = timed("s", "s/trial", [Case("a", "ours", lambda: Seconds(10.0), work=20)], plan)
    assert per_trial.median == 0.5
    (milliseconds,) = timed("s", "ms", [Case("a", "ours", lambda: Seconds(0.01))], plan)
    assert milliseconds.median == 10.0


def test_two_cases_of_one_name_are_refused():
    with pytest.raises(ValueError, match="one name"):
        measure([Case("a", "ours", lambda: None), Case("a", "peer", lambda: None)], Plan())


def test_done_counts_repeats_spread_and_time():
    plan = Plan(minimum=3, maximum=5, spread=0.1, seconds=10, limit=20)
    assert not done([1.0, 1.0], 5, plan)
    assert done([1.0, 1.0, 1.0], 5, plan)
    assert not done([1.0, 2.0, 3.0], 5, plan)
    assert done([1.0, 2.0, 3.0], 11, plan)
    assert done([1.0], 21, plan)


def test_a_case_waits_for_threads_of_the_previous_one(monkeypatch):
    used = iter([0.0, 0.02, 0.02, 0.03, 0.03, 0.03])  # of the processor, before and after each watch
    watched = []
    monkeypatch.setattr("shardwave.bench.harness.timing.time.process_time", lambda: next(used))
    monkeypatch.setattr("shardwave.bench.harness.timing.time.sleep", watched.append)
    wait_until_idle()
    assert len(watched) == 3 and next(used, None) is None
