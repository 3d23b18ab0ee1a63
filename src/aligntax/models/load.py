"""A model as the survey needs it: frozen, in eval mode, with a tokenizer and the facts that identify it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from aligntax.errors import ModelError, NonFiniteError
from aligntax.models import embedded
from aligntax.models.blocks import decoder_blocks, embedding_device, text_config
from aligntax.models.checkpoint import Checkpoint, one_line, parameter_count, resolve, weights_sha256
from aligntax.models.gguf import read_gguf
from aligntax.models.hidden_logits import check_head
from aligntax.models.quiet import quiet

GPU_SHARE = 0.8
"""Share of one GPU's free memory that weights may take before they are spread over all devices."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_FAILURES = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, AttributeError, SafetensorError)


@dataclass(frozen=True)
class ModelSpec:
    """Which model, and how to hold it.

    `name` is a Hub id, a folder, a folder with a PEFT adapter, a .gguf file, or the name of an embedded model;
    `revision` a Hub branch, tag or commit of it; `adapter` a PEFT adapter (folder or Hub id) to put on it.
    """

    name: str
    revision: str | None = None
    adapter: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    trust_remote_code: bool = False


@dataclass(frozen=True)
class LoadedModel:
    """A frozen model with its tokenizer and its identity.

    `name` and `adapter` are what the user typed; `source` is 'embedded', 'folder', 'hub' or 'gguf'; `revision` the
    Hub commit if known; `weights_sha256` covers base and adapter; `context_length` in tokens, None when unbounded.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: str
    revision: str | None
    weights_sha256: str
    dtype: torch.dtype
    device: torch.device
    context_length: int | None
    adapter: str | None


def load(spec: ModelSpec) -> LoadedModel:
    """Load, freeze and check a model: weights complete and finite, blocks and head found, logits understood.

    dtype 'auto' is bfloat16 on a GPU that computes in it and float32 otherwise. On CPUs float32 stays even where
    bfloat16 instructions exist and a forward pass is up to 3x faster: a survey lives on small differences, and on
    the embedded model rounding turns the difference in means of the first layers by up to 16 degrees. device 'auto'
    is cuda if there is one, else cpu; weights that need more than 80% of one GPU's free memory are spread by
    accelerate. Code shipped with a checkpoint runs only when asked for.
    Raises ModelError (NonFiniteError for NaN or infinity) in one line.
    """
    device = resolve_device(spec.device)
    dtype = resolve_dtype(spec.dtype, device)
    found = resolve(spec.name, spec.revision, spec.adapter, spec.trust_remote_code)
    files = found.weight_files()
    with quiet():
        placement = _placement(spec.device, device, parameter_count(files) * dtype.itemsize)
        model, tokenizer = _read(spec, found, dtype, placement)
    model.eval().requires_grad_(False)
    _prepare_tokenizer(tokenizer, model, spec.name)
    check_finite(model)
    decoder_blocks(model)
    check_head(model)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        name=spec.name,
        source=found.source,
        revision=found.revision,
        weights_sha256=_identity(found, files),
        dtype=dtype,
        device=embedding_device(model),
        context_length=_context_length(model, tokenizer),
        adapter=spec.adapter or (spec.name if found.adapter else None),
    )


def resolve_device(wanted: str) -> torch.device:
    """The device for 'auto' (cuda, else cpu; never mps, whose kernels lack float64) or for a given name."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {wanted!r} cannot be used ({one_line(error)}); try auto or cpu") from error
    return device


def resolve_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """The dtype for 'auto' (bfloat16 on a GPU that computes in it, else float32) or for a given name."""
    if wanted == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    if wanted not in _DTYPES:
        raise ModelError(f"dtype {wanted!r} is unknown; choose auto, {', '.join(_DTYPES)}")
    return _DTYPES[wanted]


def check_finite(model: nn.Module) -> None:
    """Raise NonFiniteError naming the first parameter with NaN or infinity; offloaded weights are not looked at."""
    for name, parameter in model.named_parameters():
        if parameter.device.type == "meta" or parameter.numel() == 0:
            continue
        # Extremes carry NaN along and need no mask as large as the weights.
        low, high = torch.aminmax(parameter.detach())
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            raise NonFiniteError(f"parameter {name} holds NaN or infinity; the checkpoint is damaged, fetch it again")


def _placement(wanted: str, device: torch.device, weight_bytes: int) -> str | dict[str, torch.device]:
    if device.type == "cuda" and wanted in ("auto", "cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        if weight_bytes > GPU_SHARE * free:
            return "auto"
    return {"": device}


def _read(
    spec: ModelSpec, found: Checkpoint, dtype: torch.dtype, placement: str | dict[str, torch.device]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if found.gguf:
        model, tokenizer = read_gguf(found.gguf, dtype)
        if isinstance(placement, str):
            raise ModelError(
                f"{spec.name!r} does not fit one GPU once dequantised; give its safetensors, or device cpu"
            )
        cast(PreTrainedModel, nn.Module.to(model, placement[""]))
    else:
        model = _read_folder(spec, found.folder, dtype, placement)
        tokenizer = None
    if found.adapter:
        model = _with_adapter(model, found.adapter)
    own = found.adapter if found.adapter and (found.adapter / "tokenizer_config.json").is_file() else None
    if own or tokenizer is None:
        tokenizer = _read_tokenizer(spec, own or found.folder)
    return model, tokenizer


def _read_folder(
    spec: ModelSpec, folder: Path, dtype: torch.dtype, placement: str | dict[str, torch.device]
) -> PreTrainedModel:
    try:
        # Typed Any: with output_loading_info the call returns a pair its annotation does not know.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map=placement,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=spec.trust_remote_code,
            output_loading_info=True,
        )
    except _FAILURES as error:
        raise ModelError(f"cannot load model {spec.name!r} ({one_line(error)})" + _remote_hint(spec, error)) from error
    model, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"model {spec.name!r} lacks {len(missing)} weights, first {missing[0]!r}, which would be random; "
            "give a complete checkpoint of a causal language model"
        )
    return model


def _with_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    # peft takes a second to import, and most surveys have no adapter.
    from peft import PeftConfig, PeftModel

    try:
        config = PeftConfig.from_pretrained(str(folder))
        if config.is_prompt_learning:
            raise ModelError(
                f"adapter {folder.name!r} learns prompts, not weights; give a LoRA-like adapter or merge it"
            )
        # Everything asked of a model here, a wrapped one passes on to the model inside.
        return cast(PreTrainedModel, PeftModel.from_pretrained(model, str(folder), config=config, is_trainable=False))
    except ModelError:
        raise
    except _FAILURES as error:
        raise ModelError(f"cannot put adapter {folder.name!r} on its base ({one_line(error)})") from error


def _read_tokenizer(spec: ModelSpec, folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=spec.trust_remote_code, use_fast=True
        )
    except _FAILURES as error:
        raise ModelError(
            f"cannot load the tokenizer of {spec.name!r} ({one_line(error)}); save it beside the model"
            + _remote_hint(spec, error)
        ) from error


def _prepare_tokenizer(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, name: str) -> None:
    """Make batches possible: padding is masked everywhere, so any known token will do to fill it."""
    rows = next(model.get_input_embeddings().parameters()).shape[0]
    if len(tokenizer) > rows:
        raise ModelError(f"tokenizer of {name!r} knows {len(tokenizer)} tokens, the model {rows}; they do not match")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)


def _identity(found: Checkpoint, files: tuple[Path, ...]) -> str:
    if found.source == "embedded" and found.adapter is None:
        return embedded.stored_sha256(found.folder)
    return weights_sha256(files)


def _context_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    limit = getattr(text_config(model), "max_position_embeddings", None) or tokenizer.model_max_length
    # Tokenizers that know no limit say 10^30.
    return int(limit) if limit < 10**9 else None


def _remote_hint(spec: ModelSpec, error: BaseException) -> str:
    asks = "trust_remote_code" in str(error) and not spec.trust_remote_code
    return "; it brings its own code, which runs only with trust_remote_code" if asks else ""
