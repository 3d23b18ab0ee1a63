"""The survey from the outside: what it writes, that it resumes and replays, its settings; on a tiny random model."""

import functools
import itertools
import json
import shlex
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from conftest import SurveyFiles
from safetensors.numpy import load_file
from transformers import LlamaForCausalLM

import aligntax
from aligntax.cli import main
from aligntax.commands.first_screen import next_command
from aligntax.geometry import tax_rate
from aligntax.models import ModelSpec, load
from aligntax.probing import Meter
from aligntax.results import read_survey

GROUPS, LAYERS, WIDTH = 5, 3, 32
TASK_FIELDS = {"cosine", "tax", "low", "high", "p_value", "reliability", "regime", "change_per_decinat"}
VOLATILE = {"timing", "provenance"}

Run = Callable[..., Path]


def numbers(out: Path) -> dict:
    """Everything of survey.json that a repetition must reproduce."""
    return {k: v for k, v in json.loads((out / "survey.json").read_text()).items() if k not in VOLATILE}


def modified(out: Path) -> dict[str, int]:
    """Time of the last change of every shard."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}


def arguments(model: Path, files: SurveyFiles, out: Path, *more: str) -> list[str]:
    base = ["survey", str(model), "--out", str(out), "--size", "demo", "--groups", str(GROUPS), "--quiet"]
    given = [] if "--safety" in more else ["--safety", str(files.prompts)]
    tasks = [] if "--tasks" in more else ["--tasks", str(files.sums), str(files.words)]
    return [*base, *given, *tasks, *more]


@pytest.fixture
def run(tiny_folder: Path, survey_files: SurveyFiles, tmp_path: Path) -> Run:
    """Run a survey with more arguments and return its folder."""

    def call(*more: str, out: str = "out") -> Path:
        assert main(arguments(tiny_folder, survey_files, tmp_path / out, *more)) == 0
        return tmp_path / out

    return call


@pytest.fixture(scope="module")
def surveyed(tiny_folder: Path, survey_files: SurveyFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished survey, shared: leave it as found."""
    out = tmp_path_factory.mktemp("survey") / "out"
    assert main(arguments(tiny_folder, survey_files, out)) == 0
    return out


class TestFiles:
    def test_survey_json_has_every_promised_field(self, surveyed: Path) -> None:
        found = json.loads((surveyed / "survey.json").read_text())
        wanted = {
            "schema_version",
            "model",
            "size",
            "layer",
            "layers",
            "linearity",
            "conflicts",
            "timing",
            "provenance",
        }
        assert wanted <= set(found)
        assert found["size"] == "demo" and found["layer"] in range(LAYERS)
        assert [row["layer"] for row in found["layers"]] == list(range(LAYERS))
        for row in found["layers"]:
            assert {"joint_tax", "joint_tax_crossfit", "sum_tax"} <= set(row)
            assert set(row["tasks"]) == {"sums", "words"}
            for task in row["tasks"].values():
                assert set(task) >= TASK_FIELDS
                assert task["regime"] in ("free", "tradeoff", "entangled", "unranked")
        assert {"correlation", "slope", "validity_radius_nats"} <= set(found["linearity"])
        assert sum(phase["seconds"] for phase in found["timing"]) > 0
        assert found["provenance"]["groups"] == GROUPS and len(found["provenance"]["weights_sha256"]) == 64

    def test_joint_tax_is_the_tax_rate_of_the_saved_means(self, surveyed: Path) -> None:
        saved = load_file(surveyed / "directions.safetensors")
        for row in read_survey(surveyed).layers:
            caps = np.stack([saved[f"task.{name}"][row.layer] for name in row.tasks])
            assert tax_rate(saved["safety"][row.layer], caps) == pytest.approx(row.joint_tax, abs=1e-6)
            # Two capabilities, so the projection can be solved by hand.
            v, basis = saved["safety"][row.layer].astype(float), np.linalg.qr(caps.T.astype(float))[0]
            assert np.sum((basis.T @ v) ** 2) / (v @ v) == pytest.approx(row.joint_tax, abs=1e-6)

    def test_group_sums_and_counts_give_back_the_means(self, surveyed: Path) -> None:
        saved = load_file(surveyed / "directions.safetensors")
        for name in ("safety", "task.sums", "task.words"):
            sums, counts = saved[f"groups.{name}"], saved[f"counts.{name}"]
            assert saved[name].shape == (LAYERS, WIDTH)
            assert sums.shape == (GROUPS, LAYERS, WIDTH) and counts.shape == (GROUPS,)
            assert (sums / counts[:, None, None]).mean(0) == pytest.approx(saved[name], abs=1e-6)
        assert saved["counts.task.sums"].sum() == 16 == saved["counts.task.words"].sum()

    def test_items_table_has_one_row_an_item(self, surveyed: Path) -> None:
        table = pq.read_table(surveyed / "items.parquet").to_pydict()
        assert len(table["item"]) == 32 == len(set(table["item"]))
        scores = {info.name: info.score for info in read_survey(surveyed).tasks}
        for name, score in scores.items():
            own = [v for t, v in zip(table["task"], table["value"], strict=True) if t == name]
            assert np.mean(own) == pytest.approx(score)

    def test_model_text_is_only_for_the_owner(self, surveyed: Path) -> None:
        path = surveyed / "texts.parquet"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        replies = [r for r in pq.read_table(path).to_pydict()["reply"] if len(r) > 8]
        assert replies
        page, data = (surveyed / "report.html").read_text(), (surveyed / "survey.json").read_text()
        assert not any(reply in page or reply in data for reply in replies)

    def test_report_shows_every_task(self, surveyed: Path) -> None:
        page = (surveyed / "report.html").read_text()
        assert "<html" in page and "sums" in page and "words" in page and "demo" in page

    def test_predictions_are_gradient_times_shift(self, surveyed: Path) -> None:
        """change_per_decinat is the mean gradient along the safety direction, times the length that costs 0.1 nat."""
        saved, survey = load_file(surveyed / "directions.safetensors"), read_survey(surveyed)
        row = survey.at_layer()
        v = saved["safety"][row.layer]
        for name, task in row.tasks.items():
            step = v / np.linalg.norm(v) * row.shift_norm_per_decinat
            assert saved[f"task.{name}"][row.layer] @ step == pytest.approx(task.change_per_decinat, abs=1e-5)


class TestResume:
    def test_run_yaml_replays_without_doing_work_twice(self, run: Run) -> None:
        out = run()
        first, shards = numbers(out), modified(out)
        record = yaml.safe_load((out / "run.yaml").read_text())
        assert record["command"] == "survey" and record["groups"] == GROUPS
        assert main([str(out / "run.yaml")]) == 0
        assert numbers(out) == first
        assert modified(out) == shards

    def test_killed_run_resumes_with_the_numbers_of_a_straight_one(
        self,
        run: Run,
        surveyed: Path,
        tiny_folder: Path,
        survey_files: SurveyFiles,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("aligntax.commands.phases.gather_controls", interrupted)
            assert main(arguments(tiny_folder, survey_files, tmp_path / "out")) == 130
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and "Traceback" not in told
        shards = modified(tmp_path / "out")
        assert any(name.startswith("gradients-sums") for name in shards)
        assert not any(name.startswith("controls") for name in shards)
        assert not (tmp_path / "out" / "survey.json").exists()
        out = run()
        assert {name: when for name, when in modified(out).items() if name in shards} == shards
        assert numbers(out) == numbers(surveyed)

    def test_damaged_shard_is_made_again(self, run: Run) -> None:
        out = run()
        first = numbers(out)
        shard = next((out / "shards").glob("gradients-sums*"))
        shard.write_bytes(shard.read_bytes()[:50])
        assert numbers(run()) == first

    def test_another_seed_is_another_run_beside_the_first(self, run: Run) -> None:
        out = run()
        first, shards = numbers(out), modified(out)
        run("--seed", "1")
        assert numbers(out) != first
        after = modified(out)
        assert len(after) > len(shards) and {name: after[name] for name in shards} == shards
        run()
        assert numbers(out) == first


class TestPlanReportModels:
    def test_plan_starts_nothing(
        self,
        tiny_folder: Path,
        survey_files: SurveyFiles,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        real = LlamaForCausalLM.forward

        def counted(self: LlamaForCausalLM, input_ids: torch.Tensor, **more: object) -> object:
            # Loading checks the output head on four tokens; nothing else may run.
            assert input_ids.numel() <= 4, "a pass through the model was made"
            return real(self, input_ids, **more)

        monkeypatch.setattr(LlamaForCausalLM, "forward", counted)
        monkeypatch.setattr("aligntax.commands.survey.assemble", None)
        assert main(arguments(tiny_folder, survey_files, tmp_path / "out", "--plan")) == 0
        assert not (tmp_path / "out").exists()
        shown = capsys.readouterr().out
        assert "capability gradients" in shown and "memory" in shown

    def test_plan_counts_the_tokens_that_are_run(
        self,
        surveyed: Path,
        tiny_folder: Path,
        survey_files: SurveyFiles,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert main(arguments(tiny_folder, survey_files, tmp_path / "out", "--plan")) == 0
        line = next(x for x in capsys.readouterr().out.splitlines() if "capability gradients" in x)
        planned = int("".join(c for c in line.split("│")[2] if c.isdigit()))
        assert planned == next(p.tokens for p in read_survey(surveyed).timing if p.name == "capability gradients")

    def test_every_phase_says_how_much_it_will_run(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        totals, phase = dict[str, int | None](), Meter.phase
        monkeypatch.setattr(
            Meter, "phase", lambda m, name, total: (totals.update({name: total}), phase(m, name, total))[1]
        )
        done = {p.name: p.tokens for p in read_survey(run("--capability", "probe")).timing if p.name != "tables"}
        assert list(totals) == list(done) and all(totals.values())
        for name, tokens in done.items():
            share = tokens / (totals[name] or 1)
            # How many measurements a shift of the wanted KL takes, and how long the model talks, is not known before.
            low, high = (0.4, 1.5) if name in ("layer selection", "linearity check", "replies") else (0.99, 1)
            assert low <= share <= high, f"{name}: {tokens} of {totals[name]}"

    def test_report_renders_again(self, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
        out = run()
        page = (out / "report.html").read_bytes()
        (out / "report.html").unlink()
        assert main(["report", str(out)]) == 0
        assert (out / "report.html").read_bytes() == page
        assert "sums" in capsys.readouterr().out

    def test_the_first_screen_names_the_model_that_was_surveyed(
        self, surveyed: Path, tiny_folder: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(surveyed, tmp_path / "survey")
        assert shlex.split(next_command(tmp_path)[0])[:3] == ["aligntax", "align", str(tiny_folder)]

    def test_report_of_no_survey_is_an_error(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["report", str(tmp_path)]) == 2
        assert str(tmp_path) in capsys.readouterr().err

    def test_models_list(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["models", "list"]) == 0
        assert "smollm2-135m-instruct" in capsys.readouterr().out
        assert main(["models", "fetch", "nothing-like-it"]) == 2


class TestSettings:
    def test_formats_are_compared(self, run: Run) -> None:
        survey = read_survey(run("--formats", "plain", "chat", "qa"))
        assert set(survey.formats) == {"chat", "qa"}
        assert set(survey.formats["chat"]) == {"sums", "words"}
        assert survey.provenance.formats == ["plain", "chat", "qa"]

    def test_objectives_give_conflicts_by_name(self, run: Run, survey_files: SurveyFiles) -> None:
        pair = f"{survey_files.harmful},{survey_files.harmless}"
        found = read_survey(
            run("--safety", f"first={survey_files.prompts}", "--safety", f"second={pair}", "--safety", "honesty")
        )
        assert [(c.first, c.second) for c in found.conflicts] == [
            ("first", "second"), ("first", "honesty"), ("second", "honesty"),
        ]  # fmt: skip
        same = found.conflicts[0]
        assert same.rho == pytest.approx(1, abs=0.2)  # the same prompts under two names
        assert same.rho_low <= same.rho <= same.rho_high

    def test_repeated_objective_names_are_refused(
        self, tiny_folder: Path, survey_files: SurveyFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        twice = ("--safety", str(survey_files.prompts), "--safety", str(survey_files.prompts))
        assert main(arguments(tiny_folder, survey_files, tmp_path / "out", *twice)) == 2
        assert "NAME=FILE" in capsys.readouterr().err

    @pytest.mark.parametrize("estimator", ["dim", "probe", "subspace"])
    def test_estimators(self, run: Run, estimator: str) -> None:
        out = run("--estimator", estimator)
        survey, saved = read_survey(out), load_file(out / "directions.safetensors")
        assert survey.estimator == estimator
        row = survey.at_layer()
        caps = np.stack([saved[f"task.{name}"][row.layer] for name in row.tasks])
        assert tax_rate(saved["safety"][row.layer], caps) == pytest.approx(row.joint_tax, abs=1e-6)
        if estimator == "subspace":
            assert survey.extra["subspace"]["rank"] == 2
            assert len(survey.extra["subspace"]["principal_angles_radians"]) == 2
            assert 0 <= survey.extra["subspace"]["tax"] <= 1
            assert "The safety subspace at layer" in (out / "report.html").read_text()

    def test_dim_is_the_difference_of_means(self, run: Run, tiny_folder: Path, survey_files: SurveyFiles) -> None:
        """Means of hidden states from transformers itself, at the last token of the template."""
        out = run("--estimator", "dim")
        chosen = next(c for c in read_survey(out).selection.candidates if c.chosen)
        loaded = load(ModelSpec(str(tiny_folder)))
        from aligntax.commands.materials import split_prompts
        from aligntax.data import ChatFormat, load_contrast

        contrast, chat = load_contrast(str(survey_files.prompts)), ChatFormat(loaded.tokenizer)
        direction, _, _ = split_prompts("prompts", contrast.positive, (24, 8, 8))
        harmless, _ = split_prompts("prompts", contrast.negative, (24, 8))

        def mean(prompts: list[str]) -> np.ndarray:
            rows = []
            for prompt in prompts:
                ids = torch.tensor([chat.encode_prompt(prompt)])
                states = []
                hooks = [
                    b.register_forward_hook(lambda _m, _i, o, s=states: s.append(o)) for b in loaded.model.model.layers
                ]
                with torch.no_grad():
                    loaded.model(ids)
                for hook in hooks:
                    hook.remove()
                rows.append(torch.stack([h[0, int(chosen.position)] for h in states]).numpy())
            return np.mean(rows, axis=0)

        expected = mean(direction) - mean(harmless)
        found = load_file(out / "directions.safetensors")["safety"]
        for a, b in zip(expected, found, strict=True):  # groups weigh equally, so sizes of 4 and 5 differ a little
            assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.98

    def test_capability_probe_reports_the_angle_to_the_gradient(self, run: Run, surveyed: Path) -> None:
        out = run("--capability", "probe")
        survey, saved = read_survey(out), load_file(out / "directions.safetensors")
        assert set(survey.extra["capability_agreement"]) == {"sums"}
        assert [w.split()[2] for w in survey.warnings if w.startswith("--capability probe: ")] == ["words"]
        assert "Capability directions at layer" in (out / "report.html").read_text()
        assert not any("--capability" in warning for warning in read_survey(surveyed).warnings)
        assert survey.provenance.capability == "probe"
        gradients = load_file(surveyed / "directions.safetensors")
        assert saved["gradient.task.sums"] == pytest.approx(gradients["task.sums"], abs=1e-7)
        assert not np.allclose(saved["task.sums"], gradients["task.sums"], rtol=0.1)
        row, other = survey.at_layer(survey.layer), read_survey(surveyed).at_layer(survey.layer)
        caps = np.stack([saved[f"task.{name}"][row.layer] for name in row.tasks])
        assert tax_rate(saved["safety"][row.layer], caps) == pytest.approx(row.joint_tax, abs=1e-6)
        # Changes of the metric follow from its gradient, whatever direction stands for the capability.
        for name in ("sums", "words"):
            assert row.tasks[name].change_per_decinat == pytest.approx(other.tasks[name].change_per_decinat)

    @pytest.mark.parametrize("shift", ["response", "last"])
    def test_shifts(self, run: Run, shift: str) -> None:
        assert read_survey(run("--shift", shift)).provenance.shift == shift

    def test_without_linearity(self, run: Run) -> None:
        out = run("--no-linearity")
        assert read_survey(out).linearity is None and (out / "report.html").exists()

    def test_tolerances_reach_the_table(self, run: Run) -> None:
        survey = read_survey(run("--tolerance", "0.5", "--tolerance", "sums=0.25"))
        assert {row.task: row.tolerance for row in survey.tolerances.rows} == {"sums": 0.25, "words": 0.5}

    def test_batch_size_does_not_change_gradients(self, run: Run, surveyed: Path) -> None:
        small = load_file(run("--batch-tokens", "40") / "directions.safetensors")
        for name, array in load_file(surveyed / "directions.safetensors").items():
            assert small[name] == pytest.approx(array, abs=1e-5)

    def test_one_task_alone(self, run: Run, survey_files: SurveyFiles) -> None:
        survey = read_survey(run("--tasks", str(survey_files.sums)))
        assert survey.linearity.correlation is None
        row = survey.at_layer()
        assert row.joint_tax == pytest.approx(row.sum_tax)

    def test_refusal_words_of_the_user(self, run: Run, tiny_folder: Path) -> None:
        survey = read_survey(run("--refusal-tokens", "no,stop"))
        tokenizer = load(ModelSpec(str(tiny_folder))).tokenizer
        wanted = {tokenizer.encode(word, add_special_tokens=False)[0] for word in ("no", "stop")}
        assert {token.id for token in survey.refusal_tokens} == wanted

    def test_system_message_and_template_arguments_are_told(self, run: Run) -> None:
        survey = read_survey(run("--system", "be kind", "--chat-template-kwargs", '{"enable_thinking": false}'))
        assert "be kind" in survey.provenance.chat_template and "enable_thinking" in survey.provenance.chat_template


def twelve_margin(logits: torch.Tensor, batch: object) -> torch.Tensor:
    """Mean logit of one token over real positions."""
    mask = batch.mask.float()  # type: ignore[attr-defined]
    return (logits[..., 12] * mask).sum(1) / mask.sum(1)


class TestPython:
    @pytest.fixture
    def call(self, tiny_folder: Path, survey_files: SurveyFiles, tmp_path: Path) -> Callable[..., object]:
        files = survey_files
        return functools.partial(
            aligntax.survey,
            out=tmp_path / "py",
            size="demo",
            groups=GROUPS,
            safety=files.prompts,
            tasks=[files.sums, files.words],
        )

    def test_same_numbers_as_the_command_line(
        self, call: Callable, surveyed: Path, tiny_folder: Path, tmp_path: Path
    ) -> None:
        result = call(tiny_folder)
        assert result.at_layer().joint_tax == read_survey(surveyed).at_layer().joint_tax
        assert numbers(tmp_path / "py") == numbers(surveyed)

    def test_loaded_model(self, call: Callable, surveyed: Path, tiny_folder: Path, tmp_path: Path) -> None:
        call(load(ModelSpec(str(tiny_folder))))
        assert numbers(tmp_path / "py") == numbers(surveyed)

    def test_callable_metric(self, call: Callable, surveyed: Path, tiny_folder: Path, tmp_path: Path) -> None:
        call(tiny_folder, metrics={"words": twelve_margin})
        own, answers = (
            load_file(tmp_path / "py" / "directions.safetensors"),
            load_file(surveyed / "directions.safetensors"),
        )
        assert np.array_equal(own["task.sums"], answers["task.sums"])
        assert not np.allclose(own["task.words"], answers["task.words"], rtol=0.1)
        # At the last block a mean logit only passes the final norm: its gradient is the unembedding row, rescaled.
        loaded = load(ModelSpec(str(tiny_folder)))
        rows = loaded.model.lm_head.weight.double().numpy()
        u = own["task.words"][-1].astype(float)
        cosines = rows @ u / np.linalg.norm(rows, axis=1) / np.linalg.norm(u)
        assert int(np.argmax(cosines)) == 12 and cosines[12] > 0.9

    def test_another_constant_is_another_metric(self, call: Callable, tiny_folder: Path, tmp_path: Path) -> None:
        """What was computed for one metric must not be read for the next of the same name."""

        def logit_of(token: int) -> Callable:
            return lambda logits, batch: logits[:, -1, token]

        def saved() -> np.ndarray:
            return load_file(tmp_path / "py" / "directions.safetensors")["task.words"]

        versions = [
            lambda logits, batch: logits[:, -1, 12],
            lambda logits, batch: logits[:, -1, 13],
            logit_of(14),
            logit_of(15),
        ]
        found = []
        for metric in versions:
            call(tiny_folder, metrics={"words": metric})
            found.append(saved())
        assert not any(np.allclose(a, b, rtol=0.1) for a, b in itertools.combinations(found, 2))

    def test_metric_of_an_unknown_task(self, call: Callable, tiny_folder: Path) -> None:
        with pytest.raises(ValueError, match="nothing-such"):
            call(tiny_folder, metrics={"nothing-such": twelve_margin})

    def test_metric_of_a_wrong_shape(self, call: Callable, tiny_folder: Path) -> None:
        with pytest.raises(ValueError, match="one number a row"):
            call(tiny_folder, metrics={"words": lambda logits, batch: logits[:, 0]})

    def test_functions_cannot_be_replayed(
        self, call: Callable, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        call(tiny_folder, metrics={"words": twelve_margin})
        assert main([str(tmp_path / "py" / "run.yaml")]) == 2
        assert "Python" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "constant", [lambda logits, batch: logits.sum((1, 2)) * 0, lambda logits, batch: torch.ones(len(logits))]
    )
    def test_task_without_gradient_is_unranked_and_named(
        self, call: Callable, surveyed: Path, tiny_folder: Path, tmp_path: Path, constant: Callable
    ) -> None:
        survey = call(tiny_folder, metrics={"words": constant})
        assert any("words" in warning and "zero" in warning for warning in survey.warnings)
        again = read_survey(tmp_path / "py")
        for row, straight in zip(again.layers, read_survey(surveyed).layers, strict=True):
            still = row.tasks["words"]
            assert still.regime == "unranked"
            assert (still.cosine, still.tax, still.reliability, still.p_value) == (None,) * 4
            # The other task alone sets the joint tax.
            assert row.tasks["sums"].cosine == straight.tasks["sums"].cosine
            assert row.joint_tax == pytest.approx(row.sum_tax)
        assert "words" in (tmp_path / "py" / "report.html").read_text()

    def test_no_task_with_a_gradient_is_an_error(self, call: Callable, tiny_folder: Path) -> None:
        still = {name: lambda logits, batch: torch.zeros(len(logits)) for name in ("sums", "words")}
        with pytest.raises(ValueError, match="sums, words"):
            call(tiny_folder, metrics=still)
