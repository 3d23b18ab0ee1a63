"""Many small tasks in families: what a rank correlation over tasks needs, and what stands and falls together in it.

Built-in tasks, generated ones (arithmetic by width, sequences, comparisons), and paradigms and subjects of public files where these
are at hand. A family is what shares a skill, and so is one witness, not many.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data import BUILTIN_TASKS, Item, load_task
from ..data.rows import read_table
from ..errors import DataError

MADE = 40
"""Items of a generated task."""


@dataclass(frozen=True)
class FamilyTask:
    """A task of one family; `source` says where its items come from."""

    name: str
    family: str
    items: tuple[Item, ...]
    source: str

    @property
    def questions(self) -> float:
        """Share of items that ask: a question mark, `Question:` or `Answer:` in the prompt."""
        asked = [bool(re.search(r"\?|Question:|Answer:", item.prompt or " ".join(item.prompts))) for item in self.items]
        return float(np.mean(asked))


BUILTIN_FAMILIES = {
    "arithmetic": "sums",
    "biology": "life science",
    "chemistry": "physical science",
    "code": "code",
    "copying": "copying",
    "factual-recall": "facts",
    "grammar": "agreement",
    "instructions": "instructions",
    "logic": "logic",
    "persuasion": "persuasion",
    "reading": "reading",
    "translation-en-de": "translation",
    "translation-en-fr": "translation",
    "word-problems": "word problems",
}

PARADIGMS = {
    "adjunct_island": "islands",
    "complex_NP_island": "islands",
    "wh_questions_object_gap": "gaps",
    "wh_vs_that_with_gap_long_distance": "gaps",
    "principle_A_c_command": "binding",
    "principle_A_reconstruction": "binding",
    "determiner_noun_agreement_irregular_2": "agreement",
    "distractor_agreement_relative_clause": "agreement",
    "existential_there_quantifiers_2": "quantifiers",
    "superlative_quantifiers_1": "quantifiers",
    "npi_present_1": "polarity",
    "irregular_past_participle_verbs": "morphology",
}

SUBJECTS = {
    "exam-medicine": ("life science", r"anatomy|clinical|medic|virology|nutrition|aging|genetics|biology"),
    "exam-physics": ("physical science", r"physics|chemistry|astronomy|electrical"),
    "exam-mathematics": ("exact exams", r"algebra|mathematics|statistics|formal_logic|computer|machine_learning"),
    "exam-economy": (
        "society exams",
        r"economics|econometrics|business|accounting|management|marketing|public_relations",
    ),
    "exam-state": (
        "society exams",
        r"law|jurisprudence|government|policy|security_studies|geography|global_facts|sociology",
    ),
    "exam-mind": ("mind exams", r"psychology|philosophy|moral|sexuality|logical|religions|prehistory|miscellaneous"),
}

FILES = {
    "arc_easy": "school science",
    "openbook_qa": "school science",
    "commonsense_qa": "everyday physics",
    "copa": "everyday physics",
    "piqa": "everyday physics",
    "svamp": "word problems",
    "truthfulqa": "truthfulness",
    "winograd_wsc": "pronouns",
    "winogrande": "pronouns",
}

TRIVIA = {"trivia-world": "WORLD HISTORY", "trivia-america": "AMERICAN HISTORY"}


def family_tasks(public: Path | None) -> list[FamilyTask]:
    """Every task at hand, by name: built in, generated, and from the folder `public` of JSON lines where it is given.

    Raises DataError for a folder that lacks the files.
    """
    tasks = [*_builtin(), *_made()]
    if public is not None:
        tasks += _public(public)
    return sorted(tasks, key=lambda task: task.name)


def _builtin() -> Iterator[FamilyTask]:
    for name in BUILTIN_TASKS():
        yield FamilyTask(name, BUILTIN_FAMILIES.get(name, name), load_task(name).items, "built in")


def _made() -> Iterator[FamilyTask]:
    sums: dict[str, Callable[[int, int], int]] = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    for sign, widths in (("+", (1, 2, 3)), ("-", (2, 3)), ("*", (1, 2))):
        for width in widths:
            name = {"+": "sum", "-": "difference", "*": "product"}[sign]
            yield FamilyTask(f"{name}-{width}", "sums", _sums(sign, sums[sign], width), "generated")
    for width in (2, 3):
        yield FamilyTask(f"larger-{width}", "comparison", _larger(width), "generated")
    for name, step in (("count-up", 1), ("count-down", -1)):
        yield FamilyTask(name, "sequences", _counting(step), "generated")
    yield FamilyTask("letters", "sequences", _letters(), "generated")


def _sums(sign: str, act: Callable[[int, int], int], width: int) -> tuple[Item, ...]:
    rng = np.random.default_rng([ord(sign), width])
    low, high = (2, 10) if width == 1 else (10 ** (width - 1), 10**width)
    found: dict[str, Item] = {}
    while len(found) < MADE:
        a, b = (int(x) for x in rng.integers(low, high, 2))
        a, b = (max(a, b), min(a, b)) if sign == "-" else (a, b)
        right = act(a, b)
        wrong = right + int(rng.choice([-10, -2, -1, 1, 2, 10]))
        found[f"{a} {sign} {b} ="] = _pair(f"{a} {sign} {b} =", f" {right}", f" {wrong}", rng)
    return tuple(found.values())


def _larger(width: int) -> tuple[Item, ...]:
    rng = np.random.default_rng([7, width])
    found: dict[str, Item] = {}
    while len(found) < MADE:
        a, b = (int(x) for x in rng.integers(10 ** (width - 1), 10**width, 2))
        if a != b:
            prompt = f"Of the numbers {a} and {b}, the larger one is"
            found[prompt] = _pair(prompt, f" {max(a, b)}", f" {min(a, b)}", rng)
    return tuple(found.values())


def _counting(sign: int) -> tuple[Item, ...]:
    rng = np.random.default_rng([11, sign + 1])
    found: dict[str, Item] = {}
    while len(found) < MADE:
        start, step = int(rng.integers(40, 90)), int(rng.integers(2, 8))
        shown = [start + sign * step * k for k in range(4)]
        right = start + sign * step * 4
        prompt = ", ".join(map(str, shown)) + ","
        found[prompt] = _pair(prompt, f" {right}", f" {right + int(rng.choice([-1, 1, step]))}", rng)
    return tuple(found.values())


def _letters() -> tuple[Item, ...]:
    rng = np.random.default_rng([13])
    names = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    found: dict[str, Item] = {}
    while len(found) < MADE:
        step, length = int(rng.integers(1, 4)), int(rng.integers(3, 6))
        start = int(rng.integers(0, 26 - step * length - 1))
        prompt = ", ".join(names[start + step * k] for k in range(length)) + ","
        right = start + step * length
        found[prompt] = _pair(prompt, f" {names[right]}", f" {names[right + 1]}", rng)
    return tuple(found.values())


def _pair(prompt: str, right: str, wrong: str, rng: np.random.Generator) -> Item:
    gold = int(rng.integers(2))
    return Item(prompt, choices=(right, wrong) if gold == 0 else (wrong, right), gold=gold)


def _public(folder: Path) -> Iterator[FamilyTask]:
    blimp = _rows(folder / "blimp.jsonl")
    for name, family in PARADIGMS.items():
        yield _taken(name.lower().replace("_", "-"), family, [r for r in blimp if r.get("category") == name], folder)
    exams = _rows(folder / "mmlu_dev.jsonl")
    for name, (family, pattern) in SUBJECTS.items():
        chosen = [row for row in exams if re.search(pattern, str(row.get("category")))]
        yield _taken(name, family, chosen, folder)
    trivia = _rows(folder / "jeopardy_all.jsonl")
    for name, heading in TRIVIA.items():
        chosen = [row for row in trivia if str(row["prompt"]).startswith(f"{heading}:")]
        yield _taken(name, "facts", chosen, folder)
    for name, family in FILES.items():
        yield _taken(name.replace("_", "-"), family, _rows(folder / f"{name}.jsonl"), folder)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [row.cells for row in read_table(path).rows]


def _taken(name: str, family: str, rows: Sequence[dict[str, Any]], folder: Path) -> FamilyTask:
    if not rows:
        raise DataError(f"{folder} holds no rows for the task {name}; give the folder of the public task files")
    items = tuple(
        Item(
            str(row.get("prompt", "")), row.get("answer"), tuple(row.get("choices", ())), row.get("gold"),
            tuple(row.get("prompts", ())),
        )
        for row in rows
    )  # fmt: skip
    return FamilyTask(name, family, tuple({item.key: item for item in items}.values()), str(folder.name))
