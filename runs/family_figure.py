"""The family's figure: loss against parameters and difficulty against capability, on logarithmic axes."""

import math
from typing import Any

from markupsafe import Markup

from aligntax.report.svg import WIDTH, Scale, drawing, mark, path, text, x_axis, y_axis

TOP, PANEL, GAP = 46.0, 210.0, 90.0
STYLE = (
    "<style>text{font:12px sans-serif;fill:#1d2023}.tick{font-size:11px}.grid,.axis{stroke:#dcdfe2}.one{color:#2a3f92}"
    ".two{color:#a3480f}.mark{fill:currentColor}.curve{fill:none;stroke:currentColor;stroke-width:1.5}</style>"
)


def figure(found: dict[str, Any]) -> str:
    """An SVG document that stands alone."""
    models = found["models"]
    parts = panel(
        TOP, [(m["parameters"], m["loss"], "one") for m in models], ("log10 parameters", "log10 loss (nats a token)"),
        [(found["fits"]["loss"], "one")],
    )  # fmt: skip
    able = {(m["width"], m["seed"]): m["capability"] for m in models}
    points, laws = [], []
    for method, css in (("sft", "one"), ("dpo", "two")):
        points += [(able[h["width"], h["seed"]], h[method]["kl"], css) for h in found["difficulty"] if h[method]["kl"]]
        laws += [(found["fits"][f"difficulty_{method}"], css)] if f"difficulty_{method}" in found["fits"] else []
    below = TOP + PANEL + GAP
    parts += panel(
        below, points, ("log10 capability (mean accuracy)", "log10 KL to harm .35 (blue SFT, brown DPO)"), laws
    )
    svg = str(
        drawing("family", "Loss and difficulty over widths", "Numbers are in family.json.", below + PANEL + 50, parts)
    )
    return (
        svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace("<title", STYLE + "<title", 1)
        + "\n"
    )


def panel(top: float, points: list, labels: tuple[str, str], laws: list) -> list[Markup]:
    """Points and fitted lines in log-log."""
    logs = [(math.log10(x), math.log10(y), css) for x, y, css in points]
    if not logs:
        return [text(4, top, "no model reached the level", "tick")]
    xs, ys = [x for x, _, _ in logs], [y for _, y, _ in logs]
    across = Scale(min(xs) - 0.03, max(xs) + 0.03, 50, WIDTH - 12)
    up = Scale(min(ys) - 0.03, max(ys) + 0.03, top + PANEL, top)
    parts = [*x_axis(across, top, top + PANEL, labels[0]), *y_axis(up, 50, WIDTH - 12, labels[1])]
    for law, css in laws:
        ends = [min(xs), max(xs)]
        line = [(across(x), up(math.log10(law["scale"]) + law["exponent"]["value"] * x)) for x in ends]
        parts.append(path([*line], f"curve {css}"))
    return parts + [mark(across(x), up(y), "dot", css) for x, y, css in logs]
