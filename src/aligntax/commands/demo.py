"""`aligntax demo`: survey, align and audit one after the other, and one page on which theory meets what happened."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.text import Text

from ..errors import AligntaxError, ResumeError
from ..report.loop_page import read_loop, render_loop, story
from ..results import write_bytes
from .align import AlignCommand
from .audit import AuditCommand
from .ending import say_written
from .record import run_record
from .survey import SurveyCommand
from .trainers import require_trl


@dataclass(frozen=True)
class DemoCommand:
    """The whole loop on MODEL: forecast the bill, train, see what was paid; writes OUT/report.html and a folder for each step.

    Each step is the ordinary command, and its folder holds the run.yaml that repeats it. A killed demo goes on where it stopped.
    """

    model: tyro.conf.Positional[str] = "smollm2-135m-instruct"
    """Hub id, folder, .gguf file, or an embedded model."""
    out: Path = Path("demo-out")
    """Folder for the page and the steps: survey/, align/, audit/."""
    size: Literal["demo", "quick", "full"] = "demo"
    """How much the survey and the audit read."""
    steps: int = 20
    """Optimizer steps of the training."""
    safety: str = "harmlessness"
    """Harmful and harmless prompts: a built-in name, or [NAME=]HARMFUL_FILE,HARMLESS_FILE."""
    tasks: tuple[str, ...] = ()
    """Capability tasks. Default: all built-in ones."""
    groups: int = 8
    """Groups of items behind every interval of the survey."""
    device: str = "auto"
    """Device; auto takes CUDA where there is one."""
    seed: int = 0
    """Seed of everything that is drawn."""
    plan: bool = False
    """Print the plans of all three steps, and start nothing."""
    quiet: bool = False
    """No progress bars and no summaries."""

    def execute(self) -> None:
        """Run what is not there yet and write the page. Raises AligntaxError for input that cannot be used."""
        if self.steps < 1:
            raise AligntaxError(f"--steps {self.steps}: training needs at least one step")
        require_trl()
        console = Console(quiet=self.quiet)
        plan = self.commands()
        if self.plan:
            plan["audit"] = replace(plan["audit"], aligned=self.model, survey="")  # as long as if nothing were learnt
            for command in plan.values():
                replace(command, plan=True).execute()
            return
        for number, (name, command) in enumerate(plan.items(), 1):
            done = finished(name, command)
            what = "done before, kept" if done else WHAT[name]
            console.print(Text(f"[{number}/{len(plan)}] {name}: {what}", "bold"))
            if not done:
                self._go(command)
        loop = read_loop(self.out)
        write_bytes(self.out / "report.html", render_loop(*loop).encode())
        for paragraph in story(*loop):
            console.print(Text(paragraph))
        say_written(
            self.out / "report.html", following=("aligntax", "survey", "YOUR-MODEL", "--size", "quick"), console=console
        )

    def _go(self, command: Any) -> None:
        try:
            command.execute()
        except ResumeError as error:
            raise AligntaxError(
                f"--out {self.out} holds a demo with other {', '.join(error.changed)}; give another --out, or delete it"
            ) from error

    def commands(self) -> dict[str, Any]:
        """The three commands, in order."""
        objectives = () if self.safety == "harmlessness" else (self.safety,)  # (): all built-in ones, this one first
        survey = SurveyCommand(
            self.model, out=self.out / "survey", size=self.size, safety=objectives, tasks=self.tasks, groups=self.groups,
            device=self.device, seed=self.seed, quiet=self.quiet,
        )  # fmt: skip
        align = AlignCommand(
            self.model, out=self.out / "align", protect="kl", depth="recovery", safety=self.safety, tasks=self.tasks,
            steps=self.steps, lora=True, lora_rank=16, learning_rate=5e-4, batches="matched", anchor_share=0.6,
            alarming_share=0.5, completion_tokens=24, device=self.device, seed=self.seed, resume=True, quiet=self.quiet,
        )  # fmt: skip
        audit = AuditCommand(
            self.model, str(align.out / "model"), survey=str(survey.out), out=self.out / "audit", size=self.size,
            safety=self.safety, tasks=self.tasks, device=self.device, seed=self.seed, quiet=self.quiet,
        )  # fmt: skip
        return {"survey": survey, "align": align, "audit": audit}


WHAT = {
    "survey": "what will safety cost this model? Nothing is trained yet",
    "align": "supervised refusals, KL held to the model as it was, recovery from harmful beginnings",
    "audit": "what was really paid, how many tokens deep does it go, did the forecast hold?",
}


def finished(name: str, command: Any) -> bool:
    """Does the folder hold the result of this very command?"""
    record = command.out / "run.yaml"
    return (
        (command.out / f"{name}.json").is_file()
        and record.is_file()
        and record.read_bytes() == run_record(name, command)
    )
