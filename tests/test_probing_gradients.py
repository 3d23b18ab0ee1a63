"""The zero-shift estimator against one-by-one autograd and finite differences, with hooks of our own."""

import copy
import gc
import itertools
import tracemalloc

import numpy as np
import pytest
import torch
from conftest import LAYERS, VOCAB, WIDTH
from probing_rows import GROUPS, make_probe, make_rows
from torch import Tensor

from aligntax.errors import AligntaxError, NonFiniteError
from aligntax.models import decoder_blocks
from aligntax.probing import (
    Row,
    answer_metric,
    callable_metric,
    control_gradients,
    control_targets,
    item_gradients,
    item_values,
    refusal_metric,
    sum_rows,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
families = pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox", "qwen2_moe"])


def reference_score(model, row: Row, shift: Tensor, skip: tuple[int, ...] = ()) -> Tensor:
    """Mean log-probability of one row alone, full logits, `shift` `(L, d)` added by hooks of our own."""

    def hook_for(layer: int):
        def hook(_, __, output):
            hidden = output[0] if isinstance(output, tuple) else output
            keep = torch.ones(hidden.shape[1], 1, dtype=hidden.dtype)
            keep[[p for p in skip if p < len(keep)]] = 0
            moved = hidden + shift[layer] * keep
            return (moved, *output[1:]) if isinstance(output, tuple) else moved

        return hook

    handles = [block.register_forward_hook(hook_for(k)) for k, block in enumerate(decoder_blocks(model))]
    try:
        logits = model(input_ids=torch.tensor([row.ids])).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    logprobs = logits.log_softmax(-1)
    return torch.stack([logprobs[t - 1, row.ids[t]] for t in range(row.start, len(row.ids))]).mean()


def reference_gradient(model, row: Row, skip: tuple[int, ...] = ()) -> np.ndarray:
    """Gradient `(L, d)` of one row by autograd."""
    shift = torch.zeros(LAYERS, WIDTH, dtype=next(model.parameters()).dtype, requires_grad=True)
    return torch.autograd.grad(reference_score(model, row, shift, skip), shift)[0].numpy()


def reference_sums(model, rows: list[Row], skip: tuple[int, ...] = ()) -> np.ndarray:
    """Group sums `(3, L, d)` of weighted row gradients, one by one."""
    sums = np.zeros((3, LAYERS, WIDTH))
    for row in rows:
        sums[GROUPS[row.item]] += row.weight * reference_gradient(model, row, skip)
    return sums


def assert_near(found: np.ndarray, wanted: np.ndarray, tolerance: float = 2e-5) -> None:
    """Equal to `tolerance` of the largest entry, which must not be 0."""
    scale = np.abs(wanted).max()
    assert scale > 1e-3
    np.testing.assert_allclose(found / scale, wanted / scale, atol=tolerance, rtol=0)


@families
def test_group_sums_are_sums_of_one_by_one_gradients(family, tiny_model):
    model, rows = tiny_model(family), make_rows()
    found = item_gradients(make_probe(model), rows, answer_metric, GROUPS, (3, "t"))
    assert_near(found.sums, reference_sums(model, rows))
    assert found.counts.tolist() == [2, 2, 1]
    with torch.no_grad():
        wanted = [float(reference_score(model, row, torch.zeros(LAYERS, WIDTH))) for row in rows]
    np.testing.assert_allclose(found.values, wanted, atol=1e-5)


# Experts and sliding windows are covered above; a difference quotient wants a smooth function.
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox"])
def test_gradients_are_finite_differences(family, tiny_model):
    model, rows = tiny_model(family), make_rows()
    # Norms compute in float32 whatever the weights are, hence the step and the tolerance.
    exact = copy.deepcopy(model).double()
    found = item_gradients(make_probe(model), rows, answer_metric, GROUPS, (3, "t"))
    step = torch.randn(LAYERS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wanted = np.zeros(3)
    with torch.no_grad():
        for row in rows:
            up, down = (float(reference_score(exact, row, sign * 2e-3 * step)) for sign in (1, -1))
            wanted[GROUPS[row.item]] += row.weight * (up - down) / 4e-3
    assert_near((found.sums * step.numpy()).sum((1, 2)), wanted, 1e-3)


@families
@pytest.mark.parametrize("tokens", [1, 20, 37])
def test_neither_batching_nor_order_nor_padding_changes_a_gradient(family, tokens, tiny_model):
    model, rows = tiny_model(family), make_rows()
    whole = item_gradients(make_probe(model), rows, answer_metric, GROUPS, (3, "t"))
    parts = item_gradients(make_probe(model, tokens), rows, answer_metric, GROUPS, (3, "t"))
    assert_near(parts.sums, whole.sums)
    np.testing.assert_allclose(parts.values, whole.values, atol=1e-5)
    turn = np.random.default_rng(tokens).permutation(len(rows))
    turned = item_gradients(make_probe(model, tokens), [rows[k] for k in turn], answer_metric, GROUPS, (3, "t"))
    assert_near(turned.sums, whole.sums)
    np.testing.assert_allclose(turned.values, whole.values[turn], atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_sinks_are_left_out_and_change_the_answer(family, tiny_model):
    model, rows = tiny_model(family), make_rows()
    found = item_gradients(make_probe(model, sinks=(0, 3)), rows, answer_metric, GROUPS, (3, "t")).sums
    assert_near(found, reference_sums(model, rows, skip=(0, 3)))
    without = item_gradients(make_probe(model), rows, answer_metric, GROUPS, (3, "t")).sums
    assert np.abs(found - without).max() > 1e-2 * np.abs(without).max()


def test_item_values_with_a_shift_and_item_margins(tiny_model):
    model, rows = tiny_model("llama"), make_rows()
    shift = torch.randn(WIDTH, generator=torch.Generator().manual_seed(3))
    full = torch.zeros(LAYERS, WIDTH)
    full[1] = shift
    with torch.no_grad():
        wanted = np.array([float(reference_score(model, row, full)) for row in rows])
    found = item_values(make_probe(model, 30), rows, answer_metric, shift, 1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.abs(found - item_values(make_probe(model), rows, answer_metric)).max() > 1e-2
    margins = sum_rows(rows, wanted, 5)
    np.testing.assert_allclose(margins[3], wanted[3] - (wanted[4] + wanted[5]) / 2)
    np.testing.assert_allclose(margins[:3], wanted[:3])


def test_refusal_metric_is_the_log_odds_of_the_listed_tokens(tiny_model):
    model = tiny_model("gemma2")
    prompts = [Row(row.ids, len(row.ids), k) for k, row in enumerate(make_rows())]
    listed = [3, 8, 20]
    found = item_values(make_probe(model, 30), prompts, refusal_metric([*listed, 8]))
    for row, value in zip(prompts, found, strict=True):
        with torch.no_grad():
            p = model(input_ids=torch.tensor([row.ids])).logits[0, -1].double().softmax(-1)
        mass = float(p[listed].sum())
        assert value == pytest.approx(np.log(mass / (1 - mass)), abs=1e-4)
    with pytest.raises(AligntaxError, match="--refusal-tokens"):
        refusal_metric([])


def test_a_users_metric_sees_full_logits_and_its_shape_is_checked(tiny_model):
    model, rows = tiny_model("llama"), make_rows()

    def mean_logprob(logits: Tensor, batch) -> Tensor:
        scores = logits.log_softmax(-1)[:, :-1].gather(-1, batch.ids[:, 1:, None])[..., 0]
        return (scores * batch.scored[:, 1:]).sum(1) / batch.scored.sum(1)

    own = item_gradients(make_probe(model, 40), rows, callable_metric(mean_logprob), GROUPS, (3, "t"))
    ours = item_gradients(make_probe(model, 40), rows, answer_metric, GROUPS, (3, "t"))
    assert_near(own.sums, ours.sums)
    for wrong, word in (
        (lambda logits, batch: logits[:, 0], r"shape \(9, 97\)"),
        (lambda logits, batch: 1.0, "a float"),
    ):
        with pytest.raises(AligntaxError, match=f"{word}.*one number a row"):
            item_values(make_probe(model), rows, callable_metric(wrong))


def test_control_gradients_are_per_target_gradients(tiny_model):
    model = tiny_model("qwen2_moe")
    prompts = [Row(row.ids, len(row.ids), k) for k, row in enumerate(make_rows())]
    groups = np.arange(len(prompts)) % 4
    targets = np.random.default_rng(2).integers(0, VOCAB, (3, len(prompts)))
    wanted = np.zeros((3, 4, LAYERS, WIDTH))
    for c in range(3):
        for k, row in enumerate(prompts):
            asked = Row((*row.ids, int(targets[c, k])), len(row.ids), k)
            wanted[c, groups[k]] += reference_gradient(model, asked, skip=(len(row.ids),)) / (groups == groups[k]).sum()
    for tokens in (1, 35, 4096):
        assert_near(control_gradients(make_probe(model, tokens), prompts, targets, groups, 4), wanted)


def test_control_targets_shuffle_and_draw():
    firsts = list(range(100, 120))
    targets = control_targets(firsts, 6, 97, np.random.default_rng(0))
    for even in targets[::2]:
        assert sorted(even) == firsts and not np.any(even == np.array(firsts))
    assert not np.array_equal(targets[0], targets[2])
    for odd in targets[1::2]:
        assert len(set(odd)) == 1 and 0 <= odd[0] < 97


def test_nan_weights_name_task_and_layer(tiny_model):
    model = copy.deepcopy(tiny_model("llama"))
    with torch.no_grad():
        decoder_blocks(model)[1].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"^chemistry: the output of layer 1 is NaN"):
        item_gradients(make_probe(model), make_rows(), answer_metric, GROUPS, (3, "chemistry"))


def test_a_metric_that_is_nan_names_the_task_and_clears_the_layers(tiny_model):
    metric = callable_metric(lambda logits, batch: logits.sum((1, 2)) * torch.nan)
    with pytest.raises(NonFiniteError, match=r"^own: the metric, with every layer finite, is NaN"):
        item_gradients(make_probe(tiny_model("llama")), make_rows(), metric, GROUPS, (3, "own"))


def test_a_gradient_that_breaks_on_the_way_back_names_task_and_layer(tiny_model):
    model = copy.deepcopy(tiny_model("llama"))

    def break_backward(_, __, output):
        hidden = output[0] if isinstance(output, tuple) else output
        hidden.register_hook(lambda gradient: gradient * torch.inf)

    # The shift is added to what this hook sees, so the gradient at the layer itself is still whole.
    decoder_blocks(model)[1].register_forward_hook(break_backward)
    with pytest.raises(NonFiniteError, match=r"^biology: the gradient at layer 0 is NaN"):
        item_gradients(make_probe(model), make_rows(), answer_metric, GROUPS, (3, "biology"))


def _held_tensors() -> int:
    return sum(o.numel() for o in gc.get_objects() if issubclass(type(o), Tensor))


def test_memory_does_not_grow_with_the_number_of_items(tiny_model):
    """Largest sum of live tensor elements, and peak of numpy's own memory, at 1x and at 8x items."""

    def cost(times: int) -> tuple[int, int]:
        rows = [Row(r.ids, r.start, r.item + 5 * k, r.weight) for k in range(times) for r in make_rows()]
        held: list[int] = []
        batches = itertools.count()

        def watch(_: int) -> None:
            if next(batches) % 8 in (1, 7):
                held.append(_held_tensors())

        probe = make_probe(tiny_model("llama"), 60, advance=watch)
        groups = np.tile(GROUPS, times)
        before = _held_tensors()
        tracemalloc.start()
        item_gradients(probe, rows, answer_metric, groups, (3, "t"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # What is fair to grow: one number a row, and the lists of indices.
        return max(held) - before, peak - 300 * len(rows)

    cost(1)
    (one, one_peak), (eight, eight_peak) = cost(1), cost(8)
    batch = 60 // 16 * LAYERS * WIDTH
    assert eight <= one + 4 * batch
    assert eight_peak <= one_peak + 100_000
