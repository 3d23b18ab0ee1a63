"""Cross-fitted joint tax and the conflict of two objectives, against planted spans."""

from itertools import combinations

import numpy as np
import pytest

from aligntax.errors import AligntaxError
from aligntax.stats import conflict_interval, crossfit_tax, estimate_cosine


def _noisy(rng: np.random.Generator, rows: np.ndarray, noise: float, groups: int = 8) -> np.ndarray:
    return rows[..., None, :] + noise * rng.normal(size=(*rows.shape[:-1], groups, rows.shape[-1]))


def _plain_tau(v: np.ndarray, rows: np.ndarray) -> float:
    q, _ = np.linalg.qr(rows.T)
    return float(np.sum((q.T @ v) ** 2) / np.sum(v**2))


def test_without_noise_it_is_the_joint_tax() -> None:
    rng = np.random.default_rng(0)
    v, rows = rng.normal(size=40), rng.normal(size=(6, 40)) * np.geomspace(1, 1e14, 6)[:, None]
    tax = crossfit_tax(_noisy(rng, v, 0.0), _noisy(rng, rows, 0.0))
    assert tax.value == pytest.approx(_plain_tau(v, rows), rel=1e-9)
    assert tax.floor == pytest.approx(6 / 40)
    assert tax.corrected == pytest.approx(tax.value - tax.floor)
    repeated = np.concatenate([rows, rows[:3] + rows[3:], np.zeros((1, 40))])
    assert crossfit_tax(_noisy(rng, v, 0.0), _noisy(rng, repeated, 0.0)).value == pytest.approx(tax.value, rel=1e-9)


def test_it_equals_enumeration_over_halves_and_quarters() -> None:
    rng = np.random.default_rng(1)
    v, caps = _noisy(rng, rng.normal(size=10), 0.3), _noisy(rng, rng.normal(size=(3, 10)), 0.3)
    top, bottom = [], []
    for half in combinations(range(8), 4):
        rest = [b for b in range(8) if b not in half]
        q, _ = np.linalg.qr(caps[:, list(half)].mean(axis=1).T)
        for quarter in combinations(rest, 2):
            b1, b2 = v[list(quarter)].mean(0), v[[b for b in rest if b not in quarter]].mean(0)
            top.append((q.T @ b1) @ (q.T @ b2))
            bottom.append(b1 @ b2)
    assert crossfit_tax(v, caps).value == pytest.approx(np.mean(top) / np.mean(bottom), rel=1e-10)


def test_the_floor_is_the_mean_over_random_rotations() -> None:
    rng = np.random.default_rng(2)
    v, caps = _noisy(rng, rng.normal(size=12), 0.5), _noisy(rng, rng.normal(size=(4, 12)), 0.5)
    turned = []
    for _ in range(300):
        q, r = np.linalg.qr(rng.normal(size=(12, 12)))
        turned.append(caps @ (q * np.sign(np.diag(r))))
    drawn = [
        crossfit_tax(v, caps, splits=6, controls=None).floor,
        np.mean([crossfit_tax(v, t, splits=6).value for t in turned]),
    ]
    error = np.std([crossfit_tax(v, t, splits=6).value for t in turned]) / np.sqrt(300)
    assert abs(drawn[1] - drawn[0]) < 3 * error
    assert drawn[0] == pytest.approx(4 / 12)
    assert crossfit_tax(v, caps, splits=6, controls=np.array(turned)).floor == pytest.approx(drawn[1])


def test_noise_in_v_or_shared_with_capabilities_does_not_inflate_it() -> None:
    """v orthogonal to C and all noise shared: the plug-in tax is inflated, the cross-fitted one sits at its floor."""
    rng, width, found, plain = np.random.default_rng(3), 64, [], []
    for _ in range(60):
        noise = 0.35 * rng.normal(size=(8, width))
        v = np.eye(width)[0] + noise
        caps = np.eye(width)[1:4, None] + noise
        found.append(crossfit_tax(v, caps, splits=20))
        plain.append(_plain_tau(v.mean(0), caps.mean(1)))
    error = np.std([f.value for f in found]) / np.sqrt(60)
    assert np.mean(plain) > 0.15
    assert abs(np.mean([f.value for f in found])) < 0.06 + 2 * error
    assert np.mean([f.corrected for f in found]) < 0.03 + 2 * error


def test_a_planted_span_is_found() -> None:
    rng, width = np.random.default_rng(4), 64
    v = np.sqrt(0.6) * np.eye(width)[1] + np.sqrt(0.4) * np.eye(width)[0]
    found = [crossfit_tax(_noisy(rng, v, 0.3), _noisy(rng, np.eye(width)[1:4], 0.05), splits=20) for _ in range(60)]
    error = np.std([f.value for f in found]) / np.sqrt(60)
    assert abs(np.mean([f.value for f in found]) - 0.6) < 0.03 + 2 * error
    plain = [_plain_tau(_noisy(rng, v, 0.3).mean(0), np.eye(width)[1:4]) for _ in range(60)]
    assert np.mean(plain) < 0.45  # a norm inflated by noise would have hidden a quarter of the tax


def test_crossfit_is_deterministic_and_refuses_what_does_not_fit() -> None:
    rng = np.random.default_rng(5)
    v, caps = rng.normal(size=(11, 6)) + 2, rng.normal(size=(2, 11, 6))
    assert crossfit_tax(v, caps, splits=9) == crossfit_tax(v, caps, splits=9)
    assert crossfit_tax(v, caps, splits=9) != crossfit_tax(v, caps, splits=9, seed=1)
    sign = np.resize([1.0, -1.0], (8, 1))
    assert np.isnan(crossfit_tax(sign * np.ones((8, 6)), rng.normal(size=(2, 8, 6))).value)
    for bad in [(v[:3], caps[:, :3]), (v, caps[:, :10]), (v, caps[:0]), (v, caps[0])]:
        with pytest.raises(AligntaxError, match="give"):
            crossfit_tax(*bad)
    with pytest.raises(AligntaxError, match="controls"):
        crossfit_tax(v, caps, controls=caps)


def test_conflict_is_the_partial_correlation() -> None:
    rng = np.random.default_rng(6)
    v1, v2, rows = rng.normal(size=9), rng.normal(size=9), rng.normal(size=(3, 9))
    unit1, unit2 = v1 / np.linalg.norm(v1), v2 / np.linalg.norm(v2)
    a, b, gram = rows @ unit1, rows @ unit2, np.linalg.pinv(rows @ rows.T)
    rho = unit1 @ unit2
    effective = (rho - a @ gram @ b) / np.sqrt((1 - a @ gram @ a) * (1 - b @ gram @ b))
    found = conflict_interval(_noisy(rng, v1, 0.0), _noisy(rng, v2, 0.0), _noisy(rng, rows, 0.0))
    assert (found.rho.value, found.rho_plain.value) == pytest.approx((rho, rho))
    assert found.rho_eff.value == pytest.approx(effective)
    assert found.rho_eff.se == pytest.approx(0, abs=1e-12)


def test_conflict_under_noise() -> None:
    rng, width = np.random.default_rng(7), 8
    v1, v2, u = np.eye(width)[0] + np.eye(width)[2], np.eye(width)[1] - np.eye(width)[2], np.eye(width)[2:3]
    hits = []
    for _ in range(150):
        one, two, caps = _noisy(rng, v1, 0.3), _noisy(rng, v2, 0.3), _noisy(rng, u, 0.3)
        found = conflict_interval(one, two, caps)
        hits.append((found.rho.low <= -0.5 <= found.rho.high, found.rho_eff.low <= 0 <= found.rho_eff.high))
    assert found.rho.value == pytest.approx(estimate_cosine(one, two).value)
    assert abs(found.rho_plain.value) < abs(found.rho.value)
    coverage = np.mean(hits, axis=0)
    assert (coverage >= 0.85).all() and (coverage <= 0.99).all()


def test_conflict_of_an_objective_inside_the_span_is_undefined() -> None:
    rng = np.random.default_rng(8)
    rows = rng.normal(size=(2, 8, 5))
    found = conflict_interval(rows[0] + rows[1], rng.normal(size=(8, 5)) + 3, rows)
    assert np.isnan(found.rho_eff.value) and not np.isnan(found.rho_plain.value)
    with pytest.raises(AligntaxError, match="one J"):
        conflict_interval(rows[0], rows[1][:4], rows)
