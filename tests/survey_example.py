"""A complete survey with invented numbers (30 layers, 14 tasks), for tests of everything that reads a survey.

Nothing here was measured. The numbers are drawn from a seeded generator and only look like those of a small model.
"""

import math
import random

from aligntax.results import (
    Agreement,
    Candidate,
    Conflict,
    Controls,
    FisherInfo,
    FrontierCurve,
    LayerBudget,
    LayerSurvey,
    Linearity,
    LinearityPoint,
    Phase,
    Provenance,
    RefusalToken,
    Selection,
    Survey,
    TaskAtLayer,
    TaskInfo,
    ToleranceRow,
    ToleranceTable,
)

LAYERS, SELECTED = 30, 15
WARNING = "Every number on this page is invented: it is an example for tests, not a measurement."

COSINES = {
    "arithmetic": -0.06,
    "word-problems": -0.21,
    "factual-recall": -0.02,
    "chemistry-facts": -0.11,
    "biology-facts": 0.01,
    "code-completion": 0.03,
    "acceptability": -0.01,
    "translation-en-fr": 0.02,
    "translation-en-de": 0.00,
    "reading": -0.04,
    "deduction": -0.03,
    "persuasion": -0.47,
    "instructions": 0.14,
    "copying": -0.02,
}
REGIMES = {
    "word-problems": "tradeoff",
    "chemistry-facts": "tradeoff",
    "persuasion": "entangled",
    "instructions": "tradeoff",
    "deduction": "unranked",
}
CHOICES = ("acceptability", "reading", "deduction")


def _task(cosine: float, regime: str, rng: random.Random) -> TaskAtLayer:
    half = 0.03 + 0.03 * rng.random() + (0.2 if regime == "unranked" else 0.0)
    strength = 0.35 + 0.3 * rng.random()
    p_value = 0.002 if regime in ("tradeoff", "entangled") else 0.2 + 0.7 * rng.random()
    return TaskAtLayer(
        cosine=cosine,
        low=cosine - half,
        high=cosine + half,
        tax=cosine**2 - 0.0004,
        tax_low=max(0.0, abs(cosine) - half) ** 2 - 0.002,
        tax_high=(abs(cosine) + half) ** 2,
        p_value=p_value,
        p_adjusted=min(1.0, 2 * p_value),
        reliability=0.18 if regime == "unranked" else 0.75 + 0.2 * rng.random(),
        regime=regime,
        change_per_decinat=cosine * strength,
        change_low=(cosine - half) * strength,
        change_high=(cosine + half) * strength,
        gradient_norm=0.4 + rng.random(),
    )


def _layer(layer: int, rng: random.Random) -> LayerSurvey:
    fade = 1.0 if layer == SELECTED else math.exp(-(((layer - SELECTED) / 9) ** 2)) * (0.8 + 0.3 * rng.random())
    tasks = {
        name: _task(cosine * fade, REGIMES.get(name, "free") if layer == SELECTED else "free", rng)
        for name, cosine in COSINES.items()
    }
    joint = 0.31 * fade
    return LayerSurvey(
        layer=layer,
        joint_tax=joint + 0.06,
        joint_tax_crossfit=joint,
        joint_tax_floor=0.024,
        sum_tax=sum(t.tax or 0.0 for t in tasks.values()) * 1.3,
        safety_norm=2.0 + fade,
        safety_reliability=0.97,
        gain_per_decinat=1.9 * fade,
        tax_free_gain_per_decinat=1.9 * fade * math.sqrt(1 - joint),
        shift_norm_per_decinat=3.1 + layer / 10,
        activation_norm=20.0 + 2 * layer,
        chance_isotropic=1 / 576,
        chance_anisotropic=0.0062,
        chance_joint=14 / 576,
        sinks=[0],
        tasks=tasks,
    )


def _info(name: str, rng: random.Random) -> TaskInfo:
    choices = name in CHOICES
    score = 0.4 + 0.4 * rng.random() if choices else -0.5 - 2.0 * rng.random()
    return TaskInfo(
        name=name,
        kind="choices" if choices else "answer",
        unit="nats per answer token (margin)" if choices else "nats per answer token",
        items=96,
        heldout=16,
        score=score,
        score_low=score - 0.09,
        score_high=score + 0.09,
        accuracy=0.3 + 0.5 * rng.random() if choices else None,
        chance=0.25 if choices else None,
        headroom=name != "copying",
        notes=["3 items longer than the context were left out"] if name == "reading" else [],
        source=f"built in: {name}",
        sha256=f"{rng.getrandbits(256):064x}",
    )


def _selection(rng: random.Random) -> Selection:
    candidates = []
    for layer, gain in ((15, 1.92), (14, 1.84), (17, 1.66), (12, 1.31), (20, 0.94), (8, 0.42)):
        candidates.append(
            Candidate(
                layer,
                f"-{1 + layer % 3}",
                "gradient",
                0.1,
                3.0 + rng.random(),
                gain,
                gain - 0.2,
                gain + 0.2,
                layer == 15,
            )
        )
    return Selection(0.1, candidates, 1.81, 1.58, 2.04, 0.08, -0.05, 0.21)


def _frontier(at: LayerSurvey) -> list[FrontierCurve]:
    curves = []
    for name, task in at.tasks.items():
        size = (task.gradient_norm or 1.0) * 0.45
        angle = math.acos(task.cosine or 0.0)
        steps = [math.pi * k / 40 for k in range(41)]
        curves.append(
            FrontierCurve(name, [size * math.cos(s) for s in steps], [1.9 * math.cos(s - angle) for s in steps])
        )
    return curves


def _linearity(at: LayerSurvey, rng: random.Random) -> Linearity:
    budgets = {"0.001": 0.03, "0.01": 0.07, "0.05": 0.11, "0.1": 0.14, "0.3": 0.27, "1": 0.55}
    points = []
    for direction in ("safety", "random"):
        for text, error in budgets.items():
            budget = float(text)
            for name, task in at.tasks.items():
                reach = (
                    (task.change_per_decinat or 0.0) * math.sqrt(budget / 0.1) * (1 if direction == "safety" else 0.2)
                )
                measured = reach * (1 - 0.6 * error) + rng.gauss(0, 0.006)
                points.append(LinearityPoint(direction, name, budget, budget * 1.01, reach, measured, 0.005))
    return Linearity(
        correlation=0.986,
        correlation_low=0.971,
        correlation_high=0.993,
        slope=0.84,
        slope_by_budget={text: 1 - 0.6 * error for text, error in budgets.items()},
        error_by_budget=dict(budgets),
        curvature=-0.31,
        validity_radius_nats=0.1,
        smallest_budget_nats=0.001,
        random_correlation=0.62,
        random_slope=0.7,
        random_validity_radius_nats=None,
        refusal_gain_by_budget={"0.001": 0.19, "0.01": 0.58, "0.05": 1.3, "0.1": 1.81, "0.3": 2.9, "1": 4.1},
        points=points,
    )


def _conflicts() -> list[Conflict]:
    return [
        Conflict("harmlessness", "helpfulness", -0.34, -0.41, -0.27, -0.21, -0.3, -0.12, 0.31, 0.22, 0.63, 1.02, 0.11,
                 "conflict removed", ["persuasion"]),
        Conflict("harmlessness", "honesty", 0.08, -0.01, 0.17, 0.05, -0.06, 0.16, 0.31, 0.18, 0.72, 1.2, 0.05,
                 "worsened", []),
        Conflict("helpfulness", "honesty", 0.22, 0.1, 0.34, None, None, None, 0.22, 0.18, None, None, None,
                 "undefined", []),
    ]  # fmt: skip


def _tolerances(at: LayerSurvey) -> ToleranceTable:
    rows = []
    for name, task in at.tasks.items():
        active = REGIMES.get(name) in ("tradeoff", "entangled") and (task.cosine or 0.0) < 0
        change = -0.02 if active else (task.change_per_decinat or 0.0) * 0.7
        price = abs(task.cosine or 0.0) * 6 if active else 0.0
        rows.append(ToleranceRow(name, 0.02, change, active, price, price * 0.9, price * 1.1))
    return ToleranceTable(0.1, 1.71, 1.9, 1.66, 8.4, rows)


def _provenance() -> Provenance:
    return Provenance(
        package_version="0.1.0",
        created="2025-01-01T00:00:00Z",
        command="aligntax survey example/invented-135m --size full",
        model_source="example/invented-135m",
        revision="0123abc",
        weights_sha256="ab" * 32,
        adapter=None,
        dtype="float32",
        device="cpu",
        seed=0,
        groups=8,
        shift="all",
        capability="gradient",
        formats=["chat", "plain"],
        chat_template="the tokenizer's own",
        data={"harmful": "cd" * 32, "harmless": "ef" * 32},
        counts={"harmful": 128, "harmless": 128},
        tokens=412_345,
        wall_seconds=812.4,
        versions={"python": "3.11", "torch": "2.6"},
    )


def example_survey() -> Survey:
    """An invented but complete and self-consistent survey: layer 15 of 30 selected, 4 of 14 tasks taxed, 1 unranked."""
    rng = random.Random(0)
    layers = [_layer(layer, rng) for layer in range(LAYERS)]
    at = layers[SELECTED]
    tasks = [_info(name, rng) for name in COSINES]
    return Survey(
        model="example/invented-135m",
        size="full",
        estimator="gradient",
        layer=SELECTED,
        layers=layers,
        tasks=tasks,
        selection=_selection(rng),
        agreement=[
            Agreement(k, a, b, c, c - 0.05, c + 0.05)
            for a, b, level in (("dim", "gradient", 0.05), ("dim", "probe", 0.6), ("gradient", "probe", 0.12))
            for k in range(LAYERS)
            for c in [level + 0.08 * math.sin(k / 3)]
        ],
        frontier=_frontier(at),
        tolerances=_tolerances(at),
        linearity=_linearity(at, rng),
        conflicts=_conflicts(),
        refusal_tokens=[
            RefusalToken(57, "I", "replies", 0.61),
            RefusalToken(12345, " Sorry", "standard openings", 0.2),
            RefusalToken(198, "\n", "replies", None),
        ],
        fisher=FisherInfo(64, 256, 256, 41.5, 0.01),
        layer_budget=LayerBudget(
            [0.2 + l.gain_per_decinat for l in layers if l.gain_per_decinat], 1.13, 1.24, "isotropic"
        ),
        controls=Controls(200, 400, 32, 0.004, 0.021),
        over_refusal=_task(-0.38, "entangled", rng),
        formats={
            "chat": dict(COSINES),
            "plain": {name: c * 0.9 for name, c in COSINES.items()},
        },
        subspace_singular_values=[4.1, 1.3, 0.6],
        timing=[Phase("probing", 301.2, 350_000), Phase("fisher", 120.0, 62_345), Phase("geometry", 2.4, 0)],
        provenance=_provenance(),
        warnings=[WARNING, "task names 'Word Problems' was renamed to 'word-problems'"],
    )
