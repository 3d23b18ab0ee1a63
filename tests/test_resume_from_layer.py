"""Running only the blocks above a shift gives the numbers of the whole pass, and leaves the model as it was."""

import numpy as np
import pytest
import torch

from aligntax.models import capture_outputs, final_hidden, returns_tuple, start_after
from aligntax.probing import FromLayer, Probe, Row, TokenBudget, answer_metric, item_values

FAMILIES = ["llama", "gemma2", "gpt2", "gpt_neox", "phi3", "mixtral"]


def rows() -> list[Row]:
    rng = np.random.default_rng(3)
    return [Row(tuple(rng.integers(5, 90, n).tolist()), n - 3, k) for k, n in enumerate((6, 9, 12, 7))]


def probe_of(model: torch.nn.Module, budget: int) -> Probe:
    return Probe(model, torch.device("cpu"), TokenBudget(budget), "all", (0,), lambda tokens: None)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [0, 1])
def test_values_equal_the_whole_pass(tiny_model, family, layer):
    probe = probe_of(tiny_model(family), 24)
    shift = torch.randn(probe.shape[1], generator=torch.Generator().manual_seed(0))
    whole = item_values(probe, rows(), answer_metric, shift, layer)
    resumed = FromLayer(probe, rows(), layer).values(answer_metric, shift).numpy()
    assert np.abs(whole - item_values(probe, rows(), answer_metric)).max() > 1e-3
    np.testing.assert_allclose(resumed, whole, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_are_restored_after_an_exception(tiny_model, family):
    model = tiny_model(family)
    ids, mask = torch.arange(5, 11)[None], torch.ones(1, 6, dtype=torch.long)
    with torch.no_grad(), capture_outputs(model, layers=[1]) as outputs:
        before = final_hidden(model, ids, mask)
    with pytest.raises(RuntimeError), start_after(model, 1, outputs[1] * 0, returns_tuple(model)):
        assert not torch.allclose(final_hidden(model, ids, mask), before)
        raise RuntimeError
    with torch.no_grad():
        torch.testing.assert_close(final_hidden(model, ids, mask), before)
