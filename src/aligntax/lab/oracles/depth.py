"""Depth by brute force: every sequence listed, every derivative taken by autograd, every optimum found by descent.

A policy is a list of logit tables, `tables[t]` `(V^t, V)` for prefixes of length `t` in the order of `itertools.product`; harm
is `(V^T,)` in the order of whole sequences. Nothing here is a dynamic programme, and nothing holds more than a few thousand
sequences.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
Tables = Sequence[Any]


def sequences(vocabulary: int, length: int) -> list[tuple[int, ...]]:
    """All `V^T` sequences."""
    return list(itertools.product(range(vocabulary), repeat=length))


def sequence_probabilities(tables: Tables) -> Array:
    """`pi(y)` `(V^T,)`, each the product of `T` softmax entries looked up one by one."""
    vocabulary = len(np.asarray(tables[0]).ravel())
    lists = [list(itertools.product(range(vocabulary), repeat=t)) for t in range(len(tables))]
    rows = [
        {prefix: _softmax(np.asarray(tables[t])[k]) for k, prefix in enumerate(found)} for t, found in enumerate(lists)
    ]
    every = sequences(vocabulary, len(tables))
    return np.array([np.prod([rows[t][y[:t]][y[t]] for t in range(len(tables))]) for y in every])


def expected_by_depth(chances: Any, values: Any, vocabulary: int, length: int) -> Array:
    """`E[f | y_<=t]` `(V^T, T+1)` for every sequence, by averaging over all sequences that share its first `t` tokens."""
    p, f = np.asarray(chances), np.asarray(values)
    every = np.array(sequences(vocabulary, length))
    out = np.empty((len(every), length + 1))
    for t in range(length + 1):
        for prefix in itertools.product(range(vocabulary), repeat=t):
            same = (every[:, :t] == np.array(prefix, dtype=int)).all(axis=1)
            out[same, t] = (p[same] * f[same]).sum() / p[same].sum()
    return out


def information_by_variances(chances: Any, values: Any, vocabulary: int, length: int) -> Array:
    """`I_t = E Var(H|y_<t) - E Var(H|y_<=t)` `(T,)`, from conditional second moments of harm and no innovations."""
    p = np.asarray(chances)
    first = expected_by_depth(p, values, vocabulary, length)
    second = expected_by_depth(p, np.square(values), vocabulary, length)
    return -np.diff(p @ (second - first**2))


def shared_gradients(tables: Tables, features: Sequence[Any], values: Any) -> Array:
    """`g_t` `(T, d)`: autograd of `E[f]` with respect to a copy of the shared parameters at each position, all at 0."""
    copies = torch.zeros(len(tables), np.shape(features[0])[-1], dtype=torch.float64, requires_grad=True)
    logits = [_tensor(rows) + _tensor(f) @ copies[t] for t, (rows, f) in enumerate(zip(tables, features, strict=True))]
    (_leaves(logits).exp() * _tensor(values)).sum().backward()
    assert copies.grad is not None
    return copies.grad.numpy()


def table_gradients(tables: Tables, values: Any) -> list[Array]:
    """Autograd of `E[f]` with respect to every logit, one `(V^t, V)` a position."""
    logits = [_tensor(rows).requires_grad_() for rows in tables]
    (_leaves(logits).exp() * _tensor(values)).sum().backward()
    return [x.grad.numpy() for x in logits if x.grad is not None]


def shared_kl_by_position(tables: Tables, features: Sequence[Any], theta: Any) -> Array:
    """`D_t` `(T,)` nats of the shared policy at `theta` from the one at 0, by the chain rule of `kl_of_prefixes`."""
    vocabulary = len(np.asarray(tables[0]).ravel())
    moved = [np.asarray(rows) + np.asarray(f) @ np.asarray(theta) for rows, f in zip(tables, features, strict=True)]
    return kl_by_position(sequence_probabilities(moved), sequence_probabilities(tables), vocabulary, len(tables))


def shared_fishers(tables: Tables, features: Sequence[Any]) -> Array:
    """`F_t` `(T, d, d)`: Hessian at 0 of `KL(base | moved at position t alone)` between whole sequences."""
    d, base = np.shape(features[0])[-1], [_tensor(rows) for rows in tables]
    log_base = _leaves(base)
    found = []
    for t in range(len(tables)):

        def kl(theta: Tensor, t: int = t) -> Tensor:
            logits = [rows + _tensor(features[s]) @ theta if s == t else rows for s, rows in enumerate(base)]
            return (log_base.exp() * (log_base - _leaves(logits))).sum()

        hessian: Any = torch.autograd.functional.hessian(kl, torch.zeros(d, dtype=torch.float64))  # type: ignore[no-untyped-call]
        found.append(hessian.numpy())
    return np.array(found)


def sequence_scores(tables: Tables, features: Sequence[Any]) -> Array:
    """`s_t(y)` `(V^T, T, d)`: autograd of every single `log pi(y_t | y_<t)` with respect to shared parameters at 0."""
    vocabulary, length = len(np.asarray(tables[0]).ravel()), len(tables)

    def by_token(theta: Tensor) -> Tensor:
        columns = []
        for t in range(length):
            logs = torch.log_softmax(_tensor(tables[t]) + _tensor(features[t]) @ theta, dim=-1).reshape(-1)
            columns.append(logs.repeat_interleave(vocabulary ** (length - t - 1)))
        return torch.stack(columns, dim=1)

    start = torch.zeros(np.shape(features[0])[-1], dtype=torch.float64)
    jacobian: Any = torch.func.jacfwd(by_token)(start)
    return np.asarray(jacobian.numpy())


def kl_by_position(chances: Any, others: Any, vocabulary: int, length: int) -> Array:
    """`D_t` `(T,)` nats by the chain rule: KL between the laws of prefixes of length `t` less that of length `t - 1`."""
    p, q = np.asarray(chances), np.asarray(others)
    totals = [0.0]
    for t in range(1, length + 1):
        a, b = (x.reshape(vocabulary**t, -1).sum(axis=1) for x in (p, q))
        totals.append(float((a * np.log(a / b)).sum()))
    return np.diff(totals)


def best_sequences(chances: Any, harm: Any, strength: float) -> Array:
    """Minimiser of `strength E[H] + KL(p | chances)` over all laws of whole sequences, by damped Newton on the simplex.

    The Hessian of `sum p (cost + log p/chances)` is `1/p` on the diagonal; no exponential tilt is written down.
    """
    base, cost = np.asarray(chances, dtype=float), strength * np.asarray(harm, dtype=float)
    p = base.copy()
    for _ in range(200):
        gradient = cost + np.log(p / base)
        step = -p * (gradient - p @ gradient)
        decrement = float((step**2 / p).sum())
        if decrement < 1e-30:
            break
        size = 1.0 / (1.0 + np.sqrt(decrement)) if decrement > 1e-4 else 1.0
        while (p + size * step <= 0.0).any():
            size /= 2
        p = p + size * step
        p = p / p.sum()
    return p


def best_shared(tables: Tables, features: Sequence[Any], harm: Any, strength: float) -> Array:
    """Minimiser over theta `(d,)` of `strength E[H] + KL(moved | base)`, by L-BFGS from 0 on the listed sequences."""
    base, cost = [_tensor(rows) for rows in tables], strength * _tensor(harm)
    log_base, moves = _leaves(base), [_tensor(f) for f in features]
    theta = torch.zeros(moves[0].shape[-1], dtype=torch.float64, requires_grad=True)

    def value() -> Tensor:
        logs = _leaves([rows + f @ theta for rows, f in zip(base, moves, strict=True)])
        return (logs.exp() * (cost + logs - log_base)).sum()

    _descend(theta, value)
    return np.asarray(theta.detach().numpy())


def gaussian_mutual_information(covariance: Any) -> Array:
    """`I(H; y_t | y_<t)` `(T,)` nats of jointly Gaussian `(y_1, .., y_T, H)` by log-determinants, H last."""
    s = np.asarray(covariance)
    last = len(s) - 1

    def information(tokens: list[int]) -> float:
        if not tokens:
            return 0.0
        both = [*tokens, last]
        parts = [np.linalg.slogdet(s[np.ix_(k, k)])[1] for k in (tokens, [last], both)]
        return float(0.5 * (parts[0] + parts[1] - parts[2]))

    return np.diff([information(list(range(t))) for t in range(last + 1)])


def gaussian_resolved(covariance: Any) -> Array:
    """`Var E[H|y_<=t] - Var E[H|y_<t]` `(T,)` of the same Gaussian, by regression of H on the first `t` tokens."""
    s = np.asarray(covariance)
    cross = s[-1, :-1]
    explained = [float(cross[:t] @ np.linalg.solve(s[:t, :t], cross[:t])) for t in range(1, len(s))]
    return np.diff([0.0, *explained])


def kl_of_tokens(p_log: Any, q_log: Any) -> float:
    """`sum p (log p - log q)` in float64, token by token, zero probabilities skipped."""
    p, q = (np.exp(np.asarray(x, dtype=float)) for x in (p_log, q_log))
    p, q = p / p.sum(), q / q.sum()
    return float(sum(a * (np.log(a) - np.log(b)) for a, b in zip(p, q, strict=True) if a > 0.0))


def _descend(variables: Tensor, value: Callable[[], Tensor]) -> None:
    """L-BFGS in float64, in place, until the gradient is below 1e-13 or rounding stops it."""
    search = torch.optim.LBFGS(
        [variables],
        max_iter=200,
        tolerance_grad=1e-13,
        tolerance_change=0.0,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        search.zero_grad()
        found = value()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    search.step(loss)  # type: ignore[no-untyped-call]


def _leaves(logits: Sequence[Tensor]) -> Tensor:
    """`log pi(y)` `(V^T,)`, differentiable."""
    vocabulary, length = logits[0].shape[-1], len(logits)
    total = torch.zeros(vocabulary**length, dtype=torch.float64)
    for t, rows in enumerate(logits):
        total = total + torch.log_softmax(rows, dim=-1).reshape(-1).repeat_interleave(vocabulary ** (length - t - 1))
    return total


def _tensor(values: Any) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float64)


def _softmax(row: Array) -> Array:
    e = np.exp(row - row.max())
    return np.asarray(e / e.sum())
