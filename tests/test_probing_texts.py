"""Sinks, activations and the model's own replies."""

import copy

import numpy as np
import pytest
import torch
from conftest import LAYERS, VOCAB, WIDTH
from probing_rows import make_probe, make_rows

from aligntax.errors import AligntaxError
from aligntax.models import capture_outputs, decoder_blocks
from aligntax.probing import (
    Row,
    TokenBudget,
    answer_activations,
    collate,
    find_sinks,
    generate,
    opens_refusal,
    reply_rows,
    rows_from_arrays,
    rows_to_arrays,
    shift_mask,
    tail_activations,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
families = pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox", "qwen2_moe"])
CPU = torch.device("cpu")


def plant(model, layer: int, positions: tuple[int, ...], factor: float = 100.0):
    """A copy of the model whose block `layer` puts out activations `factor` times as long at these positions."""
    model = copy.deepcopy(model)

    def hook(_, __, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        inside = [p for p in positions if p < hidden.shape[1]]
        hidden[:, inside] *= factor
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    decoder_blocks(model)[layer].register_forward_hook(hook)
    return model


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("positions", [(0,), (2, 5)])
@pytest.mark.parametrize("tokens", [1, 4096])
def test_planted_sinks_are_found_where_they_are(family, positions, tokens, tiny_model):
    model = plant(tiny_model(family), LAYERS - 1, positions)
    sinks = find_sinks(model, make_rows(), TokenBudget(tokens), CPU)
    assert sinks.by_layer == ((), (), positions) and sinks.positions == positions
    assert find_sinks(tiny_model(family), make_rows(), TokenBudget(tokens), CPU).positions == ()


def test_the_activation_norm_is_that_of_the_other_positions(tiny_model):
    clean = find_sinks(tiny_model("llama"), make_rows(), TokenBudget(100), CPU).activation_norm
    planted = find_sinks(plant(tiny_model("llama"), 2, (0,)), make_rows(), TokenBudget(100), CPU).activation_norm
    np.testing.assert_allclose(planted[:2], clean[:2])
    lengths, others = [], []
    for row in make_rows():
        with torch.no_grad():
            states = tiny_model("llama")(torch.tensor([row.ids]), output_hidden_states=True).hidden_states
        lengths.append(states[2][0].norm(dim=-1))
        with torch.no_grad(), capture_outputs(tiny_model("llama")) as outputs:
            tiny_model("llama")(torch.tensor([row.ids]))
        others.append(outputs[2][0, 1:].norm(dim=-1))
    assert clean[1] == pytest.approx(float(np.median(torch.cat(lengths))), rel=1e-5)
    assert planted[2] == pytest.approx(float(np.median(torch.cat(others))), rel=1e-5)


def test_a_sink_is_long_in_half_of_the_rows_that_reach_it(tiny_model):
    """Position 13 is reached by two rows only, so padding must not count as a row without a sink."""
    rows = make_rows()
    assert sum(len(row.ids) > 13 for row in rows) < len(rows) / 2
    assert find_sinks(plant(tiny_model("llama"), 2, (13,)), rows, TokenBudget(4096), CPU).positions == (13,)
    assert find_sinks(plant(tiny_model("llama"), 2, (1,), 5.0), rows, TokenBudget(4096), CPU).positions == ()
    with pytest.raises(AligntaxError, match="no rows"):
        find_sinks(tiny_model("llama"), [], TokenBudget(4096), CPU)


@pytest.mark.parametrize("kind", ["all", "response", "last"])
@pytest.mark.parametrize("sinks", [(), (0,), (0, 4, 50)])
def test_a_shift_reaches_what_its_kind_says_never_a_sink_never_padding(kind, sinks):
    rows = [*make_rows(), Row(tuple(range(7, 13)), 6, 0)]
    mask = shift_mask(collate(rows, range(len(rows)), CPU), kind, sinks)
    for row, found in zip(rows, mask, strict=True):
        predicts = row.start - 1
        wanted = {"all": range(len(row.ids)), "response": range(predicts, len(row.ids)), "last": [predicts]}[kind]
        assert found.nonzero()[:, 0].tolist() == [t for t in wanted if t not in sinks]
    with pytest.raises(AligntaxError, match="unknown --shift 'first'"):
        shift_mask(collate(rows, [0], CPU), "first", ())


def states_of(model, row: Row) -> np.ndarray:
    """Block outputs `(L - 1, T, d)` of a row alone; transformers norms the last one, so it is left out."""
    with torch.no_grad():
        states = model(torch.tensor([row.ids]), output_hidden_states=True).hidden_states
    return torch.stack(states[1:-1])[:, 0].numpy()


@families
@pytest.mark.parametrize("tokens", [1, 40])
def test_tail_activations_are_slices_of_the_hidden_states(family, tokens, tiny_model):
    model, rows = tiny_model(family), make_rows()
    found = tail_activations(make_probe(model, tokens), rows, 3)
    assert found.shape == (len(rows), 3, LAYERS, WIDTH) and found.dtype == np.float32
    for row, own in zip(rows, found, strict=True):
        wanted = states_of(model, row)[:, -3:].transpose(1, 0, 2)
        np.testing.assert_allclose(own[:, :-1], wanted, atol=2e-5 * np.abs(wanted).max())
    assert np.abs(found[:, :, -1]).min(axis=(0, 1)).max() > 0


@families
def test_what_several_prompts_begin_with_is_run_once(family, tiny_model):
    """Tails of every prompt alone, from fewer tokens; the last two part after the end of a shorter one."""
    model = tiny_model(family)
    ids = [(5, 6, 7, 8, 9, 10), (5, 6, 7, 8, 9, 11, 12), (5, 6, 7, 8), (5, 6, 13, 14, 15), (5, 6, 13, 14, 15)]
    rows = [Row(each, len(each), k) for k, each in enumerate(ids)]
    seen = []
    watch = model.get_input_embeddings().register_forward_hook(lambda _, args, __: seen.append(args[0].numel()))
    try:
        found = tail_activations(make_probe(model, 100), rows, 2)
    finally:
        watch.remove()
    assert sum(seen) == len({each[: k + 1] for each in ids for k in range(len(each))}) == 11
    for row, own in zip(rows, found, strict=True):
        wanted = states_of(model, row)[:, -2:].transpose(1, 0, 2)
        np.testing.assert_allclose(own[:, :-1], wanted, atol=2e-5 * np.abs(wanted).max())
        alone = tail_activations(make_probe(model, 100), [row], 2)[0]
        np.testing.assert_allclose(own, alone, atol=2e-5 * np.abs(alone).max())


@families
@pytest.mark.parametrize("sinks", [(), (0, 10)])
def test_answer_activations_are_means_over_the_answer_without_sinks(family, sinks, tiny_model):
    model, rows = tiny_model(family), make_rows()
    found = answer_activations(make_probe(model, 40, sinks=sinks), rows)
    for row, own in zip(rows, found, strict=True):
        where = [t for t in range(row.start, len(row.ids)) if t not in sinks]
        wanted = states_of(model, row)[:, where].mean(1)
        np.testing.assert_allclose(own[:-1], wanted, atol=2e-5 * np.abs(wanted).max())


def greedy(model, prompt: tuple[int, ...], count: int) -> list[int]:
    """Greedy reply, one full forward pass a token, until the end-of-text."""
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if token == 2:
            break
        ids.append(token)
    return ids[len(prompt) :]


@families
@pytest.mark.parametrize("tokens", [1, 60, 4096])
def test_greedy_replies_in_a_batch_are_those_one_by_one(family, tokens, tiny_model):
    model, prompts = tiny_model(family), [row.ids for row in make_rows()]
    seen: list[int] = []
    found = generate(make_probe(model, tokens, advance=seen.append), prompts, 6, sample=False, seed=0)
    assert found == [greedy(model, prompt, 6) for prompt in prompts]
    assert sum(seen) == sum(len(p) + len(r) for p, r in zip(prompts, found, strict=True))


def test_replies_end_before_the_end_of_text_and_empty_ones_are_left_out(tiny_model):
    model, prompts = tiny_model("llama"), [row.ids for row in make_rows()]
    whole = generate(make_probe(model), prompts, 6, sample=False, seed=0)
    ends = copy.deepcopy(model)
    # Two tokens that the model does say become end-of-text marks, one of them as a first token.
    ends.generation_config.eos_token_id = [whole[0][0], whole[1][2]]
    found = generate(make_probe(ends), prompts, 6, sample=False, seed=0)
    marks = set(ends.generation_config.eos_token_id)
    cut = [reply[: next((k for k, t in enumerate(reply) if t in marks), len(reply))] for reply in whole]
    assert found == cut and found[0] == [] and any(cut)
    rows = reply_rows(prompts, found)
    kept = [(p, r) for p, r in zip(prompts, found, strict=True) if r]
    assert [(row.ids[: row.start], list(row.ids[row.start :])) for row in rows] == kept
    assert [row.item for row in rows] == list(range(len(kept)))


def test_sampled_replies_follow_the_seed_and_the_models_distribution(tiny_model):
    model, prompt = tiny_model("llama"), make_rows()[0].ids
    ends = copy.deepcopy(model)
    # Settings that a checkpoint brings along must not bend the distribution that KL is measured on.
    ends.generation_config.update(top_k=1, top_p=0.1, temperature=0.1, repetition_penalty=5.0, eos_token_id=None)
    probe = make_probe(ends, 10**6)
    one, two, other = (generate(probe, [prompt] * 2000, 1, sample=True, seed=s) for s in (1, 1, 2))
    assert one == two != other
    with torch.no_grad():
        p = model(torch.tensor([prompt])).logits[0, -1].double().softmax(-1).numpy()
    counts = np.bincount([reply[0] for reply in one], minlength=VOCAB)
    expected = 2000 * p
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < VOCAB + 6 * np.sqrt(2 * VOCAB)


def test_rows_survive_the_way_through_arrays():
    rows = reply_rows([(7, 8), (9,), (10, 11, 12)], [[13], [14, 15], [16]])
    assert rows_from_arrays(rows_to_arrays(rows)) == rows
    assert rows_from_arrays(rows_to_arrays([])) == []


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I’m really sorry, no.", True),
        (" Sorry, no.", True),
        ("I cannot assist.", True),
        ("I can't do this.", True),
        ("I won’t.", True),
        ("I am unable to.", True),
        ("I apologize, but no.", True),
        ("Unfortunately, no.", True),
        ("As an AI language model, I cannot do this.", True),
        ("I can help with that!", False),
        ("Sure! I cannot wait to help.", False),
        ("A sorry state of affairs.", False),
        ("I will note this down.", False),
        ("", False),
    ],
)
def test_a_refusal_is_recognised_by_its_opening(text, refuses):
    assert opens_refusal(text) is refuses
