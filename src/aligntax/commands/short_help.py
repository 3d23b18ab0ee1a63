"""Help that fits a screen, read from a command's own source: no second list of options, and no model library to wait for.

Options stand in the order in which the dataclass declares them. Those that fit are explained; the rest are named, and
`--help-all` explains every one.
"""

import ast
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path

from .registry import COMMANDS, Entry

LINES, WIDEST, NARROWEST = 40, 100, 60
NAMES = 31
"""Columns of the option names."""

_KINDS = {"str": "TEXT", "int": "N", "float": "X", "Path": "PATH"}


@dataclass(frozen=True)
class Option:
    """One field of a command as the command line shows it: its words, what it is for, how it is given."""

    words: str
    text: str
    positional: bool = False
    required: bool = False

    @property
    def name(self) -> str:
        """The word to type: `--out`, or MODEL."""
        return self.words.split()[0]


def options_of(entry: Entry) -> tuple[str, tuple[Option, ...]]:
    """The first paragraph of a command's docstring and its options in the order of declaration."""
    tree = ast.parse((Path(__file__).parent / f"{entry.module}.py").read_text())
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == entry.kind)
    about = " ".join((ast.get_docstring(body) or "").split("\n\n")[0].split())
    found = []
    for field, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and "Suppress" not in (kind := ast.unparse(field.annotation)):
            found.append(_option(field, kind, _text(after)))
    return about, tuple(found)


def _text(node: ast.stmt | None) -> str:
    said = node.value.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) else ""
    return " ".join(said.split()) if isinstance(said, str) else ""


def _option(field: ast.AnnAssign, kind: str, text: str) -> Option:
    assert isinstance(field.target, ast.Name)
    name = field.target.id
    if "Positional" in kind:
        more = " ..." if "tuple[" in kind else ""
        return Option(name.upper() + more, text, True, field.value is None)
    flag = "--" + name.replace("_", "-")
    default = field.value.value if isinstance(field.value, ast.Constant) else None
    if kind == "bool":
        return Option(flag.replace("--", "--no-", 1) if default is True else flag, text)
    told = "" if "default" in text.lower() else _default(field.value)
    return Option(f"{flag} {_metavar(field.annotation)}", text + told)


def _metavar(kind: ast.expr) -> str:
    """What to type after an option: alternatives, TEXT, N, X or PATH; dots where several may follow."""
    if isinstance(kind, ast.BinOp):  # X | None
        return _metavar(kind.left)
    if isinstance(kind, ast.Subscript):
        outer = ast.unparse(kind.value)
        inner = kind.slice.elts if isinstance(kind.slice, ast.Tuple) else [kind.slice]
        if outer == "Literal":
            return "|".join(str(ast.literal_eval(word)) for word in inner)
        if outer == "Annotated" and "UseAppendAction" in ast.unparse(kind):
            return _metavar(inner[0]).removesuffix(" ...")
        return _metavar(inner[0]) + (" ..." if outer == "tuple" else "")
    return _KINDS.get(ast.unparse(kind), "TEXT")


def _default(value: ast.expr | None) -> str:
    """` [value]` where there is a default worth a word."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "Path":
        value = value.args[0]
    if isinstance(value, ast.UnaryOp | ast.Constant):
        shown = ast.literal_eval(value)
        return "" if shown in (None, "", "{}") else f" [{shown}]"
    return ""


def short_help(name: str, columns: int | None = None) -> str:
    """The help of the command `name`, at most 40 lines of at most 100 columns (as wide as the terminal where that is less)."""
    entry = COMMANDS[name]
    width = max(NARROWEST, min(WIDEST, columns or shutil.get_terminal_size((WIDEST, LINES)).columns))
    about, options = options_of(entry)
    head = [*textwrap.wrap(_usage(name, options), width), "", *textwrap.wrap(about, width), ""]
    tail = ["", "Examples:", *_examples(entry, width), "", f"Every option: aligntax {name} --help-all"]
    return "\n".join([*head, *_fitted(options, LINES - len(head) - len(tail), width), *tail])


def _usage(name: str, options: tuple[Option, ...]) -> str:
    """`Usage: aligntax NAME WHAT IS GIVEN BY PLACE [options]`."""
    places = [option.words if option.required else f"[{option.words}]" for option in options if option.positional]
    rest = ["[options]"] if any(not option.positional for option in options) else []
    return " ".join(["Usage: aligntax", name, *places, *rest])


def _examples(entry: Entry, width: int) -> list[str]:
    found: list[str] = []
    for example in entry.examples:
        lines = textwrap.wrap(example, width - 8, break_long_words=False, break_on_hyphens=False)
        found += [f"  {line}" if k == 0 else f"      {line}" for k, line in enumerate(lines)]
        found[-len(lines) : -1] = [line + " \\" for line in found[-len(lines) : -1]]
    return found


def _fitted(options: tuple[Option, ...], room: int, width: int) -> list[str]:
    """Options explained while `room` lasts, and the rest by name in what is left of it."""
    blocks = [_block(option, width) for option in options]
    for count in range(len(blocks), -1, -1):
        left = [option.name for option in options[count:]]
        rest = (
            ["", *textwrap.wrap("Also " + " ".join(left), width, subsequent_indent="     ", break_on_hyphens=False)]
            if left
            else []
        )
        lines = [line for block in blocks[:count] for line in block] + rest
        if len(lines) <= room:
            return lines
    return []


def _block(option: Option, width: int) -> list[str]:
    words = "  " + option.words
    lines = textwrap.wrap(option.text, width - NAMES - 1) or [""]
    if len(words) >= NAMES:
        return [words, *(" " * (NAMES + 1) + line for line in lines)]
    return [f"{words:<{NAMES}} {lines[0]}".rstrip(), *(" " * (NAMES + 1) + line for line in lines[1:])]
