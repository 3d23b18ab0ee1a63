"""The kept record of a pipeline with curves of training put back in, which the record leaves out; the curves are invented."""

import json
from pathlib import Path

import msgspec

from aligntax.results.pipeline import Pipeline

KEPT = Path(__file__).parents[1] / "runs" / "pipeline"


def example_pipeline() -> Pipeline:
    """Stages and scores as measured; losses that fall, and a reward that goes on rising while gold reward turns down."""
    record = json.loads(min(KEPT.glob("*quick-width64-seed0.json")).read_text())
    for stage in record["stages"]:
        steps = range(1, 21)
        curves = {"loss": [[k, 2.0 / k**0.5] for k in steps]}
        if stage["name"] == "rl":
            curves["kl"] = [[k, 0.02 * k * k] for k in steps]
            curves["reward"] = [[k, 0.2 * k] for k in steps]
            curves["rewards/gold/mean"] = [[k, 0.2 * k - 0.012 * k * k] for k in steps]
        stage["curves"] = curves
    return msgspec.convert(record, Pipeline)
