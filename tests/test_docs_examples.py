"""The documentation does what it says: every command in it parses, every session in it gives what it prints, tutorials run.

Tutorials run on a tiny random model: it stands in for `smollm2-135m-instruct` and for the folders that a reader would have, and
options that shorten a run are added. Files whose content a page shows under a caption are written before its commands run.
"""

import copy
import doctest
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import tyro
from conftest import SurveyFiles, build_model, build_tokenizer

from aligntax.cli import SHELLS, main
from aligntax.commands.registry import COMMANDS, MODEL

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path.relative_to(DOCS) for path in DOCS.rglob("*.md"))
FENCE = re.compile(r"^(`{3,})(\{code-block\} )?(\w+)\n(?::caption: (\S+)\n\n?)?(.*?)^\1$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced part of a page: its language, the file that it shows (or none), its text."""

    language: str
    file: str | None
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """The fenced parts of a page in order."""
    for found in FENCE.finditer((DOCS / page).read_text()):
        yield Block(found[3], found[4], found[5])


def commands(text: str) -> list[list[str]]:
    """Words of every aligntax command typed in a console block, redirections and launchers left out."""
    lines = re.sub(r" \\\n", " ", text).splitlines()
    typed = [shlex.split(line[2:].split(" > ")[0]) for line in lines if line.startswith("$ ")]
    return [words[words.index("aligntax") + 1 :] for words in typed if "aligntax" in words]


CONSOLES = [(page, block) for page in PAGES for block in blocks(page) if block.language == "console"]
TYPED = [(str(page), words) for page, block in CONSOLES for words in commands(block.text)]
README = (DOCS.parent / "README.md").read_text()
TYPED += [
    ("README", words) for block in FENCE.finditer(README) if block[3] == "console" for words in commands(block[5])
]


@pytest.mark.parametrize(
    ("page", "words"), TYPED, ids=lambda value: value if isinstance(value, str) else " ".join(value)[:60]
)
def test_every_command_in_the_documentation_is_one(page: str, words: list[str]) -> None:
    if not words or words[0].endswith(".yaml"):
        return
    if words[0] == "completion":
        assert words[1] in SHELLS
        return
    entry = COMMANDS[words[0]]
    if not {"--help", "--help-all"} & set(words):
        assert isinstance(tyro.cli(entry.load(), args=words[1:]), entry.load())


def test_inline_commands_name_what_exists() -> None:
    known = {*COMMANDS, "completion", "run.yaml", "COMMAND"}
    for page in PAGES:
        for name in re.findall(r"`aligntax ([a-z.]+)", (DOCS / page).read_text()):
            assert name in known, f"{page}: aligntax {name}"


SESSIONS = [page for page in PAGES if any(block.language == "pycon" for block in blocks(page))]


@pytest.mark.parametrize("page", SESSIONS, ids=str)
def test_sessions_give_what_they_print(page: Path) -> None:
    text = "\n".join(block.text for block in blocks(page) if block.language == "pycon")
    test = doctest.DocTestParser().get_doctest(text, {}, str(page), str(page), 0)
    said: list[str] = []
    outcome = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert outcome.attempted >= 3 and outcome.failed == 0, "".join(said)


def test_there_is_a_session_on_every_concept() -> None:
    assert {page for page in PAGES if page.parts[0] == "concepts"} <= set(SESSIONS)


SHORTER = {
    "survey": {"--groups": "5"},
    "align": {"--steps": "2", "--batch": "4", "--completion-tokens": "6", "--protect-items": "8"},
    "audit": {"--tasks": "copying"},
}


def shortened(words: list[str], files: SurveyFiles) -> list[str]:
    """The same command with the options of SHORTER, and with small data where it names none.

    A survey of data that its page itself gives is run as printed: whether these are enough is what the page says.
    """
    name, given = words[0], list(words)
    if name == "survey" and {"--safety", "--tasks"} <= set(words):
        return given
    extra = dict(SHORTER.get(name, {}))
    if name in ("survey", "align"):
        extra |= {"--safety": str(files.prompts), "--tasks": str(files.words)}
        for flag in {"--safety", "--tasks"} & set(words):
            del extra[flag]
    for flag, value in extra.items():
        if flag in given and value is not None:
            given[given.index(flag) + 1] = value
        elif flag not in given:
            given += [flag] if value is None else [flag, value]
    return given


@pytest.fixture
def desk(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the checkpoints that a reader would have, as the current one."""
    for name in ("my-checkpoint", "base"):
        (tmp_path / name).symlink_to(tiny_folder)
    moved = copy.deepcopy(build_model("llama"))
    with torch.no_grad():
        for parameter in moved.model.layers[1].parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    moved.save_pretrained(tmp_path / "candidate")
    build_tokenizer().save_pretrained(tmp_path / "candidate")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_says_what_is_next(said: str) -> None:
    """The output ends with a file that exists and a command that parses."""
    *rest, last = said.strip().splitlines()
    paths = [Path(line.removeprefix("Wrote: ")) for line in rest if line.startswith("Wrote: ")]
    assert paths and all(path.exists() for path in paths)
    words = shlex.split(last.removeprefix("Next: "))
    assert words[0] == "aligntax" and tyro.cli(COMMANDS[words[1]].load(), args=words[2:]) is not None


WRITES = {
    "tour.md": ["out/survey/report.html", "out/align/model/model.safetensors", "out/audit/report.html"],
    "howto/your-model.md": ["out/mine/survey.json"],
    "howto/your-tasks.md": ["out/mine/report.html", "out/tax/tax.json"],
    "howto/trl-script.md": ["out/script/model/model.safetensors", "out/audit/audit.json"],
    "howto/ci-gate.md": ["out/audit/gate.xml", "out/tax/gate.xml"],
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("page", WRITES)
def test_tutorial_runs(page: str, desk: Path, survey_files: SurveyFiles, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("trl")
    names: dict[str, object] = {}
    for other in ("howto/your-tasks.md", page):  # evaluation logs are shown on one page and used on another
        for block in blocks(Path(other)):
            if block.file:
                (desk / block.file).write_text(block.text)
    for block in blocks(Path(page)):
        if block.language == "python":
            exec(compile(block.text, page, "exec"), names)
        for words in commands(block.text) if block.language == "console" else []:
            typed = [str(desk / "my-checkpoint") if word == MODEL else word for word in words]
            if typed and typed[0] in COMMANDS:
                typed = shortened(typed, survey_files)
            assert main(typed) == 0, " ".join(words)
            said = capsys.readouterr().out
            if typed and typed[0] in COMMANDS and not {"--plan", "--quiet", "--gate"} & set(typed):
                assert_says_what_is_next(said)
    assert [name for name in WRITES[page] if not (desk / name).is_file()] == []
