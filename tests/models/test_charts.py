"""Plots are well-formed, map data where they should, and escape what they are given."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obligor.models.charts import Plot, legend, nice_ticks, number, percent


def _marks(plot: Plot, tag: str) -> list[dict[str, str]]:
    return [dict(e.attrib) for e in ElementTree.fromstring(plot.svg("a plot")).iter(tag)]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-6, 1e6))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    assert len(ticks) <= 7
    assert all(low - 1e-6 * span - 1e-6 <= t <= low + span + 1e-6 * span + 1e-6 for t in ticks)


def test_data_lands_where_the_axes_say() -> None:
    plot = Plot((0, 10), (0, 1), "x", "y", width=478, height=358)
    plot.dot(0, 0, "champion")
    plot.dot(10, 1, "champion", low=0.5, high=1.0)
    plot.bar(5, 2, 0, 0.5, "good")
    (first, second), (bar,) = _marks(plot, "circle"), _marks(plot, "rect")
    assert (float(first["cx"]), float(first["cy"])) == (58, 312)
    assert (float(second["cx"]), float(second["cy"])) == (458, 12)
    assert (float(bar["x"]), float(bar["width"])) == (218, 80)
    assert (float(bar["y"]), float(bar["height"])) == (162, 150)


def test_an_empty_range_is_widened() -> None:
    plot = Plot((1, 1), (0, 0), "x", "y")
    plot.dot(1, 0, "champion")
    assert _marks(plot, "circle")


def test_texts_are_escaped() -> None:
    plot = Plot((0, 1), (0, 1), "<b>x", "y & z", x_labels=[(0.5, "<script>")])
    plot.line([(0, 0), (1, 1)], "champion", tip="</title><script>")
    plot.rule(0.5, "a < b")
    plot.text(0.1, 0.1, "<i>")
    for text in (plot.svg('say "hi"'), legend(("good", "<u>"))):
        assert "<script>" not in text
        ElementTree.fromstring(text)


@pytest.mark.parametrize(("value", "shown"), [(0.0, "0%"), (0.123456, "12.3%"), (1.0, "100%"), (0.0051, "0.51%")])
def test_percent(value: float, shown: str) -> None:
    assert percent(value) == shown


def test_number() -> None:
    assert [number(v) for v in (1234567.0, 999.0, 0.00123456, -2500.0)] == ["1,234,567", "999", "0.001235", "-2,500"]
