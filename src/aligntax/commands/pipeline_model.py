"""A tiny language model of the small world: its tokenizer, its architecture at a width, and its pretraining.

Pretraining is the ordinary Trainer of transformers over packed blocks; what it writes is a plain Hugging Face folder that every
other command reads.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch.utils.data import Dataset
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import get_last_checkpoint

from ..errors import AligntaxError
from ..lab.world import World, documents, words
from ..models.quiet import quiet as hushed
from ..training import StopOnNonFinite
from .trainers import BareProgress

LAYERS, HEADS, CONTEXT = 4, 4, 256
BLOCK = 128
SPECIALS = ("<pad>", "<start>", "<end>", "<unk>", "<user>", "<assistant>", "<system>")
PAD, START, END, UNK, USER, ASSISTANT = range(6)
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<' + message['role'] + '> ' + message['content'] + ' ' + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


@functools.cache
def vocabulary() -> dict[str, int]:
    """Word -> id, special tokens first."""
    return {word: number for number, word in enumerate((*SPECIALS, *words()))}


def world_tokenizer() -> PreTrainedTokenizerFast:
    """The world's tokenizer: one id a word, lower case, punctuation apart, with a chat template."""
    tokenizer = Tokenizer(models.WordLevel(vocabulary(), unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    tokenizer.add_special_tokens(list(SPECIALS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<start>", eos_token="<end>", unk_token="<unk>",
        additional_special_tokens=["<user>", "<assistant>", "<system>"], padding_side="left", chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False, model_max_length=CONTEXT,
    )  # fmt: skip


def check_width(width: int) -> None:
    """Raises AligntaxError for a width that 4 heads do not divide into even shares (rotary positions come in pairs)."""
    if width < 2 * HEADS or width % (2 * HEADS):
        raise AligntaxError(
            f"--width {width} is not divisible by {HEADS} heads into even shares; "
            f"give a multiple of {2 * HEADS}, such as {max(2 * HEADS, round(width / (2 * HEADS)) * 2 * HEADS)}"
        )


def parameter_count(width: int) -> int:
    """Weights of `tiny_model(width)`, embeddings and head included."""
    per_layer = 4 * width * width + 9 * width * width + 2 * width
    return 2 * len(vocabulary()) * width + LAYERS * per_layer + width


def tiny_model(width: int, seed: int = 0, vocabulary_size: int | None = None) -> PreTrainedModel:
    """A random Llama of 4 layers and 4 heads, float32, the same for the same seed. Raises AligntaxError as `check_width` does."""
    check_width(width)
    config = LlamaConfig(
        vocab_size=vocabulary_size or len(vocabulary()), hidden_size=width, intermediate_size=3 * width,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=CONTEXT,
        pad_token_id=PAD, bos_token_id=START, eos_token_id=END, tie_word_embeddings=False, attention_dropout=0.0,
        initializer_range=0.5 / width**0.5,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config.max_length = None
    return model


def encode_documents(world: World, tokens: int, seed: int = 0) -> np.ndarray:
    """Documents of the world as one stream of at least `tokens` ids, `(tokens,)` int16, cut there."""
    known, found = vocabulary(), list[int]()
    for document in documents(world, seed):
        text = [known[word] for word in document.text.split()]
        if document.reply is None:
            found += [START, *text, END]
        else:
            found += [START, USER, *text, END, ASSISTANT, *(known[word] for word in document.reply.split()), END]
        if len(found) >= tokens:
            break
    return np.array(found[:tokens], dtype=np.int16)


class PackedBlocks(Dataset):
    """A stream of ids cut into blocks of 128, each its own labels."""

    def __init__(self, stream: np.ndarray) -> None:
        self.blocks = torch.from_numpy(stream[: len(stream) // BLOCK * BLOCK].reshape(-1, BLOCK).astype(np.int64))

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.blocks[index], "labels": self.blocks[index]}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        batch = self.blocks[list(indices)]
        return {"input_ids": batch, "labels": batch}


@dataclass(frozen=True)
class Pretraining:
    """How long and how fast: `tokens` in all, `batch` blocks of 128 a step, peak learning rate with 5% warm-up and cosine decay."""

    tokens: int = 3_000_000
    batch: int = 16
    learning_rate: float = 3e-3
    seed: int = 0
    save_every: int = 200

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return max(1, self.tokens // (self.batch * BLOCK))


@dataclass(frozen=True)
class Pretrained:
    """A finished pretraining: the folder, tokens processed in it, seconds, tokens per second, and the loss by logged step."""

    folder: Path
    tokens: int
    seconds: float
    losses: tuple[tuple[int, float], ...]

    @property
    def tokens_per_second(self) -> float:
        """Speed of the steps that this call ran; nan where it found the work done."""
        return self.tokens / self.seconds if self.seconds > 0 else float("nan")


def pretrain(
    world: World, width: int, folder: Path, plan: Pretraining = Pretraining(), quiet: bool = True
) -> Pretrained:
    """Train `tiny_model(width, plan.seed)` on the world's documents and write a plain checkpoint folder.

    Trainer states lie in `folder/../<name>.state`, so a killed call goes on where it was; a finished folder is left alone.
    The documents depend on the world and the plan's seed, not on the width. Raises AligntaxError as `tiny_model` does.
    """
    model = tiny_model(width, plan.seed)
    if (folder / "model.safetensors").exists():
        return Pretrained(folder, 0, 0.0, ())
    state = folder.parent / f"{folder.name}.state"
    blocks = PackedBlocks(encode_documents(world, plan.steps * plan.batch * BLOCK, plan.seed))
    trainer = Trainer(
        model=model, args=_arguments(plan, state, quiet), train_dataset=blocks, data_collator=_stacked,
        callbacks=[StopOnNonFinite()],
    )  # fmt: skip
    _hush(trainer)
    began, last = time.perf_counter(), get_last_checkpoint(str(state)) if state.is_dir() else None
    done = int(last.rpartition("-")[2]) if last else 0
    with hushed():
        trainer.train(resume_from_checkpoint=last)
        seconds = time.perf_counter() - began
        write_checkpoint(model, folder)
    losses = tuple((int(e["step"]), float(e["loss"])) for e in trainer.state.log_history if "loss" in e)
    return Pretrained(folder, (plan.steps - done) * plan.batch * BLOCK, seconds, losses)


def write_checkpoint(model: Any, folder: Path) -> None:
    """Model and tokenizer as a plain folder, whole or not at all."""
    part = folder.parent / f".{folder.name}.part"
    model.save_pretrained(part, safe_serialization=True)
    world_tokenizer().save_pretrained(part)
    part.rename(folder)


def _stacked(batch: Any) -> dict[str, torch.Tensor]:
    """The batch as the dataset gave it, whole."""
    if isinstance(batch, dict):
        return batch
    return {name: torch.stack([row[name] for row in batch]) for name in batch[0]}


def _arguments(plan: Pretraining, state: Path, quiet: bool) -> TrainingArguments:
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(state), max_steps=plan.steps, per_device_train_batch_size=plan.batch,
        learning_rate=plan.learning_rate, lr_scheduler_type="cosine", warmup_steps=max(1, plan.steps // 20),
        weight_decay=0.01, adam_beta2=0.98, logging_steps=max(1, plan.steps // 40), save_steps=plan.save_every,
        save_strategy="steps", save_total_limit=1, seed=plan.seed, data_seed=plan.seed, report_to="none",
        use_cpu=not cuda, disable_tqdm=quiet, remove_unused_columns=False, max_grad_norm=1.0,
    )  # fmt: skip


def _hush(trainer: Trainer) -> None:
    """A bar without a line for every log."""
    bar: TrainerCallback | None = trainer.pop_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    if bar is not None:
        trainer.add_callback(BareProgress)
