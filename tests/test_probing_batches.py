"""Batches within a token budget, what happens when memory runs out, and the meter."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from probing_rows import GROUPS, make_probe, make_rows

from aligntax.errors import AligntaxError
from aligntax.probing import (
    KlMeter,
    Meter,
    Row,
    TokenBudget,
    answer_metric,
    collate,
    control_gradients,
    fisher_draws,
    generate,
    item_gradients,
    run_batches,
    tail_activations,
    token_batches,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
CPU = torch.device("cpu")


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 200))
def test_token_batches_hold_each_row_once_within_the_budget_longest_first(lengths, budget):
    batches = token_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    order = [lengths[i] for batch in batches for i in batch]
    assert order == sorted(order, reverse=True)
    # As few batches as filling each to the brim would need, and none of them a mere remainder: the same number could
    # not be had with a smaller budget than the one that is used.
    filled, room = 0, 0
    for length in sorted(lengths, reverse=True):
        if room == 0:
            filled, room = filled + 1, max(1, budget // length)
        room -= 1
    assert len(batches) == filled


def test_token_batches_leave_no_small_remainder():
    sizes = [len(batch) for batch in token_batches([10] * 21, 100)]
    assert sizes == [7, 7, 7]


@given(st.lists(st.tuples(st.integers(2, 12), st.integers(1, 12)), min_size=1, max_size=6))
def test_collate_pads_right_and_marks_the_scored_tokens(shapes):
    rows = [Row(tuple(range(5, 5 + n)), min(start, n - 1), k, 0.5 + k) for k, (n, start) in enumerate(shapes)]
    batch = collate(rows, list(range(len(rows))), CPU)
    for k, row in enumerate(rows):
        n = len(row.ids)
        assert batch.ids[k, :n].tolist() == list(row.ids) and not batch.ids[k, n:].any()
        assert batch.mask[k].tolist() == [1] * n + [0] * (batch.mask.shape[1] - n)
        assert batch.scored[k].nonzero()[:, 0].tolist() == list(range(row.start, n))
        assert float(batch.weights[k]) == row.weight
    assert batch.tokens == sum(len(row.ids) for row in rows)


def out_of_memory_above(count: int, error: type[BaseException] | None = None):
    """A metric that needs more memory than there is for batches of more than `count` rows."""
    tried: list[int] = []

    def metric(model, batch):
        tried.append(len(batch.rows))
        if len(batch.rows) > count:
            raise error() if error else torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return answer_metric(model, batch)

    return metric, tried


@pytest.mark.parametrize("error", [None, MemoryError, lambda: RuntimeError("DefaultCPUAllocator: not enough memory")])
@pytest.mark.parametrize("tokens", [200, 10**6])
def test_out_of_memory_halves_the_budget_and_gives_the_same_result(error, tokens, tiny_model):
    model, rows = tiny_model("llama"), make_rows()
    whole = item_gradients(make_probe(model), rows, answer_metric, GROUPS, (3, "t"))
    seen: list[int] = []
    probe = make_probe(model, tokens, advance=seen.append)
    metric, tried = out_of_memory_above(2, error)
    found = item_gradients(probe, rows, metric, GROUPS, (3, "t"))
    np.testing.assert_allclose(found.sums, whole.sums, atol=2e-5 * np.abs(whole.sums).max())
    np.testing.assert_allclose(found.values, whole.values, atol=1e-5)
    assert max(tried) > 2 and sum(n for n in tried if n <= 2) == len(rows), "each row is finished exactly once"
    # A budget far above the data must not cost a try for each of its halvings.
    assert sum(n > 2 for n in tried) <= 3
    assert probe.budget.tokens < 60 and sum(seen) == sum(len(row.ids) for row in rows)
    tried.clear()
    item_gradients(probe, rows, metric, GROUPS, (3, "t"))
    assert max(tried) <= 2, "the budget stays halved"


def test_a_single_row_that_does_not_fit_is_one_clear_error(tiny_model):
    metric, _ = out_of_memory_above(0)
    with pytest.raises(
        AligntaxError, match=r"^out of memory with a single row of 15 tokens; shorten the items"
    ) as caught:
        item_gradients(make_probe(tiny_model("llama")), make_rows(), metric, GROUPS, (3, "t"))
    assert "\n" not in str(caught.value)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def step(batch):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(run_batches(make_rows(), TokenBudget(100), CPU, step))


def test_every_pass_survives_a_lack_of_memory_with_the_same_result(tiny_model):
    model, rows = tiny_model("llama"), make_rows()
    prompts = [Row(row.ids, len(row.ids), k) for k, row in enumerate(rows)]
    targets = np.arange(2 * len(rows)).reshape(2, -1) + 7
    passes = {
        "controls": lambda p: control_gradients(p, prompts, targets, np.arange(len(rows)) % 3, 3),
        "fisher": lambda p: fisher_draws(p, rows, 3, seed=5),
        "tail": lambda p: tail_activations(p, rows, 2),
        "kl": lambda p: np.array([KlMeter(p, rows).measure(torch.ones(model.config.hidden_size) / 10, 1)]),
        "replies": lambda p: np.array(generate(p, [row.ids for row in rows], 4, False, 0)),
    }
    wanted = {name: run(make_probe(model)) for name, run in passes.items()}

    def small(_, args, kwargs):
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is not None and len(ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = model.model.register_forward_pre_hook(small, with_kwargs=True)
    try:
        for name, run in passes.items():
            found, scale = run(make_probe(model)), np.abs(wanted[name]).max()
            np.testing.assert_allclose(found / scale, wanted[name] / scale, atol=2e-5, err_msg=name)
    finally:
        handle.remove()


def test_meter_counts_the_tokens_of_each_phase():
    with Meter(quiet=True) as meter:
        with meter.phase("first", 10):
            meter.advance(4)
            meter.advance(6)
        with meter.phase("nothing to do", 0):
            pass
        with pytest.raises(KeyError), meter.phase("broken", 10):
            meter.advance(3)
            raise KeyError
    assert [(p.name, p.tokens) for p in meter.phases] == [("first", 10), ("nothing to do", 0), ("broken", 3)]
    assert all(0 <= p.seconds < 5 for p in meter.phases)


def test_meter_is_silent_when_quiet_and_never_writes_to_stdout(capsys):
    for quiet in (True, False):
        with Meter(quiet) as meter, meter.phase("gradients", 10):
            meter.advance(10)
        out, err = capsys.readouterr()
        assert out == "" and ("gradients" in err) is not quiet
