"""The merge from the outside: what it writes, where fractions come from, how a mixture is picked, what is refused."""

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers
import yaml
from conftest import LAYERS, SurveyFiles, build_model, build_tokenizer
from hypothesis import example, given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from aligntax.cli import main
from aligntax.commands.merge import MergeCommand
from aligntax.commands.merge_front import gather_inputs, stratified_mean
from aligntax.commands.merge_plan import Asked
from aligntax.commands.merging import (
    Rule,
    fill_to_mean,
    pick,
    random_fractions,
    search_fractions,
    spend_by_layer,
    surveyed_yields,
)
from aligntax.data import ChatFormat
from aligntax.errors import AligntaxError
from aligntax.models import LoadedModel, ModelSpec, load
from aligntax.models.checkpoint import weights_sha256
from aligntax.report.merge_page import render_merge
from aligntax.results import MergePoint, read_merge, read_survey

Run = Callable[..., Path]
MERGEKIT = shutil.which("mergekit-yaml")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """BASE, and ALIGNED: the same with every block moved, later ones further. Leave them as found."""
    folder = tmp_path_factory.mktemp("models")
    generator = torch.Generator().manual_seed(3)
    aligned = copy.deepcopy(build_model("llama"))
    for name, weight in aligned.named_parameters():
        far = next((k + 1 for k in range(LAYERS) if f"layers.{k}." in name), 1)
        weight.data += 0.05 * far * torch.randn(weight.shape, generator=generator)
    for name, model in (("base", build_model("llama")), ("aligned", aligned)):
        model.save_pretrained(folder / name)
        build_tokenizer().save_pretrained(folder / name)
    return folder / "base", folder / "aligned"


@pytest.fixture(scope="module")
def surveyed(models: tuple[Path, Path], survey_files: SurveyFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey of BASE, shared."""
    out = tmp_path_factory.mktemp("survey") / "out"
    words = [
        "survey",
        str(models[0]),
        "--out",
        str(out),
        "--size",
        "demo",
        "--groups",
        "5",
        "--quiet",
        "--no-linearity",
    ]
    assert main([*words, "--safety", str(survey_files.prompts), "--tasks", *tasks(survey_files)]) == 0
    return out


def tasks(files: SurveyFiles) -> list[str]:
    return [str(files.sums), str(files.words)]


def scored(files: SurveyFiles, items: int = 4) -> list[str]:
    """Arguments that say what mixtures are scored on."""
    return ["--safety", str(files.prompts), "--tasks", *tasks(files), "--items", str(items)]


@pytest.fixture
def run(models: tuple[Path, Path], tmp_path: Path) -> Run:
    """Merge with more arguments and return the folder."""

    def call(*more: str, out: str = "out") -> Path:
        assert main(["merge", str(models[0]), str(models[1]), "--out", str(tmp_path / out), *more]) == 0
        return tmp_path / out

    return call


@pytest.fixture
def refused(models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Merge what must end in exit code 2, leaving no result; returns its one line."""

    def call(*more: str, base: object = None, aligned: object = None, out: Path | None = None) -> str:
        capsys.readouterr()
        folder = out or tmp_path / "out"
        words = ["merge", str(base or models[0]), str(aligned or models[1]), "--out", str(folder), *more]
        assert main(words) == 2
        told = capsys.readouterr()
        lines = told.err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("aligntax: ") and "Traceback" not in told.err + told.out
        assert not (folder / "merge.json").exists()
        return lines[0]

    return call


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


class TestFiles:
    def test_is_a_plain_model_folder_with_a_record(
        self, run: Run, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = run("--aligned-fraction", "0.25")
        told = capsys.readouterr().out
        assert str(out / "merge.json") in told and f"Next: aligntax audit {models[0]} {out}" in told
        one, two, merged = weights(models[0]), weights(models[1]), load(ModelSpec(str(out))).model.state_dict()
        assert all(torch.allclose(merged[n], 0.75 * one[n] + 0.25 * two[n], atol=1e-6) for n in one)
        record = read_merge(out)
        assert record.layers == [0.25] * LAYERS and record.outside == 0.25 and record.scheme == "uniform"
        assert record.outside_tensors == ["lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"]
        assert record.weights_sha256 == weights_sha256((out / "model.safetensors",))
        assert record.provenance.base.weights_sha256 == weights_sha256((models[0] / "model.safetensors",))
        assert record.points == [] and record.pick.rule == "given" and not (out / "report.html").exists()
        assert not [file for file in out.iterdir() if file.name.startswith(".")]

    def test_the_command_of_the_record_repeats_it(self, run: Run, tmp_path: Path) -> None:
        out = run("--scheme", "random", "--aligned-fraction", "0.3", "--seed", "4", "--quiet")
        words = read_merge(out).provenance.command.split()[1:]
        words[words.index("--out") + 1] = str(tmp_path / "again")
        assert main(words) == 0
        assert read_merge(tmp_path / "again").weights_sha256 == read_merge(out).weights_sha256

    def test_the_record_replays(self, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = run("--scheme", "random", "--aligned-fraction", "0.3", "--seed", "4", "--quiet")
        record = yaml.safe_load((out / "run.yaml").read_text())
        assert (record["command"], record["seed"], record["scheme"]) == ("merge", 4, "random")
        (tmp_path / "again.yaml").write_text(yaml.safe_dump(record | {"out": str(tmp_path / "again")}))
        assert main([str(tmp_path / "again.yaml")]) == 0
        assert read_merge(tmp_path / "again").weights_sha256 == read_merge(out).weights_sha256
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(record | {"measure": ["harm"]}))
        assert main([str(tmp_path / "own.yaml")]) == 2
        assert "the measure ['harm'] were Python functions" in capsys.readouterr().err

    def test_card_lists_models_and_fractions(self, run: Run, models: tuple[Path, Path]) -> None:
        out = run("--scheme", "random", "--quiet")
        card, record = (out / "README.md").read_text(), read_merge(out)
        head = yaml.safe_load(card.split("---")[1])
        assert head["base_model"] == [str(folder) for folder in models]
        assert all(f"| {k} | {fraction:.6g} |" in card for k, fraction in enumerate(record.layers))
        assert record.weights_sha256 in card

    def test_mergekit_recipe_weighs_every_tensor_alike(
        self, run: Run, models: tuple[Path, Path], tmp_path: Path
    ) -> None:
        (tmp_path / "f.json").write_text(json.dumps({"layers": [0.1, 0.9, 0.4], "outside": 0.7}))
        out = run("--scheme", "per-layer", "--fractions", str(tmp_path / "f.json"), "--quiet")
        recipe = yaml.safe_load((out / "mergekit.yaml").read_text())
        assert recipe["merge_method"] == "linear" and recipe["parameters"] == {"normalize": False}
        one, two, merged = weights(models[0]), weights(models[1]), weights(out)
        entries = {entry["model"]: entry["parameters"]["weight"] for entry in recipe["models"]}
        for name in one:
            a, b = (_mergekit_weight(entries[str(folder)], name) for folder in models)
            assert torch.allclose(merged[name], a * one[name] + b * two[name], atol=1e-6)

    @pytest.mark.skipif(not MERGEKIT, reason="no mergekit-yaml on the path; it lives in an environment of its own")
    @pytest.mark.parametrize("scheme", ["uniform", "random"])
    def test_mergekit_itself_makes_the_same_tensors(self, run: Run, tmp_path: Path, scheme: str) -> None:
        out = run("--scheme", scheme, "--aligned-fraction", "0.3", "--quiet")
        words = [str(MERGEKIT), str(out / "mergekit.yaml"), str(tmp_path / "theirs")]
        subprocess.run(words, check=True, capture_output=True)
        ours, theirs = weights(out), weights(tmp_path / "theirs")
        assert ours.keys() == theirs.keys()
        assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)

    def test_overwrite_replaces_an_earlier_merge_and_nothing_else(self, run: Run) -> None:
        out = run("--quiet")
        (out / "notes.txt").write_text("mine")
        (out / "model-00007-of-00009.safetensors").write_bytes(b"left over")
        run("--aligned-fraction", "0.9", "--overwrite", "--quiet")
        assert read_merge(out).aligned_fraction == 0.9 and (out / "notes.txt").read_text() == "mine"
        assert [file.name for file in out.glob("*.safetensors")] == ["model.safetensors"]

    def test_a_merge_that_dies_leaves_no_record(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        out = run("--quiet")

        def full(*_: object, **__: object) -> None:
            raise AligntaxError("no space")

        monkeypatch.setattr("aligntax.commands.merge_sources.write_average", full)
        with pytest.raises(AssertionError):
            run("--overwrite", "--quiet")
        assert not (out / "merge.json").exists() and not (out / "config.json").exists()

    def test_adapter_of_the_base(self, models: tuple[Path, Path], tmp_path: Path) -> None:
        adapter = _adapter(models[0], tmp_path / "adapter")
        out = tmp_path / "out"
        assert main(["merge", str(models[0]), str(adapter), "--out", str(out), "--quiet"]) == 0
        wanted = load(ModelSpec(str(adapter))).model.merge_and_unload().state_dict()  # type: ignore[operator]
        one, merged = weights(models[0]), weights(out)
        assert all(torch.allclose(merged[n], (one[n] + wanted[n]) / 2, atol=1e-5) for n in one)
        assert not torch.allclose(merged["model.layers.0.mlp.up_proj.weight"], one["model.layers.0.mlp.up_proj.weight"])
        recipe = yaml.safe_load((out / "mergekit.yaml").read_text())
        assert recipe["models"][1]["model"] == f"{models[0]}+{adapter}"


def _mergekit_weight(entries: list[dict], tensor: str) -> float:
    """mergekit's own reading: the first entry whose filter is part of the name; a list is interpolated over the depth."""
    value = next(e["value"] for e in entries if "filter" not in e or e["filter"] in tensor)
    if not isinstance(value, list):
        return value
    layer = int(tensor.split(".")[2])
    return float(np.interp(layer / (LAYERS - 1), np.linspace(0, 1, len(value)), value))


def _adapter(base: Path, folder: Path) -> Path:
    generator = torch.Generator().manual_seed(1)
    loaded = load(ModelSpec(str(base))).model
    wrapped = get_peft_model(loaded, LoraConfig(r=2, target_modules=["up_proj"]))
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    wrapped.save_pretrained(folder)
    return folder


class TestFront:
    def test_schemes_splits_and_the_straight_line(self, run: Run, survey_files: SurveyFiles) -> None:
        out = run(*scored(survey_files), "--points", "3", "--weight", "0.5", "--quiet")
        record = read_merge(out)
        assert (out / "report.html").read_text() == render_merge(record)
        rows = {(p.scheme, p.fraction, p.split): p for p in record.points}
        assert set(rows) == {
            (scheme, f, split)
            for split in ("validation", "test")
            for scheme, f in [("uniform", 0.0), ("uniform", 0.5), ("uniform", 1.0), ("random", 0.5)]
        }
        for split in ("validation", "test"):
            ends = rows["uniform", 0.0, split], rows["uniform", 1.0, split]
            assert (ends[0].safety_gain, ends[0].capability) == (0.0, 0.0)
            half = rows["uniform", 0.5, split]
            assert half.line == pytest.approx([ends[1].capability / 2, ends[1].safety_gain / 2])
            assert half.capability == pytest.approx(np.mean(list(half.tasks.values())))
            assert half.safety_low < half.safety_gain < half.safety_high
            assert half.safety_gain == pytest.approx(half.safety - ends[0].safety)

    def test_a_pick_reads_validation_alone(self, run: Run, survey_files: SurveyFiles) -> None:
        for weight in ("0", "1"):
            record = read_merge(
                run(*scored(survey_files), "--points", "3", "--weight", weight, "--overwrite", "--quiet")
            )
            held = [p for p in record.points if p.split == "validation" and p.scheme == "uniform"]
            best = max(held, key=lambda p: _worth(p, float(weight)))
            assert (
                (record.pick.split, record.pick.fraction)
                == ("validation", best.fraction)
                == ("validation", record.layers[0])
            )

    def test_survey_items_are_never_scored(self, surveyed: Path, survey_files: SurveyFiles) -> None:
        used = set(pq.read_table(surveyed / "items.parquet").to_pydict()["item"])
        inputs = gather_inputs(str(survey_files.prompts), tasks(survey_files), 99, surveyed)
        parts = [{i.key for i in task.items} for own in inputs.tasks.values() for task in own.values()]
        assert len(parts) == 4 and not any(part & used for part in parts)
        assert sum(map(len, parts)) == len(set.union(*parts)) > 0
        free = gather_inputs(str(survey_files.prompts), tasks(survey_files), 99, None)
        assert len(free.prompts["test"]) == 18 > len(inputs.prompts["test"]) > 0
        assert not set(inputs.prompts["test"]) & set(inputs.prompts["validation"])
        assert inputs.refusal_ids and not free.refusal_ids

    def test_learned_fractions_find_the_block_that_matters(
        self, models: tuple[Path, Path], survey_files: SurveyFiles, tmp_path: Path
    ) -> None:
        name = "model.layers.1.mlp.up_proj.weight"
        base = weights(models[0])[name]

        def moved(loaded: LoadedModel, prompts: list[str]) -> list[float]:
            far = float((loaded.model.state_dict()[name] - base).norm())
            return [far + 0.01 * k for k in range(len(prompts))]

        command = MergeCommand(
            str(models[0]), str(models[1]), tmp_path / "out", "per-layer", aligned_fraction=0.4, blocks=3, points=2,
            weight=1.0, safety=str(survey_files.prompts), tasks=tuple(tasks(survey_files)), items=2, quiet=True,
            measure=moved,
        )  # fmt: skip
        record = command.execute()
        learned = next(p for p in record.points if p.scheme == "learned")
        assert learned.layers[1] == pytest.approx(1.0) and np.mean(learned.layers) == pytest.approx(0.4)
        assert record.learned is not None and record.learned.best > record.learned.start
        assert "caller" in record.safety_unit

    def test_a_survey_puts_the_frontier_beside_every_mixture(
        self,
        run: Run,
        surveyed: Path,
        survey_files: SurveyFiles,
        models: tuple[Path, Path],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        record = read_merge(run(*scored(survey_files, 2), "--points", "3", "--survey", str(surveyed)))
        assert "(frontier +" in capsys.readouterr().out
        shares = {point.fraction: point.frontier for point in record.points if point.scheme == "uniform"}
        assert shares[0.0].nats == pytest.approx(0.0, abs=1e-9) and shares[0.0].within_share is None
        assert 0 < shares[0.5].nats < shares[1.0].nats
        assert 0 < shares[0.5].within < shares[1.0].within
        survey = read_survey(surveyed)
        chat = ChatFormat(load(ModelSpec(str(models[0]))).tokenizer)
        base, aligned = (load(ModelSpec(str(folder))).model for folder in models)
        inputs = gather_inputs(str(survey_files.prompts), tasks(survey_files), 2, surveyed)
        total, count = 0.0, 0
        for text in inputs.texts:
            ids = chat.encode_prompt(text)
            reply = base.generate(torch.tensor([ids]), max_new_tokens=48, do_sample=False)[0].tolist()[len(ids) :]
            reply = reply[: reply.index(2)] if 2 in reply else reply
            p, q = (
                m(torch.tensor([[*ids, *reply]])).logits[0, len(ids) - 1 : -1].double().log_softmax(-1)
                for m in (base, aligned)
            )
            total, count = total + float((p.exp() * (p - q)).sum()), count + len(reply)
        assert shares[1.0].nats == pytest.approx(total / count, rel=1e-4)
        assert shares[1.0].layer == survey.layer and set(shares[1.0].changes) == {"sums", "words"}

    def test_without_a_survey_there_is_no_frontier(self, run: Run, survey_files: SurveyFiles) -> None:
        assert all(
            p.frontier is None for p in read_merge(run(*scored(survey_files, 2), "--points", "2", "--quiet")).points
        )

    def test_own_measure_of_wrong_size(
        self, models: tuple[Path, Path], survey_files: SurveyFiles, tmp_path: Path
    ) -> None:
        command = MergeCommand(
            str(models[0]), str(models[1]), tmp_path / "out", points=2, safety=str(survey_files.prompts),
            tasks=tuple(tasks(survey_files)), items=2, quiet=True, measure=lambda loaded, prompts: [1.0],
        )  # fmt: skip
        with pytest.raises(AligntaxError, match="2 finite numbers"):
            command.execute()


def _worth(point: MergePoint, weight: float) -> float:
    assert point.safety_gain is not None and point.capability is not None
    return weight * point.safety_gain + (1 - weight) * point.capability


class TestPlan:
    def test_says_what_is_moved_and_scored_and_starts_nothing(
        self, models: tuple[Path, Path], survey_files: SurveyFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["merge", str(models[0]), str(models[1]), "--out", str(tmp_path / "out"), "--plan"]
        assert main(words) == 0
        bare = " ".join(capsys.readouterr().out.split())
        assert "1 mixtures" in bare and "Nothing was started" in bare and "front" not in bare
        assert main([*words, *scored(survey_files), "--points", "4", "--weight", "0.5"]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert "7 mixtures" in told and "front" in told  # 4 uniform, 2 random, and the one that is written
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("scheme", ["uniform", "per-layer", "given"])
    def test_counts_the_mixtures_that_a_merge_scores(
        self, scheme: str, run: Run, surveyed: Path, survey_files: SurveyFiles, tmp_path: Path
    ) -> None:
        (tmp_path / "f.json").write_text("[0.2, 0.3, 0.6]")
        more = {"uniform": [], "per-layer": ["--scheme", "per-layer", "--survey", str(surveyed)],
                "given": ["--scheme", "per-layer", "--fractions", str(tmp_path / "f.json")]}[scheme]  # fmt: skip
        record = read_merge(run(*scored(survey_files, 2), "--points", "4", *more, "--quiet"))
        assert Asked(4, scheme == "per-layer", scheme == "given", 0, 1).mixtures == len(record.points)


class TestSurveyedFractions:
    def test_are_yield_over_length_at_the_mean(self, run: Run, surveyed: Path, models: tuple[Path, Path]) -> None:
        out = run("--scheme", "per-layer", "--survey", str(surveyed), "--aligned-fraction", "0.2", "--quiet")
        record, saved = read_merge(out), np_load(surveyed / "directions.safetensors")
        one, two = weights(models[0]), weights(models[1])
        shape = []
        for layer in range(LAYERS):
            g = saved["safety"][layer].astype(float)
            caps = np.stack([saved[f"task.{n}"][layer] for n in ("sums", "words")]).astype(float)
            free = g - caps.T @ np.linalg.lstsq(caps.T, g, rcond=None)[0]
            length = np.sqrt(sum(float((two[n] - one[n]).square().sum()) for n in one if f"layers.{layer}." in n))
            shape.append(np.linalg.norm(free) / length)
        assert np.mean(record.layers) == pytest.approx(0.2) == record.outside
        assert max(record.layers) < 1.0
        assert record.layers == pytest.approx(0.2 * np.array(shape) / np.mean(shape), rel=1e-4)
        assert record.geometry is not None and (record.geometry.predicted_ratio or 0) >= 1.0
        assert np.ptp(record.layers) > 0.01

    def test_survey_of_another_model(
        self, refused: Callable[..., str], surveyed: Path, models: tuple[Path, Path]
    ) -> None:
        told = refused("--scheme", "per-layer", "--survey", str(surveyed), base=models[1], aligned=models[0])
        assert "not those of" in told and str(surveyed) in told

    def test_a_direction_that_is_no_gradient(self, refused: Callable[..., str], surveyed: Path, tmp_path: Path) -> None:
        shutil.copytree(surveyed, tmp_path / "dim")
        file = tmp_path / "dim" / "survey.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"estimator": "dim"}))
        assert "--estimator gradient" in refused("--scheme", "per-layer", "--survey", str(tmp_path / "dim"))


def np_load(file: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file as load_numpy

    return load_numpy(file)


class TestRefused:
    def test_output_not_empty(self, refused: Callable[..., str], tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("x")
        assert "--overwrite" in refused()

    def test_output_is_an_input(self, refused: Callable[..., str], models: tuple[Path, Path]) -> None:
        before = (models[1] / "model.safetensors").stat().st_mtime_ns
        assert "one of the models" in refused("--overwrite", out=models[1])
        assert (models[1] / "model.safetensors").stat().st_mtime_ns == before

    def test_adapter_of_another_base(
        self, refused: Callable[..., str], models: tuple[Path, Path], tmp_path: Path
    ) -> None:
        adapter = _adapter(models[1], tmp_path / "adapter")
        told = refused(aligned=adapter)
        assert str(models[1]) in told and str(models[0]) in told and "adapter" in told

    def test_another_family(self, refused: Callable[..., str], tmp_path: Path) -> None:
        build_model("gpt2").save_pretrained(tmp_path / "gpt2")
        assert "gpt2" in refused(aligned=tmp_path / "gpt2")

    @pytest.mark.parametrize(
        ("field", "size", "tensor"),
        [
            ("vocab_size", 101, "model.embed_tokens.weight"),
            ("intermediate_size", 40, "model.layers.0.mlp.down_proj.weight"),
        ],
    )
    def test_another_vocabulary_or_shape_names_the_tensor(
        self, field: str, size: int, tensor: str, refused: Callable[..., str], tmp_path: Path
    ) -> None:
        config = copy.deepcopy(build_model("llama").config)
        setattr(config, field, size)
        transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "other")
        build_tokenizer().save_pretrained(tmp_path / "other")
        told = refused(aligned=tmp_path / "other")
        name = told.partition("tensor '")[2].partition("'")[0]
        assert str(size) in told and (name == tensor or (field == "vocab_size" and name == "lm_head.weight"))

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["--aligned-fraction", "1.5"], "1.5"),
            (["--scheme", "per-layer"], "--survey DIR"),
            (["--blocks", "3"], "--scheme per-layer"),
            (["--scheme", "per-layer", "--fractions", "no.json"], "no.json"),
            (["--points", "1"], "--points 1"),
            (["--weight", "2"], "--weight 2"),
            (["--weight", "0.5", "--capability-floor", "0"], "not both"),
            (["--survey", "nowhere"], "nowhere"),
        ],
    )
    def test_settings(self, refused: Callable[..., str], words: list[str], told: str) -> None:
        assert told in refused(*words)

    @pytest.mark.parametrize(
        "given", [[0.1, 0.2], [0.1, 0.2, 1.2], {"layers": 3}, [0, True, 0], "x", {"a": 1}, [0, None, 0]]
    )
    def test_fraction_files(self, refused: Callable[..., str], tmp_path: Path, given: object) -> None:
        (tmp_path / "f.json").write_text(json.dumps(given))
        assert "give 3 numbers" in refused("--scheme", "per-layer", "--fractions", str(tmp_path / "f.json"))

    def test_floor_that_nothing_reaches(self, refused: Callable[..., str], survey_files: SurveyFiles) -> None:
        assert "the best mixture reaches" in refused(*scored(survey_files), "--capability-floor", "50", "--points", "2")

    def test_too_many_blocks(self, refused: Callable[..., str], survey_files: SurveyFiles) -> None:
        assert "3 decoder blocks" in refused(*scored(survey_files), "--scheme", "per-layer", "--blocks", "4")


class TestArithmetic:
    @example([5e-324], 0.75)
    @example([5e-324, 1.0], 0.75)
    @given(st.lists(st.floats(0, 100), min_size=1, max_size=8).filter(any), st.floats(0, 1))
    def test_filled_fractions_have_the_mean_and_the_order_of_their_weights(
        self, given: list[float], mean: float
    ) -> None:
        found = fill_to_mean(np.array(given), mean)
        assert np.mean(found) == pytest.approx(mean, abs=1e-9) and found.min() >= 0 and found.max() <= 1
        assert (np.diff(found[np.argsort(given, kind="stable")]) >= -1e-9).all()

    def test_below_the_cap_fractions_are_proportional(self) -> None:
        assert fill_to_mean(np.array([1.0, 2.0, 3.0]), 0.2) == pytest.approx([0.1, 0.2, 0.3])
        assert fill_to_mean(np.array([0.0, 1.0]), 0.75) == pytest.approx([0.5, 1.0])

    @given(st.floats(0, 1), st.integers(1, 40), st.integers(0, 9))
    def test_random_fractions_have_the_mean(self, mean: float, depth: int, seed: int) -> None:
        found = random_fractions(mean, depth, np.random.default_rng(seed))
        assert np.mean(found) == pytest.approx(mean, abs=1e-9) and found.min() >= 0 and found.max() <= 1 + 1e-12
        assert depth == 1 or not 0.05 < mean < 0.95 or np.ptp(found) > 0

    def test_surveyed_spending_beats_every_other_of_its_length(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(50):
            x, n = rng.uniform(0.1, 2, 6), rng.uniform(0.5, 3, 6)
            spent = spend_by_layer(x, n, 0.05)
            gain, length = spent.fractions @ (x * n), np.linalg.norm(spent.fractions * n)
            for other in rng.uniform(size=(200, 6)):
                assert gain >= other @ (x * n) * length / np.linalg.norm(other * n) - 1e-9
            uniform = (x * n).sum() * length / np.linalg.norm(n)
            assert spent.ratio == pytest.approx(gain / uniform)
            assert spent.relative_length == pytest.approx(length / (0.05 * np.linalg.norm(n)))

    def test_a_block_without_update_changes_nothing(self) -> None:
        spent = spend_by_layer(np.ones(3), np.array([1.0, 0.0, 2.0]), 0.3)
        assert spent.fractions == pytest.approx([0.4, 0.3, 0.2])
        with pytest.raises(AligntaxError, match="nothing to average"):
            spend_by_layer(np.ones(2), np.zeros(2), 0.5)

    def test_yields_leave_out_a_task_without_gradient(self) -> None:
        safety, task = np.array([[3.0, 4.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 0.0]])
        assert surveyed_yields(safety, [task]) == pytest.approx([4.0, 5.0])

    @pytest.mark.parametrize("blocks", [2, 3, 6])
    def test_search_finds_the_optimum_of_a_quadratic(self, blocks: int) -> None:
        rng = np.random.default_rng(blocks)
        sizes = [len(part) for part in np.array_split(np.arange(6), blocks)]
        for _ in range(5):
            target = rng.uniform(0.2, 0.8, blocks)
            mean = float(target @ sizes / 6)
            wanted = np.repeat(target, sizes)
            found = search_fractions(lambda f, w=wanted: -float(((f - w) ** 2).sum()), 6, mean, blocks, most=5000)
            assert np.abs(found.fractions - wanted).max() < 0.1
            assert found.fractions.mean() == pytest.approx(mean) and found.best >= found.start

    def test_search_keeps_its_budget_and_its_box(self) -> None:
        asked: list[np.ndarray] = []

        def steep(fractions: np.ndarray) -> float:
            asked.append(fractions)
            return float(fractions[0] - fractions[-1])

        found = search_fractions(steep, 8, 0.5, 4, most=25)
        assert len(asked) == found.evaluations <= 25
        assert all(f.mean() == pytest.approx(0.5) and f.min() >= 0 and f.max() <= 1 for f in asked)
        assert found.fractions[0] == pytest.approx(1.0) and found.fractions[-1] == pytest.approx(0.0)

    def test_search_stays_where_it_is_best(self) -> None:
        found = search_fractions(lambda f: -float(np.ptp(f)), 6, 0.4, 3)
        assert found.fractions == pytest.approx(np.full(6, 0.4)) and found.best == found.start

    def test_rules(self) -> None:
        points = [(0.0, 0.0), (2.0, -0.5), (3.0, -2.0)]
        assert pick(Rule(floor=-1.0), points) == 1 and pick(Rule(floor=-9.0), points) == 2
        assert pick(Rule(weight=0.0), points) == 0 and pick(Rule(weight=1.0), points) == 2
        with pytest.raises(AligntaxError, match="reaches 0"):
            pick(Rule(floor=0.1), points)
        rule = Rule(floor=-1.0)
        assert rule.slope(9.0, -3.0) < rule.slope(0.0, -2.0) < rule.slope(-5.0, -0.5)

    def test_tasks_count_alike_whatever_their_size(self) -> None:
        rng = np.random.default_rng(0)
        mean, low, high = stratified_mean([np.zeros(50), np.array([2.0, 2.0])])
        assert (mean, low, high) == (1.0, 1.0, 1.0)
        inside = []
        for _ in range(400):
            _, low, high = stratified_mean([rng.normal(1, 2, 12), rng.normal(-1, 1, 30)])
            inside.append(low <= 0.0 <= high)
        assert 0.84 < np.mean(inside) < 0.95
