"""A family of five widths with invented numbers, for tests of everything that reads `scale.json`."""

import math

from aligntax.results.scale import (
    Scale,
    ScaleBand,
    ScaleControls,
    ScaleFree,
    ScalePoint,
    ScaleProvenance,
    ScaleRow,
    ScaleSource,
)

WIDTHS = (64, 128, 256, 512, 1024)
PLATEAUS = {"arithmetic": 0.0, "persuasion": 0.31, "translation-en-fr": 0.02, "word-problems": 0.12, "copying": None}
SLOPES = {"arithmetic": 14.0, "persuasion": 4.0, "translation-en-fr": 1.0, "word-problems": 6.0}
CALLS = {"arithmetic": "incidental", "persuasion": "intrinsic"}


def _row(task: str, plateau: float | None) -> ScaleRow:
    call, slope = CALLS.get(task, "undecided"), SLOPES.get(task, 1.0)
    if plateau is None:
        return ScaleRow(
            task, [], None, None, None, None, None, None, call, "fewer than four widths were left", call, None, None, None, None,
            [f"example-{w}" for w in WIDTHS],
        )  # fmt: skip
    points = [ScalePoint(w, 1, plateau + slope / w + 0.01 * math.sin(k), 0.012 + 0.3 / w) for k, w in enumerate(WIDTHS)]
    reason = {"incidental": "it falls, and at most 0.02 is left", "intrinsic": "it levels off above 0.05"}.get(
        call, "control tasks do the same"
    )
    free = ScaleFree(0.9, plateau, max(0.0, plateau - 0.05), plateau + 0.04, call)
    return ScaleRow(
        task, points, plateau, max(0.0, plateau - 0.03), plateau + 0.03, slope, 0.8 * slope, 1.2 * slope, call, reason,
        "incidental" if task == "translation-en-fr" else call, 0.001, 0.9, call == "undecided", free, [],
    )  # fmt: skip


def example_scale() -> Scale:
    """One task of every call, one that could not be fitted, and the controls."""
    sources = [
        ScaleSource(f"example-{w}", f"out/example-{w}", f"example/lm-{w}", w, 7, 12, 8, "quick", None, 0.8, 64)
        for w in WIDTHS
    ]
    band = [ScaleBand(w, 1 / w, 0.1 / w, 4 / w) for w in WIDTHS]
    return Scale(
        estimator="gradient", capability="log_probability", depth=0.6, sources=sources,
        rows=[_row(task, plateau) for task, plateau in PLATEAUS.items()],
        controls=ScaleControls(64, band, _row("mean of control tasks", 0.0)),
        provenance=ScaleProvenance(
            "0", "2026-01-01T00:00:00+00:00", "aligntax scale " + " ".join(s.path for s in sources), 0, 0.95,
            "the jackknife over groups of items", 1.0, {"numpy": "2"},
        ),
        warnings=["the models have 6 to 12 layers, so width and depth change together"],
    )  # fmt: skip
