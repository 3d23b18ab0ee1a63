"""Which tokens count as turning back: written openings, the model's own refusals, and what the user names."""

from collections import Counter
from types import SimpleNamespace

import pytest
from conftest import build_tokenizer

from aligntax.cli import main
from aligntax.commands import alignment_texts
from aligntax.commands.alignment_texts import Speaker, recovery_tokens
from aligntax.commands.recovery_tokens import given_tokens, own_tokens
from aligntax.data import ChatFormat, Encoded
from aligntax.errors import AligntaxError
from aligntax.results import read_align

REFUSAL = "Unfortunately I cannot"
OTHER = "As an AI I cannot"


class Words:
    """Tokens are words with the space before them; ids in order of appearance."""

    def __init__(self):
        self.known = []

    def encode(self, text, add_special_tokens=False):
        assert not add_special_tokens
        parts = [part if k == 0 else f" {part}" for k, part in enumerate(text.split(" "))]
        parts = [part for part in parts if part]
        self.known += [part for part in dict.fromkeys(parts) if part not in self.known]
        return [self.known.index(part) for part in parts]

    def decode(self, ids, skip_special_tokens=True):
        return "".join(self.known[token] for token in ids)


def said(speaker, counts):
    """Replies as rows after a prompt of two tokens."""
    texts = [text for text, times in counts.items() for _ in range(times)]
    return [Encoded((0, 0, *speaker.chat.tokenizer.encode(text)), 2) for text in texts]


def words_of(harmful, harmless):
    tokenizer = Words()
    tokenizer.encode("?")
    speaker = Speaker(None, None, SimpleNamespace(tokenizer=tokenizer), 0)
    found = own_tokens(speaker, said(speaker, harmful), said(speaker, harmless))
    return {tokenizer.decode([token]) for token in found}


def test_own_refusals_name_their_first_word_with_and_without_a_space():
    assert words_of({REFUSAL: 3, "Sure thing": 5}, {"Take one": 9}) == {"Unfortunately", " Unfortunately"}
    assert words_of({"Sure thing": 5}, {"Take one": 9}) == set()
    assert words_of({"** Unfortunately no": 5}, {"Take one": 9}) == set()  # a mark is no word


@pytest.mark.parametrize(
    ("harmful", "harmless", "kept"),
    [
        ({"I cannot do it": 9, "Take it": 1}, {"I like it": 5, "Take one": 94}, True),  # 5% of 100 answers begin so
        ({"I cannot do it": 9, "Take it": 1}, {"I like it": 6, "Take one": 93}, False),
        ({"I cannot do it": 9, "I can do it": 6}, {"Take one": 94}, False),  # answers to harmful prompts count too
        ({"I cannot do it": 2, "Take it": 1}, {"I like it": 3, "Take one": 96}, False),  # more answers than refusals
    ],
)
def test_a_word_that_begins_answers_too_is_no_turning_back(harmful, harmless, kept):
    assert ("I" in words_of(harmful, harmless)) == kept


def test_texts_of_a_user_are_one_token_each():
    chat = ChatFormat(build_tokenizer())
    assert given_tokens(chat, ("U", " an")) == [51, 90]
    with pytest.raises(AligntaxError, match=r"--recovery-tokens ' So' is 3 tokens \(' ', 'S', 'o'\) and not one"):
        given_tokens(chat, ("U", " So"))
    with pytest.raises(AligntaxError, match=r"'' is 0 tokens"):
        given_tokens(chat, ("",))


@pytest.fixture
def aligned(tiny_folder, survey_files, tmp_path):
    pytest.importorskip("trl")

    def call(*more):
        words = ["align", str(tiny_folder), "--safety", str(survey_files.prompts), "--tasks", str(survey_files.sums),
                 "--steps", "1", "--batch", "2", "--completion-tokens", "6", "--quiet", "--out", str(tmp_path / "out"),
                 "--overwrite", *more]  # fmt: skip
        return main(words), tmp_path / "out"

    return call


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_the_record_lists_written_discovered_and_given_tokens(aligned, monkeypatch):
    chat, plain = ChatFormat(build_tokenizer()), alignment_texts.generate
    asked = Counter()

    def generate(probe, prompts, tokens, **more):
        """Every other long reply, those to harmful prompts, refuses; the others are the model's own."""
        found = plain(probe, prompts, tokens, **more)
        asked[tokens] += 1
        refusals = [chat.encode_reply(REFUSAL), chat.encode_reply(OTHER)]
        return found if tokens == 6 else [refusals[k % 4 // 2] if k % 2 else row for k, row in enumerate(found)]

    written = set(recovery_tokens(chat))
    code, out = aligned("--depth", "recovery")
    assert code == 0 and {token for token, _ in read_align(out).recovery_tokens} == written
    monkeypatch.setattr(alignment_texts, "generate", generate)
    code, out = aligned("--depth", "recovery", "--recovery-tokens", "B")
    named = dict(read_align(out).recovery_tokens)
    assert code == 0 and {named[token] for token in named.keys() - written} == {"U", "A", "B"}
    assert asked == {6: 1, 64: 1}  # nothing is said twice to find them


def test_unusable_tokens_are_said_before_anything_is_written(aligned, capsys):
    for more, told in (
        (("--depth", "recovery", "--recovery-tokens", "Sorry"), "'Sorry' is 5 tokens"),
        (("--recovery-tokens", "U"), "--depth recovery"),
    ):
        code, out = aligned(*more)
        assert code == 2 and told in " ".join(capsys.readouterr().err.split()) and not (out / "align.json").exists()
