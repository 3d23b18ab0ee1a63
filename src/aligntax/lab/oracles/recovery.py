"""Recovery by brute force: convex minimisation, enumeration of sequences, autograd. Knows objectives, no closed form."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.optimize
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]


def simplex_minimum(p0: Array, recovery: Sequence[int], x: float, form: str = "linear") -> Array:
    """Law `(V,)` that minimises `KL(p | p0) + x failure` over the simplex, by damped Newton steps under `sum p = 1`."""
    chosen = np.isin(np.arange(p0.size), list(recovery)).astype(float)

    def value(p: Array) -> float:
        mass = float(p @ chosen)
        charged = -np.log(mass) if form == "log" else 1.0 - mass
        return float(p @ np.log(p / p0) + x * charged)

    p = np.full(p0.size, 1.0 / p0.size)
    for _ in range(500):
        mass = float(p @ chosen)
        slope = np.log(p / p0) + 1.0 - x * chosen / (mass if form == "log" else 1.0)
        curve = np.diag(1.0 / p) + (x / mass**2 * np.outer(chosen, chosen) if form == "log" else 0.0)
        # In the metric of p itself the system is well scaled even where p is 1e-12.
        scale = np.sqrt(p)
        system = np.block([[scale[:, None] * curve * scale, scale[:, None]], [scale[None, :], np.zeros((1, 1))]])
        step = scale * np.linalg.solve(system, np.append(-scale * slope, 0.0))[:-1]
        size = min(1.0, 0.95 / max(1e-300, float((-step / p).max())))
        while size > 1e-12 and value(p + size * step) > value(p) + 1e-15 * abs(value(p)):
            size *= 0.5
        if np.abs(step / p).max() < 1e-13 or size <= 1e-12:
            break
        p = p + size * step
    return np.asarray(p / p.sum())


def relative_entropy(p: Array, p0: Array) -> float:
    """`sum p log(p/p0)` in nats, written out."""
    return float(sum(a * np.log(a / b) for a, b in zip(p.tolist(), p0.tolist(), strict=True) if a > 0.0))


def binary_minimum(p0: float, x: float) -> float:
    """Recovery mass that minimises `KL(Bern(p) | Bern(p0)) + x (1 - p)`: the root of its derivative by bisection."""

    def slope(z: float) -> float:
        p, q = torch.sigmoid(torch.tensor([z, -z], dtype=torch.float64)).requires_grad_()
        loss = p * torch.log(p / p0) + q * torch.log(q / (1.0 - p0)) - x * p
        by_p, by_q = torch.autograd.grad(loss, (p, q))
        return float(by_p - by_q)

    z = scipy.optimize.brentq(slope, -60.0, 30.0, xtol=1e-13)
    return float(1.0 / (1.0 + np.exp(-z)))


def deep_objective(
    logits: Sequence[torch.Tensor],
    base: Sequence[Array],
    prefixes: Sequence[Array],
    recovery: Sequence[int],
    charges: Sequence[float],
    *,
    form: str = "linear",
    rho: str = "Q",
    harm: Array | None = None,
) -> torch.Tensor:
    """`E_pi[harm] + sum_t E_rho[KL_t] + sum_t charges[t] E_Q[failure_t]`, one sequence and one prefix at a time.

    `logits` and `base` are tables by position, indexed by token tuples through `numpy.ravel_multi_index`; `charges[t]` is
    the penalty at the token after a prefix of length `t`.
    """
    vocabulary, length = base[0].shape[1], len(base)
    total = torch.zeros((), dtype=torch.float64)
    for t in range(length):
        for prefix in itertools.product(range(vocabulary), repeat=t):
            row = _row(prefix, vocabulary)
            p = torch.softmax(logits[t][row], -1)
            old = torch.softmax(torch.as_tensor(base[t][row]), -1)
            kl = (p * torch.log(p / old)).sum()
            mass = p[list(recovery)].sum()
            weight = float(prefixes[t][row])
            charged = -torch.log(mass) if form == "log" else 1.0 - mass
            total = total + weight * charges[t] * charged
            total = total + (weight if rho == "Q" else _probability(logits, prefix, vocabulary)) * kl
    if harm is not None:
        for leaf, sequence in enumerate(itertools.product(range(vocabulary), repeat=length)):
            total = total + float(harm[leaf]) * _probability(logits, sequence, vocabulary)
    return total


def objective_gradient(tables: Sequence[Array], value: Callable[[list[torch.Tensor]], torch.Tensor]) -> list[Array]:
    """Gradient of `value` at the logits `tables`, by autograd."""
    logits = [torch.tensor(rows, dtype=torch.float64, requires_grad=True) for rows in tables]
    return [found.numpy() for found in torch.autograd.grad(value(logits), logits)]


def expected_after(tables: Sequence[Array], leaves: Array, prefix: Sequence[int]) -> float:
    """Expected leaf value after a forced prefix, by listing every continuation."""
    vocabulary, length = tables[0].shape[1], len(tables)
    total = 0.0
    for rest in itertools.product(range(vocabulary), repeat=length - len(prefix)):
        sequence, chance = list(prefix), 1.0
        for token in rest:
            row = np.exp(tables[len(sequence)][_row(sequence, vocabulary)])
            chance *= float(row[token] / row.sum())
            sequence.append(token)
        total += chance * float(leaves[_row(sequence, vocabulary)])
    return total


def recovery_gradient(
    features: Array, theta: Array, weights: Array, recovery: Sequence[int]
) -> tuple[Array, Array, Any]:
    """`grad E_Q[1 - pi(R)]` `(d,)`, the Fisher matrix `(d, d)` averaged over `Q`, and its trace at each prefix `(n,)`.

    A softmax policy with shared parameters: logits `features (n, V, d) @ theta`. Scores come from autograd, one token at a
    time.
    """
    parameters = torch.tensor(theta, requires_grad=True)
    log_p = torch.log_softmax(torch.as_tensor(features) @ parameters, -1)
    failure = (torch.as_tensor(weights) * (1.0 - log_p[:, list(recovery)].exp().sum(-1))).sum()
    (gradient,) = torch.autograd.grad(failure, parameters, retain_graph=True)
    blocks = []
    for row in log_p:
        scores = [torch.autograd.grad(entry, parameters, retain_graph=True)[0].numpy() for entry in row]
        blocks.append(sum(float(e.detach().exp()) * np.outer(s, s) for e, s in zip(row, scores, strict=True)))
    traces = np.array([np.trace(block) for block in blocks])
    return gradient.numpy(), np.asarray(np.einsum("n,nij->ij", weights, np.stack(blocks))), traces


def _row(tokens: Sequence[int], vocabulary: int) -> int:
    return int(np.ravel_multi_index(tuple(tokens), (vocabulary,) * len(tokens))) if len(tokens) else 0


def _probability(logits: Sequence[torch.Tensor], tokens: Sequence[int], vocabulary: int) -> torch.Tensor:
    chance = torch.ones((), dtype=torch.float64)
    for t, token in enumerate(tokens):
        chance = chance * torch.softmax(logits[t][_row(tokens[:t], vocabulary)], -1)[token]
    return chance


def cost_after(tables: Sequence[Array], base: Sequence[Array], paid: Array, prefix: Sequence[int]) -> float:
    """`E[paid + KL of the tokens after the prefix | prefix]` in nats, by listing every continuation."""
    vocabulary, length = tables[0].shape[1], len(tables)
    leaves = []
    for leaf, sequence in enumerate(itertools.product(range(vocabulary), repeat=length)):
        ratio = 0.0
        for t in range(len(prefix), length):
            new, old = (np.exp(side[t][_row(sequence[:t], vocabulary)]) for side in (tables, base))
            ratio += float(np.log(new[sequence[t]] / new.sum()) - np.log(old[sequence[t]] / old.sum()))
        leaves.append(float(paid[leaf]) + ratio)
    return expected_after(tables, np.array(leaves), prefix)


def shared_minimum(features: Array, theta: Array, weights: Array, costs: Array) -> float:
    """KL averaged over `Q`, in nats, where `E_Q[KL] + E_Q[sum_v pi(v) costs(v)]` is least over the parameters `(d,)`.

    The policy of `recovery_gradient`, started from `theta`; `costs` `(n, V)` nats.
    """
    maps, share = torch.as_tensor(features), torch.as_tensor(weights)
    base = torch.log_softmax(maps @ torch.as_tensor(theta), -1)

    def parts(parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log_p = torch.log_softmax(maps @ parameters, -1)
        kl = (share * (log_p.exp() * (log_p - base)).sum(-1)).sum()
        return kl, kl + (share * (log_p.exp() * torch.as_tensor(costs)).sum(-1)).sum()

    found = torch.tensor(theta, dtype=torch.float64)
    for _ in range(20):
        where = found.clone().requires_grad_()
        (slope,) = torch.autograd.grad(parts(where)[1], where)
        curve = torch.autograd.functional.hessian(lambda v: parts(v)[1], found)
        step = torch.linalg.lstsq(curve, slope[:, None], driver="gelsd").solution[:, 0]
        found = found - step
        if float(step.abs().max()) < 1e-12:
            break
    return float(parts(found)[0])
