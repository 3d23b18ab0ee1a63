"""Mean hidden states of texts, over the positions that a shift of the probe's kind reaches: what a realised shift is read from."""

from collections.abc import Sequence

import numpy as np

from aligntax.probing import Probe, Row, mean_outputs, shift_mask


def mean_states(probe: Probe, rows: Sequence[Row]) -> np.ndarray:
    """Mean block output `(n, L, d)` float32 of each row over the positions of `shift_mask`: no padding, no sinks.

    A cosine with a direction, or a first-order change from a gradient, is formed only of states of the same kind as that direction
    (theory 1.18); a row without such a position is 0.
    """
    return mean_outputs(probe, rows, lambda batch: shift_mask(batch, probe.shift, probe.sinks))
