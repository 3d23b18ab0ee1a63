"""How much the aligned model differs from its base at each position of a response, and how early that ends.

The estimand (theory 4.8) is `D_t = E KL(aligned(.|y_<t) | base(.|y_<t))` in nats, over responses that reach position `t`. On the
aligned model's own samples `sum_t D_t` is the KL of whole responses; on forced text (the same text for both) it is not, and the
result says which it is. First-token KL alone hides damage and so does a short response: positions and tokens are counted.

Not claimed: that a share of KL depends on the models alone. It is a share of what was read, so the length stands beside it.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aligntax.audit.prompt_draws import DRAWS, LEVEL, Array, Band, PromptDraws
from aligntax.audit.reading import PairReading
from aligntax.depth import KlProfile
from aligntax.errors import AligntaxError
from aligntax.stats import Estimate

Text = Literal["aligned", "forced"]
Direction = Literal["forward", "reverse"]

QUANTILES = (0.1, 0.5, 0.9)
FIRST = 5
REACH = 0.95


@dataclass(frozen=True, eq=False)
class KlByPosition:
    """KL in nats at position `1..T` of `n` responses; `forward` `(n, T)` is `KL(aligned | base)`, nan beyond a response.

    `text`: "aligned" where the aligned model wrote the responses, "forced" where both models read given text.
    """

    forward: Array
    reverse: Array
    prompts: NDArray[np.int64]
    text: Text

    @property
    def position(self) -> NDArray[np.int64]:
        """`1..T` `(T,)`."""
        return np.arange(1, self.forward.shape[1] + 1)

    @property
    def count(self) -> NDArray[np.int64]:
        """Responses that reach each position `(T,)`."""
        return np.asarray((~np.isnan(self.forward)).sum(axis=0))

    @property
    def tokens(self) -> int:
        """Positions that entered, over all responses."""
        return int(self.count.sum())

    def nats(self, direction: Direction = "forward") -> Array:
        """`(n, T)` KL of one direction."""
        return self.forward if direction == "forward" else self.reverse

    def mean(self, direction: Direction = "forward") -> Array:
        """`D_t` `(T,)` over responses that reach the position."""
        return _nanmean(self.nats(direction))

    def quantiles(self, levels: tuple[float, ...] = QUANTILES, direction: Direction = "forward") -> Array:
        """`(levels, T)` over prompts; a prompt's responses are averaged first."""
        values = self.nats(direction)
        by_prompt = np.array([_nanmean(values[self.prompts == x]) for x in np.unique(self.prompts)])
        return np.asarray(np.nanquantile(by_prompt, levels, axis=0))

    def profile(self) -> KlProfile:
        """Sums and counts by position, which merge over sets of responses."""
        return KlProfile(np.nansum(self.forward, axis=0), self.count, self.text)


@dataclass(frozen=True, eq=False)
class KlSummary:
    """A profile in numbers. `mean` `(T,)` with its interval over prompts; `first` is the share of all nats read that fall on the
    first `first_tokens`; `reach` the number of tokens by which the share `level` has fallen.

    Both are shares of nats summed over responses, of `longest` positions at most. nan where there is no KL or it is infinite;
    `infinite` counts the positions where it is.
    """

    mean: Band
    first: Estimate
    reach: Estimate
    first_tokens: int
    level: float
    total: Estimate
    infinite: int
    responses: int
    prompts: int
    tokens: int
    longest: int
    text: Text


def kl_by_position(reading: PairReading, text: Text) -> KlByPosition:
    """The profile of one reading; `text` says who wrote its responses. Raises AligntaxError for another word."""
    if text not in ("aligned", "forced"):
        raise AligntaxError(f"text={text!r}; say 'aligned' (the aligned model's own samples) or 'forced' (given text)")
    return KlByPosition(reading.forward, reading.reverse, reading.prompts, text)


def summarise_kl(
    profile: KlByPosition,
    rng: np.random.Generator,
    direction: Direction = "forward",
    first: int = FIRST,
    level: float = REACH,
    draws: int = DRAWS,
) -> KlSummary:
    """Share of KL in the first tokens and where `level` of it is reached, with intervals over prompts (5% to 95%).

    `total` is nats a response. Raises AligntaxError for `first < 1` or a level outside (0, 1].
    """
    if first < 1 or not 0 < level <= 1:
        raise AligntaxError(f"first={first}, level={level}; give at least 1 token and a share in (0, 1]")
    values = profile.nats(direction)
    resampled = PromptDraws.make(profile.prompts, rng, draws, LEVEL)
    sums, rows = resampled.sums(values), resampled.sums(np.ones(len(values)))
    whole, drawn = sums.sum(axis=0)[None], resampled.weights @ sums
    return KlSummary(
        mean=resampled.band(values),
        first=resampled.estimate(float(_first_share(whole, first)[0]), _first_share(drawn, first)),
        reach=resampled.estimate(float(reached_by(whole, level)[0]), reached_by(drawn, level)),
        first_tokens=first,
        level=level,
        total=resampled.estimate(float(whole.sum() / rows.sum()), drawn.sum(axis=1) / (resampled.weights @ rows)),
        infinite=int(np.isinf(values).sum()),
        responses=len(values),
        prompts=resampled.prompts,
        tokens=profile.tokens,
        longest=values.shape[1],
        text=profile.text,
    )


def reached_by(sums: Array, level: float = REACH) -> Array:
    """First position `1..T` by which the share `level` of each row of `sums` `(k, T)` (>= 0) has accumulated, `(k,)`.

    nan for a row that sums to 0 or is not finite.
    """
    running = np.cumsum(sums, axis=1)
    total = running[:, -1:]
    at = 1.0 + np.argmax(running >= level * total * (1 - 1e-12), axis=1)
    return np.where((np.isfinite(total) & (total > 0))[:, 0], at, math.nan)


def _first_share(sums: Array, first: int) -> Array:
    total = sums.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.isfinite(total) & (total > 0), sums[:, :first].sum(axis=1) / total, math.nan)


def _nanmean(values: Array) -> Array:
    count = (~np.isnan(values)).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(count > 0, np.nansum(values, axis=0) / count, math.nan))
