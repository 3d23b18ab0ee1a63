"""What a survey says about several safety objectives: every pair, and all together (theory 3.1-3.7)."""

from dataclasses import dataclass, field

Number = float | None


@dataclass(frozen=True)
class Conflict:
    """Two safety objectives (theory 3.1-3.7) at the selected layer; `case` in words.

    rho: cosine, debiased for noise; rho_plain: of the mean directions as they are; rho_eff: of the means with tasks
    protected, to be compared with rho_plain. tax_*: share of each objective that the tasks take. margin:
    `rho (1 - D) - a^T G^+ b`, above 0 exactly where protecting helps. equal_normalised_gain: the share of its own
    reduced maximum that both can have; gain_first/second what that is. equal_absolute_gain: the most both can have;
    absolute_loss: what protecting takes from it. Gains are lengths along unit directions (activation units) at 0.1 nat
    of the surveyed safety shift. frontier: pairs of normalised gains, efficient part only. preserve: the tasks whose
    protection helps most, preserve_gain what it adds to rho_eff, preserve_gain_heldout the same with tasks chosen on half
    of the items and scored on the other half. Undefined numbers are None and `note` says why.
    """

    first: str
    second: str
    rho: Number
    rho_low: Number
    rho_high: Number
    rho_eff: Number
    rho_eff_low: Number
    rho_eff_high: Number
    tax_first: Number
    tax_second: Number
    equal_normalised_gain: Number
    equal_absolute_gain_per_decinat: Number
    absolute_loss_per_decinat: Number
    case: str
    preserve: list[str]
    rho_plain: Number = None
    rho_plain_low: Number = None
    rho_plain_high: Number = None
    tax_first_low: Number = None
    tax_first_high: Number = None
    tax_second_low: Number = None
    tax_second_high: Number = None
    margin: Number = None
    margin_low: Number = None
    margin_high: Number = None
    equal_normalised_gain_low: Number = None
    equal_normalised_gain_high: Number = None
    gain_first_per_decinat: Number = None
    gain_first_low: Number = None
    gain_first_high: Number = None
    gain_second_per_decinat: Number = None
    gain_second_low: Number = None
    gain_second_high: Number = None
    equal_absolute_gain_low: Number = None
    equal_absolute_gain_high: Number = None
    absolute_loss_low: Number = None
    absolute_loss_high: Number = None
    frontier: list[list[float]] = field(default_factory=list)
    preserve_gain: Number = None
    preserve_gain_heldout: Number = None
    preserve_loss_per_decinat: Number = None
    preserve_exact: bool = True
    note: str = ""

    @property
    def decided(self) -> bool:
        """True where the interval of `margin` leaves out 0, so that the case is more than noise."""
        low, high = self.margin_low, self.margin_high
        return low is not None and high is not None and (low > 0 or high < 0)


@dataclass(frozen=True)
class JointConflict:
    """Three or more safety objectives at once, tasks protected (theory 3.3, 3.5).

    `correlations` `(k, k)` are effective; `weights` `(k,)` say which objectives bind the equal gain (0: does not bind).
    Units as in `Conflict`.
    """

    objectives: list[str]
    correlations: list[list[Number]]
    weights: list[Number]
    equal_normalised_gain: Number
    equal_normalised_gain_low: Number
    equal_normalised_gain_high: Number
    equal_absolute_gain_per_decinat: Number
    equal_absolute_gain_low: Number
    equal_absolute_gain_high: Number
    absolute_loss_per_decinat: Number
    absolute_loss_low: Number
    absolute_loss_high: Number
    note: str = ""
