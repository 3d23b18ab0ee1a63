"""`aligntax predict P1..P7`: run one prediction of the theory by its fixed protocol, and say what became of it."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from rich.console import Console
from rich.status import Status

from .. import __version__
from ..errors import AligntaxError
from ..predictions import (
    PROTOCOLS,
    DepthWorld,
    Scored,
    make_attack_worlds,
    make_depth_worlds,
    make_recovery_worlds,
    merged_pair,
    score_attacks,
    score_averaging,
    score_conflict,
    score_depth,
    score_recovery,
    score_scaling,
)
from ..probing import Meter, ShardStore
from ..results import Bound, Prediction, PredictionProvenance, plain, read_merge, write_bytes, write_json
from ..results.scale import read_scale
from ..stats import Estimate
from .ending import say_written
from .outputs import printable
from .predict_conflict import conflict_groups
from .predict_output import next_step, print_prediction, print_protocol
from .predict_tax import Setting, task_tax_run, trained_from
from .record import now, run_record, versions

PACKAGES = ("torch", "transformers", "numpy", "scipy")
INTRINSIC = ("persuasion", "recipes")
"""What the small world builds upon the safety decision: persuasion shares with manipulation, recipes with hazards."""
Arrays = dict[str, np.ndarray]
BY_POSITION = ("kl", "information", "entropy", "benign")


@dataclass(frozen=True)
class PredictCommand:
    """Score one prediction of the theory (P1 to P7) against what happened, beside baselines: writes OUT/NAME.json."""

    name: tyro.conf.Positional[Literal["P1", "P2", "P3", "P4", "P5", "P6", "P7"]]
    """Which prediction; `--plan` says what it tests and what it would run."""
    model: str = "smollm2-135m-instruct"
    """P1, P4: the model before alignment: Hub id, folder, .gguf file, or an embedded name."""
    aligned: tuple[str, ...] = ()
    """P1: trained checkpoints, [NAME-SEED=]FOLDER; recipes (names) are split into those that choose and those that confirm."""
    pilot: str = ""
    """P1: checkpoint of a few training steps, with another seed than --aligned. Default: none, and its predictors are not tried."""
    data: Path | None = None
    """P1: folder of public task files (blimp.jsonl, mmlu_dev.jsonl, ...); without it the tasks are too few for a verdict."""
    inputs: tuple[str, ...] = ()
    """P2: scale.json. P3: folders of merges. P5: worlds measured elsewhere (JSON)."""
    intrinsic: tuple[str, ...] = ()
    """P2: tasks that share structure with safety by construction; default: those that the small world builds so."""
    out: Path = Path("out/predict")
    """Folder of NAME.json and of the finished shards from which a killed run goes on."""
    device: str = "auto"
    """Device; auto takes CUDA where there is one."""
    seed: int = 0
    """Seed of everything that is drawn."""
    plan: bool = False
    """Print the protocol and what would be run, and start nothing."""
    quiet: bool = False
    """No progress bars and no summary."""

    def execute(self) -> Prediction | None:
        """Run, write the file and return what it says; None with `plan`. Raises AligntaxError for input that cannot be used."""
        began = time.perf_counter()
        if self.plan:
            print_protocol(self.name)
        found = RUNS[self.name](self)
        if found is None:
            return None
        prediction = self._record(found, began)
        file = self.out / f"{self.name}.json"
        write_json(file, printable(plain(prediction)))
        write_bytes(self.out / "run.yaml", run_record("predict", self))
        if not self.quiet:
            print_prediction(prediction)
            say_written(file, following=next_step(prediction))
        return prediction

    def _record(self, run: "Run", began: float) -> Prediction:
        protocol, scored = PROTOCOLS[self.name], run.scored
        return Prediction(
            self.name, protocol.statement, protocol.measure, *_numbers(scored.estimate),
            {name: Bound(*_numbers(each)) for name, each in scored.baselines.items()}, Bound(*_numbers(scored.ahead)),
            scored.p_value, scored.verdict, scored.reason, scored.n, scored.seeds, dict(scored.reliability), scored.negatives,
            now()[:10],
            PredictionProvenance(
                __version__, f"aligntax predict {self.name} --seed {self.seed}", protocol.plain(), protocol.sha256,
                run.models, run.data, run.tokens, time.perf_counter() - began, versions(PACKAGES),
            ),
            scored.tables, scored.warnings,
        )  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What a protocol gave, and hashes of the models and data behind it."""

    scored: Scored
    models: dict[str, str]
    data: dict[str, str]
    tokens: int = 0


def run_task_tax(command: PredictCommand) -> Run | None:
    """P1. Raises AligntaxError without trained checkpoints."""
    if not command.aligned and not command.plan:
        raise AligntaxError(
            "predict P1 compares forecasts with what training did: give --aligned FOLDER ..., checkpoints of at least six recipes"
        )
    setting = Setting(
        command.model, tuple(trained_from(command.aligned)), command.pilot, command.data, command.out / "shards",
        command.device, command.seed,
    )  # fmt: skip
    with Meter(command.quiet or command.plan) as meter:
        found = task_tax_run(setting, meter, command.plan)
    return None if found is None else Run(found.scored, found.models, {}, found.tokens)


def run_scaling(command: PredictCommand) -> Run | None:
    """P2, from `scale.json`."""
    if command.plan:
        return None
    scales = [read_scale(Path(path)) for path in command.inputs[:1]]
    kinds = command.intrinsic or INTRINSIC
    return Run(score_scaling(scales[0] if scales else None, kinds, command.seed), {}, _hashes(command.inputs))


def run_averaging(command: PredictCommand) -> Run | None:
    """P3, from merges of many pairs."""
    if command.plan:
        return None
    found = [merged_pair(read_merge(Path(path))) for path in command.inputs]
    scored = score_averaging([pair for pair in found if pair is not None], command.seed)
    left = len(found) - sum(pair is not None for pair in found)
    if left:
        scored.warnings.append(
            f"{left} of {len(found)} merges have no predicted ratio or no scored front of both schemes"
        )
    return Run(scored, {}, _hashes(command.inputs))


def run_conflict(command: PredictCommand) -> Run | None:
    """P4, on a model."""
    if command.plan:
        return None
    with Meter(command.quiet) as meter:
        store = ShardStore(command.out / "shards", {})
        groups, weights = conflict_groups(command.model, store, command.device, command.seed, meter)
    return Run(score_conflict(groups), {"base": weights}, {}, sum(phase.tokens for phase in meter.phases))


def run_depth(command: PredictCommand) -> Run | None:
    """P5, on closed worlds, or on those that `--inputs` describes."""
    if command.plan:
        return None
    given = [world for path in command.inputs for world in read_worlds(Path(path))]
    if given:
        return Run(score_depth(given, command.seed), {}, _hashes(command.inputs))
    with worlds(command) as keep:
        return Run(closed(score_depth(make_depth_worlds(command.seed, keep), command.seed)), {}, {})


def run_recovery(command: PredictCommand) -> Run | None:
    """P6, on closed worlds."""
    if command.plan:
        return None
    with worlds(command) as keep:
        return Run(closed(score_recovery(make_recovery_worlds(command.seed, keep), command.seed)), {}, {})


def run_attacks(command: PredictCommand) -> Run | None:
    """P7, on closed worlds."""
    if command.plan:
        return None
    with worlds(command) as keep:
        return Run(closed(score_attacks(make_attack_worlds(command.seed, keep), command.seed)), {}, {})


def closed(scored: Scored) -> Scored:
    """The same, saying that no language model was asked."""
    scored.warnings.append("closed worlds: policies with shared parameters and exact harm, trained; no language model")
    return scored


RUNS: dict[str, Callable[[PredictCommand], Run | None]] = {
    "P1": run_task_tax,
    "P2": run_scaling,
    "P3": run_averaging,
    "P4": run_conflict,
    "P5": run_depth,
    "P6": run_recovery,
    "P7": run_attacks,
}


def read_worlds(path: Path) -> list[DepthWorld]:
    """Worlds as JSON: a list of objects with name, deciding, and by position kl, information, entropy, benign.

    Raises AligntaxError for another shape, lengths that differ or numbers that are not finite.
    """
    try:
        rows = json.loads(path.read_text())
        found = [
            DepthWorld(str(r["name"]), int(r["deciding"]), *(np.asarray(r[key], dtype=float) for key in BY_POSITION))
            for r in rows
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AligntaxError(
            f"cannot read {path} ({error}); give a JSON list of worlds: name, deciding, {', '.join(BY_POSITION)}"
        ) from error
    for world in found:
        columns = [world.kl, world.information, world.entropy, world.benign]
        if len({x.shape for x in columns}) != 1 or columns[0].ndim != 1 or not np.isfinite(columns).all():
            raise AligntaxError(
                f"{path}: {world.name} needs finite numbers for the same positions in {', '.join(BY_POSITION)}"
            )
    return found


@contextmanager
def worlds(command: PredictCommand) -> Iterator[Callable[[str, Callable[[], Arrays]], Arrays]]:
    """Makes worlds, or reads those that an earlier run has finished; a line on stderr names the one in work."""
    store = ShardStore(command.out / "shards", {"protocol": PROTOCOLS[command.name].sha256, "seed": command.seed})
    title = f"worlds of {command.name}"
    with nullcontext() if command.quiet else Status(title, console=Console(stderr=True)) as status:

        def keep(name: str, make: Callable[[], Arrays]) -> Arrays:
            if status is not None:
                status.update(f"{title}: {name}")
            return store.get(f"{command.name}-world", (name,), make)

        yield keep


def _hashes(words: Sequence[str]) -> dict[str, str]:
    paths = [Path(word) for word in words]
    files = [next(iter(sorted(path.glob("*.json"))), path) if path.is_dir() else path for path in paths]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}


def _numbers(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high
