"""`aligntax merge`: a checkpoint between two others, uniformly or layer by layer.

The command composes rooms: sources (`merge_sources`), fractions (`merging`, `merge_schemes`), scores (`merge_front`), record and
recipe (`merge_recipe`). Without a rule to pick by and without `--points` no model is ever run: weights stream from disk to disk.
"""

import dataclasses
import shlex
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from .. import __version__
from ..data import BUILTIN_TASKS
from ..errors import AligntaxError
from ..models import LoadedModel
from ..models.averaging import Fractions
from ..models.checkpoint import weights_sha256
from ..models.load import resolve_device
from ..report.merge_page import render_merge
from ..results import Merge, MergePick, MergePoint, MergeProvenance, plain, read_survey, write_bytes, write_json
from .ending import say_written
from .merge_front import Bench, Inputs, Settings, front, gather_inputs
from .merge_plan import Asked, print_plan
from .merge_recipe import mergekit_config, model_card
from .merge_schemes import (
    Scheme,
    given_scheme,
    learned_scheme,
    mixtures,
    picked,
    random_scheme,
    surveyed_scheme,
    uniform_scheme,
)
from .merge_sources import Pair, candidate_folder, clear_old, opened_pair, prepare_output, read_fractions
from .merging import SEARCHED, Rule
from .next_step import after_merge
from .outputs import printable
from .record import now, run_record, versions

POINTS = 5
"""Mean fractions of the front where a rule was given but no number of points."""

NO_GGUF = "mergekit reads no GGUF: before using mergekit.yaml put a safetensors folder in the place of {!r}"

REFUSAL_UNIT = "mean log-odds (nats) that the reply to a harmful prompt opens as a refusal"


@dataclass(frozen=True)
class MergeCommand:
    """Average BASE and ALIGNED into a checkpoint between them: writes a model folder, merge.json and mergekit.yaml."""

    base: tyro.conf.Positional[str]
    """The model before alignment: Hub id, folder, .gguf file, or an embedded name."""
    aligned: tyro.conf.Positional[str]
    """The model after it, or a LoRA adapter of BASE."""
    out: Path = Path("out/merge")
    """Folder of the merged model and its record."""
    scheme: Literal["uniform", "per-layer", "random"] = "uniform"
    """One fraction everywhere, one a decoder block (from --survey, --blocks or --fractions), or random ones (a control)."""
    aligned_fraction: float = 0.5
    """Mean fraction of ALIGNED, from 0 (base) to 1 (aligned)."""
    fractions: Path | None = None
    """JSON list of a fraction for each decoder block, used as given (with --scheme per-layer)."""
    survey: Path | None = None
    """Folder of a survey of BASE: gives per-layer fractions, and keeps its gradient items out of the scores."""
    blocks: int = 0
    """Learn per-layer fractions on validation items, in so many runs of layers (0: do not learn)."""
    capability_floor: float | None = None
    """Write the mixture with most safety whose capability change from BASE, mean over tasks, is at least this (such as -0.05)."""
    weight: float | None = None
    """Write the mixture with most weight * safety + (1 - weight) * capability."""
    points: int = 0
    """Mean fractions at which the front is scored, ends included (0: none, or 5 where a mixture is to be picked)."""
    safety: str = "harmlessness"
    """Harmful prompts: [NAME=]FILE or a built-in name."""
    tasks: tuple[str, ...] = ()
    """Capability tasks, as for `survey`. Default: all built-in ones."""
    items: int = 32
    """Items of each task, and prompts, in each of validation and test."""
    revision: str | None = None
    """Hub revision of BASE."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number type in which mixtures are scored; the written weights have that of BASE."""
    device: str = "auto"
    """Device on which mixtures are scored."""
    trust_remote_code: bool = False
    """Run code that comes with the checkpoints. Only for checkpoints you trust."""
    seed: int = 0
    """Seed of the random fractions and of the distractors."""
    overwrite: bool = False
    """Replace an earlier merge in the output folder."""
    plan: bool = False
    """Print tensors, tokens and time, and start nothing."""
    quiet: bool = False
    """Print nothing."""
    measure: tyro.conf.Suppress[Callable[[LoadedModel, Sequence[str]], Sequence[float]] | None] = None
    """From Python only: (model, harmful prompts) -> one number a prompt, higher is safer, such as minus a judged harm."""

    def execute(self) -> Merge | None:
        """Merge, write the files and return the record; None with `plan`. Raises AligntaxError for input that cannot be used."""
        began = time.perf_counter()
        rule = self._check()
        if self.plan:
            self._print_plan(rule)
            return None
        prepare_output(self.out, self.overwrite, (Path(self.base).expanduser(), Path(self.aligned).expanduser()))
        with opened_pair((self.base, self.aligned), self.revision, self.trust_remote_code) as pair:
            given = read_fractions(self.fractions, pair.plan.depth) if self.fractions else None
            self._check_survey(pair)
            inputs = self._inputs(rule)
            with candidate_folder(self.out) as scratch:
                settings = Settings(self.dtype, self.device, self.seed, self.trust_remote_code, self.measure)
                bench = Bench(pair, inputs, settings, scratch) if inputs else None
                scheme = self._scheme(pair, given, bench, rule)
                points = self._front(bench, scheme, rule) if bench else []
            merge = self._write(pair, scheme, (rule, points, inputs), began)
        if not self.quiet:
            self._tell(merge)
        return merge

    def _print_plan(self, rule: Rule | None) -> None:
        with opened_pair((self.base, self.aligned), self.revision, self.trust_remote_code) as pair:
            self._check_survey(pair)
            inputs = self._inputs(rule)
            most = SEARCHED if self.blocks else 0
            own = self.scheme == "per-layer" and not (self.blocks or self.fractions)
            asked = Asked(self.points or POINTS, own, bool(self.fractions or self.blocks), most, 2 if rule else 1)
            print_plan(pair, inputs, asked, resolve_device(self.device))

    def _check(self) -> Rule | None:
        if not 0.0 <= self.aligned_fraction <= 1.0:
            raise AligntaxError(
                f"--aligned-fraction {self.aligned_fraction}: give a number from 0 (base) to 1 (aligned)"
            )
        sources = [name for name in ("survey", "fractions") if getattr(self, name)] + ["blocks"] * (self.blocks > 0)
        if self.scheme == "per-layer" and not sources:
            raise AligntaxError(
                "--scheme per-layer: say where fractions come from: --survey DIR, --blocks K or --fractions FILE"
            )
        if self.scheme != "per-layer" and (self.fractions or self.blocks):
            raise AligntaxError(f"--scheme {self.scheme} has no fractions of its own; add --scheme per-layer")
        if self.fractions and self.blocks:
            raise AligntaxError("--fractions are given and --blocks learns them; keep one of the two")
        if self.points < 0 or self.points == 1 or self.blocks < 0:
            raise AligntaxError(
                f"--points {self.points} --blocks {self.blocks}: give 2 points or more, 1 block or more, or 0"
            )
        if self.capability_floor is None and self.weight is None:
            return None
        return Rule(self.capability_floor, self.weight)

    def _check_survey(self, pair: Pair) -> None:
        if self.survey is None:
            return
        found = read_survey(self.survey)
        if found.provenance.weights_sha256 != pair.identity[0].weights_sha256:
            raise AligntaxError(
                f"--survey {self.survey} is of {found.model!r}, whose weights are not those of {self.base!r}; survey that model"
            )

    def _inputs(self, rule: Rule | None) -> Inputs | None:
        if not (rule or self.points or self.blocks):
            return None
        return gather_inputs(self.safety, self.tasks or BUILTIN_TASKS(), self.items, self.survey)

    def _scheme(self, pair: Pair, given: Fractions | None, bench: Bench | None, rule: Rule | None) -> Scheme:
        depth = pair.plan.depth
        if self.scheme != "per-layer":
            return uniform_scheme(depth) if self.scheme == "uniform" else random_scheme(depth, self.seed)
        if given is not None:
            return given_scheme(given)
        if self.blocks:
            assert bench is not None
            return learned_scheme(bench, self.blocks, self.aligned_fraction, rule or Rule(weight=0.5))
        assert self.survey is not None
        return surveyed_scheme(pair, self.survey)

    def _front(self, bench: Bench, scheme: Scheme, rule: Rule | None) -> list[MergePoint]:
        shown = mixtures(scheme, self.points or POINTS, bench.pair.plan.depth, self.seed)
        # What picks never scores: a rule reads validation, the front is drawn on test.
        return front(bench, shown, ("validation", "test") if rule else ("test",))

    def _write(
        self, pair: Pair, scheme: Scheme, found: tuple[Rule | None, list[MergePoint], Inputs | None], began: float
    ) -> Merge:
        rule, points, inputs = found
        chosen = scheme.at(self.aligned_fraction)
        why = MergePick("given", None, scheme.name, chosen.mean, "", None, None)
        if rule is not None:
            chosen, why = picked(scheme, points, rule)
        clear_old(self.out)
        files = pair.write(chosen, self.out)
        types = Counter(pair.base.dtype(name) for name in pair.plan.layer_of)
        merge = Merge(
            scheme=why.scheme,
            aligned_fraction=chosen.mean,
            layers=list(chosen.layers),
            outside=chosen.outside,
            outside_tensors=pair.plan.outside,
            dtypes={str(kind).removeprefix("torch."): count for kind, count in types.items()},
            files=[file.name for file in files],
            weights_sha256=weights_sha256(files),
            pick=why,
            points=points,
            geometry=scheme.geometry(chosen.mean) if scheme.geometry else None,
            learned=scheme.learned,
            safety_unit="the caller's measure, mean over prompts" if self.measure else REFUSAL_UNIT,
            provenance=self._provenance(pair, inputs, began),
            warnings=[NO_GGUF.format(m.name) for m in pair.identity if m.source == "gguf"],
        )
        dtype = types.most_common(1)[0][0]
        write_bytes(self.out / "mergekit.yaml", mergekit_config(pair.references, chosen, pair.plan, dtype).encode())
        write_bytes(self.out / "run.yaml", run_record("merge", self))
        write_bytes(self.out / "README.md", model_card(merge, chosen.layers).encode())
        if points:
            write_bytes(self.out / "report.html", render_merge(merge).encode())
        write_json(self.out / "merge.json", printable(plain(merge)))
        return merge

    def _provenance(self, pair: Pair, inputs: Inputs | None, began: float) -> MergeProvenance:
        names = ("torch", "transformers", "safetensors", "numpy")
        return MergeProvenance(
            package_version=__version__,
            created=now(),
            command=self._words(),
            base=pair.identity[0],
            aligned=pair.identity[1],
            survey=str(self.survey) if self.survey else None,
            dtype=self.dtype,
            device=self.device,
            seed=self.seed,
            data=inputs.data if inputs else {},
            counts=inputs.counts if inputs else {},
            wall_seconds=time.perf_counter() - began,
            versions=versions(names),
        )

    def _words(self) -> str:
        words = ["aligntax", "merge", self.base, self.aligned]
        for one in dataclasses.fields(self):
            value: Any = getattr(self, one.name)
            if one.name in ("base", "aligned", "measure") or value == one.default:
                continue
            flag = "--" + one.name.replace("_", "-")
            words += [flag] if value is True else [flag, *map(str, value if isinstance(value, tuple) else (value,))]
        return shlex.join(words)

    def _tell(self, merge: Merge) -> None:
        for point in (p for p in merge.points if p.split == "test"):
            told = f"safety {_signed(point.safety_gain)} nats, capability {_signed(point.capability)}"
            print(f"{point.scheme:>9} {point.fraction:.2f}: {told}{_frontier(point)}")
        print(f"Merged by {merge.scheme} fractions of mean {merge.aligned_fraction:.4g}")
        written = self.out / ("report.html" if merge.points else "merge.json")
        say_written(written, following=after_merge(vars(self), self.out))


def _frontier(point: MergePoint) -> str:
    found = point.frontier
    return "" if found is None or found.within is None else f" (frontier {found.within:+.3f} at {found.nats:.3g} nats)"


def _signed(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.3f}"
