"""What the line figures share: their size, the frame with legend and axes, and a curve through values that may be undefined."""

from collections.abc import Sequence

from markupsafe import Markup

from .svg import WIDTH, Scale, legend, line, mark, path, x_axis, y_axis

TOP, BOTTOM, LEFT, RIGHT = 60.0, 300.0, 44.0, WIDTH - 12
HEIGHT = 342.0
OVER = 8.0
"""Pixels by which vertical grid lines stand out above the highest value."""

Name = tuple[str, str, str]
"""An entry of a legend: its name, the classes of its line and the shape of its mark ("" for none)."""


def sample(css: str, shape: str = "") -> Markup:
    """A piece of line with its mark, for a legend; `css` as in `curve`."""
    drawn = line(-8, 0, 10, 0, f"curve {css}")
    return drawn + mark(1, 0, shape, css.split()[0]) if shape else drawn


def names(entries: Sequence[Name]) -> list[Markup]:
    """The legend of a figure at its top edge."""
    return legend([(name, sample(css, shape)) for name, css, shape in entries], 12)[0]


def frame(across: Scale, up: Scale, labels: tuple[str, str], entries: Sequence[Name] = ()) -> list[Markup]:
    """Legend and both axes; `labels` are those of the horizontal and of the vertical axis."""
    return [
        *names(entries),
        *x_axis(across, up.end - OVER, up.start, labels[0]),
        *y_axis(up, LEFT, RIGHT, labels[1]),
    ]


def curve(xs: Sequence[float], ys: Sequence[float | None], across: Scale, up: Scale, css: str) -> Markup:
    """A line through the points whose value is defined; an undefined one lifts the pen. `css`: colour, then thin or dash."""
    points = [None if y is None else (across(x), up(y)) for x, y in zip(xs, ys, strict=True)]
    return path(points, f"curve {css}")
