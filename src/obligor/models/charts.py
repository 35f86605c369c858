"""Plots as inline SVG: axes with titles, light grids, lines, dots with intervals, bars. No script, no library.

A `Plot` maps data to a fixed view box and collects marks; every mark can carry a tooltip (SVG's own <title>). Colours
are classes of the page's style sheet, so that a plot and its legend always agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

__all__ = ["Plot", "legend", "nice_ticks", "number", "percent"]

Point = tuple[float, float]
Format = Callable[[float], str]

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 20, 12, 46


def percent(value: float) -> str:
    """Return a share as a percentage with up to three significant digits.

    >>> percent(0.125), percent(0.05), percent(1.0)
    ('12.5%', '5%', '100%')
    """
    return f"{100 * value:.3g}%"


def number(value: float) -> str:
    """Return a number with up to four significant digits, thousands set apart.

    >>> number(12345.0), number(0.25)
    ('12,345', '0.25')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers within [low, high].

    >>> nice_ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = max(high - low, 1e-12)
    power = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if span / (power * m) <= wanted + 0.5)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


class Plot:
    """One plot; `x` and `y` are the data ranges shown. Marks are drawn in the order in which they are added."""

    def __init__(
        self, x: Point, y: Point, x_title: str, y_title: str, *, width: int = 460, height: int = 320,
        x_format: Format = number, y_format: Format = number, x_labels: Sequence[tuple[float, str]] | None = None,
    ) -> None:  # fmt: skip
        """`x_labels` replaces the numeric ticks of the x axis by texts at places."""
        self._x, self._y, self._width, self._height = _wide(x), _wide(y), width, height
        self._marks: list[str] = []
        self._axes(x_title, y_title, x_format, y_format, x_labels)

    def _axes(
        self, x_title: str, y_title: str, x_format: Format, y_format: Format,
        x_labels: Sequence[tuple[float, str]] | None,
    ) -> None:  # fmt: skip
        left, right, top, bottom = _LEFT, self._width - _RIGHT, _TOP, self._height - _BOTTOM
        for value in nice_ticks(*self._y):
            y = self._v(value)
            self._add(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            self._add(f'<text class="tick end" x="{left - 7}" y="{y + 3.5:.1f}">{escape(y_format(value))}</text>')
        labels = [(v, x_format(v)) for v in nice_ticks(*self._x)] if x_labels is None else x_labels
        for value, text in labels:
            x = self._h(value)
            self._add(f'<text class="tick middle" x="{x:.1f}" y="{bottom + 16}">{escape(text)}</text>')
        self._add(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        self._add(
            f'<text class="title middle" x="{(left + right) / 2:.0f}" y="{self._height - 8}">{escape(x_title)}</text>'
        )
        middle = (top + bottom) / 2
        self._add(
            f'<text class="title middle" transform="translate(13 {middle:.0f}) rotate(-90)">{escape(y_title)}</text>'
        )

    def line(self, points: Sequence[Point], colour: str, *, dashed: bool = False, tip: str = "") -> None:
        """Draw a line through the points."""
        path = " ".join(f"{self._h(x):.1f},{self._v(y):.1f}" for x, y in points)
        extra = " dashed" if dashed else ""
        self._add(f'<polyline class="line {colour}{extra}" points="{path}">{_tip(tip)}</polyline>')

    def area(self, points: Sequence[Point], colour: str) -> None:
        """Fill the area between the points and the lower edge."""
        base = self._v(self._y[0])
        path = " ".join(f"{self._h(x):.1f},{self._v(y):.1f}" for x, y in points)
        first, last = self._h(points[0][0]), self._h(points[-1][0])
        self._add(f'<polygon class="area {colour}" points="{first:.1f},{base:.1f} {path} {last:.1f},{base:.1f}"/>')

    def dot(self, x: float, y: float, colour: str, *, low: float | None = None, high: float | None = None,
            tip: str = "") -> None:  # fmt: skip
        """Draw a dot, with its vertical interval where one is given."""
        h = self._h(x)
        if low is not None and high is not None:
            a, b = self._v(low), self._v(high)
            self._add(f'<line class="whisker {colour}" x1="{h:.1f}" x2="{h:.1f}" y1="{a:.1f}" y2="{b:.1f}"/>')
        self._add(f'<circle class="dot {colour}" cx="{h:.1f}" cy="{self._v(y):.1f}" r="4">{_tip(tip)}</circle>')

    def bar(self, x: float, width: float, low: float, high: float, colour: str, *, tip: str = "") -> None:
        """Draw an upright bar from `low` to `high`, centred at x; `width` is in data units."""
        a, b = self._h(x - width / 2), self._h(x + width / 2)
        top, bottom = self._v(high), self._v(low)
        self._add(
            f'<rect class="bar {colour}" x="{a:.1f}" y="{top:.1f}" width="{max(b - a, 0.5):.1f}" '
            f'height="{max(bottom - top, 0):.1f}">{_tip(tip)}</rect>'
        )

    def rule(self, x: float, text: str) -> None:
        """Draw a dashed upright line with a text at its top."""
        h = self._h(x)
        self._add(f'<line class="rule" x1="{h:.1f}" x2="{h:.1f}" y1="{_TOP}" y2="{self._height - _BOTTOM}"/>')
        end = h > self._width * 0.7
        place, anchor = (h - 5, "end") if end else (h + 5, "start")
        self._add(f'<text class="note {anchor}" x="{place:.1f}" y="{_TOP + 10}">{escape(text)}</text>')

    def text(self, x: float, y: float, text: str, anchor: str = "start") -> None:
        """Write a note at a place."""
        self._add(f'<text class="note {anchor}" x="{self._h(x):.1f}" y="{self._v(y):.1f}">{escape(text)}</text>')

    def svg(self, label: str) -> str:
        """Return the plot; `label` says what it shows to those who cannot see it."""
        return (
            f'<svg viewBox="0 0 {self._width} {self._height}" role="img" aria-label="{escape(label)}">'
            f"{''.join(self._marks)}</svg>"
        )

    def _add(self, mark: str) -> None:
        self._marks.append(mark)

    def _h(self, x: float) -> float:
        low, high = self._x
        return _LEFT + (x - low) / (high - low) * (self._width - _LEFT - _RIGHT)

    def _v(self, y: float) -> float:
        low, high = self._y
        return self._height - _BOTTOM - (y - low) / (high - low) * (self._height - _TOP - _BOTTOM)


def legend(*entries: tuple[str, str]) -> str:
    """Return a legend of (colour class, text)."""
    keys = "".join(
        f'<span class="key"><i class="swatch {colour}"></i>{escape(text)}</span>' for colour, text in entries
    )
    return f'<div class="legend">{keys}</div>'


def _wide(bounds: Point) -> Point:
    low, high = bounds
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _tip(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""
