"""A model in one piece: an adapter it came with merged before training, its shards gathered after it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from ..errors import AligntaxError
from ..models import LoadedModel
from ..models.checkpoint import one_line
from ..training import NullSpaceProjection, leak
from .protections import Protected, listed

if TYPE_CHECKING:
    from .align import AlignCommand

WHOLE = ("nullspace", "gradient", "directions", "kl")
"""Protections that read whole matrices, or run a backward pass of their own beside the trainer's."""


def merged(loaded: LoadedModel) -> LoadedModel:
    """`loaded` with the adapter it came with added to its weights; name, adapter and hash go on saying where they came from.

    A model that kept it apart would have its reference without it, for that is the model with adapters switched off.
    Raises AligntaxError for an adapter that cannot be added.
    """
    if loaded.adapter is None:
        return loaded
    model: Any = loaded.model
    try:
        whole = model.merge_and_unload(safe_merge=True)
    except (AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
        raise AligntaxError(
            f"adapter {loaded.adapter!r} cannot be merged into its base ({one_line(error)}); give a LoRA-like adapter"
        ) from error
    return replace(loaded, model=whole.eval().requires_grad_(False))


def start_reference(trainer: Any, loaded: LoadedModel) -> None:
    """Let the trainer's reference begin where the model does; TRL builds it from the files of the bare base.

    Raises AligntaxError where it is split over processes already.
    """
    reference = getattr(trainer, "ref_model", None)
    if loaded.adapter is None or reference is None:
        return
    if engine := sharding(trainer):
        raise AligntaxError(
            f"adapter {loaded.adapter!r}: {engine} has split the reference of --method {type(trainer).__name__[:4].lower()} "
            "before the adapter is in it; add --lora, or merge the adapter into a folder first"
        )
    reference.load_state_dict(loaded.model.state_dict())


def sharding(trainer: Any) -> str:
    """The engine that splits weights or the backward pass over processes; empty where every process holds the whole model."""
    if trainer.is_fsdp_enabled:
        return "FSDP"
    return "DeepSpeed" if trainer.is_deepspeed_enabled else ""


def check_sharding(trainer: Any, command: AlignCommand, protected: Protected) -> None:
    """Raises AligntaxError, before anything is trained, for an option that needs the whole model on every process."""
    engine = sharding(trainer)
    asked = [f"--protect {name}" for name in listed(command.protect) if name in (*WHOLE, "safety")]
    asked += ["--depth recovery"] * (command.depth == "recovery") + ["--tax-every"] * (command.tax_every > 0)
    if engine and (asked or protected.callbacks):
        raise AligntaxError(
            f"{', '.join(asked)}: needs the whole model on every process, which {engine} splits; launch with plain data "
            "parallelism (torchrun, or accelerate launch --multi_gpu), or leave it out"
        )


def gathered(trainer: Any, command: AlignCommand) -> Any:
    """The trained model in one piece on the first process, None on the others; all call it, for each gives its shards."""
    engine, first = sharding(trainer), trainer.args.process_index == 0
    if not engine:
        return trainer.accelerator.unwrap_model(trainer.model) if first else None
    state = trainer.accelerator.get_state_dict(trainer.deepspeed if engine == "DeepSpeed" else trainer.model)
    return rebuilt(trainer.accelerator.unwrap_model(trainer.model), state, command) if first else None


def rebuilt(inner: Any, state: dict[str, Tensor], command: AlignCommand) -> Any:
    """A model like `inner`, adapters included, that holds the weights of `state`. Raises AligntaxError where some are missing."""
    plans = getattr(inner, "peft_config", None)
    config = (inner.get_base_model() if plans else inner).config
    kind: Any = AutoModelForSequenceClassification if command.method == "reward" else AutoModelForCausalLM
    model: Any = kind.from_config(config, dtype=torch.float32, trust_remote_code=command.trust_remote_code)
    if plans:
        import peft

        model = peft.get_peft_model(model, next(iter(plans.values())))
        others = [f".{name}." for name in [*plans][1:]]  # TRL may keep the start as an adapter of its own
        state = {name: value for name, value in state.items() if not any(other in name for other in others)}
    lacking, unknown = model.load_state_dict(state, strict=False)
    held = {p.data_ptr() for name, p in model.named_parameters(remove_duplicate=False) if name not in lacking}
    lost = [name for name in lacking if model.state_dict()[name].data_ptr() not in held]  # tied ones have another name
    if lost or unknown:
        raise AligntaxError(
            f"gathered weights do not fit the model, first {[*lost, *unknown][0]!r}; nothing is released"
        )
    return model.eval()


def rounded_leak(guard: NullSpaceProjection, trained: PreTrainedModel, dtype: torch.dtype) -> dict[str, float]:
    """Leak of every protected layer once its weights are rounded to the saved number type, adapters merged; see `leak`."""
    found = {}
    for name, subspace in guard.subspaces.items():
        change = _saved_change(guard, trained, name, dtype)
        if change is not None:
            found[name] = leak(change, subspace)
    return found


def _saved_change(guard: NullSpaceProjection, trained: Any, name: str, dtype: torch.dtype) -> Tensor | None:
    """`(d_out, d_in)`: weights as they are saved, less those that the run started from; None for a layer that was not trained."""
    adapted = hasattr(trained, "peft_config")
    module: Any = trained.get_submodule(f"base_model.model.{name}" if adapted else name)
    with torch.no_grad():
        if name in guard.starts:
            return guard.upright(name, module.weight.to(dtype).float() - guard.starts[name])
        if not hasattr(module, "lora_A"):
            return None
        base: nn.Module = module.base_layer
        start = base.get_parameter("weight")
        after = start + sum(module.get_delta_weight(adapter) for adapter in module.active_adapters)
        change = after.to(dtype).float() - start
        return change.T if type(base).__name__ == "Conv1D" else change
