"""A record of an alignment run for report tests: plausible numbers, no model behind them."""

import dataclasses

from aligntax.results import Align, AlignProvenance, FrontierShare, UpdateOverlap


def example_align() -> Align:
    """Twelve steps of supervised refusals with the recovery objective."""
    steps = [
        {"step": float(k), "loss": 2.1 / k**0.2, "recovery/text": 3.9 / k**0.1, "recovery/mass": 0.003 * k}
        for k in range(1, 13)
    ]
    return Align(
        schema_version=1, model="example/base", method="sft", goal="safety", protect=["kl"], depth="recovery", lora_rank=8,
        settings={}, counts={"refusals": 94}, samples=96, tokens=8000, tokens_per_second=100.0, seconds_per_step=6.6,
        steps=steps, kept_rank={}, leak=None, leak_saved=None, recovery_tokens=[(57, "I")], reward_judge=None,
        reward_judge_texts=None, checkpoint="model", saved_dtype="float32", provenance=AlignProvenance(
            "0", "2026-01-01T00:00:00+00:00", "example/base", None, "ab", None, "float32", "cpu", 1, 0, "chat", {}, {}, 90.0,
        ),
    )  # fmt: skip


def example_held() -> Align:
    """The same with everything that a run can record: protections, KL by position, tax, overlap, efficiency, recipe."""
    bins = {"kl": 0.06, "kl_1": 0.9, "kl_2-4": 0.2, "kl_5-16": 0.04, "kl_17-": 0.01}
    base = example_align()
    steps = [
        entry | {f"anchor_kl/{key}": value * (k + 1) / 12 for key, value in bins.items()}
        for k, entry in enumerate(base.steps)
    ]
    tax = [
        {"step": float(k), "tax/arithmetic": 0.01 * k, "tax/arithmetic/shared": 0.02, "tax/copying": -0.003 * k}
        for k in (4, 8, 12)
    ]
    overlap = [
        UpdateOverlap(layer, 8, 64, 0.125, 0.06, 0.2, 0.3, {"arithmetic": 0.14, "copying": 0.11}) for layer in (0, 1)
    ]
    share = FrontierShare(7, 0.05, 1.2, 0.8, 1.6, {"arithmetic": -0.02}, 1.9, 0.63, 0.42, 0.84, 2.4, 0.5, "", True, 48)
    matrices = {f"model.layers.{k}.mlp.down_proj": [40 + k, 64] for k in range(4)}
    settings = {"method": "sft", "learning_rate": "1e-05", "protect": "nullspace,kl"}
    return dataclasses.replace(
        base, protect=["nullspace", "kl"], steps=steps, tax=tax, overlap=overlap, efficiency=share, kept_rank=matrices,
        leak=3.1e-7, leak_saved=0.0123, saved_dtype="bfloat16", settings=settings,
    )  # fmt: skip
