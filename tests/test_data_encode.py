"""Which tokens are scored: the answer's, all of them, and nothing else."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data_chat import make_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from aligntax.data import FORMATS, ChatFormat, Item, Task, choose_distractors, encode_item, encode_task
from aligntax.data.encode import joined
from aligntax.errors import DataError

TOKENIZER = make_tokenizer()
CHAT = ChatFormat(TOKENIZER)
QUIZ = Item("Why is it so?", choices=("the answer", "no", "12", "square", "hello"), gold=3)


def parts(item: Item, fmt: str, chat: ChatFormat = CHAT) -> list[tuple[str, str]]:
    """Context and scored text of every sequence."""
    text = lambda ids: chat.tokenizer.decode(list(ids), skip_special_tokens=False)  # noqa: E731
    return [(text(e.ids[: e.start]), text(e.ids[e.start :])) for e in encode_item(item, fmt, chat, 512)]


@pytest.mark.parametrize(
    ("fmt", "prompt", "answer", "context", "scored"),
    [
        ("plain", "7+5=", "12", "<s>7+5=", "12"),
        ("plain", "The answer is", "12", "<s>The answer is", " 12"),
        ("plain", "The answer is", " 12", "<s>The answer is", " 12"),
        ("plain", "The answer is ", "12", "<s>The answer is", " 12"),
        ("plain", "", "Hello there", "<s>", "Hello there"),
        ("qa", "Why?", "the", "<s>Question: Why?\nAnswer:", " the"),
        ("qa", "Question: Why?\n", "the", "<s>Question: Why?\nAnswer:", " the"),
        ("qa", "Question: Why?\nAnswer:", "the", "<s>Question: Why?\nAnswer:", " the"),
        ("qa", "", "Hello there", "<s>", "Hello there"),
        ("chat", "Why?", " the", "<s><|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n", "the"),
    ],
)
def test_context_and_scored_text(fmt: str, prompt: str, answer: str, context: str, scored: str) -> None:
    assert parts(Item(prompt, answer), fmt) == [(context, scored)]


def test_a_token_across_the_boundary_belongs_to_the_answer() -> None:
    merged = TOKENIZER.encode("\n\n", add_special_tokens=False)
    assert len(merged) == 1 and merged != TOKENIZER.encode("\n", add_special_tokens=False)
    (encoded,) = encode_item(Item("hello\n", "\nthe"), "plain", CHAT, 512)
    # The ids are those of the whole text, never of the two halves glued together.
    assert list(encoded.ids) == [0, *TOKENIZER.encode("hello\n\nthe", add_special_tokens=False)]
    assert TOKENIZER.decode(encoded.ids[encoded.start :]) == "\n\nthe"


text = st.text(st.sampled_from("ab12 .\n?the<é漢"), max_size=12)


@settings(max_examples=150, deadline=None)
@given(prompt=text, answer=text.filter(bool), bos=st.booleans(), fmt=st.sampled_from(("plain", "chat")))
def test_scored_tokens_are_never_empty_and_always_cover_the_answer(
    prompt: str, answer: str, bos: bool, fmt: str
) -> None:
    if fmt == "chat" and answer == " ":
        return
    tokenizer = make_tokenizer(bos=bos)
    (encoded,) = encode_item(Item(prompt, answer), fmt, ChatFormat(tokenizer), 512)
    assert 1 <= encoded.start < len(encoded.ids)
    # A multi-byte character can be parted between tokens: compare bytes by decoding from the start.
    whole = tokenizer.decode(list(encoded.ids), skip_special_tokens=False)
    scored = tokenizer.decode(list(encoded.ids[encoded.start :]), skip_special_tokens=False)
    expected = answer[1:] if fmt == "chat" and answer[:1] == " " and not answer[1:2].isspace() else answer
    assert whole.endswith(expected)
    assert len(scored.encode()) >= len(expected.encode())


def test_a_tokenizer_without_bos_still_has_one_token_of_context() -> None:
    chat = ChatFormat(make_tokenizer(bos=False))
    assert parts(Item("", "Hello"), "plain", chat) == [("<s>", "Hello")]
    assert parts(Item("7+5=", "12"), "plain", chat) == [("7+5=", "12")]
    with pytest.raises(DataError, match="needs a BOS or EOS"):
        encode_item(Item("", "Hello"), "plain", ChatFormat(make_tokenizer(None, bos=False, marked=False)), 512)


def test_a_trailing_eos_of_the_tokenizer_never_enters() -> None:
    assert TOKENIZER.encode("a")[-1] == TOKENIZER.eos_token_id
    for fmt in FORMATS:
        assert TOKENIZER.eos_token_id not in encode_item(Item("Why?", "the"), fmt, CHAT, 512)[0].ids


def test_one_sequence_per_choice_and_per_winograd_prompt() -> None:
    assert [scored for _, scored in parts(QUIZ, "plain")] == [" " + choice for choice in QUIZ.choices]
    item = Item("", "was too big.", gold=0, prompts=("so the cup", "so the case"))
    assert parts(item, "plain") == [("<s>so the cup", " was too big."), ("<s>so the case", " was too big.")]


@pytest.mark.parametrize(
    ("prompt", "answer", "spaced"),
    [
        ("therefore", "it fell", True), ("so the cup", ".", False), ("97*43=", "4171", False), ("a\n", " x", False),
        ("What now?", "-3", True), ("x", "-1", False), ("foo", "(x)", False), ("", "is", False), ("答案", "水", False),
        ("it costs", "$5", True), ("Sarah", "'s", False), ("Answer:", "A", True), ("f(", "x", False),
    ],
)  # fmt: skip
def test_a_space_is_put_only_between_words(prompt: str, answer: str, spaced: bool) -> None:
    assert joined(prompt, answer) == (f" {answer}" if spaced else answer)


def test_unknown_format_long_prompt_and_empty_answer_are_errors() -> None:
    with pytest.raises(DataError, match=r"unknown format 'prose'.*plain"):
        encode_item(QUIZ, "prose", CHAT, 512)
    words = Tokenizer(models.WordLevel({"a": 0, "is": 1, "<u>": 2}, unk_token="<u>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    chat = ChatFormat(PreTrainedTokenizerFast(tokenizer_object=words))
    items = (Item("a is", "a"), Item("a is", "\n"))
    task = Task("sums", items, "answer", "", "")
    with pytest.raises(DataError, match=r"task sums, item 2 of 2: the answer '\\n' to 'a is' tokenises to nothing"):
        encode_task(task, "plain", chat, 512)
    task = Task("sums", (Item("is " * 30, "a"),), "answer", "", "")
    with pytest.raises(DataError, match=r"task sums, item 1 of 1.*31 tokens \(30 of them the prompt\).*context of 30"):
        encode_task(task, "plain", chat, 30)
    assert len(encode_task(task, "plain", chat, 31)[0][0].ids) == 31


def test_distractors_are_drawn_by_content_and_seed() -> None:
    drawn = [choose_distractors(QUIZ, 2, seed) for seed in range(40)]
    for item in drawn:
        assert len(item.choices) == 3 and item.gold is not None
        assert item.choices[item.gold] == "square"
        assert list(item.choices) == [choice for choice in QUIZ.choices if choice in item.choices]
    assert len({item.choices for item in drawn}) == math.comb(4, 2)
    turned = dataclasses.replace(QUIZ, choices=QUIZ.choices[::-1], gold=1)
    assert all(set(choose_distractors(turned, 2, seed).choices) == set(item.choices) for seed, item in enumerate(drawn))
    assert choose_distractors(QUIZ, 4, 0) is QUIZ
    answer = Item("p", "a")
    assert choose_distractors(answer, 1, 0) is answer
    with pytest.raises(DataError, match="at least 1"):
        choose_distractors(QUIZ, 0, 0)


def test_distractors_of_winograd_items_are_prompts() -> None:
    item = Item("", "fell", gold=2, prompts=("a", "b", "c"))
    kept = choose_distractors(item, 1, 0)
    assert len(kept.prompts) == 2 and kept.prompts[kept.gold or 0] == "c"
