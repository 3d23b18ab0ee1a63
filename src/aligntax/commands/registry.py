"""Which commands there are: where each one lives, what it is for in a few words, and examples to begin with.

The command line, its help, the first screen, shell completion and the documentation all read this table. Modules are named and not
imported: a model library takes seconds to load, and help needs none.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

MODEL = "smollm2-135m-instruct"
"""The embedded model, which every first example uses."""


@dataclass(frozen=True)
class Entry:
    """A command: `module:Class` in this room, one line on what it is for, and examples to type, the plainest first."""

    home: str
    gist: str
    examples: tuple[str, ...]

    @property
    def module(self) -> str:
        """Name of the module in this room."""
        return self.home.partition(":")[0]

    @property
    def kind(self) -> str:
        """Name of the dataclass."""
        return self.home.partition(":")[2]

    def load(self) -> Any:
        """The dataclass itself; imports what it needs."""
        return getattr(importlib.import_module(f"{__package__}.{self.module}"), self.kind)


_COMMANDS = {
    "survey": Entry(
        "survey:SurveyCommand",
        "before training: what will safety cost, which capabilities pay, how much is free",
        (
            f"aligntax survey {MODEL} --size demo",
            "aligntax survey ./my-checkpoint --safety harmful.jsonl,harmless.jsonl --tasks mine.jsonl arithmetic",
            f"aligntax survey {MODEL} --plan",
        ),
    ),
    "align": Entry(
        "align:AlignCommand",
        "train so that little is paid and the alignment goes past the first tokens",
        (
            f"aligntax align {MODEL} --protect kl --depth recovery --batches matched",
            "aligntax align ./my-checkpoint --method dpo --preferences pairs.jsonl --lora --out out/dpo",
            "aligntax align ./my-checkpoint --method grpo --protect kl --resume",
        ),
    ),
    "merge": Entry(
        "merge:MergeCommand",
        "average two checkpoints, uniformly or layer by layer",
        (
            f"aligntax merge {MODEL} out/align/model --aligned-fraction 0.5",
            f"aligntax merge {MODEL} out/align/model --scheme per-layer --survey out/survey",
            f"aligntax merge {MODEL} out/align/model --points 5 --capability-floor -0.05",
        ),
    ),
    "audit": Entry(
        "audit:AuditCommand",
        "after training: what was paid, how many tokens deep, did the forecast hold",
        (
            f"aligntax audit {MODEL} out/align/model --survey out/survey",
            f"aligntax audit {MODEL} out/align/model --gate gate.yaml --quiet",
        ),
    ),
    "tax": Entry(
        "tax:TaxCommand",
        "the observed tax out of evaluation logs, paired by item",
        (
            "aligntax tax before.csv after.csv",
            "aligntax tax base=logs/base sft=logs/sft rl=logs/rl --metric acc_norm acc",
        ),
    ),
    "scale": Entry(
        "scale:ScaleCommand",
        "over a family of models: which taxes vanish with width, which stay",
        (
            "aligntax scale out/w32 out/w64 out/w128 out/w256",
            "aligntax scale small=out/160m mid=out/410m big=out/1b huge=out/2.8b --depth 0.6",
        ),
    ),
    "pipeline": Entry(
        "pipeline:PipelineCommand",
        "every stage from pretraining to policy optimisation, small and exact: what each gave and took",
        (
            "aligntax pipeline --size demo",
            "aligntax pipeline --width 96 --method grpo --stages pretrain,sft,reward,rl,dpo",
            f"aligntax pipeline --model {MODEL} --lora",
        ),
    ),
    "demo": Entry(
        "demo:DemoCommand",
        "the whole loop at once, small, on the embedded model, with one page at the end",
        ("aligntax demo", "aligntax demo ./my-checkpoint --out out/loop --size quick --steps 60"),
    ),
    "report": Entry(
        "report:ReportCommand",
        "render result files again, without any model",
        ("aligntax report out/survey out/audit", "aligntax report demo-out"),
    ),
    "models": Entry(
        "models:ModelsCommand",
        "list the embedded models, or fetch one",
        ("aligntax models list", f"aligntax models fetch {MODEL}"),
    ),
    "predict": Entry(
        "predict:PredictCommand",
        "score a prediction of the theory against what happened, beside baselines",
        (
            "aligntax predict P5",
            "aligntax predict P1 --plan",
            f"aligntax predict P1 --model {MODEL} --aligned out/recipes/sft-0/model out/recipes/dpo-0/model",
        ),
    ),
    "theory": Entry(
        "theory:TheoryCommand",
        "every formula against an independent oracle",
        ("aligntax theory", "aligntax theory --section 3 --section 4 --json out/theory.json"),
    ),
}

COMMANDS: Mapping[str, Entry] = MappingProxyType(_COMMANDS)
