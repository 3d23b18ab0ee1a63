"""The user turn in token ids: template once, BOS once, position 0 after the think block."""

import functools

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from aligntax.data import FALLBACK_TEMPLATE, ChatFormat
from aligntax.errors import DataError

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPEN_THINK = CHAT.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
THINK_SWITCH = CHAT.replace(
    "assistant\n{% endif",
    "assistant\n<think>\n{% if enable_thinking is false %}{{ '\n</think>\n\n' }}{% endif %}{% endif",
)
# As Qwen3 has it: whether to think is left to the model, unless it is told not to.
FREE_THINK = CHAT.replace(
    "assistant\n{% endif",
    "assistant\n{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif",
)
BARE = "{% for m in messages %}{{ m.content }}\n\nReply:{% endfor %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT
NO_THOUGHT = {"enable_thinking": False}
MARKS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
TEXTS = ["Bake bread?", " spaces  here\n", "x = [1, 2]", "", "Ünï — 漢字 🙂", "<b>bold</b>."]


@functools.cache
def make_tokenizer(
    template: str | None = CHAT, bos: bool = True, think: bool = True, marked: bool = True
) -> PreTrainedTokenizerFast:
    """A byte-level BPE that merges words, ".\\n\\n" and "\\n\\n": what real tokenizers do at the edges of a text."""
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(r" ?\w+|[.?!]?\n+| ?[^\w\s]|\s"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=MARKS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = ["the answer is 12.\n\n", "Question: why?\nAnswer: the", "Human: hi\n\nAssistant: yes", "square hello"] * 9
    tokenizer.train_from_iterator(corpus, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>" if marked else None,
        eos_token="</s>" if marked else None,
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )
    if think:
        fast.add_tokens(["<think>", "</think>"])
    return fast


def decode(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("text", TEXTS)
def test_template_and_bos_stand_exactly_once(text: str) -> None:
    tokenizer = make_tokenizer()
    ids = ChatFormat(tokenizer).encode_prompt(text)
    assert decode(tokenizer, ids) == f"<s><|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("template", [CHAT, OPEN_THINK, BARE, None])
def test_positions_around_the_text_are_the_same_tokens_for_every_prompt(template: str | None) -> None:
    chat = ChatFormat(make_tokenizer(template))
    encodings = [chat.encode_prompt(text) for text in ("the answer", "Why not?", "It is so.", "z)", "12")]
    after, before = chat.post_instruction, chat.prefix_length
    assert after > 0
    assert len({tuple(ids[-after:]) for ids in encodings}) == 1
    assert len({tuple(ids[:before]) for ids in encodings}) == 1
    # One more on either side would be text.
    assert len({ids[-after - 1] for ids in encodings}) > 1
    assert len({tuple(ids[: before + 1]) for ids in encodings}) > 1


def test_counts_are_those_of_the_template_written_out() -> None:
    tokenizer = make_tokenizer()
    chat = ChatFormat(tokenizer)
    size = lambda text: len(tokenizer.encode(text, add_special_tokens=False))  # noqa: E731
    assert chat.prefix_length == size("<s><|im_start|>user\n")
    assert chat.post_instruction == size("<|im_end|>\n<|im_start|>assistant\n")


def test_a_token_merged_with_the_end_of_some_prompts_is_not_counted_as_template() -> None:
    tokenizer = make_tokenizer(BARE)
    chat = ChatFormat(tokenizer)
    merged, parted = (tokenizer.encode(f"{end}\n\nReply:", add_special_tokens=False) for end in (".", "x"))
    assert merged[0] not in parted
    assert chat.post_instruction == len(tokenizer.encode("Reply:", add_special_tokens=False))


def test_system_message_comes_before_the_user_and_moves_the_prefix() -> None:
    tokenizer = make_tokenizer()
    plain, told = ChatFormat(tokenizer), ChatFormat(tokenizer, system="Be kind.")
    assert "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi" in decode(tokenizer, told.encode_prompt("Hi"))
    assert told.prefix_length > plain.prefix_length
    assert told.post_instruction == plain.post_instruction
    assert "Be kind." in told.describe()


def test_a_refused_system_message_is_one_clear_error() -> None:
    with pytest.raises(DataError, match=r"no system role.*drop the system message"):
        ChatFormat(make_tokenizer(NO_SYSTEM), system="Be kind.").encode_prompt("Hi")


def test_a_template_without_the_text_is_an_error() -> None:
    with pytest.raises(DataError, match="leaves out the user's text"):
        ChatFormat(make_tokenizer("fixed")).encode_prompt("Hi")


def test_template_arguments_of_ours_are_refused() -> None:
    with pytest.raises(DataError, match="'tokenize' is set by aligntax"):
        ChatFormat(make_tokenizer(), template_kwargs={"tokenize": False})


def test_without_a_template_the_fallback_is_used_and_stated() -> None:
    tokenizer = make_tokenizer(None)
    chat = ChatFormat(tokenizer)
    assert chat.fallback and not ChatFormat(make_tokenizer()).fallback
    ids = chat.encode_prompt("Bake bread.")
    assert decode(tokenizer, ids) == "<s>Human: Bake bread.\n\nAssistant:"
    assert FALLBACK_TEMPLATE == "Human: {prompt}\n\nAssistant:"
    assert "Human: {prompt}" in chat.describe()
    assert (
        decode(tokenizer, chat.encode_reply("Mix it")) == decode(tokenizer, chat.encode_reply(" Mix it")) == " Mix it"
    )
    assert (
        decode(make_tokenizer(None, bos=False), ChatFormat(make_tokenizer(None, bos=False)).encode_prompt("x"))[:5]
        == "Human"
    )


def test_fallback_with_a_system_message() -> None:
    tokenizer = make_tokenizer(None)
    text = decode(tokenizer, ChatFormat(tokenizer, system="Be kind.").encode_prompt("Hi"))
    assert text == "<s>Be kind.\n\nHuman: Hi\n\nAssistant:"


def test_reply_loses_one_leading_space_but_keeps_indentation() -> None:
    tokenizer = make_tokenizer()
    chat = ChatFormat(tokenizer)
    assert decode(tokenizer, chat.encode_reply(" yes")) == "yes"
    assert decode(tokenizer, chat.encode_reply("    return x")) == "    return x"
    assert chat.encode_reply(" ") == chat.encode_reply("") == []


@pytest.mark.parametrize("think", [True, False], ids=["one token", "several tokens"])
def test_an_open_think_block_is_closed_so_that_position_0_follows_it(think: bool) -> None:
    tokenizer = make_tokenizer(OPEN_THINK, think=think)
    chat = ChatFormat(tokenizer)
    ids = chat.encode_prompt("Say <think> and </think>.")
    assert decode(tokenizer, ids).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    closed = len(tokenizer.encode("<think>\n", add_special_tokens=False)) + len(
        tokenizer.encode("\n</think>\n\n", add_special_tokens=False)
    )
    assert chat.post_instruction == ChatFormat(make_tokenizer(think=think)).post_instruction + closed
    assert "closed" in chat.describe()


def test_a_block_closed_by_a_template_argument_is_left_alone() -> None:
    tokenizer = make_tokenizer(THINK_SWITCH)
    chat = ChatFormat(tokenizer, template_kwargs={"enable_thinking": False})
    text = decode(tokenizer, chat.encode_prompt("Hi"))
    assert text.endswith("<think>\n\n</think>\n\n") and text.count("</think>") == 1
    assert "enable_thinking=False" in chat.describe()
    assert decode(tokenizer, ChatFormat(tokenizer).encode_prompt("Hi")) == text


def test_a_template_that_leaves_thinking_to_the_model_is_told_not_to_and_the_report_says_so() -> None:
    tokenizer = make_tokenizer(FREE_THINK)
    chat, told = ChatFormat(tokenizer, template_kwargs={"date": "today"}), ChatFormat(tokenizer, None, NO_THOUGHT)
    assert decode(tokenizer, chat.encode_prompt("Hi")).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert chat.encode_prompt("Hi") == told.encode_prompt("Hi") and chat.post_instruction == told.post_instruction
    assert chat.arguments == {"date": "today", **NO_THOUGHT}
    assert "enable_thinking=False by default" in chat.describe() and "date='today'" in chat.describe()
    assert "enable_thinking=False" in told.describe() and "by default" not in told.describe()


@pytest.mark.parametrize("template", [CHAT, OPEN_THINK, None])
def test_a_template_without_the_switch_is_told_nothing(template: str | None) -> None:
    chat = ChatFormat(make_tokenizer(template))
    assert chat.arguments == {} and "enable_thinking" not in chat.describe()


def test_thinking_that_was_asked_for_is_closed_where_the_template_opens_it() -> None:
    tokenizer = make_tokenizer(THINK_SWITCH)
    chat = ChatFormat(tokenizer, template_kwargs={"enable_thinking": True})
    assert decode(tokenizer, chat.encode_prompt("Hi")).endswith("<think>\n\n</think>\n\n")
    assert "enable_thinking=True; its open <think> closed" in chat.describe()


def test_thinking_that_was_asked_for_and_is_left_to_the_model_is_refused_with_the_option_that_mends_it() -> None:
    chat = ChatFormat(make_tokenizer(FREE_THINK), template_kwargs={"enable_thinking": True})
    for use in (lambda: chat.encode_prompt("Hi"), chat.describe):
        with pytest.raises(
            DataError, match=r"enable_thinking=True.* --chat-template-kwargs '{\"enable_thinking\": false}'"
        ):
            use()


def test_think_marks_in_the_prompt_do_not_count_as_the_template() -> None:
    tokenizer = make_tokenizer()
    assert decode(tokenizer, ChatFormat(tokenizer).encode_prompt("a <think>")).count("</think>") == 0


@pytest.mark.parametrize("think", [True, False], ids=["one token", "several tokens"])
@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<think>\nhm, 12?\n</think>\n\nYes, 12.", "Yes, 12."),
        ("\n<think></think>Yes", "Yes"),
        ("Yes, 12.", "Yes, 12."),
        ("Write </think> there", "Write </think> there"),
        ("<think>\nhm, and", ""),
        ("<think>a</think>\n<|im_end|>", "<|im_end|>"),
        ("", ""),
    ],
)
def test_response_starts_after_the_think_block(reply: str, answer: str, think: bool) -> None:
    tokenizer = make_tokenizer(think=think)
    ids = tokenizer.encode(reply, add_special_tokens=False)
    start = ChatFormat(tokenizer).response_start(ids)
    assert decode(tokenizer, ids[start:]) == answer


def test_response_start_after_a_block_that_the_template_opened() -> None:
    tokenizer = make_tokenizer(OPEN_THINK)
    ids = tokenizer.encode("hm, 12?</think>\n\nYes", add_special_tokens=False)
    assert decode(tokenizer, ids[ChatFormat(tokenizer).response_start(ids) :]) == "Yes"
