"""Projections by layer and position against captured hidden states, and the horizon of a planted shift."""

import copy

import numpy as np
import pytest
import torch
from audit_pairs import CPU, RECOVERY, response_rows
from conftest import LAYERS, WIDTH
from peft import LoraConfig, get_peft_model

from aligntax.audit import (
    KlByPosition,
    LiveSide,
    adapter_sides,
    kl_by_position,
    projections,
    read_pair,
    representation_profile,
)
from aligntax.errors import AligntaxError
from aligntax.models import decoder_blocks
from aligntax.probing import TokenBudget

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def directions(seed: int = 0) -> np.ndarray:
    """`(L, d)`, not of length 1."""
    return np.random.default_rng(seed).normal(size=(LAYERS, WIDTH)) * 3


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_projections_are_those_of_block_outputs_before_each_token(family, tiny_model):
    model, rows, v = tiny_model(family), response_rows(), directions()
    found = projections(LiveSide(model), rows, v, TokenBudget(50), CPU)
    assert found.shape == (7, LAYERS, 12)
    unit = v / np.linalg.norm(v, axis=1, keepdims=True)
    for k, row in enumerate(rows):
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([row.ids]), output_hidden_states=True).hidden_states
        n = len(row.ids) - row.start
        for layer in range(LAYERS - 1):  # the last entry of hidden_states has passed the final norm
            exact = hidden[layer + 1][0, row.start - 1 : -1].numpy() @ unit[layer]
            np.testing.assert_allclose(found[k, layer, :n], exact, rtol=1e-4, atol=1e-5)
        assert np.isnan(found[k, :, n:]).all() and np.isfinite(found[k, :, :n]).all()
    one_by_one = projections(LiveSide(model), rows, 7 * v, TokenBudget(1), CPU)
    np.testing.assert_allclose(one_by_one, found, rtol=1e-4, atol=1e-5)


def test_an_adapter_off_is_the_base(tiny_model):
    base, rows = tiny_model("llama"), response_rows()
    tuned = get_peft_model(copy.deepcopy(base), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    off, on = (projections(side, rows, directions(), TokenBudget(99), CPU) for side in adapter_sides(tuned.eval()))
    plain = projections(LiveSide(base), rows, directions(), TokenBudget(99), CPU)
    np.testing.assert_allclose(off, plain, rtol=1e-4, atol=1e-5)
    assert np.nanmax(np.abs(on - plain)) > 1e-2


def test_a_model_shifted_along_the_direction_is_seen_from_that_layer_on(tiny_model):
    base, rows, v = tiny_model("llama"), response_rows(), directions()
    moved = copy.deepcopy(base)
    unit = torch.from_numpy(v[1] / np.linalg.norm(v[1])).float()
    decoder_blocks(moved)[1].register_forward_hook(lambda _, __, out: out + 2 * unit)
    kl = kl_by_position(read_pair(LiveSide(base), LiveSide(moved), rows, TokenBudget(99), CPU, RECOVERY), "forced")
    found = representation_profile(
        *(projections(LiveSide(m), rows, v, TokenBudget(99), CPU) for m in (base, moved)), kl, np.random.default_rng(0)
    )
    np.testing.assert_allclose(found.difference[1], 2.0, rtol=1e-4)
    np.testing.assert_allclose(found.square[1], 4.0, rtol=1e-4)
    assert not found.difference[0].any() and np.isnan(found.horizon[0].value) and np.isnan(found.share[0]).all()
    np.testing.assert_allclose(found.share[1], np.arange(1, 13) / 12, rtol=1e-4)
    assert np.isfinite(found.difference[2]).all() and found.square[2].min() > 0


def test_horizons_of_planted_depths_and_their_gap_to_kl():
    rng, n, t = np.random.default_rng(0), 30, 40
    base = rng.normal(size=(n, 2, t))
    scale = np.array([np.where(np.arange(t) < 4, 1.0, 0.01), np.where(np.arange(t) < 30, 1.0, 0.0)])
    aligned = base + scale * rng.choice([-1.0, 1.0], size=(n, 2, t))
    kl = np.tile(np.where(np.arange(t) < 10, 0.5, 0.0), (n, 1))
    found = representation_profile(base, aligned, KlByPosition(kl, kl, np.arange(n), "forced"), rng)
    assert [e.value for e in found.horizon] == [4, 29] and [e.value for e in found.gap] == [-6, 19]
    assert found.horizon[0].low <= 4 <= found.horizon[0].high
    np.testing.assert_allclose(found.base, base.mean(axis=0))


def test_bad_input_is_refused(tiny_model):
    model, rows = tiny_model("llama"), response_rows()
    for wrong in (directions()[:2], directions() * np.array([[1], [0], [1]]), directions() * np.nan):
        with pytest.raises(AligntaxError, match="nonzero vector for each of 3 layers"):
            projections(LiveSide(model), rows, wrong, TokenBudget(99), CPU)
    with pytest.raises(AligntaxError, match="no responses"):
        projections(LiveSide(model), [], directions(), TokenBudget(99), CPU)
    some = np.zeros((2, 3, 5))
    with pytest.raises(AligntaxError, match="read the same rows"):
        representation_profile(
            some, some, KlByPosition(some[:, 0, 1:], some[:, 0, 1:], np.arange(2), "forced"), np.random.default_rng(0)
        )
