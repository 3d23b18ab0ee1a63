"""Averaging weights on disk: the formula, which block a tensor belongs to, memory, adapters, and what is refused."""

import copy
import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FAMILIES, LAYERS, build_model
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from aligntax.errors import ModelError, NonFiniteError
from aligntax.models import averaging, decoder_blocks
from aligntax.models.averaging import Fractions, Layout, block_path, layout, update_norms, write_average, write_tensors
from aligntax.models.checkpoint import Checkpoint
from aligntax.models.stored_weights import opened

FRACTIONS = Fractions((0.0, 0.25, 1.0), 0.5)
NAME = "model.layers.1.mlp.up_proj.weight"


def saved(folder: Path, family: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """A tiny model on disk, without a tokenizer."""
    copy.deepcopy(build_model(family, seed=seed)).to(dtype).save_pretrained(folder)
    return folder


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """Change the stored tensors of a model."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def average(
    base: Path, aligned: Checkpoint | Path, out: Path, fractions: Fractions = FRACTIONS, size: int = 10**9
) -> dict:
    """Write the average and read it back with the ordinary reader."""
    other = aligned if isinstance(aligned, Checkpoint) else Checkpoint(aligned, "folder")
    with opened(Checkpoint(base, "folder"), "BASE") as one, opened(other, "ALIGNED") as two:
        plan = layout(one, two, AutoConfig.from_pretrained(base))
        files = write_average(one, two, fractions, plan, out, size)
    found = [load_file(file) for file in files]
    return {name: tensor for part in found for name, tensor in part.items()}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return saved(tmp_path / "base"), saved(tmp_path / "aligned", seed=1)


class TestFormula:
    def test_every_tensor_is_the_average_with_its_blocks_fraction(
        self, pair: tuple[Path, Path], tmp_path: Path
    ) -> None:
        merged = average(*pair, tmp_path / "out")
        base, aligned = (load_file(folder / "model.safetensors") for folder in pair)
        assert set(merged) == set(base)
        for name, tensor in merged.items():
            own = [f for k, f in enumerate(FRACTIONS.layers) if name.startswith(f"model.layers.{k}.")] or [0.5]
            assert torch.allclose(tensor, torch.lerp(base[name], aligned[name], own[0]), atol=1e-6)
            assert "norm" in name or own[0] == 0.0 or not torch.allclose(tensor, base[name])

    @pytest.mark.parametrize("fraction", [0.0, 1.0])
    def test_ends_are_the_models_themselves(self, pair: tuple[Path, Path], tmp_path: Path, fraction: float) -> None:
        merged = average(*pair, tmp_path / "out", Fractions.uniform(fraction, LAYERS))
        end = load_file(pair[int(fraction)] / "model.safetensors")
        assert all(torch.equal(merged[name], end[name]) for name in end)

    def test_arithmetic_is_float32_and_the_result_has_the_bases_type(self, tmp_path: Path) -> None:
        base = saved(tmp_path / "base", dtype=torch.bfloat16)
        aligned = saved(tmp_path / "aligned", seed=1, dtype=torch.float32)
        merged = average(base, aligned, tmp_path / "out", Fractions.uniform(0.3, LAYERS))
        one, two = (load_file(folder / "model.safetensors")[NAME] for folder in (base, aligned))
        assert merged[NAME].dtype == torch.bfloat16
        assert torch.equal(merged[NAME], (0.7 * one.float() + 0.3 * two).to(torch.bfloat16))
        # Rounding the aligned model first would give other numbers: the test can fail.
        assert not torch.equal(merged[NAME], (0.7 * one + 0.3 * two.to(torch.bfloat16)).to(torch.bfloat16))

    def test_rows_at_a_time_is_the_same(
        self, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = average(*pair, tmp_path / "whole")
        monkeypatch.setattr(averaging, "PIECE", 100)
        assert all(torch.equal(t, whole[n]) for n, t in average(*pair, tmp_path / "pieces").items())

    def test_shards_hold_the_same_and_the_library_reads_them(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        whole = average(*pair, tmp_path / "whole")
        split = average(*pair, tmp_path / "split", size=20_000)
        assert len(list((tmp_path / "split").glob("*.safetensors"))) > 3
        assert all(torch.equal(t, whole[n]) for n, t in split.items()) and set(split) == set(whole)
        shutil.copy(pair[0] / "config.json", tmp_path / "split")
        model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "split", output_loading_info=True)
        assert not info["missing_keys"] and torch.equal(model.state_dict()[NAME], whole[NAME])

    def test_update_norms_are_lengths_by_block(self, pair: tuple[Path, Path]) -> None:
        base, aligned = (load_file(folder / "model.safetensors") for folder in pair)
        with opened(Checkpoint(pair[0], "folder"), "B") as one, opened(Checkpoint(pair[1], "folder"), "A") as two:
            found = update_norms(one, two, layout(one, two, AutoConfig.from_pretrained(pair[0])))
        for layer, norm in enumerate(found):
            own = [(aligned[n] - base[n]).flatten() for n in base if f"layers.{layer}." in n]
            assert norm == pytest.approx(float(torch.cat(own).norm()), rel=1e-6)

    def test_fractions_as_many_as_blocks(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="2 fractions for 3"):
            average(*pair, tmp_path / "out", Fractions((0.1, 0.2), 0.1))

    def test_nothing_is_left_of_a_write_that_fails(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        edit(pair[1], lambda w: w[NAME].fill_(float("nan")))
        with pytest.raises(NonFiniteError, match=NAME):
            average(*pair, tmp_path / "out")
        assert not list((tmp_path / "out").iterdir())


class TestBlocks:
    @pytest.mark.parametrize("family", sorted(FAMILIES))
    def test_found_in_stored_names_as_in_the_model(self, family: str, tmp_path: Path) -> None:
        folder = saved(tmp_path / "m", family)
        with opened(Checkpoint(folder, "folder"), "M") as weights:
            plan = layout(weights, weights, AutoConfig.from_pretrained(folder))
        model = build_model(family)
        path = next(name for name, part in model.named_modules() if part is decoder_blocks(model))
        assert (plan.blocks, plan.depth) == (path, LAYERS)
        assert set(plan.layer_of.values()) == {None, 0, 1, 2}
        assert all(f"{path}.{layer}." in name for name, layer in plan.layer_of.items() if layer is not None)
        assert 2 <= len(plan.outside) <= 5 and not any(path in name for name in plan.outside)

    def test_as_many_experts_as_blocks(self) -> None:
        names = [f"model.layers.{i}.experts.{j}.w" for i in range(3) for j in range(3)]
        assert block_path(names, 3) == "model.layers"
        assert block_path([f"a.b.c.{i}.w" for i in range(2)] + [f"z.{i}.w" for i in range(2)], 2) == "z"

    def test_a_vision_tower_as_deep_is_not_the_decoder(self) -> None:
        names = [f"{part}.layers.{i}.w" for part in ("a.vision", "b.language") for i in range(3)]
        assert block_path(names, 3, "b.language.embed.weight") == "b.language.layers"
        assert block_path(names, 3, "a.vision.embed.weight") == "a.vision.layers"

    def test_no_list_of_that_depth(self) -> None:
        with pytest.raises(ModelError, match=r"no list of 4 decoder blocks.*h\[2\]"):
            block_path(["h.0.w", "h.1.w"], 4)

    @pytest.mark.parametrize("stored", ["base", "aligned"])
    def test_a_tied_head_may_be_stored_or_not(self, tmp_path: Path, stored: str) -> None:
        folders = saved(tmp_path / "base", "gpt2"), saved(tmp_path / "aligned", "gpt2", seed=1)
        plain = average(*folders, tmp_path / "plain")
        edit(tmp_path / stored, lambda w: w.update({"lm_head.weight": w["transformer.wte.weight"].clone()}))
        merged = average(*folders, tmp_path / "out")
        assert set(merged) == set(plain) and all(torch.equal(t, merged[n]) for n, t in plain.items())


class TestMemory:
    @pytest.mark.parametrize("rows", [60, 30])
    def test_two_tensors_or_pieces_at_most_whatever_the_model(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
    ) -> None:
        count, side = 5, 60
        monkeypatch.setattr(averaging, "PIECE", rows * side)
        for seed, name in enumerate(("base", "aligned")):
            generator = torch.Generator().manual_seed(seed)
            tensors = {f"h.{k}.w": torch.randn(side, side, generator=generator) for k in range(count)}
            (tmp_path / name).mkdir()
            save_file(tensors, tmp_path / name / "model.safetensors")
        del tensors
        peak, real = [0], averaging.merged_pieces

        def watched(*args, **kwargs):
            for piece in real(*args, **kwargs):
                peak.append(living())
                yield piece

        def living() -> int:
            alive = [x for x in gc.get_objects() if type(x) is torch.Tensor and x.shape[-1:] == (side,)]
            return sum({x.untyped_storage().data_ptr(): x.numel() * 4 for x in alive}.values())

        monkeypatch.setattr(averaging, "merged_pieces", watched)
        plan = Layout("h", count, {f"h.{k}.w": k for k in range(count)})
        folders = [Checkpoint(tmp_path / name, "folder") for name in ("base", "aligned")]
        with opened(folders[0], "B") as one, opened(folders[1], "A") as two:
            write_average(one, two, Fractions.uniform(0.5, count), plan, tmp_path / "out")
        assert len(peak) == count * (side // rows) + 1 and max(peak) <= 2 * rows * side * 4
        assert max(peak) > 0  # the instrument sees tensors

    def test_rows_are_a_copy_that_may_be_changed(self, pair: tuple[Path, Path]) -> None:
        with opened(Checkpoint(pair[0], "folder"), "BASE") as weights:
            before = weights.rows(NAME, 0, 48).clone()
            weights.rows(NAME, 0, 48).zero_()
            assert before.any() and torch.equal(weights.rows(NAME, 0, 48), before)

    def test_files_are_not_changed_by_reading(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        before = [(folder / "model.safetensors").read_bytes() for folder in pair]
        average(*pair, tmp_path / "out")
        assert before == [(folder / "model.safetensors").read_bytes() for folder in pair]


@given(
    shapes=st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=6),
    kinds=st.lists(
        st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool]), min_size=6
    ),
)
def test_the_writer_writes_what_the_library_reads(tmp_path_factory, shapes, kinds) -> None:
    tensors = {f"t{k}": torch.randn(shape).mul(3).to(kinds[k]) for k, shape in enumerate(shapes)}
    file = tmp_path_factory.mktemp("w") / "x.safetensors"
    total = write_tensors(
        file,
        {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()},
        lambda name: iter([tensors[name]]),
    )
    read = load_file(file)
    assert total == sum(t.numel() * t.element_size() for t in tensors.values())
    assert set(read) == set(tensors)
    assert all(torch.equal(read[n], t) and read[n].dtype == t.dtype for n, t in tensors.items())


def adapted(base: Path, folder: Path, family: str, **settings: object) -> tuple[Path, dict[str, torch.Tensor]]:
    """A LoRA adapter with random weights on a model, and the tensors that peft itself merges them into."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base)
    wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, **settings))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(5)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name or parameter.requires_grad:
            parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    merged = again.merge_and_unload()
    return folder, {name: tensor.clone() for name, tensor in merged.state_dict().items()}


LINEAR = ["q_proj", "up_proj", "down_proj"]


class TestAdapters:
    @pytest.mark.parametrize(
        ("family", "settings"),
        [
            ("llama", {"target_modules": LINEAR}),
            ("llama", {"target_modules": LINEAR, "use_rslora": True, "alpha_pattern": {"layers.1.mlp.up_proj": 20}}),
            ("llama", {"target_modules": LINEAR, "rank_pattern": {"q_proj": 2}}),
            ("llama", {"target_modules": ["q_proj", "embed_tokens"], "modules_to_save": ["lm_head"]}),
            ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
            ("qwen2", {"target_modules": LINEAR, "bias": "all"}),
        ],
    )
    def test_is_what_peft_merges(self, tmp_path: Path, family: str, settings: dict) -> None:
        base = saved(tmp_path / "base", family)
        folder, wanted = adapted(base, tmp_path / "adapter", family, **settings)
        found = average(
            base, Checkpoint(base, "folder", adapter=folder), tmp_path / "out", Fractions.uniform(1.0, LAYERS)
        )
        plain = load_file(base / "model.safetensors")
        assert all(torch.allclose(tensor, wanted[name], atol=1e-5) for name, tensor in found.items())
        assert sum(not torch.allclose(tensor, plain[name], atol=1e-3) for name, tensor in found.items()) >= LAYERS

    @pytest.mark.parametrize(
        ("change", "told"),
        [({"use_dora": True}, "use_dora"), ({"peft_type": "IA3"}, "IA3"), ({"init_lora_weights": "pissa"}, "pissa")],
    )
    def test_other_kinds_are_refused(self, tmp_path: Path, change: dict, told: str) -> None:
        base = saved(tmp_path / "base")
        folder, _ = adapted(base, tmp_path / "adapter", "llama", target_modules=LINEAR)
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ModelError, match=f"{told}.*merge_and_unload"):
            average(base, Checkpoint(base, "folder", adapter=folder), tmp_path / "out")

    def test_a_tensor_that_the_base_lacks_is_named(self, tmp_path: Path) -> None:
        base = saved(tmp_path / "base")
        folder, _ = adapted(base, tmp_path / "adapter", "llama", target_modules=LINEAR)
        other = saved(tmp_path / "other", "gpt2")
        with pytest.raises(ModelError, match=r"model\.layers\.\d\..*does not have"):
            average(other, Checkpoint(other, "folder", adapter=folder), tmp_path / "out")


class TestRefused:
    def test_other_shape_names_the_tensor(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        edit(pair[1], lambda w: w.update({NAME: torch.zeros(7, 32)}))
        with pytest.raises(ModelError, match=rf"{NAME}.*\(48, 32\).*\(7, 32\)"):
            average(*pair, tmp_path / "out")

    def test_other_vocabulary_names_the_tensor(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        edit(pair[1], lambda w: w.update({"model.embed_tokens.weight": torch.zeros(99, 32)}))
        with pytest.raises(ModelError, match=r"model.embed_tokens.weight.*\(97, 32\).*\(99, 32\).*vocabular"):
            average(*pair, tmp_path / "out")

    @pytest.mark.parametrize(("where", "lacks"), [(0, "BASE"), (1, "ALIGNED")])
    def test_missing_tensor_is_named(self, pair: tuple[Path, Path], tmp_path: Path, where: int, lacks: str) -> None:
        edit(pair[where], lambda w: w.pop(NAME))
        with pytest.raises(ModelError, match=f"{NAME}.*missing in {lacks}"):
            average(*pair, tmp_path / "out")

    def test_pickled_weights(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        torch.save(load_file(pair[1] / "model.safetensors"), pair[1] / "pytorch_model.bin")
        (pair[1] / "model.safetensors").unlink()
        with pytest.raises(ModelError, match="pickled"):
            average(*pair, tmp_path / "out")

    @pytest.mark.parametrize("way", ["../base/model.safetensors", "ABSOLUTE", "sub/../../base/model.safetensors"])
    def test_an_index_that_points_outside_its_folder(self, pair: tuple[Path, Path], tmp_path: Path, way: str) -> None:
        base, evil = pair
        (evil / "sub").mkdir()
        (evil / "model.safetensors").unlink()
        way = str(base / "model.safetensors") if way == "ABSOLUTE" else way
        index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(base / "model.safetensors"), way)}
        (evil / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ModelError, match="outside its folder"):
            average(base, evil, tmp_path / "out")

    def test_links_inside_the_folder_are_fine_as_in_the_hubs_cache(
        self, pair: tuple[Path, Path], tmp_path: Path
    ) -> None:
        (tmp_path / "blobs").mkdir()
        shutil.move(pair[1] / "model.safetensors", tmp_path / "blobs" / "abc")
        (pair[1] / "model.safetensors").symlink_to(tmp_path / "blobs" / "abc")
        assert average(*pair, tmp_path / "out")

    def test_damaged_file(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        file = pair[1] / "model.safetensors"
        file.write_bytes(file.read_bytes()[:1000])
        with pytest.raises(ModelError, match="aligned"):
            average(*pair, tmp_path / "out")

    def test_integers_that_differ(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        for k, folder in enumerate(pair):
            edit(folder, lambda w, k=k: w.update({NAME: torch.full((48, 32), k, dtype=torch.int8)}))
        with pytest.raises(ModelError, match=f"{NAME}.*quantised"):
            average(*pair, tmp_path / "out")

    def test_eight_bit_floats(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        for folder in pair:
            edit(folder, lambda w: w.update({NAME: torch.zeros(48, 32).to(torch.float8_e4m3fn)}))
        with pytest.raises(ModelError, match=f"{NAME}.*F8_E4M3"):
            average(*pair, tmp_path / "out")


def test_mean_of_the_layers_is_what_stands_outside() -> None:
    fractions = Fractions.of_layers([0.0, 0.2, 1.0])
    assert fractions.outside == pytest.approx(0.4) == fractions.mean
    assert [fractions.at(k) for k in (0, 1, 2, None)] == [*fractions.layers, fractions.outside]
    assert np.isclose(Fractions.uniform(0.3, 4).mean, 0.3)
