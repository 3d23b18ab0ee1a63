"""Every row of section 4 holds, and turns red when the function it checks is wrong in a plausible way."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from aligntax.commands.theorems import section4
from aligntax.commands.theorems.check import Check
from aligntax.depth import (
    decoupled_kl,
    gibbs_conditionals,
    gradient_bounds,
    gradient_by_position,
    harm_curve,
    harm_information,
    horizon_gap,
    innovations,
    kl_profile,
    leading_order_kl,
    split_shared_kl,
    token_kl,
)
from aligntax.lab import SharedPolicy, TabularPolicy


@pytest.fixture(scope="module")
def checks() -> dict[str, Check]:
    return {check.item: check for check in (row() for row in section4.ROWS)}


def test_every_row_of_the_section_holds(checks: dict[str, Check]) -> None:
    assert list(checks) == [f"4.{k}" for k in range(1, 10)]
    assert [item for item, check in checks.items() if not check.passed] == []


def from_the_start(expected: Any) -> np.ndarray:
    return np.asarray(expected)[:, 1:] - np.asarray(expected)[:, :1]


def spread_of_levels(expected: Any, weights: Any = None) -> np.ndarray:
    return np.asarray(weights) @ (np.asarray(expected)[:, 1:] - np.asarray(expected)[:, :1]) ** 2


def means_as_if_exact(first: Any, second: Any, prompts: Any = None, **kept: Any) -> Any:
    mean = (first + second) / 2
    return harm_curve(mean, mean, prompts, **kept)


def pooled_baseline(first: Any, second: Any, prompts: Any = None, **kept: Any) -> Any:
    curve = harm_curve(first, second, prompts, **kept)
    return replace(curve, variance=(first * second).mean(axis=0) - (first.mean(axis=0) * second.mean(axis=0)))


def unweighted(steps: Any, scores: Any, weights: Any = None) -> np.ndarray:
    return gradient_by_position(steps, scores)


def one_position_late(steps: Any, scores: Any, weights: Any = None) -> np.ndarray:
    return gradient_by_position(np.roll(steps, 1, axis=1), scores, weights)


def without_the_trace(variances: Any, traces: Any, weights: Any = None) -> Any:
    return gradient_bounds(variances, np.ones_like(traces), weights)


def roots_of_means_swapped(variances: Any, traces: Any, weights: Any = None) -> Any:
    near, far = gradient_bounds(variances, traces, weights)
    return far, near


def paper_tilt(log_probs: Any, moments: Any) -> np.ndarray:
    return gibbs_conditionals(log_probs, np.exp(-(1.0 - np.asarray(moments))))  # -h_t in place of log Z


def no_half(information: Any, strength: float) -> np.ndarray:
    return 2 * leading_order_kl(information, strength)


def linear_in_strength(gradient: Any, fisher: Any, strength: float) -> float:
    return decoupled_kl(gradient, fisher, strength) * 2


def two_parts_only(gradients: Any, fishers: Any, strength: float) -> Any:
    split = split_shared_kl(gradients, fishers, strength)
    return replace(split, incidental=split.incidental + split.cross, cross=np.zeros_like(split.cross))


def decoupled_step(gradients: Any, fishers: Any, strength: float) -> Any:
    split = split_shared_kl(gradients, fishers, strength)
    steps = [np.linalg.lstsq(f, g, rcond=None)[0] for g, f in zip(gradients, fishers, strict=True)]
    return replace(split, step=-strength * np.sum(steps, axis=0))


def padding_counted(aligned: Any, base: Any, mask: Any = None, **kept: Any) -> Any:
    profile = kl_profile(aligned, base, mask, **kept)
    return replace(profile, count=np.full_like(profile.count, len(aligned)))


def reversed_kl(aligned: Any, base: Any) -> np.ndarray:
    return token_kl(base, aligned)


def variance_as_nats(information: Any, variance: float) -> np.ndarray:
    return np.asarray(information) / (2 * variance)


def sign_of_the_gap(first: Any, second: Any, level: float = 0.95) -> Any:
    return horizon_gap(second, first, level)


MUTATIONS: list[tuple[str, str, Callable[..., Any]]] = [
    ("4.1", "innovations", from_the_start),
    ("4.1", "innovations", lambda expected: -innovations(expected)),
    ("4.2", "harm_information", spread_of_levels),
    ("4.2", "harm_information", lambda expected, weights=None: harm_information(expected)),
    ("4.3", "harm_curve", means_as_if_exact),
    ("4.3", "harm_curve", pooled_baseline),
    ("4.3", "plug_in_bias", lambda worlds, depths, k: np.zeros(len(depths))),
    ("4.3", "pooled_bias", lambda worlds, rows: 0.0),
    ("4.4", "gradient_by_position", unweighted),
    ("4.4", "gradient_by_position", one_position_late),
    ("4.5", "gradient_bounds", without_the_trace),
    ("4.5", "gradient_bounds", roots_of_means_swapped),
    ("4.6", "gibbs_conditionals", paper_tilt),
    ("4.6", "leading_order_kl", no_half),
    ("4.6", "decoupled_kl", linear_in_strength),
    ("4.7", "split_shared_kl", two_parts_only),
    ("4.7", "split_shared_kl", decoupled_step),
    ("4.8", "kl_profile", padding_counted),
    ("4.8", "token_kl", reversed_kl),
    ("4.9", "gaussian_information", variance_as_nats),
    ("4.9", "horizon_gap", sign_of_the_gap),
]


@pytest.mark.parametrize(
    ("item", "name", "wrong"), MUTATIONS, ids=[f"{m[0]}-{m[1]}-{k}" for k, m in enumerate(MUTATIONS)]
)
def test_a_wrong_function_turns_its_row_red(
    item: str, name: str, wrong: Callable[..., Any], checks: dict[str, Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks[item].passed
    monkeypatch.setattr(section4, name, wrong)
    row = section4.ROWS[int(item.partition(".")[2]) - 1]
    assert not row().passed


def test_wrong_laboratories_turn_rows_red(monkeypatch: pytest.MonkeyPatch) -> None:
    tilt = TabularPolicy.equilibrium
    with monkeypatch.context() as patch:
        patch.setattr(TabularPolicy, "equilibrium", lambda self, harm, strength: tilt(self, harm, -strength))
        assert not section4.row_4_6().passed
    with monkeypatch.context() as patch:
        patch.setattr(TabularPolicy, "per_position_kl", lambda self, other: np.zeros(self.length))
        assert not section4.row_4_6().passed
    with monkeypatch.context() as patch:
        patch.setattr(SharedPolicy, "fishers", lambda self: np.stack([np.eye(self.theta.size)] * self.base.length))
        assert not section4.row_4_7().passed
    step = SharedPolicy.natural_step
    with monkeypatch.context() as patch:
        patch.setattr(SharedPolicy, "natural_step", lambda self, harm, strength: step(self, harm, -strength))
        assert not section4.row_4_7().passed
