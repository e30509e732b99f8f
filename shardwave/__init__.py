"""From a folder of audio to a tuned classifier: shard sets, models, hyper-parameter search, benchmarks."""

from shardwave.common.openmp import let_idle_threads_sleep

let_idle_threads_sleep()  # before any module imports torch
