"""The first minute: what a newcomer sees before anything is computed, and that none of it waits for a model library."""

import ast
import contextlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tyro
import yaml

from aligntax.cli import SHELLS, main
from aligntax.commands import first_screen as screen
from aligntax.commands.registry import COMMANDS, MODEL
from aligntax.commands.short_help import LINES, WIDEST, options_of, short_help


def written(path: Path, **record: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


class TestFirstScreen:
    def test_shows_the_loop_and_what_to_type(self, tmp_path: Path, monkeypatch, capsys) -> None:
        monkeypatch.chdir(tmp_path)
        assert main([]) == 0
        shown = capsys.readouterr().out
        assert re.search(r"survey.*align or merge.*audit", shown)
        assert f"aligntax survey {MODEL} --size demo" in shown
        assert all(f"  {name} " in shown for name in COMMANDS)
        assert len(shown.splitlines()) <= LINES and max(map(len, shown.splitlines())) <= WIDEST

    @pytest.mark.parametrize("words", [["-h"], ["--help"]])
    def test_help_is_the_same_screen(self, words: list[str], tmp_path: Path, monkeypatch, capsys) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(words) == 0 and main([]) == 0
        shown = capsys.readouterr().out
        assert shown[: len(shown) // 2] == shown[len(shown) // 2 :]

    def test_next_step_follows_the_folders(self, tmp_path: Path) -> None:
        said = [screen.next_command(tmp_path)[0]]
        written(tmp_path / "survey" / "survey.json", model="my model", provenance={"model_source": "folder"})
        said.append(screen.next_command(tmp_path)[0])
        written(tmp_path / "align" / "align.json")
        said.append(screen.next_command(tmp_path)[0])
        written(tmp_path / "audit" / "audit.json")
        said.append(screen.next_command(tmp_path)[0])
        assert [shlex.split(words)[1] for words in said] == ["survey", "align", "audit", "merge"]
        assert all(shlex.split(words)[2] == "my model" for words in said[1:])
        assert shlex.split(said[2])[3] == str(tmp_path / "align" / "model")

    def test_options_that_choose_the_model_go_on(self, tmp_path: Path) -> None:
        """A survey of another revision with an adapter: the same is trained, and then audited against."""
        given = {
            "model": "org/name",
            "revision": "v2",
            "adapter": "my lora",
            "system": None,
            "chat_template_kwargs": "{}",
        }
        written(tmp_path / "survey" / "survey.json", model="name")
        (tmp_path / "survey" / "run.yaml").write_text(yaml.safe_dump(given))
        words = shlex.split(screen.next_command(tmp_path)[0])
        assert words[:7] == ["aligntax", "align", "org/name", "--adapter", "my lora", "--revision", "v2"]
        assert "--system" not in words and "--chat-template-kwargs" not in words
        written(tmp_path / "align" / "align.json")
        words = shlex.split(screen.next_command(tmp_path)[0])
        assert words[:6] == ["aligntax", "audit", "my lora", str(tmp_path / "align" / "model"), "--revision", "v2"]

    def test_a_broken_survey_file_breaks_no_screen(self, tmp_path: Path) -> None:
        (tmp_path / "survey").mkdir()
        (tmp_path / "survey" / "survey.json").write_text("{")
        assert screen.next_command(tmp_path)[0].split()[:3] == ["aligntax", "align", MODEL]

    def test_every_next_command_parses(self, tmp_path: Path) -> None:
        for name in (None, "survey/survey.json", "align/align.json", "audit/audit.json"):
            if name:
                written(tmp_path / name)
            words = shlex.split(screen.next_command(tmp_path)[0])
            assert tyro.cli(COMMANDS[words[1]].load(), args=words[2:]) is not None

    def test_no_model_library_is_loaded(self) -> None:
        code = (
            "import sys; from aligntax.cli import SHELLS, main; assert main([]) == main(['survey', '--help']) == 0;"
            "assert not {'torch', 'transformers', 'sklearn', 'tyro'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


class TestHelp:
    @pytest.mark.parametrize("name", COMMANDS)
    @pytest.mark.parametrize("columns", [80, 100, 200])
    def test_fits_a_screen(self, name: str, columns: int) -> None:
        lines = short_help(name, columns).splitlines()
        assert len(lines) <= LINES and max(map(len, lines)) <= min(columns, WIDEST)

    @pytest.mark.parametrize("name", COMMANDS)
    def test_names_every_option_that_the_parser_takes(self, name: str, capsys) -> None:
        assert main([name, "--help-all"]) == 0
        full = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", capsys.readouterr().out)) - {"--help"}
        _, options = options_of(COMMANDS[name])
        short = {option.name for option in options if not option.positional}
        assert short <= full | {"--help"}
        assert all(option in short_help(name) for option in short)

    @pytest.mark.parametrize("name", COMMANDS)
    def test_fields_are_those_of_the_dataclass(self, name: str) -> None:
        kind = COMMANDS[name].load()
        hidden = {field for field in kind.__dataclass_fields__ if "Suppress" in _annotation(kind, field)}
        _, options = options_of(COMMANDS[name])
        bare = {option.name.lower().removeprefix("--no-").removeprefix("--").replace("-", "_") for option in options}
        assert bare == set(kind.__dataclass_fields__) - hidden
        assert all(option.text for option in options)

    @pytest.mark.parametrize(("name", "example"), [(n, e) for n, entry in COMMANDS.items() for e in entry.examples])
    def test_examples_parse_and_stand_in_the_help(self, name: str, example: str) -> None:
        words = shlex.split(example)
        assert words[:2] == ["aligntax", name]
        assert isinstance(tyro.cli(COMMANDS[name].load(), args=words[2:]), COMMANDS[name].load())
        joined = re.sub(r" \\\n +", " ", short_help(name))
        assert f"  {example}\n" in joined

    def test_a_wrong_word_gets_the_right_one(self, capsys) -> None:
        assert main(["surve", "m"]) == 2
        assert "did you mean 'survey'" in capsys.readouterr().err

    def test_version(self, capsys) -> None:
        assert main(["--version"]) == 0
        assert re.fullmatch(r"aligntax \d+\.\d+\.\d+\n", capsys.readouterr().out)


def _annotation(kind: type, field: str) -> str:
    tree = ast.parse(Path(sys.modules[kind.__module__].__file__ or "").read_text())
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == kind.__name__)
    found = (n for n in body.body if isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == field)
    return ast.unparse(next(found).annotation)


COMPLETE = """
source {script}
f=$(complete -p aligntax | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=({words} "{typed}"); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); $f aligntax; echo "${{COMPREPLY[@]}}"
"""


class TestCompletion:
    @pytest.fixture(scope="class")
    def script(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        path = tmp_path_factory.mktemp("completion") / "aligntax.bash"
        with path.open("w") as file, contextlib.redirect_stdout(file):
            assert main(["completion", "bash"]) == 0
        return path

    @pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
    @pytest.mark.parametrize(
        ("words", "typed", "wanted"),
        [
            ("aligntax", "su", "survey"),
            ("aligntax survey", "--ou", "--out"),
            ("aligntax survey m --size", "q", "quick"),
            ("aligntax align m --method", "gr", "grpo"),
        ],
    )
    def test_bash_completes(self, script: Path, words: str, typed: str, wanted: str) -> None:
        code = COMPLETE.format(script=shlex.quote(str(script)), words=words, typed=typed)
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        assert wanted in done.stdout.split()

    @pytest.mark.parametrize("shell", SHELLS)
    def test_every_shell_gets_a_script_with_every_command(self, shell: str, capsys) -> None:
        assert main(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert all(name in script for name in COMMANDS)

    @pytest.mark.parametrize("words", [[], ["powershell"], ["bash", "zsh"]])
    def test_other_shells_are_refused(self, words: list[str], capsys) -> None:
        assert main(["completion", *words]) == 2
        assert "bash, zsh, fish" in capsys.readouterr().err


class TestReplay:
    def record(self, folder: Path, **more: object) -> Path:
        path = folder / "run.yaml"
        values = {"command": "survey", "model": str(folder / "nothing-here"), "groups": 5, **more}
        path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items()))
        return path

    def test_a_record_that_names_code_is_refused(self, tmp_path: Path, capsys) -> None:
        path = self.record(tmp_path, trust_remote_code=True)
        assert main([str(path)]) == 2
        assert "--allow-code" in capsys.readouterr().err
        assert main([str(path), "--allow-code"]) == 2
        assert "nothing-here" in capsys.readouterr().err  # past the refusal, on to the model that is not there

    def test_nothing_else_may_follow_a_record(self, tmp_path: Path, capsys) -> None:
        assert main([str(self.record(tmp_path)), "--size", "full"]) == 2
        assert "--allow-code" in capsys.readouterr().err
