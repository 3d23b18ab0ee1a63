"""A merge in the words of others: an equivalent mergekit configuration, and the model card of the written folder."""

from collections.abc import Sequence

import torch
import yaml

from ..data import clean_text
from ..models.averaging import Fractions, Layout
from ..results import Merge, MergedModel, MergePoint


def mergekit_config(models: tuple[str, str], fractions: Fractions, plan: Layout, dtype: torch.dtype) -> str:
    """YAML of a mergekit linear merge with the same tensors, to rounding.

    A list of as many values as blocks is read by mergekit as a gradient over the depth, and so as one value a block. Tensors
    outside the blocks are named by filters, which come first. Arithmetic is float32, the output the base's number type.
    """
    config = {
        "merge_method": "linear",
        "dtype": "float32",
        "out_dtype": str(dtype).removeprefix("torch."),
        "base_model": models[0],
        "models": [
            {"model": models[0], "parameters": {"weight": _weights(fractions, plan, base=True)}},
            {"model": models[1], "parameters": {"weight": _weights(fractions, plan, base=False)}},
        ],
        "parameters": {"normalize": False},
    }
    return yaml.safe_dump(config, sort_keys=False)


def _weights(fractions: Fractions, plan: Layout, base: bool) -> list[dict[str, object]]:
    def weight(fraction: float) -> float:
        return 1.0 - fraction if base else fraction

    outside = [{"filter": name, "value": weight(fractions.outside)} for name in plan.outside]
    return [*outside, {"value": [weight(fraction) for fraction in fractions.layers]}]


def model_card(merge: Merge, fractions: Sequence[float]) -> str:
    """README.md of the folder: what was averaged, by which fractions, how it scored, how to repeat it."""
    where = merge.provenance
    head = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": [clean_text(m.name)[0] for m in (where.base, where.aligned)],
        "tags": ["merge", "aligntax"],
    }
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).strip(),
        "---",
        "",
        "# A weight average",
        "",
        f"Each tensor is `(1 - f) base + f aligned`, computed in float32. Scheme: {merge.scheme}, mean aligned fraction "
        f"{merge.aligned_fraction:.4g}.",
        "",
        *(_model_row(label, model) for label, model in (("Base", where.base), ("Aligned", where.aligned))),
        f"- Outside the decoder blocks (embeddings, final norm, head): f = {merge.outside:.6g}",
        "",
        "| decoder block | aligned fraction |",
        "|---|---|",
        *(f"| {layer} | {fraction:.6g} |" for layer, fraction in enumerate(fractions)),
        "",
        *_scores(merge),
        "## Repeat it",
        "",
        f"```\n{clean_text(where.command)[0]}\n```",
        "",
        f"aligntax {where.package_version}; weights sha256 `{merge.weights_sha256}`. `merge.json` holds the whole record, "
        "`mergekit.yaml` the same merge for mergekit.",
        "",
    ]
    return "\n".join(lines)


def _model_row(label: str, model: MergedModel) -> str:
    at = f" at `{model.revision}`" if model.revision else ""
    return f"- {label}: `{clean_text(model.name)[0].replace('`', '')}`{at}, sha256 `{model.weights_sha256}`"


def _scores(merge: Merge) -> list[str]:
    test = [point for point in merge.points if point.split == "test"]
    if not test:
        return []
    return [
        "## Scores on test items",
        "",
        f"Safety: {merge.safety_unit}, gain over the base. Capability: change from the base, mean over tasks. 90% intervals.",
        "",
        "| scheme | mean fraction | safety gain | capability change |",
        "|---|---|---|---|",
        *(_score_row(point) for point in test),
        "",
    ]


def _score_row(point: MergePoint) -> str:
    def cell(value: float | None, low: float | None, high: float | None) -> str:
        return "undefined" if value is None or low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"

    safety = cell(point.safety_gain, point.safety_low, point.safety_high)
    change = cell(point.capability, point.capability_low, point.capability_high)
    return f"| {point.scheme} | {point.fraction:.3g} | {safety} | {change} |"
