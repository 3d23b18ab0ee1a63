"""Observed tax of a pair of models: planted losses found, luck not taken for loss, forecasts scored against baselines."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.audit.efficiency import frontier_efficiency
from aligntax.audit.forecast import permutation_p, score_forecast
from aligntax.audit.observed import (
    answer_cells,
    cell_change,
    item_accuracy,
    item_margins,
    margin_drops,
    task_bills,
    worst_items,
)
from aligntax.audit.realised_shift import direction_turn, realised_shift
from aligntax.errors import DataError
from aligntax.geometry import Fisher, max_safety
from aligntax.stats import Estimate, spearman

Scores = dict[str, dict[str, list[float]]]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def planted(loss: Callable[[str, int], list[float]], items: int = 60, seed: int = 0) -> tuple[Scores, Scores]:
    """Three answers in two formats; `loss(format, item)` is what each answer loses, with a little noise."""
    source = rng(seed)
    before: Scores = {f: {str(k): list(source.normal(-4, 1, 3)) for k in range(items)} for f in "pq"}
    after = {
        f: {k: list(np.array(v) - loss(f, int(k)) + source.normal(0, 0.1, 3)) for k, v in table.items()}
        for f, table in before.items()
    }
    return before, after


class TestBill:
    def test_only_the_task_whose_margin_fell_has_paid(self) -> None:
        shared = planted(lambda f, k: [0.5, 0.5, 0.5], seed=1)
        gold = planted(lambda f, k: [0.4, 0.0, 0.0], seed=2)
        bills = task_bills({"shared": shared, "gold": gold}, rng(), draws=400)
        assert bills["shared"].split.shared.value == pytest.approx(0.5, abs=0.05)
        assert abs(bills["shared"].margin.tax.value) < 0.05 < bills["shared"].p_adjusted
        found = bills["gold"]
        assert found.split.selective.low < 0.4 < found.split.selective.high and found.split.selective.low > 0.3
        assert found.p_adjusted < 0.01 and found.margin.tax.value == pytest.approx(found.split.selective.value)
        assert found.accuracy.tax.value == pytest.approx(found.split.accuracy.value)

    def test_false_alarms_over_many_quiet_tasks_are_rare(self) -> None:
        scores = {str(s): planted(lambda f, k: [0.0, 0.0, 0.0], 20, s) for s in range(20)}
        bills = task_bills(scores, rng(), draws=200)
        assert sum(bill.p_adjusted <= 0.1 for bill in bills.values()) <= 2
        assert all(bill.p_adjusted >= bill.margin.p_value for bill in bills.values())

    def test_margins_and_accuracy_by_hand(self) -> None:
        scores = {"p": {"a": [-1.0, -2.0, -4.0]}, "q": {"a": [-3.0, -2.0, -2.0]}}
        assert item_margins(scores) == {"a": pytest.approx((2.0 - 1.0) / 2)}
        assert item_accuracy(scores) == {"a": 0.5}
        after = {"q": {"a": [-3.0, -2.0, -2.0]}, "p": {"a": [-2.0, -2.0, -4.0]}}
        assert margin_drops(scores, after).tolist() == [[1.0], [0.0]]

    def test_unpaired_items_are_named_with_their_task(self) -> None:
        before, after = planted(lambda f, k: [0.0, 0.0, 0.0], 5)
        del after["q"]["3"]
        with pytest.raises(DataError, match=r"task 'sums': item '3' is in before but not in after"):
            task_bills({"sums": (before, after)}, rng())
        with pytest.raises(DataError, match="two prompt formats"):
            task_bills({"sums": ({"p": before["p"]}, {"p": before["p"]})}, rng())
        assert task_bills({}, rng()) == {}


class TestWorstItems:
    def test_luck_is_seen_but_not_confirmed(self) -> None:
        means = [worst_items(rng(s).normal(size=(2, 100)), rng(), 50) for s in range(40)]
        # The mean of the top tenth of a normal is 1.755 sd; the mean of two formats has sd .707.
        assert np.mean([m.seen for m in means]) == pytest.approx(1.755 / np.sqrt(2), abs=0.1)
        assert abs(np.mean([m.confirmed.value for m in means])) < 0.1

    def test_a_planted_tenth_is_confirmed(self) -> None:
        drops = rng().normal(0, 0.2, (3, 100))
        drops[:, 17:27] += 2
        found = worst_items(drops, rng(), 300)
        assert found.count == 10 and found.confirmed.value == pytest.approx(2, abs=0.15)
        assert found.confirmed.low < 2 < found.confirmed.high + 0.1

    def test_one_format_confirms_nothing(self) -> None:
        found = worst_items([[0.0, 1.0, 2.0]], rng())
        assert (found.count, found.seen) == (1, 2.0) and np.isnan(found.confirmed.value)

    @pytest.mark.parametrize("drops", [[[1.0]], [1.0, 2.0], [[np.nan, 1.0]]])
    def test_bad_drops_are_refused(self, drops: list) -> None:
        with pytest.raises(DataError, match="drops of shape"):
            worst_items(drops, rng())


class TestCells:
    @given(st.lists(st.tuples(st.sampled_from([0, 1, None]), st.sampled_from([0, 1, None])), min_size=1, max_size=30))
    def test_every_item_is_in_one_cell_or_unjudged(self, items: list[tuple[int | None, int | None]]) -> None:
        refused, right = (np.array([np.nan if pair[k] is None else pair[k] for pair in items]) for k in (0, 1))
        counts = {
            name: sum(pair == cell for pair in items)
            for name, cell in {
                "answered_right": (0, 1),
                "answered_wrong": (0, 0),
                "refused_right": (1, 1),
                "refused_wrong": (1, 0),
            }.items()
        }
        if not any(counts.values()):
            with pytest.raises(DataError, match="judged both ways"):
                answer_cells(refused, right)
            return
        cells = answer_cells(refused, right)
        assert cells.counts == counts and cells.n + cells.unjudged == len(items)
        assert all(s.low <= s.value <= s.high for s in cells.shares.values())
        assert sum(s.value for s in cells.shares.values()) == pytest.approx(1)

    def test_right_answers_went_to_refusal_or_to_error(self) -> None:
        before = (np.zeros(10), np.array([1] * 8 + [0, np.nan]))
        refused = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
        right = np.array([1, 1, 0, 0, 1, 1, 1, 1, 1, 1])
        change = cell_change(before, (refused, right), rng())
        assert (change.before, change.held, change.refused, change.unknown) == (8, 4, 3, 1)
        assert (change.lost.n, change.lost.lost, change.lost.gained) == (9, 4, 1)
        assert change.lost.p_value == pytest.approx(scipy.stats.binomtest(4, 5).pvalue)

    def test_bad_columns_are_refused(self) -> None:
        with pytest.raises(DataError, match=r"an entry is 0\.5"):
            answer_cells([0, 0.5], [1, 1])
        with pytest.raises(DataError, match="columns of shapes"):
            answer_cells([0, 1], [1])
        with pytest.raises(DataError, match="2 items before and 3 after"):
            cell_change(([0, 0], [1, 1]), ([0, 0, 0], [1, 1, 1]), rng())


class TestRealisedShift:
    def states(self, shift: np.ndarray, noise: float, n: int = 48, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        source = rng(seed)
        base = source.normal(0, 1, (n, *shift.shape))
        return base, base + shift + source.normal(0, noise, base.shape)

    def test_a_planted_shift_is_found_with_its_cosine_and_its_tax(self) -> None:
        d = 40
        v, u = np.eye(d)[0], np.eye(d)[1]
        shift = np.stack([3 * v - 2 * u, 0 * v])
        base, aligned = self.states(shift, 0.5)
        found = realised_shift(base, aligned, np.stack([v, v]), {"sums": np.stack([0.5 * u, 0.5 * u])})
        assert np.allclose(found.mean, shift, atol=0.3)
        assert found.cosine[0].value == pytest.approx(3 / np.sqrt(13), abs=0.03)
        assert found.tax["sums"][0].low < 1.0 < found.tax["sums"][0].high  # -<.5 u, -2 u>: a loss is positive
        assert abs(found.tax["sums"][1].value) < 0.1
        assert found.coherence[0].value == pytest.approx(13 / (13 + 0.25 * d), abs=0.05)
        assert found.relative_length[0].value == pytest.approx(np.sqrt(13 / d), rel=0.1)
        assert (found.texts, found.chance) == (48, 1 / d)

    def test_noise_over_texts_is_no_shift(self) -> None:
        values = []
        for seed in range(60):
            base, aligned = self.states(np.zeros((1, 30)), 1.0, 16, seed)
            delta = aligned - base
            values.append(realised_shift(base, aligned).coherence[0].value)
            plain = np.square(delta.mean(0)).sum() / np.square(delta).sum(2).mean()
            assert plain > 0.02  # not debiased, a sixteenth of the noise would pass for a shift
        assert abs(np.mean(values)) < 0.01

    def test_one_vector_for_all_texts_is_wholly_coherent_and_no_shift_is_undefined(self) -> None:
        base, aligned = self.states(np.ones((1, 5)), 0.0)
        assert realised_shift(base, aligned).coherence[0].value == pytest.approx(1)
        still = realised_shift(base, base, np.ones((1, 5)), {"t": np.ones((1, 5))})
        assert np.isnan([still.coherence[0].value, still.cosine[0].value]).all()
        assert still.tax["t"][0].value == 0 and still.relative_length[0].value == 0

    def test_bad_states_are_refused(self) -> None:
        good = np.ones((10, 2, 3))
        for base, aligned, safety, said in (
            (good, good[:, :1], None, "give \\(n, L, d\\) twice"),
            (good[:4], good[:4], None, "n >= groups"),
            (good, good * np.nan, None, "nan or infinity"),
            (good, good, np.ones((3, 3)), "safety of shape \\(3, 3\\)"),
        ):
            with pytest.raises(DataError, match=said):
                realised_shift(base, aligned, safety)

    def test_a_turned_direction_and_noise_does_not_turn_it(self) -> None:
        source, d, groups = rng(), 200, 10
        old, new = np.zeros(d), np.zeros(d)
        old[0] = new[0] = 3.0
        new[1] = 3.0
        before = np.stack([old, old]) + source.normal(0, 0.5, (groups, 2, d))
        after = np.stack([new, old]) + source.normal(0, 0.5, (groups, 2, d))
        turn = direction_turn(before, after)
        assert turn.cosine.low[0] < np.cos(np.pi / 4) < turn.cosine.high[0]
        assert turn.angle[0] == pytest.approx(np.arccos(turn.cosine.value[0])) and 0.6 < turn.angle[0] < 0.95
        assert turn.cosine.value[1] == pytest.approx(1, abs=0.1) and turn.cosine.low[1] < 1 < turn.cosine.high[1]
        naive = np.vdot(before.mean(0)[1], after.mean(0)[1]) / np.prod(
            [np.linalg.norm(x.mean(0)[1]) for x in (before, after)]
        )
        assert naive < 0.8
        assert turn.chance == 1 / d
        with pytest.raises(DataError, match="J >= 3"):
            direction_turn(before[:2], after[:2])


class TestForecast:
    def drops(self, true: np.ndarray, noise: float, items: int = 60, seed: int = 0) -> list[np.ndarray]:
        return [rng(seed + k).normal(t, noise, items) for k, t in enumerate(true)]

    def test_a_forecast_that_holds_is_supported_and_its_rival_is_behind(self) -> None:
        true = np.linspace(0, 1, 14)
        rival = rng(3).permutation(true)
        found = score_forecast(
            true**2, self.drops(true, 0.2), {"gradient norm": rival}, rng(), rng(1).normal(size=(99, 14)), 500
        )
        assert found.verdict == "supported" and found.correlation.value > 0.95 and found.correlation.low > 0.8
        assert found.ahead["gradient norm"].low > 0 and found.p_value < 0.01 and found.random_p <= 0.02
        assert (found.tasks, found.note) == (14, "")

    def test_a_baseline_as_good_leaves_it_undecided_and_a_better_one_contradicts(self) -> None:
        true = np.linspace(0, 1, 14)
        drops = self.drops(true, 0.2)
        assert score_forecast(true, drops, {"base score": true}, rng(), draws=300).verdict == "undecided"
        shuffled = rng(3).permutation(true)
        assert score_forecast(shuffled, drops, {"base score": true}, rng(), draws=300).verdict == "contradicted"
        assert score_forecast(-true, drops, {}, rng(), draws=300).verdict == "contradicted"

    def test_five_tasks_in_perfect_order_are_barely_enough_and_four_are_not(self) -> None:
        found = score_forecast([0, 1, 2, 3], self.drops(np.arange(4.0), 0.01), {}, rng(), draws=300)
        assert found.correlation.value == 1 and found.p_value == pytest.approx(1 / 24)
        assert "4 tasks: few" in found.note
        assert np.isnan(found.random_p)

    def test_noise_is_rarely_supported(self) -> None:
        verdicts = [
            score_forecast(
                rng(s).normal(size=10), self.drops(np.zeros(10), 1.0, 20, 100 * s), {}, rng(), draws=100
            ).verdict
            for s in range(40)
        ]
        assert verdicts.count("supported") <= 5

    @settings(max_examples=40)
    @given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=12))
    def test_rank_correlation_is_scipys(self, pairs: list[tuple[int, int]]) -> None:
        x, y = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            assert np.isnan(spearman(x, y))
        else:
            assert spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)

    def test_exact_and_drawn_permutations_agree(self) -> None:
        x, y = np.arange(7.0), np.array([0, 2, 1, 4, 3, 6, 5.0])
        drawn = np.mean([spearman(x, rng(s).permutation(y)) >= spearman(x, y) - 1e-12 for s in range(3000)])
        assert permutation_p(x, y, rng()) == pytest.approx(drawn, abs=0.01)
        long = permutation_p(np.arange(8.0), np.arange(8.0), rng(), 500)
        assert long == pytest.approx(1 / 501)

    def test_bad_input_is_refused(self) -> None:
        drops = self.drops(np.arange(5.0), 0.1)
        for predicted, given_drops, baselines, said in (
            ([1, 2, 3], drops[:3], {}, "at least 4 tasks"),
            ([1, 2, 3, 4], drops, {}, "one prediction a task"),
            ([1, 2, 3, 4, 5], drops, {"b": [1, 2]}, "one prediction a task"),
            ([1, 2, 3, 4, np.nan], drops, {}, "not finite"),
            ([1, 2, 3, 4, 5], [*drops[:4], np.array([np.nan])], {}, "task 4 has drops"),
        ):
            with pytest.raises(DataError, match=said):
                score_forecast(predicted, given_drops, baselines, rng())


class TestEfficiency:
    def problem(self) -> tuple[np.ndarray, np.ndarray, Fisher]:
        source = rng(5)
        return source.normal(size=6), source.normal(size=(2, 6)), Fisher(source.normal(size=(12, 6)))

    def test_the_frontiers_own_shift_is_wholly_efficient_and_half_of_its_gain_half(self) -> None:
        v, rows, fisher = self.problem()
        shift = fisher.sqrt_solve(rng(6).normal(size=6))
        nats = 0.5 * float(shift @ (fisher.factor.T @ fisher.factor) @ shift)
        measured = frontier_efficiency(Estimate(float(v @ shift), 0, 1, 0.1), v, rows, rows @ shift, fisher, nats)
        assert measured.share.value < 1 and measured.frontier > v @ shift  # a random shift stays below
        half = Estimate(measured.frontier / 2, measured.frontier / 4, measured.frontier, 0.1)
        again = frontier_efficiency(half, v, rows, rows @ shift, fisher, nats)
        assert (again.share.value, again.share.low, again.share.high) == pytest.approx((0.5, 0.25, 1.0))

    def test_a_round_budget_is_the_plain_frontier(self) -> None:
        v, u = np.array([1.0, 0.0, 0.0]), np.array([[0.6, 0.8, 0.0]])
        fisher = Fisher(np.eye(3))
        found = frontier_efficiency(Estimate(0.4, 0.3, 0.5, 0.05), v, u, [0.0], fisher, 0.5)  # |delta| <= 1
        assert found.frontier == pytest.approx(max_safety(v, u, [0.0], 1.0)[0]) == pytest.approx(0.8)
        assert found.share.value == pytest.approx(0.5)

    def test_what_has_no_frontier_is_undefined_and_says_why(self) -> None:
        v, u, fisher = np.array([1.0, 0.0]), np.array([[0.0, 1.0]]), Fisher(np.eye(2))
        gain = Estimate(1.0, 0.9, 1.1, 0.1)
        for changes, nats, direction, said in (
            ([5.0], 0.5, u, "budget"),
            ([0.0], 0.0, u, "nothing was spent"),
            ([-0.5], 0.5, v[None], "own gain"),
        ):
            found = frontier_efficiency(gain, v, direction, changes, fisher, nats)
            assert np.isnan(found.share.value) and said in found.reason
