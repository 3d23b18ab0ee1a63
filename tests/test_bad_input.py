"""Input that cannot be used: one line on stderr that repeats the input, exit code 2 (130 for Ctrl-C), no traceback."""

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from conftest import SurveyFiles, build_model, build_tokenizer, write_rows
from safetensors.torch import load_file, save_file

import aligntax
from aligntax.cli import main
from aligntax.commands.registry import COMMANDS
from aligntax.data import ChatFormat
from aligntax.errors import AligntaxError
from aligntax.results import read_survey

Refused = Callable[..., str]


def arguments(model: object, files: SurveyFiles, out: Path, *more: str) -> list[str]:
    base = ["survey", str(model), "--out", str(out), "--size", "demo", "--groups", "5", "--quiet", "--no-linearity"]
    given = [] if "--safety" in more else ["--safety", str(files.prompts)]
    tasks = [] if "--tasks" in more else ["--tasks", str(files.sums), str(files.words)]
    return [*base, *given, *tasks, *more]


@pytest.fixture
def refused(
    tiny_folder: Path, survey_files: SurveyFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Run a survey that must end in exit code 2; returns its one line."""

    def call(*more: str, model: object = None) -> str:
        capsys.readouterr()
        assert main(arguments(model or tiny_folder, survey_files, tmp_path / "out", *more)) == 2
        told = capsys.readouterr()
        lines = told.err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("aligntax: "), told.err
        assert "Traceback" not in told.err + told.out
        assert not (tmp_path / "out" / "survey.json").exists()
        return lines[0]

    return call


@pytest.fixture
def edited(tiny_folder: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the tiny model to damage."""
    folder = tmp_path / "edited"
    shutil.copytree(tiny_folder, folder)
    yield folder


class TestModels:
    def test_unknown_folder(self, refused: Refused) -> None:
        assert "./no-such-model" in refused(model="./no-such-model")

    def test_unknown_hub_id(self, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
        def offline(*_: object, **__: object) -> None:
            raise OSError("cannot reach the hub\nand a second line")

        monkeypatch.setattr("aligntax.models.checkpoint.snapshot_download", offline)
        assert "nobody/no-such-model" in refused(model="nobody/no-such-model")

    def test_name_with_escapes_cannot_colour_the_terminal(self, refused: Refused) -> None:
        assert "\x1b" not in refused(model="./\x1b[31mred\nfolder")

    def test_pickled_weights(self, refused: Refused, edited: Path) -> None:
        torch.save(load_file(edited / "model.safetensors"), edited / "pytorch_model.bin")
        (edited / "model.safetensors").unlink()
        assert "pickled" in refused(model=edited)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_weights_that_are_no_numbers(self, refused: Refused, edited: Path, bad: float) -> None:
        weights = load_file(edited / "model.safetensors")
        name = "model.layers.1.mlp.up_proj.weight"
        weights[name][3, 4] = bad
        save_file(weights, edited / "model.safetensors", {"format": "pt"})
        assert name in refused(model=edited)

    def test_overflow_in_the_forward_pass(self, refused: Refused, edited: Path) -> None:
        weights = load_file(edited / "model.safetensors")
        weights["lm_head.weight"][50] = 3e38
        save_file(weights, edited / "model.safetensors", {"format": "pt"})
        assert "NaN or infinite" in refused(model=edited)

    def test_damaged_weights(self, refused: Refused, edited: Path) -> None:
        whole = (edited / "model.safetensors").read_bytes()
        (edited / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        assert "edited" in refused(model=edited)

    def test_tokenizer_without_template_is_told_and_works(
        self, edited: Path, survey_files: SurveyFiles, tmp_path: Path
    ) -> None:
        for path in edited.glob("chat_template*"):
            path.unlink()
        config = json.loads((edited / "tokenizer_config.json").read_text())
        config.pop("chat_template", None)
        (edited / "tokenizer_config.json").write_text(json.dumps(config))
        assert main(arguments(edited, survey_files, tmp_path / "out")) == 0
        survey = read_survey(tmp_path / "out")
        assert any("no chat template" in warning for warning in survey.warnings)
        assert "no chat template" in survey.provenance.chat_template
        assert "no chat template" in (tmp_path / "out" / "report.html").read_text()

    def test_model_without_tokenizer(self, refused: Refused, edited: Path) -> None:
        for path in edited.glob("*token*"):
            path.unlink()
        assert "tokenizer" in refused(model=edited)

    def test_unknown_device(self, refused: Refused) -> None:
        assert "abacus" in refused("--device", "abacus")


class TestTaskFiles:
    def test_missing(self, refused: Refused) -> None:
        assert "nowhere.jsonl" in refused("--tasks", "nowhere.jsonl")

    def test_unknown_builtin(self, refused: Refused) -> None:
        told = refused("--tasks", "arithmetik")
        assert "arithmetik" in told and "arithmetic" in told.replace("arithmetik", "")

    def test_malformed_line_is_named(self, refused: Refused, survey_files: SurveyFiles, tmp_path: Path) -> None:
        lines = survey_files.sums.read_text().splitlines()
        lines[6] = lines[6][:-3]
        path = tmp_path / "broken.jsonl"
        path.write_text("\n".join(lines))
        assert "broken.jsonl:7" in refused("--tasks", str(path))

    def test_row_of_no_kind_is_named(self, refused: Refused, tmp_path: Path) -> None:
        rows = [{"prompt": f"{k} is", "answer": "odd"} for k in range(30)]
        rows[4] = {"prompt": "4 is"}
        assert "gaps.jsonl:5" in refused("--tasks", str(write_rows(tmp_path / "gaps.jsonl", rows)))

    def test_empty_answer(self, refused: Refused, tmp_path: Path) -> None:
        rows = [{"prompt": f"{k} is", "answer": "odd"} for k in range(30)]
        rows[2]["answer"] = ""
        assert "empty.jsonl:3" in refused("--tasks", str(write_rows(tmp_path / "empty.jsonl", rows)))

    def test_answer_that_tokenises_to_nothing(self, refused: Refused, tmp_path: Path) -> None:
        # Only control characters: nothing is left of them, and nothing can be scored.
        rows = [{"prompt": f"{k} is", "answer": "odd"} for k in range(30)]
        rows[2]["answer"] = "\u0007\u0007"
        assert "nothing.jsonl:3" in refused("--tasks", str(write_rows(tmp_path / "nothing.jsonl", rows)))

    def test_prompt_longer_than_the_context(self, refused: Refused, tmp_path: Path) -> None:
        rows = [{"prompt": f"{k} is" + " very" * 300 * (k == 7), "answer": "odd"} for k in range(15)]
        path = write_rows(tmp_path / "long.jsonl", rows * 1)
        told = refused("--tasks", str(path))
        assert "long" in told and "context of 256" in told

    def test_too_few_items(self, refused: Refused, tmp_path: Path) -> None:
        rows = [{"prompt": f"{k} is", "answer": "odd"} for k in range(9)]
        told = refused("--tasks", str(write_rows(tmp_path / "few.jsonl", rows)))
        assert "few" in told and "9 items" in told

    def test_empty_file(self, refused: Refused, tmp_path: Path) -> None:
        assert "blank.jsonl" in refused("--tasks", str(write_rows(tmp_path / "blank.jsonl", [])))

    def test_not_text(self, refused: Refused, tmp_path: Path) -> None:
        (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
        assert "bytes.jsonl:1" in refused("--tasks", str(tmp_path / "bytes.jsonl"))

    def test_folder_instead_of_a_file(self, refused: Refused, tmp_path: Path) -> None:
        (tmp_path / "dir.jsonl").mkdir()
        assert "dir.jsonl" in refused("--tasks", str(tmp_path / "dir.jsonl"))

    def test_odd_name_is_renamed_and_shown(
        self, tiny_folder: Path, survey_files: SurveyFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        odd = tmp_path / "My Sums (v2).jsonl"
        shutil.copy(survey_files.sums, odd)
        args = arguments(tiny_folder, survey_files, tmp_path / "out", "--tasks", str(odd))
        args.remove("--quiet")
        assert main(args) == 0
        survey = read_survey(tmp_path / "out")
        assert set(survey.at_layer().tasks) == {"my-sums-v2"}
        page, shown = (tmp_path / "out" / "report.html").read_text(), capsys.readouterr().out
        for text in (page, " ".join(shown.split())):
            assert "renamed from" in text and "My Sums (v2)" in text and "my-sums-v2" in text

    def test_two_files_of_one_name(self, tiny_folder: Path, survey_files: SurveyFiles, tmp_path: Path) -> None:
        other = write_rows(tmp_path / "sums.jsonl", [{"prompt": f"{k} is", "answer": "odd"} for k in range(30)])
        args = arguments(tiny_folder, survey_files, tmp_path / "out", "--tasks", str(survey_files.sums), str(other))
        assert main(args) == 0
        assert set(read_survey(tmp_path / "out").at_layer().tasks) == {"sums", "sums-2"}

    def test_escapes_reach_neither_terminal_nor_files(
        self, tiny_folder: Path, survey_files: SurveyFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = [{"prompt": f"\x1b[31m{k}\x07 is", "answer": "\x1b[1modd"} for k in range(30)]
        path = write_rows(tmp_path / "red\x1b[31m.jsonl", rows)
        args = arguments(tiny_folder, survey_files, tmp_path / "out", "--tasks", str(path), "--system", "\x1b[31mkind")
        args.remove("--quiet")
        assert main(args) == 0
        shown = capsys.readouterr()
        page, data = (tmp_path / "out" / "report.html").read_text(), (tmp_path / "out" / "survey.json").read_text()
        for text in (shown.out, page):
            assert "\x1b[31m" not in text and "\x07" not in text
        assert "\x1b" not in data and "u001b" not in data


class TestSafetyFiles:
    def test_missing(self, refused: Refused) -> None:
        assert "nowhere.jsonl" in refused("--safety", "nowhere.jsonl")

    @pytest.mark.parametrize("kept", [True, False])
    def test_one_class_empty(self, refused: Refused, survey_files: SurveyFiles, tmp_path: Path, kept: bool) -> None:
        rows = [row for row in map(json.loads, survey_files.prompts.read_text().splitlines()) if row["harmful"] is kept]
        told = refused("--safety", str(write_rows(tmp_path / "half.jsonl", rows)))
        assert "half.jsonl" in told and ("harmless" if kept else "harmful ") in told and "empty" in told

    def test_row_without_class(self, refused: Refused, tmp_path: Path) -> None:
        rows = [{"prompt": "one", "harmful": True}, {"prompt": "two"}]
        assert "classes.jsonl:2" in refused("--safety", str(write_rows(tmp_path / "classes.jsonl", rows)))

    def test_too_few_prompts(self, refused: Refused, tmp_path: Path) -> None:
        rows = [{"prompt": f"Tell me {k}", "harmful": k % 2 == 0} for k in range(12)]
        told = refused("--safety", str(write_rows(tmp_path / "few.jsonl", rows)))
        assert "few" in told and "5 groups" in told

    def test_one_prompt_of_each_class(self, refused: Refused, tmp_path: Path) -> None:
        rows = [{"prompt": f"Tell me {k}", "harmful": k == 0} for k in range(2)]
        assert "few" in refused("--safety", str(write_rows(tmp_path / "few.jsonl", rows)))

    def test_choices_cannot_come_first(self, refused: Refused) -> None:
        assert "honesty" in refused("--safety", "honesty")

    def test_prompt_longer_than_the_context(self, refused: Refused, survey_files: SurveyFiles, tmp_path: Path) -> None:
        rows = [json.loads(line) for line in survey_files.prompts.read_text().splitlines()]
        for row in rows:
            row["prompt"] += " please" * 60 * (not row["harmful"])
        told = refused("--safety", str(write_rows(tmp_path / "long.jsonl", rows)))
        assert ("256" in told and "please" in told) or "How can I" in told

    def test_no_room_for_the_reply(self, refused: Refused, survey_files: SurveyFiles, tmp_path: Path) -> None:
        """A prompt that just fits leaves none of the context for the reply on which KL is measured."""
        tokenizer, rows = build_tokenizer(), []
        for line in survey_files.prompts.read_text().splitlines():
            row = json.loads(line)
            if not row["harmful"]:
                missing = 250 - len(tokenizer.encode(row["prompt"]))
                row["prompt"] += "?" * missing
            rows.append(row)
        assert "context of 256" in refused("--safety", str(write_rows(tmp_path / "tight.jsonl", rows)))


class TestReplies:
    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize(
        ("reply", "named"),
        [([40, 41], "--chat-template-kwargs '{\"enable_thinking\": false}'"), ([], "give other harmless prompts")],
        ids=["nothing but a thought", "empty"],
    )
    def test_replies_without_content_stop_the_run_before_any_gradient(
        self, refused: Refused, monkeypatch: pytest.MonkeyPatch, reply: list[int], named: str
    ) -> None:
        monkeypatch.setattr(ChatFormat, "response_start", lambda _, ids: len(ids))
        monkeypatch.setattr("aligntax.commands.gather.generate", lambda _, prompts, *__, **___: [reply] * len(prompts))
        monkeypatch.setattr("aligntax.commands.phases.gather_items", None)
        told = refused()
        assert named in told and "0 replies to 8 prompts" in told
        # What was said is kept, so the same run ends here again, and for the same reason.
        monkeypatch.setattr("aligntax.commands.gather.generate", None)
        assert refused() == told


class TestSettings:
    @pytest.mark.parametrize(
        ("flags", "named"),
        [
            (["--tolerance", "lots"], "lots"),
            (["--tolerance", "-0.5"], "-0.5"),
            (["--tolerance", "nan"], "nan"),
            (["--tolerance", "poetry=0.1"], "poetry"),
            (["--formats", "sonnet"], "sonnet"),
            (["--groups", "2"], "2"),
            (["--groups", "4"], "5"),
            (["--groups", "50"], "50 groups"),
            (["--budget-nats", "0"], "0"),
            (["--budget-nats", "nan"], "nan"),
            (["--rank", "9", "--estimator", "subspace"], "9"),
            (["--chat-template-kwargs", "thinking=no"], "thinking=no"),
            (["--chat-template-kwargs", "[1]"], "[1]"),
            (["--chat-template-kwargs", '{"tokenize": false}'], "tokenize"),
            (["--refusal-tokens", " , "], "refusal"),
            (["--batch-tokens", "-5"], "-5"),
            (["--adapter", "./no-adapter"], "./no-adapter"),
        ],
    )
    def test_bad_values(self, refused: Refused, flags: list[str], named: str, monkeypatch: pytest.MonkeyPatch) -> None:
        # Settings are checked before the model runs, not after an hour.
        monkeypatch.setattr("aligntax.commands.phases.gather_sinks", None)
        assert named in refused(*flags)

    @pytest.mark.parametrize(
        "flags", [["--frobnicate"], ["--size", "huge"], ["--groups", "many"], ["--estimator", "magic"]]
    )
    def test_words_the_parser_refuses(
        self, flags: list[str], tiny_folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["survey", str(tiny_folder), *flags]) == 2
        told = capsys.readouterr()
        assert "Traceback" not in told.err + told.out
        assert flags[0] in told.err and len(told.err.splitlines()) < 25

    def test_no_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["grumble"]) == 2
        assert "Traceback" not in capsys.readouterr().err

    def test_help_is_no_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["survey", "--help"]) == 0
        assert "--tolerance" in capsys.readouterr().out


class TestSeeds:
    POSITIONAL: ClassVar = {
        "survey": ["gone"], "align": ["gone"], "merge": ["gone", "gone"], "audit": ["gone", "gone"],
        "tax": ["gone.csv", "gone.csv"], "scale": ["gone", "gone", "gone"], "predict": ["P5"], "pipeline": [], "demo": ["gone"],
    }  # fmt: skip

    def test_every_command_that_draws_is_here(self) -> None:
        drawing = {name for name, entry in COMMANDS.items() if "seed" in entry.load().__dataclass_fields__}
        assert drawing == set(self.POSITIONAL)

    @pytest.mark.parametrize("seed", ["-1", str(2**32)])
    @pytest.mark.parametrize("name", POSITIONAL)
    def test_a_seed_out_of_range_is_told_before_anything_else(
        self, name: str, seed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        # Nothing is begun: neither the model that is not there is named, nor a folder made.
        monkeypatch.setattr(COMMANDS[name].load(), "execute", None)
        assert main([name, *self.POSITIONAL[name], "--seed", seed]) == 2
        told = capsys.readouterr().err.splitlines()
        assert len(told) == 1 and told[0].startswith(f"aligntax: --seed {seed}: give"), told
        assert not list(tmp_path.iterdir())

    def test_a_record_and_python_are_told_the_same(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "run.yaml").write_text("command: survey\nmodel: gone\nseed: -1")
        assert main([str(tmp_path / "run.yaml")]) == 2
        assert "--seed -1" in capsys.readouterr().err
        with pytest.raises(AligntaxError, match="--seed -1: give"):
            aligntax.survey("gone", seed=-1, out=tmp_path / "out")


class TestRecords:
    @pytest.mark.parametrize(
        ("content", "named"),
        [
            ("command: [unclosed", "cannot read"),
            ("just text", "no record"),
            ("command: dance", "no record"),
            ("command: survey\nmodel: m\ncolour: blue", "colour"),
            ("command: survey\nmodel: m\ngroups: many", "int"),
            ("command: survey\nmodel: m\nsize: huge", "huge"),
            ("command: survey\nmodel: m\nout: 5", "Path"),
            ("command: survey\ngroups: 5", "model"),
            ("command: survey\nmodel: !!python/object/apply:os.system ['true']", "cannot read"),
        ],
    )
    def test_bad_records(self, content: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "run.yaml"
        path.write_text(content)
        assert main([str(path)]) == 2
        told = capsys.readouterr().err
        assert len(told.splitlines()) == 1 and named in told and "Traceback" not in told

    def test_missing_record(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([str(tmp_path / "gone.yaml")]) == 2
        assert "gone.yaml" in capsys.readouterr().err


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


class TestDiskAndInterrupt:
    def test_no_space_for_a_shard(self, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aligntax.probing.shards.save_file", full_disk)
        assert "No space left" in refused()

    def test_no_space_for_the_results(
        self,
        refused: Refused,
        tiny_folder: Path,
        survey_files: SurveyFiles,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("aligntax.results.files.os.fsync", full_disk)
            assert "No space left" in refused()
        shards = sorted((tmp_path / "out" / "shards").iterdir())
        assert shards and not list((tmp_path / "out").glob(".*"))
        assert main(arguments(tiny_folder, survey_files, tmp_path / "out")) == 0
        assert sorted((tmp_path / "out" / "shards").iterdir()) == shards

    def test_out_is_a_file(self, refused: Refused, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("mine")
        assert "taken" in refused("--out", str(tmp_path / "taken"))
        assert (tmp_path / "taken").read_text() == "mine"

    @pytest.mark.parametrize("phase", ["gather_sinks", "gather_items", "select", "layer_row"])
    def test_ctrl_c(
        self, phase: str, tiny_folder: Path, survey_files: SurveyFiles, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        room = "assemble" if phase in ("select", "layer_row") else "phases"
        monkeypatch.setattr(f"aligntax.commands.{room}.{phase}", interrupted)
        assert main(arguments(tiny_folder, survey_files, tmp_path / "out")) == 130
        told = capsys.readouterr().err
        assert len(told.splitlines()) == 1 and "interrupted" in told
        assert not (tmp_path / "out" / "survey.json").exists()


def test_position_embeddings_end_where_the_context_does(survey_files: SurveyFiles, tmp_path: Path) -> None:
    """A model with learned positions crashes past its context; a survey within it does not."""
    build_model("gpt2").save_pretrained(tmp_path / "gpt2")
    build_tokenizer().save_pretrained(tmp_path / "gpt2")
    assert main(arguments(tmp_path / "gpt2", survey_files, tmp_path / "out")) == 0
