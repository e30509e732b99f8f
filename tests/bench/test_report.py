"""Figures for people, charts that stand where their numbers are, Markdown that no name can break."""

import re

import pytest

from shardwave.bench.report import render
from shardwave.bench.report.blocks import Line, Lines, Page, Table, number, per_cent, waterfall
from shardwave.bench.report.render import table
from shardwave.bench.report.svg import HEIGHT, WIDTH


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (1234.5, "1,230"), (12_345, "12,300"), (1_234_567, "1,234,600"), (99.96, "100"),
        (12.34, "12.3"),
        (0.012345, "0.0123"), (1e-7, "1e-07"), (None, "–"), (float("nan"), "–"), (-3.14159, "-3.14"),
    ],
)  # fmt: skip
def test_numbers_are_rounded_for_reading(value, text):
    assert number(value) == text


def test_percentages():
    assert (per_cent(0.1234), per_cent(None)) == ("12.3 %", "–")


def chart(lines):
    return render.html(Page("t", [], [("s", [lines])])).partition("<svg")[2].partition("</svg>")[0]


def points(svg):
    return [
        [tuple(map(float, pair.split(","))) for pair in line.split()]
        for line in re.findall(r'<polyline[^>]*points="([^"]+)"', svg)
    ]


def test_points_lie_inside_the_plot_and_in_order():
    ((first, last),) = points(chart(Lines("t", "x", "y", [Line("a", [(0, 1), (10, 3)])])))
    assert 0 < first[0] < last[0] < WIDTH and HEIGHT > first[1] > last[1] > 0


def test_logarithmic_axes_put_equal_ratios_at_equal_distances():
    ((a, b, c),) = points(chart(Lines("t", "x", "y", [Line("a", [(1, 1), (10, 10), (100, 100)])], log=True)))
    assert b[0] - a[0] == pytest.approx(c[0] - b[0], abs=0.2) and a[1] - b[1] == pytest.approx(
        b[1] - c[1], abs=0.2
    )


def test_stairs_are_constant_between_points():
    ((*corners,),) = points(chart(Lines("t", "x", "y", [Line("a", [(0, 1), (1, 2)], stairs=True)])))
    assert len(corners) == 3 and corners[0][1] == corners[1][1] and corners[1][0] == corners[2][0]


def test_integers_have_integer_ticks():
    svg = chart(Lines("t", "epoch", "y", [Line("a", [(1, 0.25), (2, 0.5), (3, 0.75)])]))
    labels = re.findall(r'text-anchor="middle">([\d.]+)</text>', svg)
    assert labels == ["1", "2", "3"]


def test_a_chart_without_points_is_empty():
    assert chart(Lines("t", "x", "y", [Line("a", [])])) == ""


def test_markdown_escapes_any_name():
    assert table(("a|b",), [("c\nd|e",)]) == "| a\\|b |\n| --- |\n| c d\\|e |"
    parts = waterfall("w", "s", [("step", 3.0), ("wait", 1.0)])
    text = render.markdown(Page("T", ["S."], [("One", [parts, Table(("x",), [("1",)], (0,))])]))
    assert text.startswith("# T\n\nS.\n\n## One\n") and "| --: |" in text
    assert "| step |  | ██████████████████ | 3 s, 75.0 % |" in text
