"""The penalty that a wanted recovery asks for, against the minimum of the objective itself."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import torch
from test_training_callbacks import fresh, rows

from aligntax.training import RecoveryObjective, RecoveryRows, RecoverySettings, freeze_head

TOKENS = [11, 12]


def masses(model, texts):
    """Mass of the recovery tokens by row and position, from whole passes."""
    with torch.no_grad():
        laws = [torch.softmax(model(torch.tensor([row.ids])).logits[0].double(), -1) for row in texts]
    return np.array(
        [
            [float(p[place, TOKENS].sum()) for place in range(r.start - 1, len(r.ids) - 1)]
            for p, r in zip(laws, texts, strict=True)
        ]
    )


def least(p0, x, form):
    """Mass at which `KL + x * penalty` is least, found over log-odds: with R's mass p the rest of the law is as in the base."""

    def value(odds):
        log_p, log_q = -np.logaddexp(0, -odds), -np.logaddexp(0, odds)
        p, q = np.exp(log_p), np.exp(log_q)
        kl = p * (log_p - np.log(p0)) + q * (log_q - np.log1p(-p0))
        return kl + x * (q if form == "linear" else -log_p)

    grid = np.linspace(-30, 30, 6001)
    start = grid[np.argmin([value(odds) for odds in grid])]
    found = scipy.optimize.minimize_scalar(
        value, bounds=(start - 0.02, start + 0.02), method="bounded", options={"xatol": 1e-10}
    )
    return float(scipy.special.expit(found.x))


@pytest.mark.parametrize("form", ["linear", "log"])
@pytest.mark.parametrize(("delta", "depth", "gamma"), [(0.3, 1, 1.0), (0.5, 3, 0.9), (0.9, 5, 0.8), (0.02, 2, 1.0)])
def test_a_wanted_recovery_is_the_optimum_of_the_worst_prefix_at_its_depth(form, delta, depth, gamma):
    model, texts = fresh(), rows(3, 10, 4)
    freeze_head(model)
    base = masses(model, texts)
    plan = RecoverySettings(gamma=gamma, form=form)
    mu = (
        RecoveryObjective(model, RecoveryRows(texts, [[11]] * 3), TOKENS, plan)
        .aimed_at(model, delta, depth)
        .settings.mu
    )
    reached = base[:, :depth]
    optimum = np.array([[least(p, mu * gamma ** (t + 1), form) for t, p in enumerate(row)] for row in reached])
    assert optimum.min() >= delta * (1 - 1e-4)
    # The least `mu` that does it: the worst mass gets no more than it needs at that depth.
    assert least(reached.min(), mu * gamma**depth, form) == pytest.approx(max(delta, reached.min()), rel=1e-4)


def test_a_model_that_recovers_anyway_needs_no_penalty():
    model = fresh()
    freeze_head(model)
    term = RecoveryObjective(model, RecoveryRows(rows(2), [[11]] * 2), list(range(5, 90)))
    assert term.aimed_at(model, 0.2, 3).settings.mu == 0.0
