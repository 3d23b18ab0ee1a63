"""What a linear readout of the untrained model tells apart."""

from dataclasses import dataclass

Number = float | None


@dataclass(frozen=True)
class ReadoutRecord:
    """Harmful requests against harmless ones (`alarming` of them only sound harmful), scored on prompts the readout has not seen.

    `auc` in [0, 1]; `refused[k]` is the share of harmful requests that can be refused while a share `over_refusal[k]` of the
    harmless ones is refused with them. Intervals 90%, over prompts. `layers` `(folds,)` were chosen inside each training part.
    `doubling`: `auc` less that of half as many training prompts, what the last doubling brought; null in older files.
    """

    auc: Number
    low: Number
    high: Number
    over_refusal: list[float]
    refused: list[Number]
    refused_low: list[Number]
    refused_high: list[Number]
    layers: list[int]
    harmful: int
    harmless: int
    alarming: int
    doubling: Number = None
    doubling_low: Number = None
    doubling_high: Number = None
