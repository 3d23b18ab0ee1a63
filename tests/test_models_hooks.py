"""Blocks, hooks and lean scoring state the same facts on every family."""

import copy

import pytest
import torch
from conftest import FAMILIES, LAYERS, VOCAB, WIDTH
from torch import Tensor
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from aligntax.errors import DataError, ModelError
from aligntax.models import (
    add_shift,
    answer_logprobs,
    backbone,
    capture_outputs,
    check_head,
    decoder_blocks,
    final_norm,
    hidden_logits,
    position_ids,
    unembedding,
    unpack,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
families = pytest.mark.parametrize("family", FAMILIES)
LENGTHS = (9, 5, 7)


def _batch(side: str = "left") -> tuple[Tensor, Tensor, Tensor]:
    """Three rows of unequal length; the last three tokens of each are scored."""
    generator = torch.Generator().manual_seed(5)
    ids, mask, targets = (torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long) for _ in range(3))
    for row, length in enumerate(LENGTHS):
        start = max(LENGTHS) - length if side == "left" else 0
        ids[row, start : start + length] = torch.randint(7, VOCAB, (length,), generator=generator)
        mask[row, start : start + length] = 1
        targets[row, start + length - 3 : start + length] = 1
    return ids, mask, targets


def _hooks(model: torch.nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def _row_gradients(model: torch.nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    ids, mask, targets = batch
    shift = torch.zeros(len(ids), LAYERS, WIDTH, requires_grad=True)
    with add_shift(model, shift, positions_mask=mask.bool()):
        answer_logprobs(model, ids, mask, targets).means().sum().backward()
    return shift.grad


@families
def test_blocks_norm_and_head_are_where_the_forward_pass_says(family, tiny_model):
    model = tiny_model(family)
    ids, mask, _ = _batch("right")
    with capture_outputs(model) as outputs, torch.no_grad():
        states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        normed = final_norm(model)(outputs[LAYERS - 1])
    assert len(decoder_blocks(model)) == LAYERS == len(outputs)
    for layer in range(LAYERS - 1):
        torch.testing.assert_close(outputs[layer], states[layer + 1])
        assert not torch.allclose(outputs[layer], states[layer])
    torch.testing.assert_close(normed, states[-1])
    assert unembedding(model)(normed).shape[-1] == VOCAB


@families
def test_hooks_are_counted_and_gone_afterwards_even_after_an_exception(family, tiny_model):
    model = tiny_model(family)
    before = _hooks(model)
    with pytest.raises(KeyError), add_shift(model, torch.zeros(LAYERS, WIDTH)) as placed, capture_outputs(model, [1]):
        assert placed == LAYERS and _hooks(model) == before + LAYERS + 1
        raise KeyError
    assert _hooks(model) == before


@families
def test_zero_shift_changes_nothing_and_a_shift_moves_its_block_output_by_itself(family, tiny_model):
    model = tiny_model(family)
    ids, mask, _ = _batch("right")
    shift = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        with capture_outputs(model, [0, 1]) as plain:
            logits = model(input_ids=ids, attention_mask=mask).logits
        plain = dict(plain)
        with add_shift(model, torch.zeros(LAYERS, WIDTH)):
            assert torch.equal(model(input_ids=ids, attention_mask=mask).logits, logits)
        with add_shift(model, shift, [1], mask.bool()), capture_outputs(model, [0, 1]) as moved:
            assert not torch.allclose(model(input_ids=ids, attention_mask=mask).logits, logits)
    assert torch.equal(moved[0], plain[0])
    torch.testing.assert_close(moved[1] - plain[1], shift * mask.unsqueeze(-1), atol=1e-5, rtol=1e-4)


@families
def test_row_gradients_agree_one_by_one_and_on_either_padding_side(family, tiny_model):
    model = tiny_model(family)
    left, right = _row_gradients(model, _batch("left")), _row_gradients(model, _batch("right"))
    scale = left.abs().max()
    assert scale > 1e-3
    torch.testing.assert_close(left / scale, right / scale, atol=1e-5, rtol=0)
    ids, mask, targets = _batch("right")
    for row, length in enumerate(LENGTHS):
        alone = _row_gradients(model, tuple(part[row : row + 1, :length] for part in (ids, mask, targets)))
        torch.testing.assert_close(left[row] / scale, alone[0] / scale, atol=1e-5, rtol=0)


# Expert routing jumps where a token changes its experts, so models with experts take a step too small to get there.
@families
def test_shift_gradient_is_the_finite_difference(family, tiny_model):
    model = tiny_model(family)
    ids, mask, targets = _batch("left")
    step = torch.randn(len(ids), LAYERS, WIDTH, generator=torch.Generator().manual_seed(2))
    shift = torch.zeros_like(step, requires_grad=True)

    size, tolerance = (1e-3, 2e-2) if family in ("mixtral", "qwen2_moe") else (1e-2, 2e-3)

    def score(amount: Tensor) -> Tensor:
        with add_shift(model, amount, positions_mask=mask.bool()):
            logits = model(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask)).logits
        return _reference(logits, ids, targets)

    def ours(amount: Tensor) -> Tensor:
        with add_shift(model, amount, positions_mask=mask.bool()):
            return answer_logprobs(model, ids, mask, targets).sums()

    ours(shift).sum().backward()
    with torch.no_grad():
        # Fourth order, so that the step can be large against float32 rounding (experts exist in no float64).
        near, far = (score(h * step) - score(-h * step) for h in (size, 2 * size))
        slope = (8 * near - far) / (12 * size)
    assert slope.abs().max() > 0.1
    torch.testing.assert_close((shift.grad * step).sum((1, 2)), slope, atol=tolerance, rtol=tolerance)


def _reference(logits: Tensor, ids: Tensor, targets: Tensor) -> Tensor:
    scores = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)
    return (scores * targets[:, 1:]).sum(-1)


@families
@pytest.mark.parametrize("chunk_rows", [1, 4, 1000])
def test_lean_scores_equal_full_logits(family, chunk_rows, tiny_model, monkeypatch):
    model = tiny_model(family)
    monkeypatch.setattr(hidden_logits, "CHUNK_BYTES", 4 * VOCAB * chunk_rows)
    ids, mask, targets = _batch("left")
    with torch.no_grad():
        full = model(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask)).logits
        lean = answer_logprobs(model, ids, mask, targets)
    torch.testing.assert_close(lean.sums(), _reference(full, ids, targets), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lean.means(), lean.sums() / 3)
    assert lean.logprobs.shape == (9,) and lean.counts.tolist() == [3, 3, 3]
    check_head(model)


def test_head_check_catches_a_transform_it_does_not_know(tiny_model, monkeypatch):
    model = tiny_model("llama")
    forward = model.forward

    def doubled(**inputs: object) -> object:
        result = forward(**inputs)
        result.logits = 2 * result.logits
        return result

    monkeypatch.setattr(model, "forward", doubled)
    with pytest.raises(ModelError, match="unknown way"):
        check_head(model)


def test_a_row_without_targets_is_nan_and_the_first_token_cannot_be_scored(tiny_model):
    ids, mask, targets = _batch("left")
    targets[1] = 0
    means = answer_logprobs(tiny_model("llama"), ids, mask, targets).means()
    assert means.isnan().tolist() == [False, True, False]
    targets[1, max(LENGTHS) - LENGTHS[1]] = 1
    with pytest.raises(DataError, match="no token before"):
        answer_logprobs(tiny_model("llama"), ids, mask, targets)


def test_a_trainable_head_is_refused_rather_than_left_without_gradient(tiny_model):
    model = copy.deepcopy(tiny_model("llama")).requires_grad_(True)
    with pytest.raises(ModelError, match="freeze"):
        answer_logprobs(model, *_batch())


@pytest.mark.parametrize(
    ("shift", "layers"),
    [(torch.zeros(LAYERS + 1, WIDTH), None), (torch.zeros(WIDTH), None), (torch.zeros(1, WIDTH), [LAYERS])],
)
def test_shifts_that_do_not_fit_are_refused(shift, layers, tiny_model):
    with pytest.raises(ModelError), add_shift(tiny_model("llama"), shift, layers):
        pass


def test_wrong_width_and_wrong_mask_are_refused_at_the_forward_pass(tiny_model):
    model = tiny_model("llama")
    ids, mask, _ = _batch()
    with pytest.raises(ModelError, match="does not fit"), add_shift(model, torch.zeros(LAYERS, WIDTH + 1)):
        model(input_ids=ids)
    with pytest.raises(ModelError, match="mask"), add_shift(model, torch.zeros(LAYERS, WIDTH), None, mask[:, 1:]):
        model(input_ids=ids)


def test_blocks_survive_decoys_and_can_be_named(tiny_model):
    model = copy.deepcopy(tiny_model("mixtral", layers=4))  # four experts per block, four blocks
    assert decoder_blocks(model) is model.model.layers
    model.decoy = torch.nn.ModuleList(torch.nn.Identity() for _ in range(4))
    assert decoder_blocks(model) is model.model.layers
    assert decoder_blocks(model, "decoy") is model.decoy
    for path, complaint in (("nowhere", "no module"), ("model", "not a list")):
        with pytest.raises(ModelError, match=complaint):
            decoder_blocks(model, path)
    model.config.num_hidden_layers = 9
    with pytest.raises(ModelError, match="no list of 9"):
        decoder_blocks(model)


def test_multimodal_model_uses_its_text_blocks_though_the_vision_tower_is_as_deep():
    text = {**FAMILIES["gemma3"][1], "num_hidden_layers": LAYERS}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    config = Gemma3Config(text_config=text, vision_config={**vision, "image_size": 28, "patch_size": 14})
    model = Gemma3ForConditionalGeneration(config).eval().requires_grad_(False)
    assert decoder_blocks(model) is model.model.language_model.layers
    assert final_norm(model) is model.model.language_model.norm
    check_head(model)


def test_unpack_takes_the_first_of_a_tuple(tiny_model):
    state = torch.ones(1, 2, 3)
    assert unpack(state) is state and unpack((state, None)) is state
    assert backbone(tiny_model("gpt2")) is tiny_model("gpt2").transformer


def test_position_ids_count_attended_tokens():
    assert position_ids(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])).tolist() == [[0, 0, 0, 1], [0, 1, 2, 2]]
