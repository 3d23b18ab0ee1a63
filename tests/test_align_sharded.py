"""Weights that a launcher splits: what needs them whole is refused before training, and what was split is put together again."""

import copy
import os
import subprocess
import sys
from types import SimpleNamespace

import peft
import pytest
import torch
from conftest import build_model, build_tokenizer

from aligntax.commands.align import AlignCommand
from aligntax.commands.alignment_checks import recipe_of
from aligntax.commands.alignment_trainer import made_trainer
from aligntax.commands.alignment_whole import rebuilt, start_reference
from aligntax.commands.protections import Protected
from aligntax.commands.trainers import configuration
from aligntax.data import ChatFormat, Encoded
from aligntax.errors import AligntaxError
from aligntax.training import ReferenceKL, ScoredItem

pytest.importorskip("trl")
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]

ROW = {"input_ids": [7, 8, 9], "labels": [-100, 8, 9]}
PLAIN = {"quiet": True, "batch": 2}


def made(monkeypatch, folder, engine, **options):
    """A trainer of a tiny model that says its engine splits weights."""
    from aligntax.commands import alignment_trainer

    build = alignment_trainer.make_trainer

    def split(*given):
        trainer = build(*given)
        setattr(trainer, f"is_{engine}_enabled", True)
        return trainer

    monkeypatch.setattr(alignment_trainer, "make_trainer", split)
    model = copy.deepcopy(build_model("llama")).requires_grad_(True)
    tokenizer = copy.deepcopy(build_tokenizer())
    model.get_output_embeddings().requires_grad_(False)
    rows = [Encoded((7, 8, 9, 10), 2)]
    names = options.get("protect", "")
    callbacks = (ReferenceKL(model, rows),) if "kl" in names else ()
    texts = SimpleNamespace(
        pairs=[], conversations=[ROW] * 4, prompts=[], scored={"t": [ScoredItem(rows)]}, harmful=rows, anchors=rows,
        harmful_prompts=["x"], turns=[],
    )  # fmt: skip
    loaded = SimpleNamespace(device=torch.device("cpu"), tokenizer=tokenizer, adapter=None, model=model)
    command = AlignCommand("m", folder, **(PLAIN | options))
    return made_trainer(command, (model, loaded, ChatFormat(tokenizer)), texts, Protected(callbacks, None, {}), folder)


@pytest.mark.parametrize(("engine", "name"), [("fsdp", "FSDP"), ("deepspeed", "DeepSpeed")])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"protect": "nullspace,replay"}, "--protect nullspace:"),
        ({"protect": "gradient,kl"}, "--protect gradient, --protect kl:"),
        ({"depth": "recovery"}, "--depth recovery:"),
        ({"tax_every": 2}, "--tax-every:"),
    ],
)
def test_what_needs_the_whole_model_is_refused_before_training(engine, name, options, said, tmp_path, monkeypatch):
    with pytest.raises(AligntaxError) as error:
        made(monkeypatch, tmp_path, engine, **options)
    text = str(error.value)
    assert text.startswith(said) and name in text and "data parallelism" in text and "\n" not in text


@pytest.mark.parametrize("options", [{}, {"protect": "replay"}, {"depth": "augmentation"}])
def test_plain_methods_are_let_through(options, tmp_path, monkeypatch):
    trainer, _ = made(monkeypatch, tmp_path, "fsdp", **options)
    assert trainer.is_fsdp_enabled


def test_a_split_reference_that_lacks_the_adapter_is_refused():
    class GRPOTrainer(SimpleNamespace):
        pass

    trainer = GRPOTrainer(ref_model=object(), is_fsdp_enabled=True, is_deepspeed_enabled=False)
    with pytest.raises(AligntaxError, match=r"adapter 'mine'.*--method grpo.*--lora"):
        start_reference(trainer, SimpleNamespace(adapter="mine", model=None))


def test_weights_that_were_not_all_gathered_are_not_released():
    model, command = build_model("llama"), AlignCommand("m")
    state = dict(model.state_dict())
    whole = rebuilt(model, state, command)
    assert all(torch.equal(value, state[name]) for name, value in whole.state_dict().items())
    del state["model.layers.1.mlp.down_proj.weight"]
    with pytest.raises(AligntaxError, match=r"model\.layers\.1\.mlp\.down_proj\.weight"):
        rebuilt(model, state, command)


def test_an_adapter_that_is_only_a_reference_is_left_out():
    model = sharded_model("lora")
    wanted = {name: value.clone() for name, value in model.state_dict().items()}
    model.add_adapter("ref", model.peft_config["default"])
    found = rebuilt(model, dict(model.state_dict()), AlignCommand("m")).state_dict()
    assert set(found) == set(wanted) and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_several_processes_score_their_own_reference(tmp_path, monkeypatch):
    def scored_before():
        return configuration(
            recipe_of(AlignCommand("m", method="dpo")), tmp_path, "cpu", {}, True
        ).precompute_ref_log_probs

    assert scored_before()
    monkeypatch.setattr("aligntax.commands.trainers.processes", lambda: 2)
    monkeypatch.setattr("aligntax.commands.trainers._common", lambda *_: {"output_dir": str(tmp_path), "use_cpu": True})
    assert not scored_before()


SPLIT = """
import sys, torch
from types import SimpleNamespace
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, init_device_mesh
sys.path.insert(0, sys.argv[1])
from test_align_sharded import sharded_model
from aligntax.commands.align import AlignCommand
from aligntax.commands.alignment_whole import gathered
from aligntax.commands.launch import leave
from aligntax.errors import NonFiniteError
from aligntax.training import StopOnNonFinite

accelerator = Accelerator(cpu=True)
# accelerate takes FSDP up on GPUs alone; the splitting and the gathering are the same here.
accelerator.state.distributed_type = DistributedType.FSDP
accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
for kind in ("full", "lora"):
    model = sharded_model(kind)
    wanted = {name: value.clone() + 1 for name, value in model.state_dict().items()}
    mesh = init_device_mesh("cpu", (2,))
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    for block in inner.model.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert any(isinstance(p, DTensor) and p.to_local().numel() < p.numel() for p in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
            parameter.grad = torch.zeros_like(parameter)
    rank = accelerator.process_index
    StopOnNonFinite().on_pre_optimizer_step(None, SimpleNamespace(global_step=0), None, model=model)
    last = [p for p in model.parameters()][-1].grad.to_local()
    if rank == 0 and last.numel():
        last[:] = torch.nan
    try:
        StopOnNonFinite().on_pre_optimizer_step(None, SimpleNamespace(global_step=0), None, model=model)
    except NonFiniteError:
        sys.stdout.write(f"stopped {rank}\\n")  # one write: print makes several, and the processes share a pipe
    trainer = SimpleNamespace(is_fsdp_enabled=True, is_deepspeed_enabled=False, accelerator=accelerator, model=model,
                              args=SimpleNamespace(process_index=rank))
    whole = gathered(trainer, AlignCommand("m"))
    assert (whole is None) == (rank > 0)
    if rank == 0:
        found = whole.state_dict()
        assert set(found) == set(wanted) and all(torch.equal(found[k], wanted[k]) for k in wanted)
        sys.stdout.write(f"whole {kind}\\n")
leave()
assert not torch.distributed.is_initialized()
"""


def sharded_model(kind):
    """A tiny model, with an adapter or without, the same in every process."""
    model = copy.deepcopy(build_model("llama"))
    if kind == "full":
        return model
    torch.manual_seed(0)
    return peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))


def test_shards_of_two_processes_are_put_together(tmp_path):
    """FSDP's own sharding over gloo: every process gives its part, the first gets a model that holds them all."""
    script = tmp_path / "split.py"
    script.write_text(SPLIT)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", str(script),
         os.path.dirname(__file__)],
        capture_output=True, text=True, timeout=180, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "whole full" in done.stdout and "whole lora" in done.stdout
    # NaN in the shard of one process stops all of them, or the others would wait for it forever.
    assert all(done.stdout.count(f"stopped {rank}") == 2 for rank in (0, 1))
