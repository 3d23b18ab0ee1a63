"""An audit with a survey: its forecast, its direction and its gradients are read, and the frontier it drew is the measure."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from conftest import SurveyFiles, build_model, build_tokenizer
from survey_example import example_survey

from aligntax.audit import realised_shift
from aligntax.cli import main
from aligntax.commands.audit_bearings import Bearings
from aligntax.commands.audit_efficiency import efficiency_record
from aligntax.geometry import Fisher, max_gain_at_changes
from aligntax.probing import Meter
from aligntax.results import Audit, EfficiencyRecord, TaskTax, read_audit, read_survey
from aligntax.stats import Estimate

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
D = 24


Totals = dict[str, int | None]


@pytest.fixture(scope="module")
def said() -> Totals:
    """Phase of the audit -> how many tokens it was said to have."""
    return {}


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the survey is written that the audit reads."""
    return tmp_path_factory.mktemp("surveyed") / "survey"


@pytest.fixture(scope="module")
def audited(tiny_folder: Path, survey_files: SurveyFiles, surveyed: Path, said: Totals) -> Audit:
    """A tiny model against another, after a survey of the first."""
    phase, folder = Meter.phase, surveyed.parent
    build_model("llama", seed=1).save_pretrained(folder / "moved")
    build_tokenizer().save_pretrained(folder / "moved")
    shared = ["--safety", str(survey_files.prompts), "--tasks", str(survey_files.sums), str(survey_files.words), "arithmetic",
              "copying", "--size", "demo", "--quiet"]  # fmt: skip
    assert (
        main(["survey", str(tiny_folder), "--out", str(folder / "survey"), "--no-linearity", "--groups", "5", *shared])
        == 0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Meter, "phase", lambda m, name, total: (said.update({name: total}), phase(m, name, total))[1])
        assert main(["audit", str(tiny_folder), str(folder / "moved"), "--out", str(folder / "audit"), *shared,
                     "--survey", str(folder / "survey" / "survey.json")]) == 0  # fmt: skip
    return read_audit(folder / "audit")


def test_phases_say_how_much_they_will_run(audited: Audit, said: Totals) -> None:
    done = {p.name: p.tokens for p in audited.timing}
    assert set(done) <= set(said) and all(said.values())
    for name in ("tasks", "preferences", "states", "projections", "next-token laws", "first tokens", "frontier"):
        assert done[name] == said[name], name


def test_the_forecast_and_the_first_order_cost_stand_beside_what_was_paid(audited: Audit) -> None:
    assert audited.forecast is not None and audited.forecast.tasks == 4
    assert all(t.forecast is not None and t.first_order is not None for t in audited.tax)
    assert all(t.first_order_low is not None and t.first_order_low <= t.first_order for t in audited.tax)  # type: ignore[operator]
    ranks = [x.tax_rank for x in audited.shift]
    assert len(ranks) == 3 and all(-1 <= rank <= 1 for rank in ranks if rank is not None)


def test_the_surveys_direction_is_the_one_that_states_are_read_along(audited: Audit) -> None:
    assert audited.representation is not None and audited.representation.direction == "the survey's safety direction"
    assert audited.representation.layer == audited.efficiency.layer  # type: ignore[union-attr]


def test_efficiency_is_a_number_or_says_why_not(audited: Audit) -> None:
    found = audited.efficiency
    assert found is not None and found.gain is not None and found.gain_low < found.gain < found.gain_high  # type: ignore[operator]
    assert (found.share is None) == bool(found.reason) and found.prompts == 8
    nats = sum((m or 0.0) * c for m, c in zip(audited.kl.mean, audited.kl.count, strict=True))
    assert found.nats == pytest.approx(nats / audited.kl.tokens)


def test_whom_it_refuses_stands_beside_the_surveys_readout(audited: Audit, surveyed: Path) -> None:
    found = audited.separation
    assert (
        found is not None and found.against.n == audited.refusal.harmless_aligned.n + audited.refusal.alarming_aligned.n
    )
    assert found.auc_aligned.n == found.against.n + audited.refusal.harmful_aligned.n
    for area in (found.auc_base, found.auc_aligned):
        assert 0 <= area.low < area.value < area.high <= 1  # type: ignore[operator]
    assert found.ranked.value is None  # a random model refuses none of them, so that no threshold is known
    survey = read_survey(surveyed).readout
    assert found.readout is not None and survey is not None and found.readout.value == survey.auc


def world() -> tuple[Bearings, Fisher, np.ndarray]:
    """One layer of width 24, two tasks, a round budget; the safety gradient has length 3."""
    rng = np.random.default_rng(0)
    gradients = {name: rng.standard_normal((1, D)) for name in ("task-0", "task-1")}
    safety = np.zeros((1, D))
    safety[0, 0] = 3.0
    return (
        Bearings("v", safety, "last", 0, (), gradients),
        Fisher(np.eye(D)),
        np.array([g[0] for g in gradients.values()]),
    )


def record(
    estimator: str = "gradient", gain: float = 1.0, names: tuple[str, ...] = ("task-0", "task-1")
) -> EfficiencyRecord:
    bearings, fisher, _ = world()
    layer = dataclasses.replace(example_survey().layers[0], layer=0, shift_norm_per_decinat=None)
    survey = dataclasses.replace(example_survey(), layers=[layer], layer=0, estimator=estimator)
    tax = [TaskTax(name, 8, 0.1 * k, 0, 1, 1, 1, 0, 0, 1, 1, 0, None) for k, name in enumerate(names)]
    rng = np.random.default_rng(1)
    base = rng.standard_normal((16, 1, D))
    shift = realised_shift(base, base + np.eye(D)[0])
    return efficiency_record(survey, bearings, fisher, Estimate(gain, gain - 0.5, gain + 0.5, 0.3), (tax, 0.5), shift)


def test_efficiency_is_the_gain_over_the_exact_frontier() -> None:
    bearings, fisher, rows = world()
    best, _ = max_gain_at_changes(bearings.safety[0], rows, [0.0, -0.1], fisher, 0.5)
    found = record()
    assert found.frontier == pytest.approx(best) and found.share == pytest.approx(1.0 / best)
    assert record(gain=2 * best).share == pytest.approx(2.0) and found.reason == ""


def test_a_straight_line_stays_below_both_frontiers_and_the_wider_budget_gains_more() -> None:
    found = record()
    assert found.fraction == [0.25, 0.5, 0.75, 1.0]
    full, matched = np.array(found.gap_full, dtype=float), np.array(found.gap_matched, dtype=float)
    assert (full >= -1e-9).all() and (full >= matched - 1e-9).all() and full[-1] == pytest.approx(matched[-1])
    assert np.allclose(matched, np.array(found.fraction) * matched[-1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"estimator": "dim"}, "no gradient of what was gained"),
        ({"names": ("other",)}, "no task of the survey was scored"),
    ],
)
def test_what_cannot_be_compared_is_undefined_with_its_reason(change: dict, reason: str) -> None:
    found = record(**change)
    assert np.isnan(found.share) and reason in found.reason  # type: ignore[arg-type]
