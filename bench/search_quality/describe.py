"""Description of the recorded tables for `docs/search.md`."""

from __future__ import annotations

from shardwave.bench.report.blocks import number
from shardwave.bench.report.render import table as markdown_table
from shardwave.bench.search_quality import curves, measures
from shardwave.models.training.config import WARM_UP
from shardwave.search.budget import grace_after

EPOCHS = (1, 3, 5, 10, 20)  # after which the rank correlations are shown


def document_table() -> str:
    """Return the Markdown table of the tables of the project."""
    head = ("table", "configurations", "epochs", "regret 0", "regret 1", "noise", *map(str, EPOCHS), "bound")
    rows = []
    for path in sorted(curves.FOLDER.glob("*.npz")):
        table = curves.read(path)
        scale, noise = measures.scale_of(table), measures.noise(table)
        accuracy = measures.rank_correlation(table, table.epochs)
        loss = measures.rank_correlation(table, table.epochs, by_loss=True)
        taus = [
            f"{accuracy[epoch - 1]:.2f} / {loss[epoch - 1]:.2f}" if epoch <= table.epochs else ""
            for epoch in EPOCHS
        ]
        figures = (f"{100 * scale.best:.1f} %", f"{100 * scale.first:.1f} %", number(100 * (noise or 0), 2))
        rungs = (grace_after(WARM_UP, table.epochs), max(1, table.epochs // 10))
        bound = " / ".join(f"{measures.oracle_speed_up(table, rung):.1f} ({rung})" for rung in rungs)
        rows.append((table.name, f"{len(table.rows):,}", str(table.epochs), *figures, *taus, bound))
    return markdown_table(head, rows, range(1, len(head)))
