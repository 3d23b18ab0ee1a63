"""`aligntax scale` from the outside: planted families are called right, absent structure is not called, bad input is refused."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from conftest import SurveyFiles, build_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from survey_example import example_survey

from aligntax.cli import main
from aligntax.commands.scale import ScaleCommand
from aligntax.commands.scale_errors import between_seed_law, width_means
from aligntax.errors import AligntaxError
from aligntax.report.scale_page import render_scale, verdict
from aligntax.results import plain, write_arrays, write_json
from aligntax.results.scale import ScaleRow, read_scale

WIDTHS = (32, 48, 64, 96, 128, 192, 256)
GROUPS, LAYERS, LAYER = 8, 3, 1
HOSTILE = "<script>alert(1)</script>\x1b[31m[bold]"

Tax = Callable[[int], float]


def planted(
    folder: Path, width: int, taxes: Mapping[str, Tax], seed: int = 0, noise: float = 0.02, controls: int = 64
) -> Path:
    """A survey of a model of `width` whose tasks have these taxes, exactly at every layer, before noise between groups.

    Control tasks are uniform random directions.
    """
    rng = np.random.default_rng([width, seed])
    basis = np.linalg.qr(rng.standard_normal((width, width)))[0]
    arrays = {"groups.safety": grouped(basis[0], noise, rng), "counts.safety": np.full(GROUPS, 4)}
    for name, tax in taxes.items():
        tau = tax(width)
        aside = rng.standard_normal(width - 1) @ basis[1:]
        u = np.sqrt(tau) * basis[0] + np.sqrt(1 - tau) * aside / np.linalg.norm(aside)
        arrays |= {f"groups.task.{name}": grouped(u, noise, rng), f"counts.task.{name}": np.full(GROUPS, 4)}
    example = example_survey()
    info = example.tasks[0]
    survey = dataclasses.replace(
        example,
        model=f"planted-{width}-{seed}",
        layer=LAYER,
        layers=example.layers[:LAYERS],
        frontier=[],
        linearity=None,
        tasks=[dataclasses.replace(info, name=name) for name in taxes],
        provenance=dataclasses.replace(example.provenance, weights_sha256=f"{width:032x}{seed:032x}"),
    )
    write_json(folder / "survey.json", plain(survey))
    write_arrays(folder / "directions.safetensors", arrays)
    if controls:
        drawn = rng.standard_normal((controls, LAYERS, width))
        write_arrays(folder / "controls.safetensors", {"tax": (drawn[..., 0] / np.linalg.norm(drawn, axis=-1)) ** 2})
    return folder


def grouped(u: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Sums of four items a group, `(J, L, d)`, around `u` of length 1; `noise` is the length of a group's error."""
    return 4 * (u + noise / np.sqrt(u.size) * rng.standard_normal((GROUPS, LAYERS, u.size)))


def family(root: Path, taxes: Mapping[str, Tax], widths: tuple[int, ...] = WIDTHS, **more: float) -> list[str]:
    return [str(planted(root / f"w{width}", width, taxes, **more)) for width in widths]  # type: ignore[arg-type]


def run(folders: list[str], out: Path, **more: object) -> dict[str, ScaleRow]:
    found = ScaleCommand(tuple(folders), out=out, quiet=True, **more).execute()  # type: ignore[arg-type]
    assert read_scale(out).rows == found.rows
    return {row.task: row for row in found.rows}


VANISHING: dict[str, Tax] = {"falls": lambda d: 12 / d, "stays": lambda d: 0.3 + 2 / d, "level": lambda d: 0.4}


def test_planted_families_are_called_right(tmp_path: Path) -> None:
    rows = run(family(tmp_path, VANISHING), tmp_path / "out")
    assert {name: row.call for name, row in rows.items()} == {
        "falls": "incidental",
        "stays": "intrinsic",
        "level": "intrinsic",
    }
    assert rows["falls"].b == pytest.approx(12, rel=0.05) and rows["falls"].low == 0 and rows["falls"].high < 0.02
    assert rows["stays"].low <= 0.3 <= rows["stays"].high and rows["stays"].b == pytest.approx(2, abs=0.5)
    assert not any(row.same_as_controls for row in rows.values())
    assert [p.width for p in rows["falls"].points] == list(WIDTHS)
    for point in rows["falls"].points:
        assert abs(point.tax - 12 / point.width) < 6 * point.standard_error + 1e-3


def test_what_control_tasks_do_too_is_not_called(tmp_path: Path) -> None:
    """A task that overlaps as any random direction does falls as 1/d; so do the controls, and the call is withdrawn."""
    folders = family(tmp_path, {"chance": lambda d: 1 / d, "falls": lambda d: 12 / d})
    rows = run(folders, tmp_path / "out")
    assert rows["chance"].alone == "incidental" and rows["chance"].call == "undecided"
    assert rows["chance"].same_as_controls and "control" in rows["chance"].reason
    assert rows["falls"].call == "incidental"
    controls = read_scale(tmp_path / "out").controls
    assert controls.tasks == 64 and controls.fit.b == pytest.approx(1, abs=0.35)
    for band in controls.band:
        assert band.low < 1 / band.width < band.high


def test_absent_structure_is_not_called(tmp_path: Path) -> None:
    """Random directions as tasks, three models a width: neither call more often than the level allows."""
    rng = np.random.default_rng(4)
    names = [f"random-{k}" for k in range(12)]
    folders = []
    for width in WIDTHS[:5]:
        for seed in range(3):
            drawn = {name: float(rng.beta(0.5, (width - 1) / 2)) for name in names}
            taxes = {name: (lambda _, tax=tax: tax) for name, tax in drawn.items()}
            folders.append(str(planted(tmp_path / f"w{width}-{seed}", width, taxes, seed)))
    calls = [row.call for row in run(folders, tmp_path / "out").values()]
    assert calls.count("undecided") >= 11


def test_pure_noise_is_named_and_not_fitted(tmp_path: Path) -> None:
    folders = family(tmp_path, {"falls": lambda d: 12 / d}, noise=8.0)
    row = run(folders, tmp_path / "out")["falls"]
    assert row.call == "undecided" and row.t is None and row.free is None
    assert "reliably" in row.reason and len(row.left_out) > len(WIDTHS) - 4
    assert "noisy" in " ".join(read_scale(tmp_path / "out").warnings)


def test_seeds_of_one_width_are_the_error(tmp_path: Path) -> None:
    """Models that differ more than their items say: one seed a width overstates what is known, three seeds do not."""
    rng = np.random.default_rng(0)
    folders, alone = [], []
    for width in WIDTHS:
        for seed in range(3):
            tax = abs(0.1 + 6 / width + 0.06 * rng.standard_normal())
            folder = str(planted(tmp_path / f"w{width}-{seed}", width, {"wobbly": lambda _, t=tax: t}, seed, 0.005))
            folders.append(folder)
            alone += [folder] if seed == 0 else []
    row = run(folders, tmp_path / "out")["wobbly"]
    errors = [p.standard_error for p in row.points]
    assert all(p.surveys == 3 for p in row.points)
    assert np.mean(errors) == pytest.approx(0.06 / np.sqrt(3), rel=0.4)
    single = run(alone, tmp_path / "alone")["wobbly"]
    assert max(p.standard_error for p in single.points) < min(errors) / 3
    assert "models of one width" in read_scale(tmp_path / "out").provenance.error
    assert "jackknife" in read_scale(tmp_path / "alone").provenance.error


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 1.0]))
def test_between_seed_law_finds_scale_and_rate(seed: int, q: float) -> None:
    rng = np.random.default_rng(seed)
    widths = np.repeat([32.0, 64.0, 128.0, 256.0], 40)
    taxes = 0.5 + 3 / widths + 0.7 * widths**-q * rng.standard_normal(160)
    s, found = between_seed_law(widths, taxes)
    assert found == q and s == pytest.approx(0.7, rel=0.35)
    assert between_seed_law(widths[::40], taxes[::40]) is None
    means = width_means(widths, taxes, np.full(160, 1e-6))
    assert means.standard_errors == pytest.approx(s * means.widths**-q / np.sqrt(40))
    assert means.taxes == pytest.approx([taxes[widths == d].mean() for d in means.widths])
    items = width_means(widths, taxes, np.full(160, 5.0))
    assert items.standard_errors == pytest.approx(5 / np.sqrt(40))


def test_order_of_surveys_does_not_matter(tmp_path: Path) -> None:
    folders = family(tmp_path, VANISHING)
    there, back = run(folders, tmp_path / "a"), run(folders[::-1], tmp_path / "b")
    assert there == back


def test_depth_is_relative_and_can_be_given(tmp_path: Path) -> None:
    folders = family(tmp_path, VANISHING)
    run(folders, tmp_path / "out")
    found = read_scale(tmp_path / "out")
    assert found.depth == pytest.approx((LAYER + 1) / LAYERS)
    assert {source.layer for source in found.sources} == {LAYER}
    run(folders, tmp_path / "out", depth=1.0)
    assert {source.layer for source in read_scale(tmp_path / "out").sources} == {LAYERS - 1}


def test_record_replays_to_the_same_numbers(tmp_path: Path) -> None:
    rows = run(family(tmp_path, VANISHING, WIDTHS[:4]), tmp_path / "out", depth=1.0, seed=3)
    (tmp_path / "out" / "scale.json").unlink()
    assert main([str(tmp_path / "out" / "run.yaml")]) == 0
    assert {row.task: row for row in read_scale(tmp_path / "out").rows} == rows


def test_without_controls_the_record_says_so(tmp_path: Path) -> None:
    folders = family(tmp_path, VANISHING, controls=0)
    rows = run(folders, tmp_path / "out")
    found = read_scale(tmp_path / "out")
    assert found.controls is None and any("control" in warning for warning in found.warnings)
    assert rows["falls"].same_as_controls is None and rows["falls"].call == rows["falls"].alone


def test_page_and_terminal_show_every_call_and_escape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = family(tmp_path, {**VANISHING, "chance": lambda d: 1 / d})
    assert main(["scale", *folders, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "incidental" in said and "scale.json" in said and "report.html" in said and "Next: aligntax" in said
    page = (tmp_path / "out" / "report.html").read_text()
    for word in ("falls", "stays", "chance", "control tasks", "default-src 'none'", "<svg"):
        assert word in page
    assert "http://" not in page and "https://" not in page
    found = read_scale(tmp_path / "out")
    assert "1 is incidental (falls)" in verdict(found)
    hostile = dataclasses.replace(found.rows[0], task=HOSTILE)
    shown = render_scale(dataclasses.replace(found, rows=[hostile, *found.rows[1:]]))
    assert "<script>" not in shown and "\x1b" not in shown


class TestBadInput:
    @pytest.fixture
    def folders(self, tmp_path: Path) -> list[str]:
        return family(tmp_path, VANISHING, (32, 48, 64, 96))

    def fails(self, folders: list[str], capsys: pytest.CaptureFixture[str], *more: str) -> str:
        assert main(["scale", *folders, "--quiet", *more]) == 2
        said = capsys.readouterr()
        assert not said.out and len(said.err.strip().splitlines()) == 1
        return said.err

    def change(self, folder: str, **fields: object) -> None:
        path = Path(folder) / "survey.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    def test_fewer_than_four_surveys(self, folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert "3 surveys" in self.fails(folders[:3], capsys)
        assert "0 surveys" in self.fails([], capsys)

    def test_fewer_than_four_widths(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folders = [str(planted(tmp_path / f"{w}-{s}", w, VANISHING, s)) for w in (32, 64) for s in (0, 1)]
        assert "2 different widths [32, 64]" in self.fails(folders, capsys)

    def test_other_estimator(self, folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        self.change(folders[2], estimator="dim")
        said = self.fails(folders, capsys)
        assert "w64" in said and "w32" in said and "--estimator gradient" in said and "dim" in said

    def test_other_shift(self, folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        record = json.loads((Path(folders[3]) / "survey.json").read_text())["provenance"]
        self.change(folders[3], provenance=record | {"shift": "last"})
        assert "--shift all" in self.fails(folders, capsys)

    def test_other_tasks(self, folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        more = {"falls": VANISHING["falls"], "extra": VANISHING["stays"]}
        said = self.fails([*folders, str(planted(tmp_path / "w128", 128, more))], capsys)
        assert "only w128 has extra" in said and "only w32 has level, stays" in said

    def test_other_items_of_a_task(self, folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        tasks = json.loads((Path(folders[1]) / "survey.json").read_text())["tasks"]
        self.change(folders[1], tasks=[tasks[0] | {"sha256": "00"}, *tasks[1:]])
        said = self.fails(folders, capsys)
        assert "falls" in said and "w48" in said and "items" in said

    def test_the_same_weights_twice(
        self, folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        again = planted(tmp_path / "again", 32, VANISHING)
        assert "same weights" in self.fails([*folders, str(again)], capsys)

    def test_no_survey(self, folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "nothing-here" in self.fails([*folders, str(tmp_path / "nothing-here")], capsys)
        (Path(folders[0]) / "directions.safetensors").unlink()
        assert "directions.safetensors" in self.fails(folders, capsys)

    def test_directions_of_another_survey(self, folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        write_arrays(
            Path(folders[1]) / "directions.safetensors",
            {"groups.safety": np.ones((8, 3, 48)), "counts.safety": np.ones(8)},
        )
        assert "groups.task.falls" in self.fails(folders, capsys)

    @pytest.mark.parametrize(("more", "word"), [(("--depth", "0"), "--depth"), (("--level", "1"), "--level")])
    def test_settings(
        self, folders: list[str], more: tuple[str, ...], word: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert word in self.fails(folders, capsys, *more)

    def test_error_is_an_aligntax_error(self, folders: list[str]) -> None:
        with pytest.raises(AligntaxError, match="NAME=PATH"):
            ScaleCommand((*folders, folders[0])).execute()


def tiny(family: str, width: int, folder: Path) -> Path:
    """A random model of `family` with two blocks of `width`, saved with the tiny tokenizer."""
    tokenizer = build_tokenizer()
    config = getattr(transformers, f"{family}Config")(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=2 * width, max_position_embeddings=128, initializer_range=0.15,
    )  # fmt: skip
    torch.manual_seed(width)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "GPTNeoX"])
def test_ordinary_surveys_of_real_families(family: str, survey_files: SurveyFiles, tmp_path: Path) -> None:
    folders = []
    for width in (16, 24, 32, 48):
        out = tmp_path / f"survey-{width}"
        words = [
            "survey", str(tiny(family, width, tmp_path / f"model-{width}")), "--out", str(out), "--size", "demo", "--groups", "5",
            "--safety", str(survey_files.prompts), "--tasks", str(survey_files.sums), str(survey_files.words),
            "--no-linearity", "--quiet",
        ]  # fmt: skip
        assert main(words) == 0
        folders.append(str(out))
    assert main(["scale", *folders, "--out", str(tmp_path / "out"), "--quiet"]) == 0
    found = read_scale(tmp_path / "out")
    assert [source.width for source in found.sources] == [16, 24, 32, 48]
    assert {source.layers for source in found.sources} == {2} and all(source.controls == 64 for source in found.sources)
    assert {row.task for row in found.rows} == {"sums", "words"}
    assert all(row.call in ("incidental", "intrinsic", "undecided") for row in found.rows)
