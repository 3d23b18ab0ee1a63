"""The survey finds what was put into a model, and finds nothing where nothing is.

Planted into a tiny Llama: the last eight coordinates of the residual stream are left empty and unread, so whatever is
added there reaches the head unchanged. One refusal token reads `w`, the last coordinate. A task's token reads
`c w + sqrt(1 - c^2) x` with x in the other empty coordinates, so safety and task meet at cosine `c`, exactly and at
every layer. Each item adds a random difference of two other tokens to its metric: noise of known mean 0.
"""

import copy
import hashlib
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from conftest import VOCAB, WIDTH, SurveyFiles, build_model, build_tokenizer
from safetensors.numpy import load_file

import aligntax
from aligntax.commands.analysis import Evidence, cosines, layer_row, task_rows
from aligntax.models import ModelSpec, load
from aligntax.probing import Sinks
from aligntax.results import Survey
from aligntax.stats.cosine import debiased_squared_inner

EMPTY = 8
GROUPS = 8
COSINES = {"m80": -0.8, "m60": -0.6, "m40": -0.4, "none-a": 0.0, "none-b": 0.0, "p40": 0.4, "p60": 0.6, "p80": 0.8}
NOISE = [f"noise-{k}" for k in range(24)]
FIRST_TASK_TOKEN = 80


def planted_model(refusal: int) -> torch.nn.Module:
    """The tiny Llama with `w` read by token `refusal` and the tasks' directions by tokens from FIRST_TASK_TOKEN on."""
    model = copy.deepcopy(build_model("llama"))
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, -EMPTY:] = 0
        for block in model.model.layers:
            for writes in (block.self_attn.o_proj, block.mlp.down_proj):
                writes.weight[-EMPTY:] = 0
            attention, mlp = block.self_attn, block.mlp
            for reads in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
                reads.weight[:, -EMPTY:] = 0
        head = torch.randn(VOCAB, WIDTH, generator=rng) / WIDTH**0.5
        head[refusal] = 0
        head[refusal, -1] = 1
        for k, cosine in enumerate(COSINES.values()):
            aside = torch.zeros(WIDTH)
            aside[-EMPTY:-1] = torch.randn(EMPTY - 1, generator=rng)
            row = (1 - cosine**2) ** 0.5 * aside / aside.norm()
            row[-1] += cosine
            head[FIRST_TASK_TOKEN + k] = row
        model.lm_head.weight.copy_(head)
    return model


def noise(salt: str, logits: torch.Tensor, batch: object) -> torch.Tensor:
    """A difference of two tokens' logits after each row, which two depending on the row and `salt` alone."""
    drawn = []
    last = batch.mask.sum(1) - 1  # type: ignore[attr-defined]
    for k, end in enumerate(last.tolist()):
        ids = batch.ids[k, : end + 1].tolist()  # type: ignore[attr-defined]
        seed = int.from_bytes(hashlib.sha256(f"{salt} {ids}".encode()).digest()[:8])
        plus, minus = np.random.default_rng(seed).choice(FIRST_TASK_TOKEN, size=2, replace=False)
        drawn.append(logits[k, end, int(plus)] - logits[k, end, int(minus)])
    return torch.stack(drawn)


def planted_metric(name: str, token: int | None) -> Callable[[torch.Tensor, object], torch.Tensor]:
    def metric(logits: torch.Tensor, batch: object) -> torch.Tensor:
        values = noise(name, logits, batch)
        if token is None:
            return values
        last = batch.mask.sum(1) - 1  # type: ignore[attr-defined]
        return logits[torch.arange(len(last)), last, token] + values / 2

    return metric


@pytest.fixture(scope="module")
def planted(
    survey_files: SurveyFiles, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Survey, Mapping[str, np.ndarray]]:
    """The survey of the planted model with planted and pure-noise tasks, and its saved directions."""
    folder = tmp_path_factory.mktemp("planted")
    tokenizer = build_tokenizer()
    refusal = tokenizer.encode("Q", add_special_tokens=False)[0]
    planted_model(refusal).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    tokens = {name: FIRST_TASK_TOKEN + k for k, name in enumerate(COSINES)} | dict.fromkeys(NOISE)
    survey = aligntax.survey(
        load(ModelSpec(str(folder / "model"))),
        out=folder / "out",
        size="demo",
        groups=GROUPS,
        safety=survey_files.prompts,
        tasks=[f"{name}={survey_files.words}" for name in tokens],
        metrics={name: planted_metric(name, token) for name, token in tokens.items()},
        refusal_tokens="Q",
        linearity=False,
    )
    return survey, load_file(folder / "out" / "directions.safetensors")


class TestPlanted:
    def test_safety_direction_is_found_at_every_layer(self, planted: tuple[Survey, Mapping[str, np.ndarray]]) -> None:
        for found in planted[1]["safety"]:
            assert found[-1] / np.linalg.norm(found) > 0.95

    def test_planted_cosines_lie_in_their_intervals(self, planted: tuple[Survey, Mapping[str, np.ndarray]]) -> None:
        """90% intervals: of eight, at least six. Every estimate is near."""
        row = planted[0].layers[-1]
        inside = [row.tasks[name].low <= cosine <= row.tasks[name].high for name, cosine in COSINES.items()]
        assert sum(inside) >= 6
        for name, cosine in COSINES.items():
            assert row.tasks[name].cosine == pytest.approx(cosine, abs=0.15)

    def test_planted_taxes_lie_in_their_intervals(self, planted: tuple[Survey, Mapping[str, np.ndarray]]) -> None:
        row = planted[0].layers[-1]
        inside = [row.tasks[name].tax_low <= cosine**2 <= row.tasks[name].tax_high for name, cosine in COSINES.items()]
        assert sum(inside) >= 6

    def test_regimes(self, planted: tuple[Survey, Mapping[str, np.ndarray]]) -> None:
        tasks = planted[0].layers[-1].tasks
        for name, cosine in COSINES.items():
            assert tasks[name].reliability > 0.5
            if cosine == 0:
                assert tasks[name].regime == "free"
            elif abs(cosine) >= 0.6:
                assert tasks[name].regime in ("tradeoff", "entangled")
        for name in ("p40", "m40", "none-a", "none-b"):
            assert tasks[name].regime != "entangled"

    def test_predicted_changes_have_the_planted_size(self, planted: tuple[Survey, Mapping[str, np.ndarray]]) -> None:
        """All tokens read with unit vectors, so changes are as `c`, in one scale set by the length of activations."""
        row = planted[0].layers[-1]
        truth = np.array(list(COSINES.values()))
        changes = np.array([row.tasks[name].change_per_decinat for name in COSINES])
        scale = changes @ truth / (truth @ truth)
        assert changes / scale == pytest.approx(truth, abs=0.15)
        assert scale / row.gain_per_decinat == pytest.approx(1, abs=0.5)

    def test_not_refusing_alarming_prompts_is_the_opposite_of_refusing(
        self, planted: tuple[Survey, Mapping[str, np.ndarray]]
    ) -> None:
        over = planted[0].over_refusal
        assert over.cosine == pytest.approx(-1, abs=0.05) and over.regime == "entangled"

    def test_noise_is_called_nothing_else(self, planted: tuple[Survey, Mapping[str, np.ndarray]]) -> None:
        tasks = planted[0].layers[-1].tasks
        told = [tasks[name].regime for name in NOISE]
        assert "entangled" not in told and told.count("tradeoff") <= 2

    def test_mean_tax_of_noise_is_within_two_standard_errors_of_zero(
        self, planted: tuple[Survey, Mapping[str, np.ndarray]]
    ) -> None:
        """The tax is a ratio that noise leaves undefined half the time; its numerator is defined for every task."""
        saved = planted[1]

        def means(name: str) -> np.ndarray:
            return (saved[f"groups.{name}"] / saved[f"counts.{name}"][:, None, None]).astype(float)

        for layer, row in enumerate(planted[0].layers):
            v, tasks = means("safety")[:, layer], [means(f"task.{name}")[:, layer] for name in NOISE]
            numerators = np.array([debiased_squared_inner(v @ u.T) / np.square(u).sum(1).mean() for u in tasks])
            defined = np.array([row.tasks[name].tax for name in NOISE if row.tasks[name].tax is not None])
            for values in (numerators, defined):
                assert len(values) >= 5
                assert abs(values.mean()) < 2 * values.std(ddof=1) / np.sqrt(len(values))


def evidence(tasks: Mapping[str, np.ndarray], safety: np.ndarray, rng: np.random.Generator) -> Evidence:
    """One layer of group means with 64 isotropic control tasks and unit Fisher information."""
    count, d = safety.shape
    layer = {name: groups[:, None] for name, groups in tasks.items()}
    controls = rng.standard_normal((64, count, 1, d)) + rng.standard_normal((64, 1, 1, d))
    scores = rng.standard_normal((400, 1, d))
    return Evidence(safety[:, None], safety[:, None], layer, layer, controls, scores, 1.0, Sinks(((),), (1.0,)), {})


class TestSyntheticGroups:
    """The tables alone, on drawn group means with known truth: width 64, 8 groups."""

    D = 64

    def vectors(self, cosine: float, spread: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        v, x = np.linalg.qr(rng.standard_normal((self.D, 2)))[0].T
        u = cosine * v + np.sqrt(1 - cosine**2) * x
        return v + spread * rng.standard_normal((GROUPS, self.D)), u + spread * rng.standard_normal((GROUPS, self.D))

    @pytest.mark.parametrize("cosine", [-0.7, -0.2, 0.0, 0.5])
    def test_coverage_of_intervals(self, cosine: float) -> None:
        rng = np.random.default_rng(5)
        hits = {"cosine": 0, "tax": 0}
        for _ in range(200):
            v, u = self.vectors(cosine, 0.1, rng)
            one = cosines(v, u[None]).at(0)
            hits["cosine"] += one.low <= cosine <= one.high
            hits["tax"] += one.tax_low <= cosine**2 <= one.tax_high
        assert hits["cosine"] >= 170 and hits["tax"] >= 170

    def test_a_random_direction_is_free(self) -> None:
        rng = np.random.default_rng(6)
        told = []
        for _ in range(40):
            v, _ = self.vectors(0.0, 0.1, rng)
            u = rng.standard_normal(self.D)
            u = u / np.linalg.norm(u) + 0.1 * rng.standard_normal((GROUPS, self.D))
            rows, _ = task_rows(evidence({"random": u}, v, rng), 0, {"random": u[:, None]})
            told.append(rows["random"].regime)
        assert told.count("free") >= 33  # at 10% false alarms 36 are expected

    def test_a_planted_direction_is_not_free(self) -> None:
        rng = np.random.default_rng(7)
        v, u = self.vectors(-0.9, 0.05, rng)
        rows, _ = task_rows(evidence({"own": u}, v, rng), 0, {"own": u[:, None]})
        assert rows["own"].regime == "entangled" and rows["own"].p_value <= 2 / 65

    def test_mean_tax_of_pure_noise_is_zero(self) -> None:
        rng = np.random.default_rng(8)
        v, _ = self.vectors(0.0, 0.1, rng)
        taxes = cosines(v, rng.standard_normal((3000, GROUPS, self.D))).tax
        taxes = taxes[np.isfinite(taxes)]
        assert len(taxes) > 1000
        assert abs(taxes.mean()) < 2 * taxes.std(ddof=1) / np.sqrt(len(taxes))

    def test_joint_tax_of_orthogonal_tasks_is_their_sum(self) -> None:
        rng = np.random.default_rng(9)
        basis = np.linalg.qr(rng.standard_normal((self.D, 3)))[0].T
        v = 0.6 * basis[0] + 0.5 * basis[1] + np.sqrt(1 - 0.61) * basis[2]
        noisy = [x + 0.05 * rng.standard_normal((GROUPS, self.D)) for x in (v, basis[0], basis[1])]
        row = layer_row(evidence({"a": noisy[1], "b": noisy[2]}, noisy[0], rng), 0, 0)
        assert row.joint_tax_crossfit == pytest.approx(0.61, abs=0.06)
        assert row.tasks["a"].cosine == pytest.approx(0.6, abs=0.06)
        assert row.tasks["b"].tax == pytest.approx(0.25, abs=0.06)
        assert row.tax_free_gain_per_decinat / row.gain_per_decinat == pytest.approx(np.sqrt(1 - 0.61), abs=0.06)

    def test_unit_fisher_information_prices_a_shift_by_its_length(self) -> None:
        """KL is half the squared length, so 0.1 nat buys a length of sqrt(.2)."""
        rng = np.random.default_rng(10)
        v, u = self.vectors(0.3, 0.1, rng)
        row = layer_row(evidence({"a": u}, v, rng), 0, 0)
        assert row.shift_norm_per_decinat == pytest.approx(np.sqrt(0.2), rel=0.15)
