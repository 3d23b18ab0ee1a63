"""Probing: one shard in, one mergeable statistic out. The only room that runs a model forward and backward."""

from .activations import answer_activations, mean_outputs, tail_activations
from .batches import Batch, Row, TokenBudget, collate, run_batches, token_batches, tokens_of
from .controls import control_gradients, control_targets
from .divergence import Calibrated, KlMeter
from .fisher import fisher_draws, response_length
from .gradients import ItemGradients, Probe, item_gradients, item_values, row_gradients, sum_rows
from .linear_inputs import InputMoments, input_moments, linear_layers
from .metrics import Metric, answer_metric, callable_metric, refusal_metric
from .progress import Meter, PhaseTime
from .replies import (
    STANDARD_OPENINGS,
    flat_ids,
    generate,
    opens_refusal,
    reply_rows,
    rows_from_arrays,
    rows_to_arrays,
    split_ids,
)
from .resume import FromLayer
from .shards import ShardStore, fingerprint
from .shiftable import KINDS, Sinks, find_sinks, shift_mask

__all__ = [
    "KINDS",
    "STANDARD_OPENINGS",
    "Batch",
    "Calibrated",
    "FromLayer",
    "InputMoments",
    "ItemGradients",
    "KlMeter",
    "Meter",
    "Metric",
    "PhaseTime",
    "Probe",
    "Row",
    "ShardStore",
    "Sinks",
    "TokenBudget",
    "answer_activations",
    "answer_metric",
    "callable_metric",
    "collate",
    "control_gradients",
    "control_targets",
    "find_sinks",
    "fingerprint",
    "fisher_draws",
    "flat_ids",
    "generate",
    "input_moments",
    "item_gradients",
    "item_values",
    "linear_layers",
    "mean_outputs",
    "opens_refusal",
    "refusal_metric",
    "reply_rows",
    "response_length",
    "row_gradients",
    "rows_from_arrays",
    "rows_to_arrays",
    "run_batches",
    "shift_mask",
    "split_ids",
    "sum_rows",
    "tail_activations",
    "token_batches",
    "tokens_of",
]
