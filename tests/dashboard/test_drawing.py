"""How figures are drawn and written."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist.dashboard.drawing import (
    CurvePlot,
    bar_plot,
    calendar,
    curve_plot,
    full_label,
    heat,
    label,
    line_plot,
    more,
    percent,
    points_more,
    short,
    sparkline,
    thousands,
    ticks,
    when,
)
from flask_bitmapist.periods import Grain

COUNTS = st.lists(st.integers(0, 10**7), min_size=1, max_size=60)


def points_of(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (point.split(",") for point in text.split())]


def test_a_sparkline_is_scaled_to_its_own_days() -> None:
    line = sparkline([10, 20, 15], width=108, height=28)
    assert line.closed == "4.0,24.0 54.0,4.0"
    assert line.running == "54.0,4.0 104.0,14.0"
    assert (line.x, line.y) == (104.0, 14.0)


def test_a_day_that_has_just_begun_does_not_press_the_others_flat() -> None:
    line = sparkline([10, 20, 0], width=108, height=28)
    assert line.closed == "4.0,24.0 54.0,4.0"
    assert line.y == 24.0


def test_a_last_day_that_is_over_is_part_of_the_line() -> None:
    line = sparkline([10, 20, 0], width=108, height=28, is_over=True)
    assert (line.closed, line.running) == ("4.0,14.0 54.0,4.0 104.0,24.0", "")


def test_a_sparkline_of_equal_days_is_flat() -> None:
    assert sparkline([0, 0, 0], width=108, height=28).closed == "4.0,24.0 54.0,24.0"


@pytest.mark.parametrize(
    ("rate", "largest", "step"),
    [(0, 0.5, "q0"), (0.25, 0.5, "q10"), (0.5, 0.5, "q20"), (0.9, 0.5, "q20"), (0.3, 0, "q0")],
)
def test_heat_runs_from_nothing_to_the_largest_rate(rate: float, largest: float, step: str) -> None:
    assert heat(rate, largest) == step


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_ticks_are_round_and_enclose_the_values(top: int, depth: int) -> None:
    found, low, high = ticks(top, -depth)
    values = [tick.value for tick in found]
    assert low <= -depth <= 0 <= top <= high
    assert (values[0], values[-1]) == (low, high)
    assert 0 in values
    assert 2 <= len(values) <= 7
    (step,) = {after - before for before, after in pairwise(values)}
    assert step >= 1
    assert str(int(step)).rstrip("0") in ("1", "2", "5")


@given(st.just(0.0) | st.floats(1e-9, 1))
def test_ticks_of_rates_enclose_them(top: float) -> None:
    _, low, high = ticks(top, whole=False)
    assert low == 0
    assert high >= top
    assert high > 0


@given(COUNTS, st.booleans())
def test_a_line_stays_in_its_box_and_runs_from_edge_to_edge(
    values: list[int], running: bool
) -> None:
    plot = line_plot(range(len(values)), values, running=running)
    drawn = points_of(" ".join([*plot.closed, *plot.running, *plot.areas]))
    assert all(0 <= x <= 1000 and 0 <= y <= 1000 for x, y in drawn) or len(values) == 1
    assert [slot.point for slot in plot.slots] == [*range(len(values))]
    (line,) = plot.closed or [""]
    assert len(points_of(line)) == (2 if len(values) - running == 1 else len(values) - running)
    if len(values) > 1:
        assert (plot.slots[0].x, round(plot.slots[-1].x, 6)) == (0, 100)


def test_the_last_piece_of_a_line_is_drawn_apart_while_its_period_runs() -> None:
    plot = line_plot("abc", [0, 4, 2], running=True)
    assert plot.closed == ["0.0,1000.0 500.0,0.0"]
    assert plot.running == ["500.0,0.0 1000.0,500.0"]
    assert line_plot("abc", [0, 4, 2]).running == []


def test_a_line_is_interrupted_where_there_is_no_value() -> None:
    plot = line_plot("abcdef", [None, 1, 0, None, 0.5, None], running=1)
    assert plot.closed == ["200.0,0.0 400.0,1000.0", "796.0,500.0 804.0,500.0"]
    assert plot.running == []
    assert len(plot.areas) == 2
    assert [slot.y for slot in plot.slots] == [None, 0, 100, None, 50, None]
    (curve,) = curve_plot("abc", {"c1": [0.5, None, 1]}, running=True, rates=True).curves
    assert (curve.closed, curve.running) == (["0.0,500.0 4.0,500.0"], ["996.0,0.0 1000.0,0.0"])
    assert curve.marked == [(0, 50), (100, 0)]
    assert line_plot("ab", [None, None]).closed == []


def test_the_area_below_a_line_ends_where_its_closed_periods_end() -> None:
    plot = line_plot("abc", [0, 4, 2], running=True)
    (area,) = plot.areas
    assert points_of(area)[-2:] == [(500, 1000), (0, 1000)]


def test_a_band_encloses_its_line() -> None:
    plot = line_plot("ab", [0.5, 0.25], band=[(0.4, 0.6), (0.2, 0.3)])
    (area,), (line,) = plot.areas, plot.closed
    assert points_of(area) == [(0, 0), (1000, 500), (1000, 666.7), (0, 333.3)]
    assert points_of(line) == [(0, 166.7), (1000, 583.3)]


@given(COUNTS, st.data())
def test_bars_are_stacked_on_the_base_line_and_hang_below_it(
    counts: list[int], data: st.DataObject
) -> None:
    same = st.lists(st.integers(0, 10**7), min_size=len(counts), max_size=len(counts))
    others, depths = data.draw(same), data.draw(same)
    plot = bar_plot(
        counts,
        [[("new", a), ("returning", b)] for a, b in zip(counts, others, strict=True)],
        [[("dormant", depth)] for depth in depths],
    )
    scale = 100 / (plot.ticks[-1].value - plot.ticks[0].value)
    for bar, a, b, depth in zip(plot.bars, counts, others, depths, strict=True):
        new, returning, dormant = bar.pieces
        assert [piece.users for piece in bar.pieces] == [a, b, depth]
        assert new.y + new.height == pytest.approx(plot.base)
        assert returning.y + returning.height == pytest.approx(new.y)
        assert dormant.y == pytest.approx(plot.base)
        assert new.height + returning.height == pytest.approx(
            max((a + b) * scale, 2.0 * ((a > 0) + (b > 0)))
        )
        assert all((piece.height >= 2) == (piece.users > 0) for piece in bar.pieces)
        assert not any(piece.height for piece in bar.pieces if not piece.users)
        assert returning.y >= -1e-9
        assert dormant.y + dormant.height <= 100 + 1e-9
        assert bar.slot.left <= bar.left < bar.left + bar.width <= bar.slot.left + bar.slot.width


@given(st.integers(1, 400))
def test_an_axis_names_at_least_one_and_at_most_six_periods(count: int) -> None:
    plot = bar_plot(range(count), [[("new", 1)]] * count)
    assert 1 <= sum(bar.slot.labelled for bar in plot.bars) <= 6


@given(st.dates(date(1999, 1, 1), date(2100, 12, 31)))
def test_a_calendar_has_a_column_a_week_and_a_row_a_weekday(last: date) -> None:
    first = last - timedelta(days=364)
    squares = calendar({"a": [last], "b": [last, first]}, first, last)
    assert len(squares.days) == 365
    assert len({(square.column, square.row) for square in squares.days}) == 365
    for before, after in pairwise(squares.days):
        assert after.row == (before.row + 1) % 7
        assert after.column == before.column + (after.row == 0)
    assert squares.weeks == squares.days[-1].column + 1
    assert (squares.days[0].events, squares.days[-1].events, squares.most) == (1, 2, 2)
    assert len({month.month for _, month in squares.months}) >= 11


@pytest.mark.parametrize(
    ("by", "short_name", "name", "adverb"),
    [
        ("day", "2 Nov", "2 Nov 2026", "on 2 Nov 2026"),
        ("week", "2 Nov", "week of 2 Nov 2026", "in the week of 2 Nov 2026"),
        ("month", "Nov 2026", "November 2026", "in November 2026"),
        ("year", "2026", "2026", "in 2026"),
    ],
)
def test_a_period_has_a_short_name_a_full_one_and_an_adverb(
    by: Grain, short_name: str, name: str, adverb: str
) -> None:
    start = date(2026, 11, 2)
    assert (label(start, by), full_label(start, by), when(start, by)) == (short_name, name, adverb)


def test_an_hour_is_called_by_the_clock() -> None:
    start = datetime(2026, 11, 2, 7)
    assert (label(start, "hour"), full_label(start, "hour")) == ("07:00", "2 Nov 2026, 07:00")


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (600, "600"), (2_500, "2,500"), (12_000, "12k"), (1_500_000, "1.5M"), (-40, "40")],
)
def test_the_value_of_a_tick_is_short_and_has_no_sign(number: float, text: str) -> None:
    assert short(number) == text


def test_counts_have_separators_and_rates_one_decimal() -> None:
    assert (thousands(12480), percent(0.3434), percent(0)) == ("12,480", "34.3", "0.0")


@pytest.mark.parametrize(
    ("now", "then", "told"),
    [
        (1_204, 1_084, "120 more (+11.1 %) than"),
        (3, 4, "1 fewer (\N{MINUS SIGN}25.0 %) than"),
        (3, 0, "3 more than"),
        (7, 7, "as many as"),
        (71.25, 63.0, "8.2 more (+13.0 %) than"),
        (2.0, 2.04, "as many as"),
    ],
)
def test_a_number_is_compared_in_words(now: float, then: float, told: str) -> None:
    assert more(now, then) == told


def test_shares_are_compared_in_points() -> None:
    changes = (0.0213, -0.004, 0.0004)
    assert [*map(points_more, changes)] == [
        "2.1 points more than",
        "0.4 points less than",
        "the same as",
    ]


def test_several_curves_share_their_axes() -> None:
    plot = curve_plot("abc", {"c0": [4.0, 2.0, 0.0], "c1": [1.0, 1.0]}, running=True)
    whole, part = plot.curves
    assert whole.closed == ["0.0,0.0 500.0,500.0"]
    assert whole.running == ["500.0,500.0 1000.0,1000.0"]
    # Shorter: the others' last period is not over, this one has none.
    assert (part.closed, part.running) == (["0.0,750.0 500.0,750.0"], [])
    assert (whole.marked, part.marked) == ([], [(0.0, 75.0), (50.0, 75.0)])
    assert [slot.point for slot in plot.slots] == ["a", "b", "c"]
    assert [tick.value for tick in plot.ticks] == [0, 1, 2, 3, 4]


def test_curves_without_any_value_are_a_plot_without_lines() -> None:
    plot: CurvePlot[str] = curve_plot([], {"c0": [], "c1": []}, rates=True)
    assert [curve.closed for curve in plot.curves] == [[], []]
