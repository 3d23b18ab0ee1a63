"""Section 5, where the recovery objective has its optimum: 5.1-5.3 and the log form 5.7."""

import math
from functools import partial

import numpy as np
import torch

from aligntax.commands.theorems.check import Check
from aligntax.depth import RecoveryPenalty, log_form_recovery, optimal_recovery, recovery_objective, recovery_pressure
from aligntax.lab import (
    DeepObjective,
    Stationary,
    StationaryProblem,
    TabularPolicy,
    descend,
    recovery_stationary,
    steps_to_recover,
    tilt_agreement,
)
from aligntax.lab.oracles import recovery as oracle

Array = np.ndarray
Tables = list[torch.Tensor]
R = (0,)


def _world(seed: int, vocabulary: int = 3, length: int = 3) -> tuple[TabularPolicy, list[Array], Array]:
    """A random base, a `Q` of full support over its prefixes, and a random harm."""
    rng = np.random.default_rng(seed)
    base = TabularPolicy.random(vocabulary, length, rng)
    prefixes = [rng.dirichlet(np.full(vocabulary**t, 20.0)) for t in range(length)]
    return base, prefixes, rng.random(vocabulary**length)


def random_law(rng: np.random.Generator, lowest: float = -6.0) -> tuple[Array, float]:
    """A random law over five tokens whose first two, the recovery tokens, may be rare; and their mass."""
    p = rng.dirichlet(np.ones(5)) + 1e-9
    p[:2] *= 10.0 ** rng.uniform(lowest, 0.0)
    p /= p.sum()
    return p, float(p[:2].sum())


def _residual(problem: StationaryProblem, policy: TabularPolicy) -> float:
    """Largest gradient of the `rho = pi` objective left at `policy`, each prefix and token scaled by its chance (nats)."""
    charges = [problem.mu * problem.gamma ** (t + 1) for t in range(policy.length)]
    harm = problem.strength * np.asarray(problem.harm)
    left = oracle.objective_gradient(
        policy.logits,
        lambda logits: oracle.deep_objective(
            logits, problem.base.logits, problem.prefixes, problem.recovery, charges, rho="pi", harm=harm
        ),
    )
    reach = policy.prefix_probabilities()
    scaled = [g / (r[:, None] * np.exp(rows)) for g, r, rows in zip(left, reach[:-1], policy.logits, strict=True)]
    return max(float(np.abs(rows).max()) for rows in scaled)


def _training_loss(
    base: TabularPolicy, prefixes: list[Array], penalty: RecoveryPenalty, logits: Tables
) -> torch.Tensor:
    """What training computes: all prefixes of all lengths in one call."""
    log_p = [torch.log_softmax(rows, -1) for rows in logits]
    kl = [(new.exp() * (new - torch.as_tensor(old))).sum(-1) for new, old in zip(log_p, base.logits, strict=True)]
    positions = torch.cat([torch.full((len(rows),), t + 1.0).double() for t, rows in enumerate(log_p)])
    mass = torch.cat([rows[:, 0] for rows in log_p])
    return torch.as_tensor(
        recovery_objective(mass, torch.cat(kl), torch.as_tensor(np.concatenate(prefixes)), positions, penalty)
    )


def row_5_1() -> Check:
    """[S] Def 17: the loss that training uses, its value and its gradient."""
    worst = 0.0
    for seed, penalty in enumerate((RecoveryPenalty(1.5, 0.7), RecoveryPenalty(0.4, 1.0, "log"))):
        base, prefixes, _ = _world(seed)
        charges = [penalty.mu * penalty.gamma ** (t + 1) for t in range(3)]
        losses = (
            partial(_training_loss, base, prefixes, penalty),
            partial(
                oracle.deep_objective,
                base=base.logits,
                prefixes=prefixes,
                recovery=R,
                charges=charges,
                form=penalty.form,
            ),
        )
        where = TabularPolicy.random(3, 3, np.random.default_rng(seed + 50)).logits
        values = [float(loss([torch.as_tensor(rows) for rows in where])) for loss in losses]
        slopes = [np.concatenate(oracle.objective_gradient(where, loss)) for loss in losses]
        worst = max(worst, abs(values[0] - values[1]), float(np.abs(slopes[0] - slopes[1]).max()))
    return Check(
        "5.1",
        "objective: KL + mu gamma^t failure on adversarial prefixes",
        "recovery_objective in both forms, value and gradient, 2 worlds of 13 prefixes",
        "one prefix at a time with autograd (nats)",
        worst,
        1e-10,
    )


def row_5_2() -> Check:
    """[S] Thm 20 with `rho = Q`, its descent, and the corrected stationary point with `rho = pi`."""
    rng, worst = np.random.default_rng(2), 0.0
    for _ in range(60):
        law, p0 = random_law(rng)
        x = float(rng.exponential(4.0))
        best = oracle.simplex_minimum(law, (0, 1), x)
        p, kl = optimal_recovery(p0, x)
        worst = max(worst, abs(p / best[:2].sum() - 1.0), abs(kl - oracle.relative_entropy(best, law)))
    base, prefixes, harm = _world(2)
    reached = descend(DeepObjective(base, None, 0.0, RecoveryPenalty(2.0, 0.8), R, prefixes)).policy
    for t, (old, new) in enumerate(zip(base.recovery_mass(R), reached.recovery_mass(R), strict=True)):
        worst = max(worst, float(np.abs(optimal_recovery(old, 2.0 * 0.8 ** (t + 1))[0] - new).max()))
    for seed in range(3):
        base, prefixes, harm = _world(seed)
        problem = StationaryProblem(base, np.zeros_like(harm), 0.0, R, prefixes, 0.2, 0.9)
        worst = max(worst, _residual(problem, recovery_stationary(problem).policy))
    return Check(
        "5.2",
        "optimum: log-odds shift by x; with KL under pi, w x less the KL still to come",
        "optimal_recovery on 60 laws and a descended policy; recovery_stationary on 3 worlds",
        "damped Newton on the simplex; gradient of the enumerated objective (nats)",
        worst,
        1e-7,
    )


def row_5_3() -> Check:
    """[S] Prop 29, corrected: within the horizon the tilt is the cost still to be paid, not `lambda h_t`."""
    worst = 0.0
    for seed in range(3):
        base, prefixes, harm = _world(seed)
        problem = StationaryProblem(base, harm, 1.5, R, prefixes, 0.2, 0.9)
        found = recovery_stationary(problem)
        worst = max(worst, _residual(problem, found.policy), _tilt_error(problem, found))
        gibbs = recovery_stationary(StationaryProblem(base, harm, 1.5, R, prefixes, 0.0, 1.0))
        for row in range(9):
            z = oracle.expected_after(base.logits, np.exp(-1.5 * harm), divmod(row, 3))
            worst = max(worst, abs(gibbs.cost[2][row] + math.log(z)))
    return Check(
        "5.3",
        "within the horizon: tilt w x 1[R] - cost, cost = -log Z at mu = 0; do the tilts agree?",
        "recovery_stationary and tilt_agreement, 3 worlds, harm decided everywhere",
        "gradient of the enumerated objective; listed continuations (nats)",
        worst,
        1e-7,
    )


def _tilt_error(problem: StationaryProblem, found: Stationary) -> float:
    """Difference to the listed costs of each way on after the empty prefix."""
    paid = problem.strength * np.asarray(problem.harm)
    costs = [oracle.cost_after(found.policy.logits, problem.base.logits, paid, (v,)) for v in range(3)]
    p = np.exp(found.policy.logits[0][0])
    others = (p[1] * costs[1] + p[2] * costs[2]) / (p[1] + p[2])
    return abs(float(tilt_agreement(found, R)[0][0]) - (others - costs[0]))


def row_5_7() -> Check:
    """The log form has another optimum and does not start slowly."""
    rng, worst = np.random.default_rng(7), 0.0
    for _ in range(60):
        law, p0 = random_law(rng)
        x = float(rng.exponential(3.0))
        best = oracle.simplex_minimum(law, (0, 1), x, "log")
        p, kl = log_form_recovery(p0, x)
        worst = max(worst, abs(p / best[:2].sum() - 1.0), abs(kl - oracle.relative_entropy(best, law)))
        z = torch.tensor(math.log(p0 / (1.0 - p0)), dtype=torch.float64, requires_grad=True)
        for form, charged in (("linear", 1.0 - torch.sigmoid(z)), ("log", -torch.nn.functional.logsigmoid(z))):
            (slope,) = torch.autograd.grad(x * charged, z)
            worst = max(worst, abs(recovery_pressure(p0, x, form) / -float(slope) - 1.0))
    slow, fast = (steps_to_recover(1e-4, 12.0, 0.5, form, 1.0) for form in ("linear", "log"))
    if slow is None or fast is None or slow < 100 * fast:
        worst = math.inf
    return Check(
        "5.7",
        "log form: logit p* - logit p_0 = x/p*; pull x (1-p) instead of x p (1-p)",
        f"log_form_recovery, recovery_pressure on 60 laws; steps from 1e-4 to 1/2: {slow} linear, {fast} log",
        "damped Newton on the simplex; autograd (relative; nats)",
        worst,
        1e-8,
    )
