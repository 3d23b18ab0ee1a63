"""Tiny random models of many families and a tiny tokenizer; no network, fixed seeds, a few milliseconds each."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

VOCAB, WIDTH, LAYERS = 97, 32, 3

_CORE = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # The usual .02 leaves a width-32 model almost linear in its embedding; .15 makes every block matter.
    "initializer_range": 0.15,
    # Dropout is off in eval; zero here so that a forgotten eval() does not hide behind noise.
    "attention_dropout": 0.0,
}
_GROUPED = {**_CORE, "num_key_value_heads": 2, "intermediate_size": 48}
_GEMMA = {**_GROUPED, "head_dim": 8, "sliding_window": 128, "query_pre_attn_scalar": 8}

FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("Llama", _GROUPED),
    "mistral": ("Mistral", _GROUPED),
    "qwen2": ("Qwen2", _GROUPED),
    "qwen3": ("Qwen3", {**_GROUPED, "head_dim": 8}),
    "gemma2": ("Gemma2", {**_GEMMA, "final_logit_softcapping": 3.0}),
    "gemma3": ("Gemma3Text", _GEMMA),
    "phi3": ("Phi3", _GROUPED),
    "gpt2": (
        "GPT2",
        {
            "vocab_size": VOCAB,
            "n_embd": WIDTH,
            "n_layer": LAYERS,
            "n_head": 4,
            "n_positions": 256,
            "initializer_range": 0.15,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "gpt_neox": ("GPTNeoX", {**_CORE, "intermediate_size": 48}),
    "olmo": ("Olmo", _GROUPED),
    "olmo2": ("Olmo2", _GROUPED),
    "mixtral": ("Mixtral", {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2_moe": (
        "Qwen2Moe",
        {
            **_GROUPED,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "granite": ("Granite", {**_GROUPED, "logits_scaling": 2.5, "residual_multiplier": 0.7}),
    "cohere": ("Cohere", {**_GROUPED, "logit_scale": 0.25}),
}

_SENTENCES = [
    "What is the answer? The answer is 12.",
    "How do I bake bread at home? Mix the flour and the water, then wait.",
    "I am sorry, I cannot help with that.",
    "Sure, here is the plan: first, then, and last.",
]
_SPECIALS = ["<pad>", "<bos>", "<eos>", "<unk>", "<|user|>", "<|assistant|>", "<|system|>"]
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ALPHABET = sorted({*_LETTERS, *_LETTERS.upper(), *"0123456789.,?!:;'-+=/()\"", "Ġ", "Ċ"})
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@functools.cache
def build_model(family: str, layers: int = LAYERS, seed: int = 0) -> PreTrainedModel:
    """A frozen random model in eval mode, shared by all callers: leave it as found, deepcopy it to edit weights."""
    stem, options = FAMILIES[family]
    depth = "n_layer" if "n_layer" in options else "num_hidden_layers"
    config = getattr(transformers, f"{stem}Config")(**{**options, depth: layers})
    lm = "LMHeadModel" if stem == "GPT2" else "ForCausalLM"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, stem.removesuffix("Text") + lm)(config)
    return model.eval().requires_grad_(False)


@functools.cache
def build_tokenizer() -> PreTrainedTokenizerFast:
    """A 97-token BPE with a chat template (user, assistant, system); ASCII round-trips, the rest is <unk>."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=_SPECIALS, initial_alphabet=_ALPHABET, show_progress=False
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., PreTrainedModel]:
    """`tiny_model(family, layers=3, seed=0)`: a random model of width 32 and vocabulary 97; see FAMILIES."""
    return build_model


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Callable[[], PreTrainedTokenizerFast]:
    """`tiny_tokenizer()`: the 97-token tokenizer that fits every tiny model."""
    return build_tokenizer


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with its tokenizer, saved as safetensors."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    build_model("llama").save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


_THINGS = ("the red lamp", "an old kettle", "my bicycle", "the garden gate", "a paper boat", "this radio")
_DEEDS = ("break", "steal", "poison", "burn", "forge", "wreck")
_CARES = ("clean", "paint", "mend", "sell", "store", "draw")


@dataclass(frozen=True)
class SurveyFiles:
    """Small inputs: prompts of both classes in one file and in two, a task of choices, a task of answers."""

    prompts: Path
    harmful: Path
    harmless: Path
    sums: Path
    words: Path


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_survey_files(folder: Path) -> SurveyFiles:
    """The inputs of a survey of seconds: 36 prompts of each class, 30 items of each task."""
    bad = [f"How can I {deed} {thing}?" for deed in _DEEDS for thing in _THINGS]
    good = [f"How can I {deed} {thing}?" for deed in _CARES for thing in _THINGS]
    classes = [{"prompt": text, "harmful": True} for text in bad] + [
        {"prompt": text, "harmful": False} for text in good
    ]
    sums = [
        {"prompt": f"{a} + {b} =", "choices": [str(a + b), str(a + b + 1), str(a + b + 10)], "gold": 0}
        for a in range(3, 9)
        for b in range(2, 7)
    ]
    words = [{"prompt": f"{deed} {thing}, then", "answer": f"{deed} it"} for deed in _CARES for thing in _THINGS][:30]
    return SurveyFiles(
        write_rows(folder / "prompts.jsonl", classes),
        write_rows(folder / "harmful.jsonl", [{"prompt": text} for text in bad]),
        write_rows(folder / "harmless.jsonl", [{"prompt": text} for text in good]),
        write_rows(folder / "sums.jsonl", sums),
        write_rows(folder / "words.jsonl", words),
    )


@pytest.fixture(scope="session")
def survey_files(tmp_path_factory: pytest.TempPathFactory) -> SurveyFiles:
    """The inputs of `write_survey_files`, shared: leave them as found."""
    return write_survey_files(tmp_path_factory.mktemp("inputs"))
