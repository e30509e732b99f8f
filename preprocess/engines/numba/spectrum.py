"""Compiled function for the spectra, bands and measures of a clip, sixteen frames at a time."""

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
    clip,
    first_block,
    blocks,
    frames,
    plan,
    scratch,
    power,
    power_step,
    bands,
    count,
    banded,
    banded_step,
    tables,
    measures,
):
    """Compute the spectra of some blocks of sixteen frames of a clip.

    Args:
        clip: Samples as float32 [time] and as int16 [time], one of which is empty.
        first_block: Number of the first block.
        blocks: Number of blocks.
        frames: Number of frames of the whole clip.
        plan: Plan of the transform.
        scratch: Hop buffer, scratch for mirrored samples, and work buffer of the transform.
        power: Receives the power [bins, 16] of block b, counted from 0, at b * power_step.
        power_step: Distance between blocks in `power`; 0: each block overwrites the one before.
        bands: Weights of the frequency bands.
        count: Number of bands; 0: none.
        banded: Receives the bands [count, 16] of block b at b * banded_step.
        banded_step: Distance between blocks in `banded`; 0: each block overwrites the one before.
        tables: Tables of the measures; None: no measures.
        measures: Receives the measures [blocks, rows, 16].

    Returns:
        The largest power, or the largest band if there are bands.
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
                weigh(
                    power,
                    at + bands.first[row] * 16,
                    bands.weights,
                    bands.starts[row],
                    bands.counts[row],
                    banded,
                    to,
                )
                _raise(peak, banded, to)
        if tables is not None:
            measure_block(power, at, tables, work, measures, b * (measures.size // blocks))
        for lane in range(min(16, frames - first)):
            result = max(result, peak[lane])
    return result
