"""Read a GGUF file into an ordinary model: dequantised weights, no trace of the quantised format."""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from aligntax.errors import ModelError


def read_gguf(path: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer of a GGUF file; the chat template and the end tokens come along.

    transformers marks a model it read from GGUF as quantised and refuses to save it, so the weights are moved into a
    model built afresh from the configuration. Raises ModelError when the file cannot be read.
    """
    where: dict[str, Any] = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    where["local_files_only"] = True
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        config = AutoConfig.from_pretrained(**where)
        loaded = AutoModelForCausalLM.from_pretrained(**where, dtype=dtype)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")
        raise ModelError(f"cannot read GGUF file {path.name!r} ({reason}); give another file or a folder") from error
    plain = AutoModelForCausalLM.from_config(config, dtype=dtype)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = copy.deepcopy(loaded.generation_config)
    return plain.eval(), tokenizer
