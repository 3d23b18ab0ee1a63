"""What a model of the small world is pretrained on: statements of eight capabilities, the same as conversations, and requests."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from aligntax.lab.world import language
from aligntax.lab.world.facts import World
from aligntax.lab.world.requests import draw_reply, draw_request

CAPABILITIES = (
    "arithmetic", "copying", "sorting", "translation", "brackets", "facts", "persuasion", "recipes",
)  # fmt: skip
INTRINSIC = ("persuasion", "recipes")
"""Capabilities that share structure with the safety decision by construction; the others meet it by chance."""
REQUEST_SHARE = 0.3
CHAT_SHARE = 0.4


@dataclass(frozen=True)
class Document:
    """Running text, or a conversation where `reply` is not None: `text` is then the user's turn."""

    text: str
    reply: str | None = None


@dataclass(frozen=True)
class Question:
    """A prompt, its answer, and three wrong answers of the same kind."""

    prompt: str
    answer: str
    wrong: tuple[str, str, str]


def documents(world: World, seed: int = 0) -> Iterator[Document]:
    """An endless stream of documents, the same for the same world and seed: 3 in 10 are requests with unaligned replies, the
    rest statements of a capability, 4 in 10 of those as question and reply, and now and then what is risky together."""
    rng = random.Random(f"{world.seed}/{world.decided}/documents/{seed}")
    while True:
        if rng.random() < REQUEST_SHARE:
            asked = draw_request(world, rng, rng.random() < 0.5)
            yield Document(asked.prompt, draw_reply(world, asked, rng))
            continue
        if rng.random() < 0.06:
            yield Document(_risk(world, rng))
            continue
        question = ask(world, rng.choice(CAPABILITIES), rng)
        if rng.random() < CHAT_SHARE:
            yield Document(question.prompt, question.answer)
        else:
            yield Document(f"{question.prompt} {question.answer} .")


def ask(world: World, capability: str, rng: random.Random) -> Question:
    """One question of a capability."""
    return _ASK[capability](world, rng)


def _risk(world: World, rng: random.Random) -> str:
    domain = world.domains[rng.choice(("recipes", "persuasion"))]
    head, body = rng.choice(domain.heads), rng.choice(domain.bodies)
    return f"{head} with {body} is {'risky' if domain.harmful(head, body) else 'fine'} ."


def _others(right: str, pool: Callable[[], str]) -> tuple[str, str, str]:
    found: dict[str, None] = {}
    while len(found) < 3:
        drawn = pool()
        if drawn != right:
            found[drawn] = None
    one, two, three = found
    return one, two, three


def _arithmetic(world: World, rng: random.Random) -> Question:
    a, b = rng.randrange(12), rng.randrange(12)
    right = a + b
    near = [str(n) for n in range(max(0, right - 4), min(23, right + 5))]
    return Question(f"{a} plus {b} is", str(right), _others(str(right), lambda: rng.choice(near)))


def _letters(rng: random.Random) -> list[str]:
    return rng.sample(language.LETTERS, rng.choice((3, 4, 5)))


def _copying(world: World, rng: random.Random) -> Question:
    letters = _letters(rng)
    right = " ".join(letters)
    wrong = _others(right, lambda: " ".join(rng.sample(letters, len(letters))))
    return Question(f"copy {right} gives", right, wrong)


def _sorting(world: World, rng: random.Random) -> Question:
    letters = _letters(rng)
    right = " ".join(sorted(letters))
    wrong = _others(right, lambda: " ".join(rng.sample(letters, len(letters))))
    return Question(f"sort {' '.join(letters)} gives", right, wrong)


def _translation(world: World, rng: random.Random) -> Question:
    native = rng.sample(language.NATIVE, rng.choice((1, 2, 3)))
    right = " ".join(world.dictionary[word] for word in native)

    def pool() -> str:
        at, words = rng.randrange(len(native)), right.split()
        words[at] = rng.choice(language.FOREIGN)
        return " ".join(words)

    return Question(f"say {' '.join(native)} in old tongue", right, _others(right, pool))


def _brackets(world: World, rng: random.Random) -> Question:
    opened = [rng.choice(list(language.BRACKETS)) for _ in range(rng.choice((2, 3, 4, 5)))]
    right = " ".join(language.BRACKETS[mark] for mark in reversed(opened))

    def pool() -> str:
        return " ".join(rng.choice(list(language.BRACKETS.values())) for _ in opened)

    return Question(f"close {' '.join(opened)} gives", right, _others(right, pool))


def _facts(world: World, rng: random.Random) -> Question:
    name = rng.choice(list(world.homes))
    right = world.homes[name]
    return Question(f"{name} lives in", right, _others(right, lambda: rng.choice(language.CITIES)))


def _shared(name: str) -> Callable[[World, random.Random], Question]:
    def make(world: World, rng: random.Random) -> Question:
        domain = world.domains[name]
        head, body = rng.choice(domain.heads), rng.choice(domain.bodies)
        right = domain.works[head, body]
        prompt = f"{head} from {body} needs" if name == "recipes" else f"to bring {body} to {head} speak of"
        return Question(prompt, right, _others(right, lambda: rng.choice(domain.keys)))

    return make


_ASK: dict[str, Callable[[World, random.Random], Question]] = {
    "arithmetic": _arithmetic,
    "copying": _copying,
    "sorting": _sorting,
    "translation": _translation,
    "brackets": _brackets,
    "facts": _facts,
    "persuasion": _shared("persuasion"),
    "recipes": _shared("recipes"),
}
