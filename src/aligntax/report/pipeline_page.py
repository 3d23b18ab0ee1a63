"""One self-contained HTML page of a pipeline, and its summary in a terminal: the stage table first."""

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from ..results.pipeline import Pipeline, StageRecord, StageScore, StageTax
from . import pipeline_figures as figures
from .document import document
from .tables import Table, table
from .text import clean, interval, number, p_text, percent
from .verdict import KeyFigure

SURE = 0.05
SHORT = {"over-refusal": "over", "gold reward": "gold"}
ALIGNMENT = ("helpful", "harmless", "honest", "refusal", "over-refusal", "gold reward")


def render_pipeline(pipeline: Pipeline) -> str:
    """The report as one HTML document (UTF-8): no script, no request, everything escaped."""
    pipeline = clean(pipeline)
    return document(
        "pipeline.html.j2",
        s=pipeline,
        title=_title(pipeline),
        verdict=verdict(pipeline),
        keys=key_figures(pipeline),
        course=figures.course(pipeline),
        stages=stage_table(pipeline),
        scores=score_table(pipeline),
        bills=[(stage, figures.bill(stage), tax_table(stage)) for stage in pipeline.stages if stage.taxes],
        policies=[(stage, drawn) for stage in pipeline.stages if (drawn := figures.policy_course(stage))],
        losses=[(stage, drawn) for stage in pipeline.stages if (drawn := figures.losses(stage))],
        facts=_facts_table(pipeline),
        provenance=_provenance_table(pipeline),
    )


def _title(pipeline: Pipeline) -> str:
    if pipeline.model != "world":
        return pipeline.model
    return f"The small world at width {pipeline.width}"


def score_of(stage: StageRecord, name: str) -> StageScore | None:
    """The score of that name, or None."""
    return next((score for score in stage.scores if score.name == name), None)


def paid(stage: StageRecord) -> list[StageTax]:
    """Capabilities whose loss at a stage survives correction over its scores, the worst first."""
    sure = [t for t in stage.taxes if t.kind == "capability" and (t.tax or 0) > 0]
    return sorted((t for t in sure if t.p_adjusted is not None and t.p_adjusted <= SURE), key=lambda t: -(t.tax or 0.0))


def _policies(pipeline: Pipeline) -> list[StageRecord]:
    return [stage for stage in pipeline.stages if stage.policy]


def verdict(pipeline: Pipeline) -> str:
    """The whole run in a few sentences, from its numbers alone."""
    policies = _policies(pipeline)
    if not policies:
        return "No stage that speaks was trained."
    said = "".join(_refusals(policies[0], last) for last in ends(pipeline))
    for stage in policies[1:]:
        worse = paid(stage)
        names = ", ".join(f"{t.name} ({percent(t.tax)} of items)" for t in worse[:3])
        said += f"{stage.name}: lost {names}. " if worse else f"{stage.name}: no capability lost beyond chance. "
    return said.strip()


def ends(pipeline: Pipeline) -> list[StageRecord]:
    """Policies that no other stage started from: what the run has to show."""
    used = {stage.previous for stage in _policies(pipeline)}
    return [stage for stage in _policies(pipeline) if stage.name not in used]


def _refusals(first: StageRecord, last: StageRecord) -> str:
    """How often the last of two policies refuses what, beside the first."""
    words = []
    for name, verb in (("refusal", "refuses {} of harmful requests"), ("over-refusal", "and {} of harmless ones")):
        one, other = score_of(first, name), score_of(last, name)
        if one is not None and other is not None:
            beside = f" ({first.name}: {percent(one.value)})" if last is not first else ""
            words.append(verb.format(percent(other.value)) + beside)
    return f"After {last.name} the model {' '.join(words)}. " if words else f"Measured up to {last.name}. "


def key_figures(pipeline: Pipeline) -> list[KeyFigure]:
    """Capability, harm, distance and gold reward of the last policy against the first."""
    policies = _policies(pipeline)
    if not policies:
        return []
    first, last = policies[0], ends(pipeline)[0]
    start, end = figures.capability_mean(first), figures.capability_mean(last)
    found = [
        KeyFigure(
            percent(end), "of capability items right", f"Mean over capabilities; {percent(start)} after {first.name}."
        )
    ]
    for name, label in (("harmless", "of replies to harmful requests do no harm"), ("helpful", "helpfulness")):
        score, before = score_of(last, name), score_of(first, name)
        if score is not None and before is not None:
            shown = interval(score.value, score.low, score.high)
            found.append(
                KeyFigure(
                    percent(score.value), label, f"{shown}, n = {score.n}; {first.name}: {percent(before.value)}."
                )
            )
    for stage in policies[1:]:
        if stage.kl is not None:
            nats = interval(stage.kl, stage.kl_low, stage.kl_high)
            meaning = f"{nats} nats on its own replies; {number(stage.kl_token)} a token."
            found.append(KeyFigure(number(stage.kl), f"nats a reply from {stage.previous} to {stage.name}", meaning))
    return found


def stage_table(pipeline: Pipeline) -> Table:
    """One row a stage: perplexity, capability, alignment scores, KL, time."""
    names = [name for name in ALIGNMENT if any(score_of(stage, name) for stage in pipeline.stages)]
    rows = []
    for stage in pipeline.stages:
        scores = [score_of(stage, name) for name in names]
        rows.append(
            [
                stage.name,
                stage.previous or "none",
                interval(stage.perplexity, stage.perplexity_low, stage.perplexity_high),
                percent(figures.capability_mean(stage)),
                *(interval(s.value, s.low, s.high) if s else number(None) for s in scores),
                interval(stage.kl, stage.kl_low, stage.kl_high),
                number(stage.seconds, 3) if stage.seconds else number(None),
            ]
        )
    columns = ["stage", "from", "perplexity", "capability", *names, "KL (nats a reply)", "seconds"]
    return table("Stages, with 90% intervals over items", columns, rows, (1,))


def score_table(pipeline: Pipeline) -> Table:
    """Accuracy of each capability after each policy."""
    policies = _policies(pipeline)
    names = [s.name for s in policies[0].scores if s.kind == "capability"] if policies else []
    rows = []
    for name in names:
        found = [score_of(stage, name) for stage in policies]
        rows.append([name, *(interval(s.value, s.low, s.high) if s else number(None) for s in found)])
    return table("Capabilities: share of items right", ["capability", *(s.name for s in policies)], rows)


def tax_table(stage: StageRecord) -> Table:
    """What a stage paid and gained, paired by item."""
    rows = [
        [
            t.name,
            t.kind,
            number(t.before),
            number(t.after),
            interval(t.tax, t.low, t.high, plus=True),
            p_text(t.p_adjusted),
            interval(t.selective, t.selective_low, t.selective_high, plus=True),
            str(t.n),
        ]
        for t in stage.taxes
    ]
    columns = ["score", "kind", "before", "after", "before − after", "p adj.", "of its own (nats)", "n"]
    return table(f"{stage.previous} to {stage.name}, paired by item", columns, rows, (1,))


def _facts_table(pipeline: Pipeline) -> Table:
    rows = [[stage.name, name, number(value, 3)] for stage in pipeline.stages for name, value in stage.facts.items()]
    return table("Single numbers of the stages", ["stage", "number", "value"], rows, (1,))


def _provenance_table(pipeline: Pipeline) -> Table:
    p = pipeline.provenance
    facts = {
        "command": p.command, "created": p.created, "version": p.package_version, "model": pipeline.model,
        "parameters": number(pipeline.parameters), "deciding word": number(pipeline.decided), "seed": str(p.seed),
        "packages": ", ".join(f"{name} {version}" for name, version in p.versions.items()),
        "seconds": number(p.wall_seconds, 3),
    }  # fmt: skip
    return table("Provenance", ["what", "value"], [[k, str(v)] for k, v in facts.items()], (1,))


def _cell(score: StageScore | None) -> str:
    """A score in a terminal: percent, or a reward with two digits."""
    if score is None:
        return number(None)
    if score.unit == "fraction":
        return number(None) if score.value is None else f"{100 * score.value:.0f}%"
    return number(score.value, 2, True)


def pipeline_summary(pipeline: Pipeline, console: Console) -> None:
    """Print the stage table, the verdict and the warnings; strings are stripped and never read as markup."""
    pipeline = clean(pipeline)
    names = [name for name in ALIGNMENT if any(score_of(stage, name) for stage in pipeline.stages)]
    title = Text(
        f"{_title(pipeline)}, {pipeline.size} run (right: share of capability items; over: refusals of harmless requests)"
    )
    grid = Grid(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("stage", "ppl", "right", *(SHORT.get(name, name) for name in names), "KL"):
        grid.add_column(Text(name), justify="left" if name == "stage" else "right", no_wrap=True)
    for stage in pipeline.stages:
        scores = [score_of(stage, name) for name in names]
        cells = [
            stage.name,
            number(stage.perplexity, 3),
            percent(figures.capability_mean(stage)),
            *(_cell(s) for s in scores),
            number(stage.kl, 2),
        ]
        grid.add_row(*(Text(cell) for cell in cells))
    console.print(grid)
    console.print(Text(verdict(pipeline)))
    for warning in pipeline.warnings:
        console.print(Text(f"Warning: {warning}", "yellow"))
