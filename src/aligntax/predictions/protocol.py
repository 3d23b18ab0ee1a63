"""The analyses, fixed before looking: what is estimated, against what, and what will be called supported.

Each is a constant; its hash goes into every result, so that a result scored by other rules is told apart. A change here is a
new protocol and needs a new run on tasks, recipes or worlds that did not suggest it.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """One prediction's analysis. `least` are the smallest counts with which a verdict is given at all; `margin` belongs to tests of
    equivalence; `settings` are numbers of the procedure, in words where they are choices.
    """

    prediction: str
    statement: str
    measure: str
    unit: str
    candidates: tuple[str, ...]
    baselines: tuple[str, ...]
    rule: str
    least: tuple[tuple[str, int], ...] = ()
    margin: float | None = None
    level: float = 0.9
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def sha256(self) -> str:
        """Hash of everything above, canonical."""
        return hashlib.sha256(json.dumps(self.plain(), sort_keys=True).encode()).hexdigest()

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        found = dataclasses.asdict(self)
        return {key: [_flat(v) for v in value] if isinstance(value, tuple) else value for key, value in found.items()}

    def floor(self, name: str) -> int:
        """The least count of `name`; 0 without one."""
        return dict(self.least).get(name, 0)

    def setting(self, name: str) -> Any:
        """A number of the procedure."""
        return dict(self.settings)[name]


def _flat(value: Any) -> str:
    return value if isinstance(value, str) else "=".join(str(part) for part in value)


AHEAD = (
    "supported: the interval of estimate minus best baseline lies above 0 and p <= .05; "
    "contradicted: that interval or the estimate's lies below 0; else undecided, also below the least counts"
)

P1 = Protocol(
    "P1",
    "The tax of a task, computed before training, tells how much the task degrades in training.",
    "mean over recipes of the Spearman correlation over tasks between predicted and observed selective tax, on families "
    "of tasks and on recipes that chose neither predictor, layer nor sign",
    "family of tasks",
    (
        "direction (first token of a refusal | written refusal) x layer x (squared cosine | cosine | change in metric "
        "units | cosine and change after whitening by the Fisher matrix), and cosine and change over all layers joined",
        "change along the training gradient of all matrices, plain and with Adam's scaling",
        "pilot of a few steps: its mean shift times the gradients, by layer and over all layers; its measured changes",
    ),
    (
        "gradient norm: by layer",
        "random direction: ten directions a layer, change in metric units",
        "base score: margin, accuracy",
        "question form: share of questions",
    ),
    AHEAD + "; p is of the search: the best of everything tried, either sign, families exchangeable, on the choosing half. "
    "Baselines choose layer, variant and sign on the same half; the best is the one that is best where it is confirmed. Families "
    "choose by rank of their names' hash, recipes by their own. Below the least counts nothing is correlated at all",
    (("tasks", 40), ("recipes", 6), ("families", 12)),
    settings=(
        ("items for gradients", 16),
        ("items for the observed tax", 16),
        ("distractors", 1),
        ("longest item in tokens", 64),
        ("groups", 8),
        ("harmful prompts", 24),
        ("texts for the Fisher matrix", 12),
        ("draws a text", 3),
        ("reply tokens", 24),
        ("ridge", 1.0),
        ("virtual step in nats of training loss", 0.1),
        ("rows a virtual step", 16),
        ("random directions a layer", 10),
        ("draws", 2000),
    ),
)  # fmt: skip

P2 = Protocol(
    "P2",
    "Incidental taxes fall with width, intrinsic ones level off.",
    "chance that a task which shares structure with safety by construction has a larger fitted plateau than one which does not",
    "task",
    ("plateau t of tau(d) = t + b/d",),
    ("tax at the smallest width", "tax at the largest width"),
    AHEAD + "; p: labels exchangeable over tasks",
    (("widths", 4), ("intrinsic tasks", 2), ("incidental tasks", 3)),
    settings=(("draws", 2000),),
)  # fmt: skip

P3 = Protocol(
    "P3",
    "The gain of averaging per layer over averaging uniformly is the ratio that the spread of layer yields predicts.",
    "Spearman correlation over aligned pairs between predicted ratio and measured ratio of safety gains at equal mean fraction",
    "aligned pair",
    ("predicted ratio |y||n|/<y,n>",),
    ("spread of yields over layers", "capability change of uniform averaging"),
    AHEAD + "; p: pairs exchangeable",
    (("aligned pairs", 8),),
    settings=(("draws", 2000),),
)  # fmt: skip

P4 = Protocol(
    "P4",
    "Holding a task with rho(1-D) > a^T G^+ b raises the normalised two-objective frontier; the absolute one does not improve.",
    "rho_eff with the named task held minus rho_eff with none held, the task named on one half of the items and scored on "
    "the other, mean over splits and layers",
    "group of items",
    ("task with the largest gain in rho_eff on the naming half",),
    ("task of the nearest tax drawn at random",),
    AHEAD + "; and the absolute equal gain with the task held must not be above that without; p: one-sided t of the lead, "
    "groups left out in turn",
    (("groups", 8), ("tasks", 6)),
    settings=(("layers", "every third"), ("items a task", 32), ("harmful prompts", 48), ("groups", 8)),
)  # fmt: skip

P5 = Protocol(
    "P5",
    "KL by position follows harm information, and moves with the deciding position.",
    "mean over worlds of the Spearman correlation over positions between trained KL and harm information",
    "world",
    ("harm information I_t of the base",),
    ("base entropy by position", "KL of a benign fine-tune", "1/t"),
    AHEAD + "; p: positions of harm information shuffled within each world",
    (("worlds", 6), ("deciding positions", 2)),
    settings=(
        ("vocabulary", 3),
        ("length", 9),
        ("deciding positions", "2,5,8"),
        ("worlds a position", 6),
        ("shared parameters", 40),
        ("strength", 2.0),
        ("steps", 150),
        ("draws", 2000),
    ),
)  # fmt: skip

P6 = Protocol(
    "P6",
    "After training with the recovery objective, recovery by depth is sigmoid(logit p_0 + mu gamma^t).",
    "skill: 1 - mean squared error of the predicted log-odds of recovery over that of the best baseline, by depth and world",
    "world",
    ("sigmoid(logit p_0 + mu gamma^t), mu and gamma those of training",),
    ("base recovery plus the mean rise over depths", "base recovery"),
    "supported: the interval of the skill lies above 0; contradicted: it lies below 0; else undecided",
    (("worlds", 6),),
    settings=(
        ("vocabulary", 3),
        ("length", 8),
        ("horizon", 2),
        ("base recovery mass", "0.001,0.02,0.1"),
        ("mu", 3.0),
        ("gamma", 0.8),
        ("worlds a mass", 4),
        ("shared parameters", 24),
        ("steps", 400),
        ("draws", 2000),
    ),
)  # fmt: skip

P7 = Protocol(
    "P7",
    "A prefill attack just past the harm horizon is as good as a longer one.",
    "mean harm reached by the longest prefill (all tokens but one) minus that by one a token past the horizon, prefills drawn "
    "from harmful continuations of the base",
    "world",
    ("0",),
    ("longest prefill minus one of half the horizon",),
    "supported: the 90% interval lies within the margin (two one-sided tests at .05); contradicted: it lies beyond the margin; "
    "else undecided",
    (("worlds", 12),),
    margin=0.05,
    settings=(
        ("vocabulary", 3),
        ("length", 9),
        ("horizon level", 0.95),
        ("worlds", 24),
        ("weight of a position over that of the one before", "0.3,0.5,0.7"),
        ("shared parameters", 40),
        ("strength", 2.0),
        ("steps", 150),
        ("draws", 2000),
    ),
)  # fmt: skip

PROTOCOLS = {protocol.prediction: protocol for protocol in (P1, P2, P3, P4, P5, P6, P7)}
