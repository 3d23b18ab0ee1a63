"""`aligntax pipeline`: pretraining, SFT, reward model, policy optimisation, and what each of them gave and took.

In the small world everything is trained from nothing and every score is exact; with --model the stages after pretraining run on a
real checkpoint. Every stage leaves a plain Hugging Face folder, so that `aligntax survey` and `aligntax audit` read it too.
"""

import hashlib
import json
import shlex
import shutil
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from rich.console import Console

from .. import __version__
from ..data import read_preferences
from ..errors import AligntaxError
from ..lab.world import World
from ..probing import Meter
from ..report.pipeline_page import ends, pipeline_summary, render_pipeline
from ..results import plain, write_bytes, write_json
from ..results.pipeline import PIPELINE_SCHEMA, Pipeline, PipelineProvenance, StageRecord
from .ending import say_written
from .outputs import printable
from .pipeline_exam import real_exam, world_exam
from .pipeline_model import check_width, parameter_count
from .pipeline_real import RealSettings, run_real_stage
from .pipeline_sheet import Exam, Sheet, examine
from .pipeline_sizes import BEFORE, DEFAULT, PipelineSize, ordered_stages, size_named
from .pipeline_stages import Course, Settings, mark_of, run_stage
from .pipeline_table import stage_record
from .record import now, run_record, versions
from .trainers import require_trl

PACKAGES = ("torch", "transformers", "trl", "numpy")
NOT_SETTINGS = ("out", "stages", "overwrite", "quiet")


@dataclass(frozen=True)
class PipelineCommand:
    """Train stage by stage and measure each: writes pipeline.json, report.html and a model folder for every stage."""

    out: Path = Path("out/pipeline")
    """Folder: STAGE/model is the checkpoint of a stage, pipeline.json the record. Finished stages are kept and not repeated."""
    stages: str = ""
    """Comma-separated, of pretrain, sft, reward, rl, dpo. Default: pretrain,sft,reward,rl (without pretrain for --model)."""
    width: int = 64
    """Width of the small world's model (4 layers, 4 heads); a multiple of 8."""
    model: str = ""
    """Run the stages after pretraining on this checkpoint (Hub id, folder or embedded) instead of the small world."""
    size: Literal["demo", "quick", "full"] = "quick"
    """How much of everything: pretraining tokens, demonstrations, preferences, steps, items."""
    method: Literal["rloo", "grpo"] = "rloo"
    """Policy optimisation of the rl stage; clipped, with a KL penalty. The dpo stage is the alternative to both."""
    beta: float = 0.05
    """KL coefficient of the rl stage: reward given up for each nat away from the SFT policy."""
    adaptive_kl: float = 0.0
    """Rate at which beta follows the KL; 0: fixed."""
    group: int = 8
    """Completions of a prompt in the rl stage."""
    decided: int = 8
    """Number of the word that decides the harm of a reply in the small world, 1 to 20."""
    preferences: str = ""
    """Preference pairs in TRL's format (prompt, chosen, rejected) as JSON lines. Default: the policy's own replies, ranked."""
    safety: str = "harmlessness"
    """Requests for --model, as in `aligntax align`."""
    tasks: tuple[str, ...] = ()
    """Capability tasks for --model. Default: all built-in ones."""
    lora: bool = False
    """Train low-rank adapters instead of all weights (--model)."""
    seed: int = 0
    """Seed of everything that is drawn: world, weights, rows."""
    overwrite: bool = False
    """Begin anew in a folder that holds another run."""
    quiet: bool = False
    """No progress bars, nothing printed."""

    def execute(self) -> Pipeline:
        """Run what is missing, measure, write and return the record. Raises AligntaxError for input that cannot be used."""
        began = time.perf_counter()
        size = size_named(self.size)
        stages = self._check()
        self._prepare()
        exam = self._exam(size)
        records = []
        if self.model:
            records.append(self._measure("base", exam, Course()))
        for name in self._shown(stages):
            course = self._run(name, size) if name in stages else Course.read(mark_of(name, self.out))
            records.append(self._measure(name, exam, course))
        found = self._record(records, began)
        write_json(self.out / "pipeline.json", printable(plain(found)))
        write_bytes(self.out / "report.html", render_pipeline(found).encode())
        write_bytes(self.out / "run.yaml", run_record("pipeline", self))
        if not self.quiet:
            self._say(found)
        return found

    def _check(self) -> tuple[str, ...]:
        require_trl()
        wanted = tuple(word.strip() for word in self.stages.split(",")) if self.stages else DEFAULT[bool(self.model) :]
        finished = [] if self.overwrite else [name for name in BEFORE if self._finished(name)]
        stages = ordered_stages(wanted, finished, bool(self.model))
        if not self.model:
            check_width(self.width)
            World(self.seed, self.decided)
        if self.preferences:
            read_preferences(Path(self.preferences))
        if self.group < 2 or not self.beta >= 0 or (self.adaptive_kl > 0 and self.beta == 0):
            raise AligntaxError(
                f"--group {self.group} --beta {self.beta} --adaptive-kl {self.adaptive_kl}: "
                "a group has at least 2 completions, beta is at least 0, and above 0 where it adapts"
            )
        return stages

    def _finished(self, name: str) -> bool:
        return mark_of(name, self.out).exists()

    def _prepare(self) -> None:
        """Make the folder ready. Raises AligntaxError where it holds a run with other settings."""
        mark = self.out / "settings.json"
        mine = {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name not in NOT_SETTINGS}
        if mark.exists() and not self.overwrite:
            held = json.loads(mark.read_text())
            changed = sorted(name for name in mine if held.get(name) != json.loads(json.dumps(mine[name])))
            if changed:
                raise AligntaxError(
                    f"--out {self.out} holds a run with other {', '.join(changed)}; "
                    "use its settings, another folder, or --overwrite"
                )
        elif self.overwrite and mark.exists():
            for name in (*BEFORE, "base", "world", "texts"):
                shutil.rmtree(self.out / name, ignore_errors=True)
            (self.out / "preferences.jsonl").unlink(missing_ok=True)
        elif any(self.out.glob("*")):
            raise AligntaxError(f"--out {self.out} is not empty and holds no pipeline; give another folder")
        write_json(mark, mine)

    def _exam(self, size: PipelineSize) -> Exam:
        if self.model:
            return real_exam(size, self.tasks, self.safety, self.seed)
        return world_exam(World(self.seed, self.decided), size, self.out / "world", self.seed)

    def _shown(self, stages: tuple[str, ...]) -> list[str]:
        """The stages asked for and those that stand in the folder already, in their order."""
        return [name for name in BEFORE if name in stages or self._finished(name)]

    def _run(self, name: str, size: PipelineSize) -> Course:
        if not self.quiet and not self._finished(name):
            Console(stderr=True).print(f"stage {name}", highlight=False)
        if self.model:
            return run_real_stage(name, self._real(size), self.out)
        world = World(self.seed, self.decided)
        plan = Settings(
            world, self.width, size, self.seed, self.method, self.beta, self.adaptive_kl, self.group, self.preferences,
            quiet=self.quiet,
        )  # fmt: skip
        return run_stage(name, plan, self.out)

    def _real(self, size: PipelineSize) -> RealSettings:
        return RealSettings(
            self.model, size, self.seed, self.method, self.beta, self.adaptive_kl, self.group, self.safety,
            self.preferences, self.tasks, self.lora, quiet=self.quiet,
        )  # fmt: skip

    def _measure(self, name: str, exam: Exam, course: Course) -> StageRecord:
        if name == "reward":
            return stage_record(name, "base" if self.model else "sft", (None, None), course, self.seed)
        first = "base" if self.model else "pretrain"
        previous = None if name == first else first if name == "sft" else "sft"
        with Meter(True) as meter:
            sheets = [self._sheet(each, exam, meter) for each in (name, previous)]
        return stage_record(name, previous, (sheets[0], sheets[1]), course, self.seed)

    def _sheet(self, name: str | None, exam: Exam, meter: Meter) -> Sheet | None:
        if name is None:
            return None
        before = {"sft": "base" if self.model else "pretrain", "rl": "sft", "dpo": "sft"}.get(name)
        folders = [None if each is None else self._folder(each) for each in (name, before)]
        assert folders[0] is not None
        return examine(exam, folders[0], folders[1], self.out / name / "sheet.json", meter)

    def _folder(self, name: str) -> str:
        return self.model if name == "base" else str(self.out / name / "model")

    def _record(self, records: list[StageRecord], began: float) -> Pipeline:
        sizes = None if self.model else parameter_count(self.width)
        data = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted((self.out / "world").rglob("*.jsonl"))
        }
        words = [f"--{f.name.replace('_', '-')} {getattr(self, f.name)}" for f in fields(self)
                 if f.name not in ("out", "overwrite", "quiet") and getattr(self, f.name) != f.default]  # fmt: skip
        return Pipeline(
            schema_version=PIPELINE_SCHEMA, model=self.model or "world", size=self.size,
            width=None if self.model else self.width, parameters=sizes, decided=None if self.model else self.decided,
            stages=records, warnings=_warnings(records),
            provenance=PipelineProvenance(
                package_version=__version__, created=now(), command=shlex.join(["aligntax", "pipeline", *" ".join(words).split()]),
                seed=self.seed, data=data, versions=versions(PACKAGES), wall_seconds=time.perf_counter() - began,
            ),
        )  # fmt: skip

    def _say(self, found: Pipeline) -> None:
        console = Console()
        pipeline_summary(found, console)
        say_written(
            self.out / "report.html", self.out / "pipeline.json", following=self._following(found), console=console
        )

    def _following(self, found: Pipeline) -> tuple[object, ...]:
        """An audit of the last policy against the first."""
        policies = [stage for stage in found.stages if stage.policy]
        if len(policies) < 2:
            return ()
        first, last = (self._folder(stage.name) for stage in (policies[0], ends(found)[0]))
        world = self.out / "world"
        exam = (world / "safety-held.jsonl", "--tasks", world / "tasks" / "*.jsonl")
        return ("aligntax", "audit", first, last, "--safety", *((self.safety,) if self.model else exam))


def _warnings(records: list[StageRecord]) -> list[str]:
    """What a reader must know before relying on the table."""
    found = []
    for stage in records:
        accuracy = stage.facts.get("pair accuracy")
        if accuracy is not None and accuracy < 0.6:
            found.append(
                f"The reward model orders only {accuracy:.0%} of held-out pairs as they should be: little can be learnt from it."
            )
        empty = [s.name for s in stage.scores if s.n < 2]
        if empty:
            found.append(f"Stage {stage.name} has too few items for {', '.join(empty)}.")
    return found
