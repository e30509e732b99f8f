"""A clip's spectra, block by block: transform, bands and measures of sixteen frames while they are in cache."""

from __future__ import annotations

import numpy as np

from shardwave.preprocess.engines.numba.measures import measure_block
from shardwave.preprocess.engines.numba.numba_cache import compiled
from shardwave.preprocess.engines.numba.render import weigh
from shardwave.preprocess.engines.numba.simd import traced
from shardwave.preprocess.engines.numba.transform import load_hops, power_block


@traced
def _clear(peak):
    peak.fill(0, 0.0)


@traced
def _raise(peak, values, at):
    peak.store(0, peak.load(0).maximum(values.load(at)))


@compiled
def analyse(
    clip, first_block, blocks, frames, plan, scratch, power, power_step, bands, count, banded, banded_step, tables, measures
):
    """The largest power (or band, where there are bands) in the clip's blocks [first_block, first_block + blocks), of `frames`
    frames in all; `clip` as `load_hops` takes it.

    Block b's power [bins, 16] goes to power[b * power_step :], its `count` bands to banded[b * banded_step :], its measures to
    measures [blocks, rows, 16] (none where `tables` is None), b from 0. A step of 0 uses one block's place over and over.
    """
    hops, mirror, work = scratch
    result = np.float32(0)
    peak = np.empty(16, np.float32)
    for b in range(blocks):
        first = (first_block + b) * 16
        load_hops(clip, first, b == 0, plan, hops, mirror)
        at = b * power_step
        _clear(peak)
        power_block(hops, plan, work, power, at, peak)
        if count:
            _clear(peak)
            for row in range(count):
                to = b * banded_step + row * 16
                weigh(power, at + bands.first[row] * 16, bands.weights, bands.starts[row], bands.counts[row], banded, to)
                _raise(peak, banded, to)
        if tables is not None:
            measure_block(power, at, tables, work, measures, b * (measures.size // blocks))
        for lane in range(min(16, frames - first)):
            result = max(result, peak[lane])
    return result
