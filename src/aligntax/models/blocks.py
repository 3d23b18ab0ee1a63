"""Where the parts of a decoder-only model sit. The only file that knows about model families.

Nothing here asks for a class: parts are found by structure (which list is as long as the config says the model is
deep, which part sits beside it), so that a family nobody has written down yet works, and a wrong guess is an error.
"""

from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from aligntax.errors import ModelError


def text_config(model: PreTrainedModel) -> Any:
    """Configuration of the language part: the model's own, or the text part of a multimodal one (Gemma 3)."""
    config: Any = model.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def decoder_blocks(model: PreTrainedModel, path: str | None = None) -> nn.ModuleList:
    """The list of decoder blocks, first to last; works for plain, multimodal and PEFT-wrapped models.

    Of all module lists as long as `config.num_hidden_layers`, the one that shares the longest path with the token
    embedding (a vision tower may be as deep), then the one nearest the root (experts may be as many as blocks).
    `path` overrides the search with a dotted path such as `"model.layers"`.
    Raises ModelError when nothing fits.
    """
    if path is not None:
        return _block_list_at(model, path)
    depth = getattr(text_config(model), "num_hidden_layers", None)
    lists = {name: part for name, part in model.named_modules() if isinstance(part, nn.ModuleList)}
    fitting = [name for name, part in lists.items() if len(part) == depth]
    if not fitting:
        seen = ", ".join(f"{name}[{len(part)}]" for name, part in lists.items() if len(part) > 1) or "none"
        raise ModelError(
            f"no list of {depth} decoder blocks in {type(model).__name__} (lists seen: {seen[:300]}); "
            "give the dotted path of the blocks"
        )
    home = _path_of(model, model.get_input_embeddings()).split(".")
    return lists[min(fitting, key=lambda name: (-_shared(name.split("."), home), name.count(".")))]


def unpack(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The activation `(B, T, d)` in what a block returned: a tensor, or a tuple or list that begins with it."""
    return output[0] if isinstance(output, tuple | list) else output


def repack(output: Tensor | tuple[Tensor, ...], activation: Tensor) -> Tensor | tuple[Tensor, ...]:
    """What the block returned, with its activation replaced; the inverse of `unpack`."""
    return type(output)((activation, *output[1:])) if isinstance(output, tuple | list) else activation


def embedding_device(model: PreTrainedModel) -> torch.device:
    """Device of the token embedding, where input ids belong; "meta" when its weights are offloaded."""
    return next(model.get_input_embeddings().parameters()).device


def unembedding(model: PreTrainedModel) -> nn.Module:
    """The module that maps the final hidden state `(.., d)` to logits `(.., vocab)`; ModelError when there is none."""
    get_head: Any = model.get_output_embeddings  # PEFT's forwarding hides its type
    head = get_head()
    if head is None:
        raise ModelError(f"{type(model).__name__} has no language-model head; load a causal language model")
    return head


def backbone(model: PreTrainedModel) -> nn.Module:
    """The model without its head: token ids in, `last_hidden_state` after the final norm out."""
    wrapped: Any = model
    plain = wrapped.get_base_model() if hasattr(model, "get_base_model") else model
    inner = plain.base_model
    if inner is plain:
        raise ModelError(f"{type(plain).__name__} has no separate transformer under its head")
    return inner


def final_norm(model: PreTrainedModel) -> nn.Module:
    """The normalisation between the last block and the head: the last norm beside the list of blocks.

    Recognised by its class name, since OLMo's has no parameters to recognise it by. Raises ModelError when absent.
    """
    blocks_path = _path_of(model, decoder_blocks(model))
    parent = model.get_submodule(blocks_path.rpartition(".")[0])
    norms = [child for child in parent.children() if "norm" in type(child).__name__.lower()]
    if not norms:
        raise ModelError(f"no final normalisation beside {blocks_path} in {type(model).__name__}")
    return norms[-1]


def finish_logits(model: PreTrainedModel, raw: Tensor) -> Tensor:
    """What the family does to the head's output before it calls it logits: scaling, then soft capping.

    Granite divides by `logits_scaling`, Cohere multiplies by `logit_scale`, Gemma 2 applies `c tanh(x / c)` with
    `c = final_logit_softcapping`. `check_head` tests a loaded model for anything else.
    """
    config = text_config(model)
    divisor = getattr(config, "logits_scaling", None)
    factor = getattr(config, "logit_scale", None)
    cap = getattr(config, "final_logit_softcapping", None)
    logits = raw if divisor is None else raw / divisor
    logits = logits if factor is None else logits * factor
    return logits if cap is None else cap * torch.tanh(logits / cap)


def _block_list_at(model: PreTrainedModel, path: str) -> nn.ModuleList:
    try:
        found = model.get_submodule(path)
    except AttributeError as missing:
        raise ModelError(f"no module at {path!r} in {type(model).__name__}; give the dotted path of the blocks") from (
            missing
        )
    if not isinstance(found, nn.ModuleList):
        raise ModelError(f"{path!r} in {type(model).__name__} is a {type(found).__name__}, not a list of blocks")
    return found


def _path_of(model: PreTrainedModel, part: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is part)


def _shared(left: list[str], right: list[str]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
