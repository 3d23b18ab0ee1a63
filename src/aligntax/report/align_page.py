"""One alignment run in one HTML page, and in a terminal: how it went, what was held, what it cost, how to repeat it."""

from collections.abc import Sequence

from markupsafe import Markup
from rich.console import Console

from ..results import Align
from .document import document
from .frame import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, curve, frame
from .svg import Scale, drawing, spread
from .tables import Table, table
from .terminal import say
from .text import clean, exact, interval, number, percent, show_token
from .verdict import KeyFigure, held

Lines = Sequence[tuple[str, str, str]]
LOSS_LINES = (
    ("loss", "training text", "gain"),
    ("recovery/text", "recovery after a harmful beginning", "cost dashed"),
)
KL_LINES = (
    ("anchor_kl/kl_1", "first token", "one"),
    ("anchor_kl/kl_2-4", "2 to 4", "two dashed"),
    ("anchor_kl/kl_5-16", "5 to 16", "three dotted"),
    ("anchor_kl/kl_17-", "17 on", "muted longdash"),
)
"""What the log calls the losses, and the KL of each bin of positions, with name and line of each curve."""


def render_align(align: Align) -> str:
    """The report as one HTML document (UTF-8): no script, no request, everything escaped."""
    align = clean(align)
    return document(
        "align.html.j2",
        s=align,
        verdict=verdict(align),
        keys=key_figures(align),
        fig={"course": course(align), "kl": distance(align)},
        tab={
            "logged": _logged(align),
            "ranks": _ranks(align),
            "tax": _tax(align),
            "overlap": _overlap(align),
            "efficiency": _efficiency(align),
            "recipe": _recipe(align),
            "tokens": _tokens(align),
            "provenance": _provenance(align),
        },
    )


def verdict(align: Align) -> str:
    """The run in a few sentences, from its numbers alone."""
    how = f"adapters of rank {align.lora_rank}, merged" if align.lora_rank else "all weights"
    goal = "refuse harmful requests" if align.goal == "safety" else "do the tasks it was given"
    said = f"The model was trained by {align.method} to {goal}: {align.samples} rows, {how}. "
    guarded = ", ".join(align.protect) or "nothing"
    said += f"Held: {guarded}." if align.depth == "none" else f"Held: {guarded}; depth by {align.depth}."
    first, last = ends(align.steps, "loss")
    if held(first) and held(last):
        said += f" Its loss went from {number(first)} to {number(last)} nats per token."
    return f"{said} Whether it refuses, and what that cost, an audit says."


def key_figures(align: Align) -> list[KeyFigure]:
    """Distance, leak and tax where they were measured, and time."""
    found = []
    _, kl = ends(align.steps, "anchor_kl/kl")
    if held(kl):
        meaning = "nats per token on replies to harmless prompts, at the end"
        found.append(KeyFigure(number(kl), "KL from the start", meaning))
    if held(align.leak):
        meaning = (
            f"largest share of an update on protected inputs; {number(align.leak_saved)} as saved ({align.saved_dtype})"
        )
        found.append(KeyFigure(number(align.leak), "leak", meaning))
    paid = [(value, name) for name, _, value in _paid(align) if held(value)]
    if paid:
        most, name = max(paid)
        found.append(KeyFigure(number(most, 2, True), "largest tax", f"nats per token lost on {name}, on a few items"))
    minutes = number(align.provenance.wall_seconds / 60)
    found.append(KeyFigure(minutes, "minutes", f"{number(align.seconds_per_step)} seconds a step"))
    return found


def ends(entries: Sequence[dict[str, float | None]], key: str) -> tuple[float | None, float | None]:
    """First and last value of a logged number; None where it was never logged."""
    values = [entry.get(key) for entry in entries if held(entry.get(key))]
    return (values[0], values[-1]) if values else (None, None)


def course(align: Align) -> Markup | None:
    """Loss of the refusals and anchors, and of the written recoveries, by step."""
    words = ("fig-course", "The course of training", "Loss by optimizer step.", "nats per token")
    return _by_step(align, LOSS_LINES, *words)


def distance(align: Align) -> Markup | None:
    """KL to the model before training, by position in the reply, over the steps."""
    words = ("fig-distance", "Distance from the start", "KL by position in the reply.", "KL in nats per token")
    return _by_step(align, KL_LINES, *words)


def _by_step(align: Align, lines: Lines, name: str, title: str, words: str, unit: str) -> Markup | None:
    """Logged numbers over the optimizer steps at which any of them was logged; None for fewer than two steps."""
    entries = [entry for entry in align.steps if any(held(entry.get(key)) for key, _, _ in lines)]
    if len(entries) < 2:
        return None
    drawn = [line for line in lines if any(held(entry.get(line[0])) for entry in entries)]
    at = [entry.get("step") or 0.0 for entry in entries]
    values = [v for entry in entries for key, _, _ in drawn if held(v := entry.get(key))]
    across = Scale(min(at), max(at) if max(at) > min(at) else min(at) + 1, LEFT, RIGHT)
    up = Scale(*spread(values), BOTTOM, TOP)
    parts = frame(across, up, ("optimizer step", unit), [(label, css, "") for _, label, css in drawn])
    for key, _, css in drawn:
        parts.append(curve(at, [v if held(v := entry.get(key)) else None for entry in entries], across, up, css))
    return drawing(name, title, words, HEIGHT, parts)


def _logged(align: Align) -> Table:
    names = sorted({key for entry in align.steps for key, value in entry.items() if key != "step" and held(value)})
    rows = [[name, *map(number, ends(align.steps, name))] for name in names]
    return table("What was logged, at the first and the last time", ["name", "first", "last"], rows)


def _ranks(align: Align) -> Table:
    rows = [[name, str(rank), str(width), percent(rank / width)] for name, (rank, width) in align.kept_rank.items()]
    columns = ["matrix", "directions held", "width", "share"]
    return table("Input directions that the update leaves alone", columns, rows)


def _paid(align: Align) -> list[tuple[str, float | None, float | None]]:
    """Task, first and last tax of its own; what all answers lost is left out."""
    keys = sorted(
        {key for entry in align.tax for key in entry if key.startswith("tax/") and not key.endswith("/shared")}
    )
    return [(key.removeprefix("tax/"), *ends(align.tax, key)) for key in keys]


def _tax(align: Align) -> Table:
    shared = {name: ends(align.tax, f"tax/{name}/shared")[1] for name, _, _ in _paid(align)}
    rows = [
        [name, number(first, 2, True), number(last, 2, True), number(shared[name], 2, True)]
        for name, first, last in sorted(_paid(align), key=lambda row: -(row[2] or 0.0))
    ]
    columns = ["task", "at the first look", "at the last", "lost by all answers"]
    return table("Tax on a few items, in nats per token; positive is a loss", columns, rows)


def _overlap(align: Align) -> Table:
    names = sorted({name for row in align.overlap for name in row.tasks})
    rows = [
        [str(r.layer), interval(r.chance, r.low, r.high), number(r.safety), *(number(r.tasks.get(n)) for n in names)]
        for r in align.overlap
    ]
    columns = ["layer", "by chance [90%]", "safety", *names]
    return table("Squared overlap of what each block writes with the survey's directions", columns, rows)


def _efficiency(align: Align) -> Table | None:
    e = align.efficiency
    if e is None:
        return None
    rows = [
        ["layer of the frontier", str(e.layer)],
        ["KL (nats per token of a reply)", number(e.nats)],
        ["gain (nats of refusal log-odds) [90%]", interval(e.gain, e.gain_low, e.gain_high, plus=True)],
        ["most with the same changes", number(e.exact)],
        ["share of it [90%]", interval(e.exact_share, e.exact_low, e.exact_high)],
        ["most with no task losing more", number(e.within)],
        ["share of that", number(e.within_share)],
        ["prompts", f"{e.prompts}, {'held out' if e.held_out else 'seen in training'}"],
        *([["why undefined", e.reason]] if e.reason else []),
    ]
    return table("Measured gain beside the frontier's at the same KL", ["what", "value"], rows, (1,))


def _recipe(align: Align) -> Table:
    rows = [[name.replace("_", "-"), value or "–"] for name, value in align.settings.items()]
    rows += [[f"count: {name}", str(count)] for name, count in align.counts.items()]
    rows += [["rewards from", align.reward_judge]] if align.reward_judge else []
    return table("The recipe", ["setting", "value"], rows, (1,))


def _tokens(align: Align) -> Table:
    rows = [[show_token(text), str(token)] for token, text in align.recovery_tokens]
    return table("Tokens that count as a recovery", ["token", "id"], rows)


def _provenance(align: Align) -> Table:
    p = align.provenance
    facts = {
        "model": align.model, "source": p.model_source, "revision": p.revision or "–", "weights": p.weights_sha256 or "–",
        "adapter": p.adapter or "none", "trained in": p.dtype, "saved as": align.saved_dtype, "device": p.device,
        "processes": p.processes, "seed": p.seed, "chat template": p.chat_template, "tokens": align.tokens,
        "tokens a second": exact(align.tokens_per_second), "created": p.created, "version": p.package_version,
        **{f"data: {name}": digest for name, digest in p.data.items()}, **p.versions,
    }  # fmt: skip
    return table("Provenance", ["what", "value"], [[name, str(value)] for name, value in facts.items()], (1,))


def align_summary(align: Align, console: Console) -> None:
    """Print verdict and key figures; strings are stripped of escapes and never read as markup."""
    align = clean(align)
    say(console, f"{align.model}, {align.method}", verdict(align), key_figures(align))
