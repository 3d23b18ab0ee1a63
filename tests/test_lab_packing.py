"""The simulated packing against packings drawn in all coordinates, and against the exact law."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.errors import LabError
from aligntax.geometry import effective_correlation, packing_law, tax_rate
from aligntax.lab import PackingWorld
from aligntax.lab.oracles.scaling import packed_correlations, packed_taxes

GRAM = np.array([[1, 0.5, 0.3], [0.5, 1, -0.2], [0.3, -0.2, 1]])
seeds = st.integers(0, 10**6)


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(0, 9), st.sampled_from([0.0, 0.7]))
def test_quantities_of_a_draw_are_those_of_its_features(seed: int, m2: int, residual: float) -> None:
    drawn = PackingWorld.from_gram(GRAM, 2, residual).draw(m2, 12, 3, np.random.default_rng(seed))
    np.testing.assert_allclose(np.linalg.norm(drawn.features, axis=2), 1)
    for i, rows in enumerate(drawn.features):
        for j in range(2):
            assert drawn.tax[i, j] == pytest.approx(tax_rate(rows[j], rows[2:]), abs=1e-9)
        assert drawn.effective_correlation[i] == pytest.approx(effective_correlation(*rows[:2], rows[2:]), abs=1e-6)
        np.testing.assert_allclose(drawn.cosines[i], rows[:2] @ rows[2:].T)
        residuals = rows @ rows.T - drawn.limit
        assert drawn.coherence[i] == pytest.approx(np.abs(residuals - np.diag(np.diag(residuals))).max())


@pytest.mark.parametrize(("m2", "d"), [(1, 5), (6, 12), (9, 11), (20, 80)])
def test_short_draws_have_the_law_of_full_ones(m2: int, d: int) -> None:
    related = np.linalg.cholesky(GRAM)
    drawn = PackingWorld.from_gram(GRAM, 2).draw(m2, d, 1000, np.random.default_rng(1))
    law = packing_law(drawn.limit[0, 2] ** 2, 1, m2, d)
    full = packed_taxes(related[[0, 2]], m2, d, 1000, np.random.default_rng(2))
    assert scipy.stats.kstest(drawn.tax[:, 0], law.cdf).pvalue > 1e-3
    assert scipy.stats.ks_2samp(drawn.tax[:, 0], full).pvalue > 1e-3
    if d - 1 - m2 >= 2:
        other = packed_correlations(related, m2, d, 1000, np.random.default_rng(3))
        assert scipy.stats.ks_2samp(drawn.effective_correlation, other).pvalue > 1e-3


def test_inner_products_of_unrelated_features_are_uniform_in_all_of_d() -> None:
    d, m2 = 30, 8
    gram = PackingWorld([[1.0]], []).draw(m2, d, 1000, np.random.default_rng(4)).gram
    null = scipy.stats.beta(0.5, (d - 1) / 2).cdf
    for i, j in ((0, 1), (0, 8), (1, 8), (7, 8), (3, 5)):
        assert scipy.stats.kstest(gram[:, i, j] ** 2, null).pvalue > 1e-3
        assert abs(gram[:, i, j].mean()) < 4 / np.sqrt(1500 * d)


def test_residuals_shrink_as_the_root_of_width_and_vanish_without() -> None:
    rng = np.random.default_rng(5)
    exact = PackingWorld.from_gram(GRAM, 2).draw(0, 50, 20, rng)
    np.testing.assert_allclose(exact.gram, np.broadcast_to(GRAM, (20, 3, 3)), atol=1e-12)
    world = PackingWorld.from_gram(GRAM, 2, residual=1.0)
    near, far = (world.draw(0, d, 4000, rng).cosines[:, 0, 0] for d in (400, 40000))
    assert near.std() / far.std() == pytest.approx(10, rel=0.1)
    assert far.mean() == pytest.approx(0.3, abs=5 * far.std() / np.sqrt(4000) + 1e-3)


def test_crowded_packings_are_all_tax_and_empty_ones_none() -> None:
    world = PackingWorld.from_gram(GRAM, 2)
    np.testing.assert_allclose(world.draw(15, 12, 4, np.random.default_rng(6)).tax, 1.0)
    alone = PackingWorld([[1.0, 0.0]], []).draw(0, 7, 4, np.random.default_rng(6))
    assert (alone.tax == 0).all() and alone.features.shape == (4, 1, 2) and (alone.coherence == 0).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: PackingWorld([[0.0, 0.0]], []), "nonzero"),
        (lambda: PackingWorld([[1.0, 0.0]], [[1.0, 0.0, 0.0]]), "coordinates"),
        (lambda: PackingWorld([[1.0, 0.0]], [[0.0, 1.0], [0.0, 2.0]]), "rank 1"),
        (lambda: PackingWorld([[1.0]], [], residual=-1.0), "residual=-1.0"),
        (lambda: PackingWorld.from_gram([[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1]]), "no unit vectors"),
        (lambda: PackingWorld.from_gram([[2.0]]), "ones on its diagonal"),
        (lambda: PackingWorld.from_gram(GRAM).draw(3, 2, 5, np.random.default_rng(0)), "d=2"),
        (lambda: PackingWorld.from_gram(GRAM).draw(5000, 9000, 100, np.random.default_rng(0)), "draw fewer"),
        (
            lambda: PackingWorld([[1.0]], []).draw(1, 4, 2, np.random.default_rng(0)).effective_correlation,
            "at least two",
        ),
    ],
)
def test_impossible_worlds_are_named(call: object, words: str) -> None:
    with pytest.raises(LabError, match=words):
        call()  # type: ignore[operator]
