"""A record of an alignment run for report tests: plausible numbers, no model behind them."""

from aligntax.results import Align, AlignProvenance


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
