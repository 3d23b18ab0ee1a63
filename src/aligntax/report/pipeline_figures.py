"""The figures of a pipeline: scores stage by stage, what was paid, reward against KL. Inline SVG, classes only."""

from markupsafe import Markup

from ..results.pipeline import Pipeline, StageRecord, StageTax
from .frame import BOTTOM, LEFT, RIGHT, curve, frame, names
from .svg import WIDTH, Scale, drawing, line, mark, path, spread, text, x_axis, y_axis
from .text import number

TOP = 72.0
HEIGHT = 342.0
LOOKS = ("one", "two dashed", "three longdash", "cost dotted", "gain", "muted dashed")
SHAPES = ("circle", "square", "diamond", "left", "right", "cross")


def capability_mean(stage: StageRecord) -> float | None:
    """Mean accuracy over capabilities, each counted alike; None without any."""
    values = [s.value for s in stage.scores if s.kind == "capability" and s.value is not None]
    return sum(values) / len(values) if values else None


def course(pipeline: Pipeline) -> Markup | None:
    """Capability and alignment scores over the stages that are policies."""
    policies = [stage for stage in pipeline.stages if stage.policy]
    wanted = ["helpful", "harmless", "honest", "refusal", "over-refusal"]
    series: list[tuple[str, list[float | None]]] = [("capability", [capability_mean(stage) for stage in policies])]
    for name in wanted:
        found = [next((s.value for s in stage.scores if s.name == name), None) for stage in policies]
        series.append((name, found))
    series = [(name, values) for name, values in series if any(v is not None for v in values)]
    if len(policies) < 2 or not series:
        return None
    across, up = Scale(0, len(policies) - 1, LEFT + 30, WIDTH - 40), Scale(0.0, 1.0, BOTTOM, TOP)
    looks = list(zip(LOOKS, SHAPES, strict=True))
    parts = names([(name, *look) for (name, _), look in zip(series, looks, strict=False)])
    parts += y_axis(up, LEFT, WIDTH - 12, "share")
    for k, stage in enumerate(policies):
        parts += [
            line(across(k), TOP, across(k), BOTTOM, "grid"),
            text(across(k), BOTTOM + 16, stage.name, "tick", "middle"),
        ]
    for (name, values), (css, shape) in zip(series, looks, strict=False):
        place = {
            stage.name: (across(k), up(v))
            for k, (stage, v) in enumerate(zip(policies, values, strict=True))
            if v is not None
        }
        # Each stage hangs on the one that it started from, which need not stand beside it.
        pairs = [(place[s.previous], place[s.name]) for s in policies if s.previous in place and s.name in place]
        parts += [path([*pair], f"curve {css}") for pair in pairs]
        parts += [
            mark(across(k), up(v), shape, css.split()[0], f"{name}, {policies[k].name}: {number(v)}")
            for k, v in enumerate(values)
            if v is not None
        ]
    words = "Capability and alignment of each policy; the table has the numbers."
    return drawing("fig-course", "Stage by stage", words, HEIGHT, parts)


def bill(stage: StageRecord) -> Markup | None:
    """What each capability paid at a stage, in share of items right, with its interval."""
    rows = sorted((t for t in stage.taxes if t.kind == "capability"), key=lambda t: -(t.tax or 0.0))
    values = [v for t in rows for v in (t.low, t.high) if v is not None]
    if not values:
        return None
    scale = Scale(*spread(values), 150, WIDTH - 12)
    bottom = 40.0 + 24 * len(rows)
    parts = [text(4, 16, "triangles: beyond chance; grey circles: not beyond chance", "tick")]
    parts += x_axis(scale, 30, bottom, "share of items lost (left of 0 is a gain)")
    for index, row in enumerate(rows):
        parts += _row(row, scale, 46.0 + 24 * index)
    title = f"What {stage.name} cost"
    return drawing(f"fig-bill-{stage.name}", title, "Loss of each capability with 90% intervals.", bottom + 42, parts)


def _row(row: StageTax, scale: Scale, y: float) -> list[Markup]:
    sure = row.p_adjusted is not None and row.p_adjusted <= 0.05
    css = "cost" if sure and (row.tax or 0) > 0 else "gain" if sure else "muted"
    parts = [text(140, y + 4, row.name[:22], "name", "end")]
    if row.low is not None and row.high is not None:
        parts.append(line(scale(row.low), y, scale(row.high), y, f"whisker {css}"))
    if row.tax is not None:
        shape = "circle" if css == "muted" else "right" if css == "cost" else "left"
        parts.append(mark(scale(row.tax), y, shape, css, f"{row.name}: {number(row.tax, 2, True)}"))
    return parts


def policy_course(stage: StageRecord) -> Markup | None:
    """Reward that the policy is trained on and gold reward, each over its own range, against the KL that training logged."""
    kl = dict(stage.curves.get("kl", []))
    gold = dict(stage.curves.get("rewards/gold/mean", []))
    proxy = dict(stage.curves.get("reward", []))
    steps = [step for step in kl if kl[step] is not None and proxy.get(step) is not None]
    if len(steps) < 3:
        return None
    across = Scale(0.0, max(max((kl[s] or 0.0) ** 0.5 if (kl[s] or 0) > 0 else 0.0 for s in steps), 1e-6), LEFT, RIGHT)
    values = [v for curve in (gold, proxy) for s in steps if (v := curve.get(s)) is not None]
    up = Scale(*spread(values), BOTTOM, TOP)
    labels = ("square root of KL to the start (nats a reply)", "reward")
    parts = frame(
        across, up, labels, [("the reward trained on", "one", "circle"), ("gold reward", "two dashed", "square")]
    )
    for rewards, css, shape in ((proxy, "one", "circle"), (gold, "two", "square")):
        for step in steps:
            value, nats = rewards.get(step), kl[step] or 0.0
            if value is not None:
                said = f"step {step:g}: {number(value)} at {number(nats)} nats"
                parts.append(
                    mark(across(max(nats, 0.0) ** 0.5), up(value), shape if shape == "square" else "dot", css, said)
                )
    return drawing(
        f"fig-policy-{stage.name}", "Reward against KL", "Every logged step of policy optimisation.", HEIGHT, parts
    )


def losses(stage: StageRecord) -> Markup | None:
    """The training loss of a stage by step."""
    points = [(step, value) for step, value in stage.curves.get("loss", []) if value is not None]
    if len(points) < 3 or stage.name == "rl":
        return None
    across = Scale(points[0][0], points[-1][0], LEFT, WIDTH - 12)
    up = Scale(*spread([v for _, v in points], zero=False), 180, 36)
    parts = frame(across, up, ("step", "training loss (nats)"))
    parts.append(curve([step for step, _ in points], [value for _, value in points], across, up, "one"))
    return drawing(f"fig-loss-{stage.name}", f"Loss of {stage.name}", "Training loss by optimizer step.", 222, parts)
