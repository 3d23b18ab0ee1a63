"""`aligntax scale`: does the tax of each task vanish with width, or stay? Surveys of a family in, one call a task out."""

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console

from .. import __version__
from ..errors import AligntaxError
from ..report.scale_page import render_scale, scale_summary
from ..results import plain, write_bytes, write_json
from ..results.scale import Scale, ScaleProvenance, ScaleSource
from .ending import say_written
from .outputs import printable
from .record import now, run_record, versions
from .scale_fit import Measured, control_rows, measure, task_row
from .scale_read import Member, read_family

PACKAGES = ("numpy", "scipy")


@dataclass(frozen=True)
class ScaleCommand:
    """Fit the tax of each task against width over a family of surveys: writes scale.json and report.html.

    Give at least four surveys of different widths, made with the same tasks and estimator. Several models of one width (other
    seeds) are welcome: their spread is then the error. NAME=FOLDER names a survey.
    """

    surveys: tyro.conf.Positional[tuple[str, ...]]
    """Folders that `aligntax survey` wrote, one a model."""
    out: Path = Path("out/scale")
    """Folder for the results."""
    depth: float | None = None
    """Relative depth at which models are compared, in (0, 1]; default: the median of the surveys' own layers."""
    level: float = 0.95
    """Coverage of the intervals, a fraction."""
    seed: int = 0
    """Seed of the resampling."""
    quiet: bool = False
    """Print nothing."""

    def execute(self) -> Scale:
        """Fit, write the files and return the result. Raises AligntaxError for surveys that are no family."""
        began = time.perf_counter()
        if not 0 < self.level < 1:
            raise AligntaxError(f"--level {self.level}: give a fraction between 0 and 1, such as 0.95")
        if self.depth is not None and not 0 < self.depth <= 1:
            raise AligntaxError(f"--depth {self.depth}: give a share of the layers in (0, 1], such as 0.6")
        members = read_family(self.surveys)
        depth = float(np.median([member.depth for member in members])) if self.depth is None else self.depth
        found = measure(members, depth)
        first = members[0].survey
        scale = Scale(
            estimator=first.estimator,
            capability=first.provenance.capability,
            depth=depth,
            sources=[_source(member, depth, found.safety_reliability[k]) for k, member in enumerate(members)],
            rows=[task_row(found, k, members, self.level, self.seed) for k in range(len(found.names))],
            controls=control_rows(found, self.level, self.seed),
            provenance=self._provenance(found, began),
            warnings=warnings_of(members, found, depth),
        )
        write_bytes(self.out / "run.yaml", run_record("scale", self))
        write_bytes(self.out / "report.html", render_scale(scale).encode())
        write_json(self.out / "scale.json", printable(plain(scale)))
        if not self.quiet:
            self._say(scale)
        return scale

    def _say(self, scale: Scale) -> None:
        console = Console()
        scale_summary(scale, console)
        largest = max(scale.sources, key=lambda source: source.width)
        following = ("aligntax", "align", largest.model, "--survey", largest.path)
        say_written(self.out / "report.html", self.out / "scale.json", following=following, console=console)

    def _provenance(self, found: Measured, began: float) -> ScaleProvenance:
        several = len(np.unique(found.widths)) < len(found.widths)
        return ScaleProvenance(
            package_version=__version__,
            created=now(),
            command=shlex.join(["aligntax", "scale", *self.surveys, "--seed", str(self.seed)]),
            seed=self.seed,
            level=self.level,
            error="the spread between models of one width" if several else "the jackknife over groups of items",
            wall_seconds=time.perf_counter() - began,
            versions=versions(PACKAGES),
        )


def _source(member: Member, depth: float, reliability: float) -> ScaleSource:
    survey = member.survey
    return ScaleSource(
        name=member.name,
        path=str(member.path),
        model=survey.model,
        width=member.width,
        layer=member.layer_at(depth),
        layers=member.layers,
        selected=survey.layer,
        size=survey.size,
        weights_sha256=survey.provenance.weights_sha256,
        safety_reliability=float(reliability),
        controls=0 if member.controls is None else len(member.controls),
    )


def warnings_of(members: Sequence[Member], found: Measured, depth: float) -> list[str]:
    """What a reader must know before believing a call."""
    warnings = []
    if found.controls is None:
        without = [member.name for member in members if member.controls is None]
        warnings.append(
            f"without control tasks in every survey (missing: {', '.join(without)}) no call says that a task differs from an "
            "unrelated one; repeat those surveys, finished shards are reused"
        )
    sizes = sorted({member.survey.size for member in members})
    if len(sizes) > 1:
        warnings.append(
            f"the surveys have different sizes ({', '.join(sizes)}); the standard errors say how much each counts"
        )
    layers = sorted({member.layers for member in members})
    if len(layers) > 1:
        warnings.append(f"the models have {layers[0]} to {layers[-1]} layers, so width and depth change together")
    far = [member.name for member in members if abs(member.depth - depth) > 0.25]
    if far:
        warnings.append(
            f"the surveys' own layer lies elsewhere (relative depth {depth:.2f} is compared): {', '.join(far)}"
        )
    noisy = [m.name for m, r in zip(members, found.safety_reliability, strict=True) if not r >= 0.3]
    if noisy:
        warnings.append(
            f"the safety direction is too noisy there to be used (reliability below 0.3): {', '.join(noisy)}"
        )
    return warnings
