"""A merge with a front of invented numbers, for tests of everything that reads `merge.json`."""

from aligntax.results import (
    FrontierShare,
    LayerGeometry,
    LearnedFractions,
    Merge,
    MergedModel,
    MergePick,
    MergePoint,
    MergeProvenance,
)

DEPTH = 6


def _point(scheme: str, fraction: float, split: str, lift: float) -> MergePoint:
    gain, change = 3.0 * fraction + lift, -0.2 * fraction**2
    layers = (
        [min(1.0, fraction * (0.4 + 0.24 * k)) for k in range(DEPTH)] if scheme != "uniform" else [fraction] * DEPTH
    )
    frontier = FrontierShare(
        3, 0.1 * fraction, gain, gain - 0.2, gain + 0.2, {}, gain + 0.4, 0.9, 0.8, 1.0, gain + 0.6, 0.85, "", True, 32
    )
    return MergePoint(
        scheme, fraction, layers, split, gain - 2, gain, gain - 0.2, gain + 0.2, change, change - 0.03, change + 0.03,
        {"arithmetic": change}, [-0.2 * fraction, 3.0 * fraction], frontier,
    )  # fmt: skip


def example_merge() -> Merge:
    """Per-layer fractions beside uniform and random ones; picked by a floor on validation items."""
    points = [_point("uniform", f, "test", 0.0) for f in (0.0, 0.5, 1.0)]
    points += [_point("random", 0.5, "test", -0.2), _point("per-layer", 0.5, "test", 0.31)]
    points += [_point("per-layer", 0.5, "validation", 0.27)]
    own = points[4]
    models = [MergedModel(name, "folder", None, None, name * 8) for name in ("base", "aligned")]
    return Merge(
        scheme="per-layer", aligned_fraction=0.5, layers=own.layers, outside=0.5, outside_tensors=["model.embed_tokens.weight"],
        dtypes={"bfloat16": 40}, files=["model.safetensors"], weights_sha256="ab" * 32,
        pick=MergePick("capability_floor", -0.1, "per-layer", 0.5, "validation", 1.77, -0.05), points=points,
        geometry=LayerGeometry([0.1 * k for k in range(DEPTH)], [1.0 + k for k in range(DEPTH)], 1.24, 0.93),
        learned=LearnedFractions(3, 40, 0.6, 0.9),
        safety_unit="mean log-odds", provenance=MergeProvenance(
            "0", "2026-01-01T00:00:00+00:00", "aligntax merge base aligned", *models, "out/survey", "auto", "cpu", 0, {"a": "b"},
            {"items": 32}, 60.0, {"torch": "2"},
        ), warnings=["mergekit reads no GGUF"],
    )  # fmt: skip
