"""A model larger than its GPU: placed by accelerate, its weights elsewhere until a block runs, and read as if they were there."""

import copy

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from conftest import build_model
from probing_rows import GROUPS, make_probe, make_rows

from aligntax.models.load import _placement
from aligntax.probing import answer_metric, generate, item_gradients, item_values, refusal_metric, tail_activations

families = pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2_moe"])


@pytest.fixture
def pair(family: str):
    """The same model twice: as it is, and with every weight fetched only while its module runs."""
    model = build_model(family)
    away = cpu_offload(copy.deepcopy(model), execution_device=torch.device("cpu"))
    assert {p.device.type for p in away.parameters()} == {"meta"}
    return make_probe(model), make_probe(away)


@families
def test_activations_of_offloaded_weights_are_the_same(pair) -> None:
    here, away = (tail_activations(probe, make_rows(), 2) for probe in pair)
    np.testing.assert_allclose(away, here, atol=1e-6)


@families
def test_gradients_of_offloaded_weights_are_the_same(pair) -> None:
    here, away = (item_gradients(probe, make_rows(), answer_metric, GROUPS, (3, "task")).sums for probe in pair)
    np.testing.assert_allclose(away, here, atol=1e-6)


@families
def test_scores_and_replies_of_offloaded_weights_are_the_same(pair) -> None:
    here, away = (item_values(probe, make_rows(), refusal_metric([9, 11])) for probe in pair)
    np.testing.assert_allclose(away, here, atol=1e-6)
    prompts = [row.ids for row in make_rows()[:3]]
    assert generate(pair[1], prompts, 4, False, 0) == generate(pair[0], prompts, 4, False, 0)


@pytest.mark.parametrize(
    ("wanted", "free", "placed"),
    [("auto", 100, "auto"), ("cuda", 100, "auto"), ("auto", 200, "one"), ("cuda:0", 100, "one")],
)
def test_what_does_not_fit_one_gpu_is_left_to_accelerate(
    wanted: str, free: int, placed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of 90 bytes, on GPUs with so many free; a GPU that was named is taken at its word."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    device = torch.device("cuda", 0)
    assert _placement(wanted, device, 90) == ("auto" if placed == "auto" else {"": device})
