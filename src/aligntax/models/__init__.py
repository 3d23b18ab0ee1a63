"""Loading models, finding their parts, editing them for the length of a `with`, and scoring tokens lean."""

from aligntax.models.blocks import (
    backbone,
    decoder_blocks,
    embedding_device,
    final_norm,
    repack,
    text_config,
    unembedding,
    unpack,
)
from aligntax.models.checkpoint import resolve
from aligntax.models.decoding import Rollout
from aligntax.models.embedded import EMBEDDED, Embedded, cache_dir, fetch, is_cached
from aligntax.models.hidden_logits import (
    TokenLogprobs,
    answer_logprobs,
    check_head,
    final_hidden,
    logits_of,
    position_ids,
    target_logprobs,
)
from aligntax.models.hooks import add_shift, capture_outputs, returns_tuple, start_after
from aligntax.models.load import LoadedModel, ModelSpec, check_finite, load
from aligntax.models.prefix import SharedPrefix, can_branch, can_cut, can_share, common_length
from aligntax.models.rollouts import Start, roll_out, top_tokens
from aligntax.models.tree import Tree, plant

__all__ = [
    "EMBEDDED",
    "Embedded",
    "LoadedModel",
    "ModelSpec",
    "Rollout",
    "SharedPrefix",
    "Start",
    "TokenLogprobs",
    "Tree",
    "add_shift",
    "answer_logprobs",
    "backbone",
    "cache_dir",
    "can_branch",
    "can_cut",
    "can_share",
    "capture_outputs",
    "check_finite",
    "check_head",
    "common_length",
    "decoder_blocks",
    "embedding_device",
    "fetch",
    "final_hidden",
    "final_norm",
    "is_cached",
    "load",
    "logits_of",
    "plant",
    "position_ids",
    "repack",
    "resolve",
    "returns_tuple",
    "roll_out",
    "start_after",
    "target_logprobs",
    "text_config",
    "top_tokens",
    "unembedding",
    "unpack",
]
