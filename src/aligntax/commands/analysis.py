"""From group sums to the layer table: cosines with intervals, chance, regimes, predicted changes. No model here."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..geometry import Fisher, regime, sum_tax, tax_rate
from ..probing import Sinks
from ..results import LayerSurvey, TaskAtLayer
from ..stats import CosineTable, benjamini_hochberg, crossfit_tax, empirical_p, estimate_cosines_from_grams
from ..stats.resample import t_quantile

DECINAT = 0.1
FDR = 0.1
CROSSFIT_SPLITS = 12


@dataclass(frozen=True)
class Evidence:
    """What the layer table is made of. Group means are `(J, L, d)`; controls `(K, J, L, d)`; scores `(n, L, d)`.

    `tasks` are the capability directions whose angles are reported; `effects` the metrics' gradients, from which changes in
    metric units follow. They differ only when a capability direction is a probe.

    `scores` are Fisher score vectors, `response_tokens` the mean response length; `norm` overrides the length of the
    shift that costs 0.1 nat at layers where it was measured.
    """

    safety: np.ndarray
    gradient: np.ndarray
    tasks: Mapping[str, np.ndarray]
    effects: Mapping[str, np.ndarray]
    controls: np.ndarray
    scores: np.ndarray
    response_tokens: float
    sinks: Sinks
    norm: Mapping[int, float]

    def fisher(self, layer: int, ridge: float) -> Fisher:
        """Fisher matrix of `layer` in nats per response token."""
        return fisher_matrix(self.scores[:, layer], self.response_tokens, ridge)

    def shift_norm(self, direction: np.ndarray, layer: int, nats: float = DECINAT) -> float:
        """Length along `direction` that costs `nats`, from the draws: `sqrt(2 K / v^T F v)`; no ridge, so unbiased in `v^T F v`."""
        unit = direction / np.linalg.norm(direction)
        curvature = np.mean((self.scores[:, layer].astype(np.float64) @ unit) ** 2) / self.response_tokens
        return float(np.sqrt(2 * nats / curvature)) if curvature > 0 else float("nan")

    def decinat_length(self, unit: np.ndarray, layer: int) -> float:
        """Length of the safety shift that costs 0.1 nat: as measured where it was, else from the draws."""
        return self.norm.get(layer) or self.shift_norm(unit, layer)


def fisher_matrix(scores: np.ndarray, response_tokens: float, ridge: float) -> Fisher:
    """Fisher matrix of score vectors `(n, d)`, n draws on responses of that mean length, in nats per response token."""
    return Fisher(scores / np.sqrt(len(scores) * response_tokens), ridge)


def measured_scale(fisher: Fisher, direction: np.ndarray, length: float | None) -> float:
    """What `fisher` must be multiplied with so that `length` along `direction` costs 0.1 nat, as measured; 1 where it was not."""
    return 2 * DECINAT / (length**2 * fisher.quad(direction / np.linalg.norm(direction))) if length else 1.0


def with_direction(tasks: Mapping[str, np.ndarray], layer: int) -> dict[str, np.ndarray]:
    """The tasks whose mean at `layer` is not zero: a zero gradient has no direction, so it bounds and costs nothing."""
    return {name: groups for name, groups in tasks.items() if np.linalg.norm(groups[:, layer].mean(0)) > 0}


def grams(v: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inner products of group means: `v` `(J, d)`, `u` `(m, J, d)` to `(J, J)`, `(m, J, J)`, `(m, J, J)`."""
    return v @ v.T, np.einsum("ad,mbd->mab", v, u, optimize=True), np.einsum("mad,mbd->mab", u, u, optimize=True)


def cosines(v: np.ndarray, u: np.ndarray) -> CosineTable:
    """Debiased cosines of `v` `(J, d)` with every `u` `(m, J, d)`, with jackknife intervals (theory 1.17)."""
    return estimate_cosines_from_grams(*grams(v, u))


def control_taxes(evidence: Evidence, layer: int) -> np.ndarray:
    """Taxes of the control tasks at one layer, undefined ones left out: the empirical null (theory 2.4)."""
    null = cosines(evidence.safety[:, layer], evidence.controls[:, :, layer]).tax
    return null[np.isfinite(null)]


def task_rows(
    evidence: Evidence, layer: int, tasks: Mapping[str, np.ndarray]
) -> tuple[dict[str, TaskAtLayer], CosineTable]:
    """Rows of `tasks` at one layer, and the cosine table."""
    v = evidence.safety[:, layer]
    stack = np.stack([groups[:, layer] for groups in tasks.values()])
    table = cosines(v, stack)
    null = control_taxes(evidence, layer)
    p = np.array([empirical_p(t, null) if np.isfinite(t) and len(null) else np.nan for t in table.tax])
    adjusted = np.full(len(p), np.nan)
    if np.isfinite(p).any():
        adjusted[np.isfinite(p)] = benjamini_hochberg(p[np.isfinite(p)])
    unit = v.mean(0) / np.linalg.norm(v.mean(0))
    length = evidence.decinat_length(unit, layer)
    rows = {}
    for k, name in enumerate(tasks):
        effect = evidence.effects.get(name, tasks[name])[:, layer]
        moved = effect @ unit * length
        half = t_quantile(0.9, len(moved) - 1) * moved.std(ddof=1) / np.sqrt(len(moved))
        one = table.at(k)
        rows[name] = TaskAtLayer(
            one.value, one.low, one.high, one.tax, one.tax_low, one.tax_high, p[k], adjusted[k], one.reliability_u,
            regime(bool(adjusted[k] <= FDR), one.tax, one.tax_low, one.reliability_u),
            moved.mean(), moved.mean() - half, moved.mean() + half, float(np.linalg.norm(effect.mean(0))),
        )  # fmt: skip
    return rows, table


def layer_row(evidence: Evidence, layer: int, seed: int) -> LayerSurvey:
    """Everything about one layer."""
    v = evidence.safety[:, layer]
    rows, table = task_rows(evidence, layer, evidence.tasks)
    stack = np.stack([groups[:, layer] for groups in with_direction(evidence.tasks, layer).values()])
    usable, means = len(stack), stack.mean(1)
    sets = len(evidence.controls) // usable
    controls = None
    if sets:
        own = evidence.controls[: sets * usable, :, layer]
        controls = own.reshape(sets, usable, *own.shape[1:])[:4]
    joint = crossfit_tax(v, stack, controls, CROSSFIT_SPLITS, seed)
    mean, d = v.mean(0), v.shape[1]
    unit = mean / np.linalg.norm(mean)
    length = evidence.decinat_length(unit, layer)
    pairs = evidence.gradient[:, layer] @ v.T
    groups = len(v)
    gain = (pairs.sum() - np.trace(pairs)) / (groups * (groups - 1)) / np.linalg.norm(mean) * length
    control = evidence.controls[:, :, layer].reshape(-1, d)
    return LayerSurvey(
        layer=layer,
        joint_tax=tax_rate(mean, means),
        joint_tax_crossfit=joint.value,
        joint_tax_floor=joint.floor,
        sum_tax=sum_tax(mean, means),
        safety_norm=float(np.linalg.norm(mean)),
        safety_reliability=float(np.ravel(table.reliability_v)[0]),
        gain_per_decinat=gain,
        tax_free_gain_per_decinat=gain * np.sqrt(1 - min(max(joint.value, 0.0), 1.0)),
        shift_norm_per_decinat=length,
        activation_norm=evidence.sinks.activation_norm[layer],
        chance_isotropic=1 / d,
        chance_anisotropic=float(((control @ unit) ** 2).sum() / (control**2).sum()),
        chance_joint=usable / d,
        sinks=list(evidence.sinks.by_layer[layer]),
        tasks=rows,
    )
