"""The few pieces of SVG that the figures are made of: scales, ticks, marks, legends, the frame.

Colours are classes resolved by the page's style sheet, so one drawing serves light, dark and print. No `style`
attribute is ever written: the page's content security policy would drop it.
"""

import math
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 520.0


@dataclass(frozen=True)
class Scale:
    """A linear map from data `[low, high]` to pixels `[start, end]`; values outside are held at the ends.

    >>> Scale(-1.0, 1.0, 100.0, 300.0)(0.5)
    250.0
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of `value`."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """About `count` round numbers inside the range."""
        rough = (self.high - self.low) / max(1, count)
        power = 10 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(k * step, 12) for k in range(first, last + 1)]


def spread(values: list[float], pad: float = 0.05, zero: bool = True) -> tuple[float, float]:
    """The range of `values`, padded, with 0 inside when `zero`; (-1, 1) when there is nothing to show."""
    held = [*values, 0.0] if zero and values else values
    if not held:
        return -1.0, 1.0
    low, high = min(held), max(held)
    margin = (high - low) * pad or abs(high) or 1.0
    return low - margin, high + margin


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def text(x: float, y: float, content: str, css: str = "", anchor: str = "start") -> Markup:
    """A label; `content` is escaped."""
    return Markup('<text x="{}" y="{}" class="{}" text-anchor="{}">{}</text>').format(
        _n(x), _n(y), css, anchor, content
    )


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    """A straight stroke."""
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(_n(x1), _n(y1), _n(x2), _n(y2), css)


def rect(box: tuple[float, float, float, float], css: str, opacity: float | None = None, title: str = "") -> Markup:
    """A box `(x, y, width, height)`, optionally translucent and with a tooltip."""
    shade = Markup(' fill-opacity="{}"').format(f"{opacity:.3f}") if opacity is not None else ""
    inner = Markup("<title>{}</title>").format(title) if title else ""
    x, y, w, h = (_n(v) for v in box)
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" class="{}"{}>{}</rect>').format(
        x, y, w, h, css, shade, inner
    )


def path(points: list[tuple[float, float] | None], css: str) -> Markup:
    """A broken line through `points`; None lifts the pen."""
    steps, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        steps.append(f"{pen}{_n(point[0])} {_n(point[1])}")
        pen = "L"
    return Markup('<path d="{}" class="{}"/>').format("".join(steps), css) if steps else Markup("")


_SHAPES: dict[str, list[tuple[float, float]]] = {
    "left": [(-6, 0), (4, -5.5), (4, 5.5)],
    "right": [(6, 0), (-4, -5.5), (-4, 5.5)],
    "diamond": [(-6, 0), (0, -6), (6, 0), (0, 6)],
    "square": [(-3, -3), (3, -3), (3, 3), (-3, 3)],
}


def mark(x: float, y: float, shape: str, css: str, title: str = "") -> Markup:
    """A data mark centred on `(x, y)`: circle, dot, cross, left, right, diamond or square."""
    inner = Markup("<title>{}</title>").format(title) if title else ""
    if shape in ("circle", "dot"):
        radius = "4.5" if shape == "circle" else "2.8"
        return Markup('<circle cx="{}" cy="{}" r="{}" class="mark {}">{}</circle>').format(
            _n(x), _n(y), radius, css, inner
        )
    at = Markup('transform="translate({} {})"').format(_n(x), _n(y))
    if shape == "cross":
        return Markup('<path {} d="M-4 -4L4 4M-4 4L4 -4" class="mark cross {}">{}</path>').format(at, css, inner)
    corners = " ".join(f"{dx},{dy}" for dx, dy in _SHAPES[shape])
    return Markup('<polygon {} points="{}" class="mark {}">{}</polygon>').format(at, corners, css, inner)


def x_axis(scale: Scale, top: float, bottom: float, label: str, count: int = 5) -> list[Markup]:
    """Vertical grid lines with numbers below, and the axis label."""
    parts = []
    for tick in scale.ticks(count):
        x = scale(tick)
        parts += [
            line(x, top, x, bottom, "axis" if tick == 0 else "grid"),
            text(x, bottom + 16, _tick(tick), "tick", "middle"),
        ]
    return [*parts, text((scale.start + scale.end) / 2, bottom + 34, label, "label", "middle")]


def y_axis(scale: Scale, left: float, right: float, label: str) -> list[Markup]:
    """Horizontal grid lines with numbers at the left, and the axis label above."""
    parts = []
    for tick in scale.ticks(4):
        y = scale(tick)
        parts += [
            line(left, y, right, y, "axis" if tick == 0 else "grid"),
            text(left - 7, y + 4, _tick(tick), "tick", "end"),
        ]
    return [*parts, text(4, scale.end - 11, label, "label")]


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def legend(entries: list[tuple[str, Markup]], top: float, left: float = 4.0) -> tuple[list[Markup], float]:
    """Samples with names, wrapped in rows; returns the parts and the y below them. A sample is drawn at (0, 0)."""
    parts: list[Markup] = []
    x, y = left, top
    for name, sample in entries:
        width = 34 + 6.4 * len(name)
        if x > left and x + width > WIDTH:
            x, y = left, y + 19
        parts.append(
            Markup('<g transform="translate({} {})">{}{}</g>').format(
                _n(x + 10), _n(y), sample, text(16, 4, name, "tick")
            )
        )
        x += width
    return parts, y + 19 if entries else top


def drawing(name: str, title: str, description: str, height: float, parts: list[Markup]) -> Markup:
    """The `<svg>` around `parts`: scales with its box and reads as one image with a title and a description."""
    return Markup(
        '<svg viewBox="0 0 {w} {h}" role="img" aria-labelledby="{n}-title {n}-desc" class="figure" '
        'preserveAspectRatio="xMidYMid meet"><title id="{n}-title">{t}</title><desc id="{n}-desc">{d}</desc>{p}</svg>'
    ).format(w=_n(WIDTH), h=_n(height), n=name, t=escape(title), d=escape(description), p=Markup("").join(parts))
