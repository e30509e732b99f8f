"""Findings about the composition of a set: classes, groups, splits, lengths and sample rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from shardwave.shards.audit.audited_set import AuditedSet
from shardwave.shards.audit.finding import Finding

SMALL_CLASS = 0.2  # of the mean number of clips per class
DOMINANT = 0.5  # fraction of a class that one group may have
SHARE_DISTANCE, SHARE_P = 0.1, 0.001  # total variation distance of class shares, and significance
LENGTH_FACTOR, LENGTH_DEVIATIONS = 2.0, 5.0  # from the median length; robust standard deviations of its log
EMPTY_BAND = 0.8  # clips whose Nyquist frequency is below this fraction of the set's leave the band empty
MOSTLY_SILENT = 0.9  # fraction of quiet frames


def composition_findings(audited: AuditedSet) -> list[Finding]:
    """Return the findings that follow from labels, groups, splits, lengths and sample rates."""
    return [
        *_small_classes(audited),
        *_dominant_groups(audited),
        *_split_shares(audited),
        *_lengths(audited),
        *_empty_bands(audited),
    ]


def class_counts(audited: AuditedSet) -> np.ndarray:
    """Return the number of clips of each class, int64 [classes]."""
    return np.bincount(audited.cls[audited.cls >= 0], minlength=len(audited.shards.classes))


def _small_classes(audited: AuditedSet) -> Iterator[Finding]:
    counts = class_counts(audited)
    if not counts.sum():
        return
    mean = counts.mean()
    for name, count in zip(audited.shards.classes, counts.tolist(), strict=True):
        if count < SMALL_CLASS * mean:
            text = f"class {name!r} has {count} clips, the mean of the classes is {mean:.1f}"
            advice = "collect more clips, or train with --class-weights balanced or --balanced-sampler"
            yield Finding("small-class", "medium", text, advice)


def _dominant_groups(audited: AuditedSet) -> Iterator[Finding]:
    """Yield classes of which one group has most of the clips, if the clips have groups."""
    for number, name in enumerate(audited.shards.classes):
        rows = np.flatnonzero((audited.cls == number) & audited.own_group)
        if len(rows) < 2:
            continue
        group, count = Counter(audited.group[row] for row in rows.tolist()).most_common(1)[0]
        share = count / int((audited.cls == number).sum())
        if share > DOMINANT:
            text = f"{group} has {count} clips, {share:.0%} of class {name!r}"
            advice = "the class may be recognised by its group: add clips of other groups"
            yield Finding("dominant-group", "medium", text, advice)


def _split_shares(audited: AuditedSet) -> Iterator[Finding]:
    """Yield splits whose class shares differ from those of the other splits."""
    from scipy.stats import chi2_contingency

    splits, classes = len(audited.shards.splits), len(audited.shards.classes)
    labelled = audited.cls >= 0
    cells = audited.split[labelled] * classes + audited.cls[labelled]
    table = np.bincount(cells, minlength=splits * classes).reshape(splits, classes)
    for number, name in enumerate(audited.shards.splits):
        own, others = table[number], table.sum(0) - table[number]
        used = (own + others) > 0
        if not own.sum() or not others.sum() or used.sum() < 2:
            continue
        distance = float(np.abs(own / own.sum() - others / others.sum()).sum() / 2)
        if distance > SHARE_DISTANCE and chi2_contingency(np.stack([own, others])[:, used]).pvalue < SHARE_P:
            worst = int(np.abs(own / own.sum() - others / others.sum()).argmax())
            shares = f"{own[worst] / own.sum():.0%} of {name}, {others[worst] / others.sum():.0%} elsewhere"
            label = audited.shards.classes[worst]
            text = f"class shares of {name} differ by {distance:.0%}; {label!r}: {shares}"
            advice = "build the set with stratified splits, or compare models by balanced accuracy"
            yield Finding("split-shares", "medium", text, advice)


def _lengths(audited: AuditedSet) -> Iterator[Finding]:
    known = np.flatnonzero(np.isfinite(audited.seconds) & (audited.seconds > 0))
    if len(known) < 3:
        return
    logs = np.log(audited.seconds[known])
    median = float(np.median(logs))
    spread = 1.4826 * float(np.median(np.abs(logs - median)))
    limit = max(np.log(LENGTH_FACTOR), LENGTH_DEVIATIONS * spread)
    for row, value in zip(known.tolist(), (logs - median).tolist(), strict=True):
        if abs(value) > limit:
            kind, word = ("short-clip", "shorter") if value < 0 else ("long-clip", "longer")
            text = f"{audited.seconds[row]:.2f} s, {np.exp(abs(value)):.1f} times {word} than the median"
            advice = "check the file, or use --slice-seconds, --fit pad or --fit crop"
            yield Finding(kind, "low", text, advice, audited.clips[row].name, (row,))


def _empty_bands(audited: AuditedSet) -> Iterator[Finding]:
    """Yield clips of lower sample rates than the set, if other clips have higher ones."""
    config = audited.shards.config
    low = (audited.rate > 0) & (audited.rate < EMPTY_BAND * (config.sample_rate if config else 0))
    if config is None or not low.any() or low.all():
        return
    lowest = int(audited.rate[low].max())
    for row in np.flatnonzero(low).tolist():
        rate = int(audited.rate[row])
        highest = config.sample_rate / 2
        text = f"recorded at {rate:,} Hz: no sound above {rate / 2:,.0f} Hz, the images reach {highest:,.0f}"
        advice = f"build the set with --sample-rate {lowest}, so that the rate is no cue for the class"
        yield Finding("empty-band", "medium", text, advice, audited.clips[row].name, (row,))


def silence_findings(audited: AuditedSet, silent: np.ndarray) -> list[Finding]:
    """Return the findings about silence in images.

    Args:
        audited: The set.
        silent: Fraction of quiet frames of each clip (see `Traces`).
    """
    found = []
    for row in np.flatnonzero(silent >= 1).tolist():
        text, advice = "the whole clip is silent", "delete it, or label it as a class of its own"
        found.append(Finding("silent", "medium", text, advice, audited.clips[row].name, (row,)))
    for row in np.flatnonzero((silent > MOSTLY_SILENT) & (silent < 1)).tolist():
        text = f"{silent[row]:.0%} of the clip is more than 55 dB below its maximum"
        found.append(
            Finding("mostly-silent", "low", text, "trim the silence", audited.clips[row].name, (row,))
        )
    return found
