"""The figure of the trade-off grid: reward and capability against KL by beta, and gold reward against what it was pushed."""

from typing import Any

from markupsafe import Markup

from aligntax.report.svg import WIDTH, Scale, drawing, mark, path, spread, text, x_axis, y_axis

TOP, PANEL, GAP = 46.0, 190.0, 92.0
STYLE = (
    "<style>text{font:12px sans-serif;fill:#1d2023}.tick{font-size:11px}.grid,.axis{stroke:#dcdfe2}.one{color:#2a3f92}"
    ".two{color:#a3480f}.three{color:#2f6b4f}.mark{fill:currentColor}.curve{fill:none;stroke:currentColor;stroke-width:1.5}</style>"
)
Rows = list[dict[str, Any]]
CSS = {32: "two", 128: "three", 896: "one"}


def figure(rows: Rows, best: Rows, betas: dict[str, float]) -> str:
    """An SVG document that stands alone."""
    chosen = [r for r in rows if r["variant"] in betas]
    gold = [
        [(r["kl"] ** 0.5, r["gold reward"], "one") for r in chosen],
        [(r["kl"] ** 0.5, r["capability"], "two") for r in chosen],
    ]
    parts = panel(
        TOP,
        [p for part in gold for p in part],
        ("sqrt KL (nats a reply)", "beta sweep: gold reward (blue), capability (brown)"),
        [],
    )
    curves = [
        ([(k**0.5, g - r["gold"][0]) for k, g in zip(r["kl"], r["gold"], strict=True)], CSS[r["pairs"]]) for r in best
    ]
    below = TOP + PANEL + GAP
    said = "best of n: gold over start; 32 (brown), 128 (green), 896 pairs (blue)"
    parts += panel(below, [(x, y, css) for points, css in curves for x, y in points], ("sqrt KL (nats)", said), curves)
    pushed = [r for r in rows if r["variant"] in ("pairs 32", "pairs 128", "beta .01")]
    lines = [(_smooth(r), CSS[{"pairs 32": 32, "pairs 128": 128}.get(r["variant"], 896)]) for r in pushed]
    below += PANEL + GAP
    said = "RLOO at beta .01: gold reward of sampled replies, same colours"
    parts += panel(below, [(x, y, css) for points, css in lines for x, y in points], ("optimizer step", said), lines)
    svg = str(
        drawing(
            "tradeoffs", "Trade-offs in the small world", "Numbers are in tradeoffs.json.", below + PANEL + 50, parts
        )
    )
    return (
        svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace("<title", STYLE + "<title", 1)
        + "\n"
    )


def _smooth(row: dict[str, Any], window: int = 10) -> list[tuple[float, float]]:
    """Running means of gold reward over steps."""
    curve = row["curves"]["rewards/gold/mean"]
    return [
        (curve[k + window - 1][0], sum(v for _, v in curve[k : k + window]) / window)
        for k in range(len(curve) - window + 1)
    ][::4]


def panel(top: float, points: list, labels: tuple[str, str], lines: list) -> list[Markup]:
    """Points, and lines through some of them."""
    if not points:
        return [text(4, top, "nothing was run", "tick")]
    across = Scale(*spread([x for x, *_ in points], zero=False), 50, WIDTH - 12)
    up = Scale(*spread([y for _, y, _ in points], zero=False), top + PANEL, top)
    parts = [*x_axis(across, top, top + PANEL, labels[0]), *y_axis(up, 50, WIDTH - 12, labels[1])]
    parts += [path([(across(x), up(y)) for x, y in line], f"curve {css}") for line, css in lines]
    return parts + [mark(across(x), up(y), "dot", css) for x, y, css in points]
