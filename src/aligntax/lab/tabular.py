"""An autoregressive policy small enough to know everything about: logits for every prefix, no sampling anywhere.

`V` tokens, `T` positions. A prefix of length `t` is a row: the base-`V` number that its tokens spell, first token first.
So arrays over prefixes of length `t` are `(V^t,)`, conditional laws are `(V^t, V)`, and the children of row `r` are rows
`r V .. r V + V - 1` of the next length: one reshape is one step of the dynamic programme. Six tokens and eight positions
are 1.7 million leaves. Positions count from 1 as in the theory: token `t` follows a prefix of length `t - 1`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aligntax.errors import LabError

Array = NDArray[np.float64]
Harm = Callable[[tuple[int, ...]], float] | Any
Prefix = tuple[int, ...]

MAX_LEAVES = 20_000_000


@dataclass(frozen=True)
class HarmInformation:
    """Where harm is decided ([S] §4): exact `h_t`, innovations' variances and horizon.

    `expected[t]` `(V^t,)` is `h_t = E[H | y_<=t]` for every prefix, `t = 0..T`; `information` `(T,)` is `I_1..I_T`,
    `variance` is `Var H = sum I_t`.
    """

    expected: tuple[Array, ...]
    information: Array
    variance: float

    @property
    def mean(self) -> float:
        """`h_0 = E[H]`."""
        return float(self.expected[0][0])

    @property
    def share(self) -> Array:
        """`R(t)` `(T+1,)`: share of the variance decided by depth `t = 0..T`; nan where harm never varies."""
        decided = np.concatenate([[0.0], np.cumsum(self.information)])
        return decided / self.variance if self.variance > 0.0 else np.full(decided.size, math.nan)

    def horizon(self, level: float = 1.0) -> int | None:
        """First depth in tokens with `R(t) >= level`; `level` 1 is the exact horizon, after which harm is settled. None
        where harm never varies.
        """
        if not 0.0 < level <= 1.0:
            raise LabError(f"level={level}: the share of harm decided lies in (0, 1]")
        if self.variance <= 0.0:
            return None
        if level == 1.0:
            return int(np.flatnonzero(self.information)[-1]) + 1
        return int(np.flatnonzero(self.share >= level * (1.0 - 1e-12))[0])


@dataclass(frozen=True)
class TabularPolicy:
    """`pi(y_1..y_T)` by its logits: `logits[t]` `(V^t, V)` for prefixes of length `t = 0..T-1`, normalised here.

    `logits` may also be nested `(V, .., V)` arrays, or a mapping from prefix tuples to `(V,)`; every prefix must be there.
    Raises LabError for missing or non-finite logits, and for more than 20 million leaves.
    """

    logits: Any

    def __post_init__(self) -> None:
        tables = _tables(self.logits)
        object.__setattr__(self, "logits", tuple(rows - _logsumexp(rows) for rows in tables))

    @classmethod
    def from_probabilities(cls, tables: Sequence[Any]) -> "TabularPolicy":
        """From `pi(v | prefix)`; raises LabError where a row does not sum to 1 or holds no positive probability."""
        for t, table in enumerate(tables):
            rows = np.asarray(table, dtype=float).reshape(-1, np.shape(table)[-1])
            bad = ~((rows > 0) & np.isfinite(rows))
            if bad.any():
                raise LabError(f"position {t + 1} holds probability {_first(rows, bad)}; give positive numbers")
            sums = rows.sum(-1)
            if (np.abs(sums - 1.0) > 1e-9).any():
                raise LabError(
                    f"position {t + 1} has a row that sums to {_first(sums, np.abs(sums - 1) > 1e-9)}, not 1"
                )
        return cls([np.log(np.asarray(table, dtype=float)) for table in tables])

    @classmethod
    def random(cls, vocabulary: int, length: int, rng: np.random.Generator, spread: float = 1.0) -> "TabularPolicy":
        """Independent normal logits of standard deviation `spread` nats."""
        return cls([spread * rng.standard_normal((vocabulary**t, vocabulary)) for t in range(length)])

    @property
    def vocabulary(self) -> int:
        """Number of tokens `V`."""
        return int(self.logits[0].shape[1])

    @property
    def length(self) -> int:
        """Number of positions `T`."""
        return len(self.logits)

    def prefix_probabilities(self) -> tuple[Array, ...]:
        """`pi(y_<=t)` `(V^t,)` for `t = 0..T`."""
        found = [np.ones(1)]
        for rows in self.logits:
            found.append((found[-1][:, None] * np.exp(rows)).ravel())
        return tuple(found)

    def leaf_log_probabilities(self) -> Array:
        """`log pi(y)` `(V^T,)` nats, exact far below the smallest probability that a float holds."""
        found = np.zeros(1)
        for rows in self.logits:
            found = (found[:, None] + rows).ravel()
        return found

    def expect(self, leaves: Any) -> tuple[Array, ...]:
        """`E[f(y) | y_<=t]` `(V^t,)` for `t = 0..T`, from `f` `(V^T,)` or a function of the tokens."""
        values = [self._leaves(leaves)]
        for rows in reversed(self.logits):
            values.append((np.exp(rows) * values[-1].reshape(rows.shape)).sum(-1))
        return tuple(reversed(values))

    def harm_information(self, harm: Harm) -> HarmInformation:
        """`h_t` and `I_t = E[(h_t - h_{t-1})^2]` of harm in [0, 1], `(V^T,)` or a function of the token tuple ([S] Def 5)."""
        expected = self.expect(self._harm(harm))
        reach = self.prefix_probabilities()
        information = np.array(
            [
                (reach[t + 1] * (expected[t + 1] - np.repeat(expected[t], self.vocabulary)) ** 2).sum()
                for t in range(self.length)
            ]
        )
        # The same expectation along two paths differs by rounding; settled harm has no information at all.
        information[information < 1e-30] = 0.0
        return HarmInformation(expected, information, float(information.sum()))

    def gradient(self, harm: Harm) -> tuple[Array, ...]:
        """`g_t = grad E[H]` with respect to the logits at position `t`, `(V^(t-1), V)` each ([S] Thm 8).

        `pi(prefix) pi(v | prefix) (h(prefix v) - h(prefix))`: zero wherever the token decides nothing, up to rounding.
        """
        return self.payoff_gradient(self._harm(harm))

    def payoff_gradient(self, payoff: Any) -> tuple[Array, ...]:
        """`gradient` for any function of the sequence, in or out of [0, 1]."""
        expected, reach = self.expect(payoff), self.prefix_probabilities()
        return tuple(
            reach[t][:, None] * np.exp(rows) * (expected[t + 1].reshape(rows.shape) - expected[t][:, None])
            for t, rows in enumerate(self.logits)
        )

    def fisher(self, position: int) -> Array:
        """Fisher blocks `(V^(t-1), V, V)` of the logits at position `t`: `pi(prefix) (diag p - p p^T)`, one a prefix."""
        p = np.exp(self.logits[position - 1])
        blocks = p[:, :, None] * np.eye(self.vocabulary) - p[:, :, None] * p[:, None, :]
        return np.asarray(self.prefix_probabilities()[position - 1][:, None, None] * blocks)

    def equilibrium(self, harm: Harm, strength: float) -> "TabularPolicy":
        """Minimiser of `strength E[H] + KL(pi | self)`: `pi*(y) ~ pi(y) exp(-strength H(y))` ([S] Thm 14)."""
        if not math.isfinite(strength):
            raise LabError(f"strength={strength}: give a finite weight of harm")
        future = -float(strength) * self._harm(harm)
        tables = []
        for rows in reversed(self.logits):
            tilted = rows + future.reshape(rows.shape)
            tables.append(tilted)
            future = _logsumexp(tilted)[:, 0]
        return TabularPolicy(tables[::-1])

    def recovery_mass(self, recovery: Sequence[int]) -> tuple[Array, ...]:
        """`pi(R | y_<t)` `(V^(t-1),)` for `t = 1..T`."""
        chosen = self._recovery(recovery)
        return tuple(np.exp(rows[:, chosen]).sum(-1) for rows in self.logits)

    def recovery_equilibrium(self, recovery: Sequence[int], mu: float, gamma: float) -> "TabularPolicy":
        """Optimum of the recovery objective with KL on the same prefixes (`rho = Q`): tokens of `R` gain `mu gamma^t`
        nats at position `t` ([S] Thm 20).

        Raises LabError for `mu < 0` or `gamma` outside (0, 1].
        """
        if not (mu >= 0.0 and math.isfinite(mu)):
            raise LabError(f"mu={mu}: the penalty must be finite and >= 0")
        if not 0.0 < gamma <= 1.0:
            raise LabError(f"gamma={gamma}: the discount must lie in (0, 1]")
        bonus = np.zeros(self.vocabulary)
        bonus[self._recovery(recovery)] = 1.0
        return TabularPolicy([rows + mu * gamma ** (t + 1) * bonus for t, rows in enumerate(self.logits)])

    def per_position_kl(self, other: "TabularPolicy") -> Array:
        """`D_t = E_{y_<t ~ self} KL(self(.|y_<t) | other(.|y_<t))` `(T,)` nats; sums to `KL(self | other)`."""
        if (self.vocabulary, self.length) != (other.vocabulary, other.length):
            raise LabError(
                f"policies over {self.vocabulary}^{self.length} and {other.vocabulary}^{other.length} sequences differ"
            )
        reach = self.prefix_probabilities()
        return np.array(
            [
                (reach[t] * (np.exp(a) * (a - b)).sum(-1)).sum()
                for t, (a, b) in enumerate(zip(self.logits, other.logits, strict=True))
            ]
        )

    def attack_success(self, harm: Harm) -> Array:
        """Harm reached by the best prefill of each length `0..T`: `max over y_<=j of h_j(y_<=j)`, `(T+1,)`."""
        return np.array([values.max() for values in self.expect(self._harm(harm))])

    def sample(self, prefixes: NDArray[np.int64], length: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """One continuation of each row number in `prefixes` (of `length` tokens each): row numbers of whole sequences."""
        rows = np.asarray(prefixes, dtype=np.int64)
        for table in self.logits[length:]:
            cumulative = np.exp(table[rows]).cumsum(-1)
            drawn = (rng.random((rows.size, 1)) * cumulative[:, -1:] > cumulative).sum(-1)
            rows = rows * self.vocabulary + np.minimum(drawn, self.vocabulary - 1)
        return rows

    def leaf_values(self, harm: Harm) -> Array:
        """Harm of every sequence `(V^T,)`. Raises LabError outside [0, 1]."""
        return self._harm(harm)

    def _leaves(self, values: Any) -> Array:
        count = self.vocabulary**self.length
        if callable(values):
            tokens = np.indices((self.vocabulary,) * self.length).reshape(self.length, count).T
            return np.array([float(values(tuple(row))) for row in tokens.tolist()])
        array = np.asarray(values, dtype=float)
        if array.size != count:
            raise LabError(f"{array.size} values for {count} sequences of {self.length} tokens")
        return array.ravel()

    def _harm(self, harm: Harm) -> Array:
        values = self._leaves(harm)
        bad = ~((values >= 0.0) & (values <= 1.0))
        if bad.any():
            raise LabError(f"harm is {_first(values, bad)}; it lies in [0, 1]")
        return values

    def _recovery(self, recovery: Sequence[int]) -> list[int]:
        chosen = sorted({int(token) for token in recovery})
        if not chosen or chosen[0] < 0 or chosen[-1] >= self.vocabulary:
            raise LabError(f"recovery tokens {list(recovery)}: give some of 0..{self.vocabulary - 1}")
        return chosen


def _tables(logits: Any) -> list[Array]:
    if isinstance(logits, Mapping):
        return _from_mapping(logits)
    tables: list[Array] = []
    for t, table in enumerate(logits):
        array = np.asarray(table, dtype=float)
        size = tables[0].shape[1] if tables else array.shape[-1] if array.ndim else 0
        if size < 1 or array.size != size ** (t + 1):
            raise LabError(f"position {t + 1} has logits of shape {array.shape}; expected ({size}^{t}, {size})")
        tables.append(array.reshape(size**t, size))
        if array.size > MAX_LEAVES:
            raise LabError(f"{size}^{t + 1} sequences; a tabular policy holds at most {MAX_LEAVES}")
        if not np.isfinite(array).all():
            raise LabError(f"position {t + 1} holds logit {_first(array, ~np.isfinite(array))}; give finite numbers")
    if not tables:
        raise LabError("no logits: give one table a position")
    return tables


def _from_mapping(logits: Mapping[Prefix, Any]) -> list[Array]:
    if () not in logits:
        raise LabError("no logits for the empty prefix ()")
    size = len(logits[()])
    length = max(len(prefix) for prefix in logits) + 1
    tables = []
    for t in range(length):
        prefixes = np.ndindex(*(size,) * t)
        try:
            tables.append(
                np.array([np.asarray(logits[tuple(p)], dtype=float) for p in prefixes]).reshape(size**t, size)
            )
        except KeyError as error:
            raise LabError(f"no logits for the prefix {error.args[0]}; give every prefix of {t} tokens") from None
        except ValueError:
            raise LabError(f"prefixes of {t} tokens have logits of several lengths; expected {size} each") from None
    return _tables(tables)


def _logsumexp(rows: Array) -> Array:
    top = rows.max(-1, keepdims=True)
    return np.asarray(top + np.log(np.exp(rows - top).sum(-1, keepdims=True)))


def _first(values: Array, where: NDArray[np.bool_]) -> float:
    return float(values[where].ravel()[0])
