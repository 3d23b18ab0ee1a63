"""What the code says about the papers: tags in public docstrings, such as `([G] Thm 6.4, corrected)`, and which tests
mention a tagged function.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

UNTAGGED = ("commands/theorems", "lab/oracles")  # proofs, not the library
STATUSES = "corrected|sharpened|as stated"
KINDS = {"Lem": "Lemma", "Asm": "Assumption"}
NUMBERED = re.compile(
    r"(?:,|;|/| and| or|)\s*"  # between two items
    r"(?:(Def|Thm|Cor|Prop|Rem|Lemma|Lem|Prediction|Assumption|Asm|App)\.?\s+|(§§?)\s*)?"
    r"(\d+(?:\.\d+)*|(?<=App )[A-Z]|(?<=App\. )[A-Z])(?!\w)"
    r"(?:[-–](\d+)\b)?(?:\s*\([ivx]+\))?"  # a range; a part of a theorem
)


@dataclass(frozen=True)
class Tag:
    """One docstring's claim to hold an item: `key` is `("G", "Thm 6.4")`, `name` is `function` or `Class.method`."""

    key: tuple[str, str]
    status: str
    path: str
    name: str


def docstrings(source: str) -> Iterator[tuple[str, str]]:
    """`(name, docstring)` of the module (no name), public functions, classes and public methods; on one line, without code."""

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, str]]:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            yield prefix + node.name, prose(node)
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{prefix}{node.name}.")

    def prose(node: ast.Module | ast.FunctionDef | ast.ClassDef) -> str:
        return re.sub(r"`[^`]*`", "``", " ".join((ast.get_docstring(node) or "").split()))

    tree = ast.parse(source)
    yield "", prose(tree)
    yield from walk(tree.body, "")


def numbered(text: str) -> tuple[list[str], str]:
    """Items that `text` begins with, and what follows: `Thm 4.1, 4.3, §7.3, corrected` -> three items, `, corrected`."""
    items: list[str] = []
    kind = ""
    while match := NUMBERED.match(text):
        word, section, number, last = match.groups()
        kind = "§" if section else KINDS.get(word, word) if word else kind
        if not kind:
            break
        space = "" if kind == "§" else " "
        items += (
            [f"{kind}{space}{n}" for n in range(int(number), int(last) + 1)] if last else [f"{kind}{space}{number}"]
        )
        text = text[match.end() :]
    return items, text


def named(text: str, known: dict[str, str]) -> tuple[list[str], str]:
    """The [R] items that `text` begins with, by their own or other names, longest first, and what follows."""
    items: list[str] = []
    while found := next((n for n in sorted(known, key=len, reverse=True) if text.lower().startswith(n.lower())), None):
        items.append(known[found])
        text = text[len(found) :]
        following = re.match(r"(?:,| and|;)\s*", text)
        if following is None or not any(text[following.end() :].lower().startswith(n.lower()) for n in known):
            break
        text = text[following.end() :]
    return items, text


def tags_of(docstring: str, known: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """`(source, item, status)` of every tag in a docstring; an unreadable tag gives its text as the item."""
    for match in re.finditer(r"\[([GSR])\]\s+", docstring):
        text = docstring[match.end() :]
        items, rest = named(text, known) if match[1] == "R" else numbered(text)
        status = re.match(rf",?\s*({STATUSES})\b", rest)
        for item in items or [text[:30]]:
            yield match[1], item, status[1] if status else "as stated"


def find_tags(package: Path, known: dict[str, str]) -> list[Tag]:
    """Every tag of the library. A module's own tag speaks for all its functions, where none of the library's has the item."""
    tags, general = [], []
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package).as_posix()
        if place.startswith(UNTAGGED):
            continue
        texts = list(docstrings(path.read_text()))
        for name, text in texts:
            tags += [Tag((source, item), status, place, name) for source, item, status in tags_of(text, known) if name]
        for source, item, status in tags_of(texts[0][1], known):
            general += [Tag((source, item), status, place, name) for name, _ in texts if name and name.islower()]
    said = {tag.key for tag in tags}
    return tags + [tag for tag in general if tag.key not in said]


def mentions(node: ast.AST) -> set[str]:
    """Names that a piece of code uses, attributes and dotted strings (as in monkeypatch) included."""
    names: set[str] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            names.add(part.id)
        elif isinstance(part, ast.Attribute):
            names.add(part.attr)
        elif isinstance(part, ast.Constant) and isinstance(part.value, str) and re.fullmatch(r"[\w.]+", part.value):
            names.add(part.value.rpartition(".")[2])
    return names


def find_tests(folder: Path, rooms: Mapping[str, str]) -> dict[str, list[str]]:
    """Tests that mention each name of `rooms` (name -> room): of its room first, then those that mention the fewest names.

    A method counts where its file also mentions its class or is of its room; a name used only by a file's own helpers gives
    the file.
    """
    found: dict[str, list[tuple[bool, int, str]]] = defaultdict(list)
    for path in sorted(folder.glob("test_*.py")):
        tree = ast.parse(path.read_text())
        imported = mentions(tree) | {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
        own = {name for name, room in rooms.items() if path.name.startswith(f"test_{room}_")}
        possible = {n for n in rooms if set(n.split(".")) <= imported or (n in own and n.split(".")[-1] in imported)}
        used: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                within = mentions(node)
                here = {name for name in possible if name.split(".")[-1] in within}
                used |= here
                bad = "bad_input" in node.name or "refuse" in node.name  # refusing input proves no theorem
                for name in here:
                    found[name].append((name not in own, len(here) + len(rooms) * bad, f"{path.name}::{node.name}"))
        for name in possible - used:
            found[name].append((True, len(rooms), path.name))
    return {name: [test for *_, test in sorted(rows)] for name, rows in found.items()}
