"""Shared and selective: what every answer loses is not what telling them apart loses."""

import numpy as np
import pytest

from aligntax.errors import DataError
from aligntax.stats import split_tax


def scores(table: np.ndarray) -> dict[str, dict[str, list[float]]]:
    return {f"format {f}": {f"q{i}": row.tolist() for i, row in enumerate(rows)} for f, rows in enumerate(table)}


def planted(shared: float, selective: float, formats: int = 2, seed: int = 0) -> tuple:
    rng = np.random.default_rng(seed)
    before = rng.normal(size=(formats, 50, 4))
    before[..., 0] += 1.0
    after = before - shared + rng.normal(0, 0.05, size=before.shape)
    after[..., 0] -= selective
    return scores(before), scores(after), rng


def test_mass_that_every_answer_loses_is_no_loss_of_capability() -> None:
    split = split_tax(*planted(shared=0.6, selective=0.0))
    assert split.shared.low < 0.6 < split.shared.high and split.shared.low > 0.5
    assert split.gold.low > 0.5
    assert split.selective.low < 0 < split.selective.high
    assert abs(split.accuracy.value) < 0.05


def test_a_lost_margin_is_found_though_gold_rises() -> None:
    split = split_tax(*planted(shared=-1.0, selective=0.8))
    assert split.gold.high < 0 < 0.7 < split.selective.low
    assert split.accuracy.low > 0


def test_the_parts_add_up() -> None:
    for seed in range(5):
        split = split_tax(*planted(0.3, 0.2, 3, seed))
        assert split.gold.value == pytest.approx(split.shared.value + split.selective.value)
        assert (split.items, split.formats) == (50, 3)


def test_formats_that_disagree_widen_the_interval() -> None:
    before, after, rng = planted(0.0, 0.3)
    steady = split_tax(before, after, rng).selective
    for answers in after["format 0"].values():
        answers[0] -= 0.5
    torn = split_tax(before, after, rng).selective
    assert torn.se > 5 * steady.se
    assert torn.se == pytest.approx(0.25, rel=0.15)  # half the difference of two: its standard error, not half of that


@pytest.mark.parametrize("formats", [2, 4])
def test_intervals_cover_over_new_formats_and_items(formats: int) -> None:
    held = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        drops = (
            0.1 + rng.normal(0, 0.05, (formats, 1)) + rng.normal(0, 0.3, (1, 40)) + rng.normal(0, 0.1, (formats, 40))
        )
        before = rng.normal(size=(formats, 40, 2))
        after = before.copy()
        after[..., 0] -= drops
        selective = split_tax(scores(before), scores(after), rng, draws=300).selective
        held.append(selective.low <= 0.1 <= selective.high)
    assert 0.75 <= np.mean(held) <= 0.97  # 90% meant


def test_what_is_unpaired_is_named() -> None:
    before, after, rng = planted(0.1, 0.1)
    with pytest.raises(DataError, match="only the format"):
        split_tax({"format 0": before["format 0"]}, {"format 0": after["format 0"]}, rng)
    with pytest.raises(DataError, match="format 'plain' is in before"):
        split_tax({**before, "plain": {}}, after, rng)
    short = {**after, "format 1": {k: v for k, v in after["format 1"].items() if k != "q3"}}
    with pytest.raises(DataError, match="'q3'"):
        split_tax(before, short, rng)
    with pytest.raises(DataError, match="'q3'"):
        split_tax({**before, "format 1": short["format 1"]}, short, rng)
    for wrong, says in (([0.1, 0.2], "4 answers before and 2 after"), ([0.1, np.nan, 0, 0], "finite")):
        broken = {**after, "format 1": {**after["format 1"], "q5": wrong}}
        with pytest.raises(DataError, match=f"'q5'.*{says}"):
            split_tax(before, broken, rng)
    with pytest.raises(DataError, match="1 item"):
        split_tax(*(({f: {"q0": s[f]["q0"]} for f in s}) for s in (before, after)), rng)
