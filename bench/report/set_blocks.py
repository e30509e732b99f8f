"""Blocks that describe the clips of a shard set."""

from __future__ import annotations

from collections import Counter

import numpy as np

from shardwave.bench.report.blocks import Bar, Bars, Block, Table
from shardwave.shards.audit.audited_set import AuditedSet
from shardwave.shards.audit.composition import class_counts


def set_blocks(audited: AuditedSet) -> list[Block]:
    """Return charts of the clips of each class and of the lengths of clips, and a table of sample rates."""
    counts = class_counts(audited)
    blocks: list[Block] = []
    bars = [
        Bar(name, "ours", float(count), f"{count:,}")
        for name, count in zip(audited.shards.classes, counts.tolist(), strict=True)
    ]
    if bars:
        blocks.append(Bars("Clips of each class", "clips", bars))
    seconds = audited.seconds[np.isfinite(audited.seconds)]
    if len(seconds):
        edges = np.unique(np.round(np.quantile(seconds, np.linspace(0, 1, 9)), 2))
        numbers, edges = np.histogram(seconds, edges if len(edges) > 1 else [edges[0] - 0.5, edges[0] + 0.5])
        spans = zip(edges[:-1].tolist(), edges[1:].tolist(), numbers.tolist(), strict=True)
        lengths = [Bar(f"{low:.2f} to {high:.2f} s", "ours", float(n), f"{n:,}") for low, high, n in spans]
        blocks.append(Bars("Length of the clips", "clips", lengths))
    rates = Counter(audited.rate[audited.rate > 0].tolist())
    if rates:
        rows = [(f"{rate:,} Hz", f"{count:,}") for rate, count in sorted(rates.items())]
        blocks.append(Table(("sample rate of the file", "clips"), rows, (1,)))
    return blocks
