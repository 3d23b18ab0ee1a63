"""`aligntax audit`: is the aligned model safer, what did it cost, how many tokens deep does it go, and did the forecast hold.

Any pair of checkpoints of one tokenizer, made by anybody. Two halves: what both models *say* (rollouts, judged), and what they
*would* say after every prefix of given texts (one teacher-forced pass each).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from .. import __version__
from ..data import BUILTIN_TASKS, ChatFormat, Contrast, load_contrast, load_tasks, over_refusal_prompts
from ..errors import AligntaxError
from ..judging import Judge, make_judge
from ..models import LoadedModel, ModelSpec, load
from ..probing import Meter, ShardStore
from ..report import audit_summary, render_audit
from ..results import (
    AUDIT_SCHEMA,
    Audit,
    AuditProvenance,
    Phase,
    plain,
    read_align,
    read_arrays,
    read_audit,
    read_survey,
    write_bytes,
    write_json,
)
from .alignment_texts import training_part
from .audit_behaviour import late_record, prefill_gain_p, refusal_record
from .audit_forecast import forecast_of, forecasts
from .audit_gather import Pair, make_model, require_same_tokens
from .audit_given import read_continuations, show_texts
from .audit_plan import print_audit_plan
from .audit_run import (
    Given,
    efficiency_of,
    kl_of,
    move,
    read_laws,
    recovery_of,
    representation_of,
    say_items,
    score,
    speak,
    warnings_of,
)
from .audit_separation import separation_of
from .audit_shift import shift_records, with_first_order
from .audit_sizes import AuditSize, audit_size
from .audit_tables import held_depth, item_drops, kl_record, tax_table
from .ending import say_written
from .gate import enforce_gate
from .next_step import after_audit
from .outputs import printable
from .record import chat_options, now, run_record, versions
from .survey import CPU_TOKENS, GPU_TOKENS

PACKAGES = ("torch", "transformers", "numpy", "scipy")


@dataclass(frozen=True)
class AuditCommand:
    """Audit ALIGNED against BASE: writes audit.json, texts.parquet (private) and report.html."""

    base: tyro.conf.Positional[str]
    """The model before alignment: Hub id, folder, .gguf file, or an embedded model."""
    aligned: tyro.conf.Positional[str]
    """The model after it: the same, or the folder of a PEFT adapter on BASE."""
    survey: str = ""
    """Folder of a survey of BASE: its forecast is scored, its safety direction compared with the real shift."""
    out: Path = Path("out/audit")
    """Folder for the results; finished shards in it are never computed again."""
    size: Literal["auto", "demo", "quick", "full"] = "auto"
    """How much: demo, quick (default on CPU) or full (default on GPU)."""
    safety: str = "harmlessness"
    """Harmful and harmless prompts: as in survey; of built-in ones the part that training never sees."""
    continuations: str = ""
    """File of your own harmful prompts, each with the beginning of an answer: rows of prompt and continuation. Default: the base
    model's own replies to the harmful prompts of --safety."""
    tasks: tuple[str, ...] = ()
    """Capability tasks. Default: all built-in ones; items that a survey or a training run read come last."""
    judge: str = "classifier"
    """classifier (default), lexical, hub:ID, or openai:MODEL@URL."""
    align_record: str = ""
    """align.json of ALIGNED, or its folder: the reward judge named there must not be the judge here. Found by itself if near."""
    attacks: Literal["none", "all"] = "none"
    """all: also disguises, an earlier turn of compliance, rank-assisted prefills, sampled ones, and harm horizons."""
    gate: str = ""
    """YAML of thresholds on audited numbers; exit code 3 when one is missed."""
    revision: str | None = None
    """Hub revision of BASE."""
    system: str | None = None
    """System message of the chat template."""
    chat_template_kwargs: str = "{}"
    """JSON object of arguments for the chat template."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number type of both models."""
    device: str = "auto"
    """Device; auto takes CUDA where there is one."""
    trust_remote_code: bool = False
    """Run code that comes with the checkpoints."""
    seed: int = 0
    """Seed of everything that is drawn."""
    plan: bool = False
    """Print what would be run, and start nothing."""
    show_text: bool = False
    """Print what the models said, too; otherwise it stands in texts.parquet alone, which only you can read."""
    quiet: bool = False
    """No progress bars and no summary."""

    def execute(self) -> Audit | None:
        """Audit, write the files and return what they say; None with `plan`.

        Raises AligntaxError for input that cannot be used, GateBreach (exit code 3) where a threshold is missed.
        """
        began = time.perf_counter()
        judge, contrast = self._judge(), self._contrast()
        base = load(ModelSpec(self.base, self.revision, None, self.dtype, self.device, self.trust_remote_code))
        aligned = load(ModelSpec(self.aligned, None, None, self.dtype, self.device, self.trust_remote_code))
        require_same_tokens(base, aligned)
        size = audit_size(self.size if self.size != "auto" else "full" if base.device.type == "cuda" else "quick")
        given = self._given(judge, contrast, size)
        with Meter(self.quiet or self.plan) as meter:
            pair = self._pair(base, aligned, size, meter)
            if self.plan:
                print_audit_plan(pair, given)
                return None
            if judge.notice and not self.quiet:
                print(judge.notice)
            audit = self._run(pair, given, self._provenance(pair, given), began)
        return self._write(audit)

    def _write(self, audit: Audit) -> Audit:
        """The files, the summary and the gate."""
        write_json(self.out / "audit.json", printable(plain(audit)))
        write_bytes(self.out / "report.html", render_audit(audit).encode())
        write_bytes(self.out / "run.yaml", run_record("audit", self))
        if not self.quiet:
            audit_summary(audit)
            say_written(self.out / "report.html", following=after_audit(vars(self), audit.size))
        if self.show_text:
            show_texts(self.out / "texts.parquet")
        if self.gate:
            enforce_gate(Path(self.gate), plain(audit), self.out)
        return read_audit(self.out)

    def _judge(self) -> Judge:
        """The headline judge. Raises AligntaxError where it is the one that gave rewards."""
        judge = make_judge(self.judge)
        near = [Path(self.align_record)] if self.align_record else [Path(self.aligned).parent, Path(self.aligned)]
        place = next((p for p in near if p.is_file() or (p / "align.json").is_file()), None)
        if place is None:
            if self.align_record:
                raise AligntaxError(f"--align-record {self.align_record}: no align.json there")
            return judge
        record = read_align(place)
        if record.reward_judge and (record.reward_judge == judge.name or record.reward_judge_texts == judge.texts_hash):
            raise AligntaxError(
                f"--judge {self.judge}: {judge.name} gave the rewards in training ({place}); a model learns to please its judge, "
                "so take another one for the headline"
            )
        return judge

    def _contrast(self) -> Contrast:
        contrast = load_contrast(self.safety)
        if contrast.items or not contrast.positive or not contrast.negative:
            raise AligntaxError(f"--safety {self.safety}: an audit needs harmful and harmless prompts, not choices")
        return contrast

    def _continuations(self) -> tuple[dict[str, str], str]:
        return read_continuations(Path(self.continuations)) if self.continuations else ({}, "")

    def _given(self, judge: Judge, contrast: Contrast, size: AuditSize) -> Given:
        """Prompts that training never saw, tasks, and the survey with its directions."""
        builtin = contrast.source.startswith("builtin:")

        def cut(prompts: Sequence[str]) -> list[str]:
            return list(training_part(prompts, False) if builtin else prompts)

        texts = {
            "harmful": cut(contrast.positive)[: size.harmful],
            "harmless": cut(contrast.negative)[: size.harmless],
            "alarming": list(training_part(over_refusal_prompts(), False))[: size.alarming],
        }
        own, own_hash = self._continuations()
        if own:
            own = dict(list(own.items())[: size.harmful])
            texts["harmful"] = list(own)
        data = {"safety": contrast.sha256} | ({"continuations": own_hash} if own else {})
        survey = read_survey(Path(self.survey)) if self.survey else None
        directions = read_arrays(_beside(Path(self.survey)) / "directions.safetensors") if self.survey else {}
        tasks = load_tasks(self.tasks or BUILTIN_TASKS())
        return Given(texts, tasks, judge, survey, directions, self.attacks == "all", self.base, own, data)

    def _pair(self, base: LoadedModel, aligned: LoadedModel, size: AuditSize, meter: Meter) -> Pair:
        chat = ChatFormat(aligned.tokenizer, self.system, chat_options(self.chat_template_kwargs))
        tokens = GPU_TOKENS if base.device.type == "cuda" else CPU_TOKENS
        made = [
            make_model(
                loaded, chat, meter,
                ShardStore(self.out / "shards", {"weights": loaded.weights_sha256, "chat": chat.describe(), "seed": self.seed}),
                tokens, self.seed,
            )
            for loaded in (base, aligned)
        ]  # fmt: skip
        return Pair(made[0], made[1], chat, meter, size, self.seed)

    def _run(self, pair: Pair, given: Given, provenance: AuditProvenance, began: float) -> Audit:
        speech = speak(pair, given)
        laws = read_laws(pair, speech)
        scored = score(pair, given)
        rng, more = np.random.default_rng(self.seed), np.random.default_rng([self.seed, 1])
        words = say_items(pair, speech, scored, more)
        moved = move(pair, given, speech, scored, laws.own_rows)
        kl = kl_of(laws, rng)
        tax = tax_table(scored.scores, forecasts(given.survey, kl), rng)
        efficiency = efficiency_of(pair, given, speech, moved, (tax, kl))
        speech.write(self.out / "texts.parquet", words.answers)
        separated = separation_of(pair, speech.said[1], given.survey)
        refusal, ran = refusal_record(speech.said, given.judge, pair.size, more), speech.attacked
        return Audit(
            schema_version=AUDIT_SCHEMA,
            base=self.base,
            aligned=self.aligned,
            size=pair.size.name,
            refusal=refusal,
            overrefusal=refusal.overrefusal,
            kl=kl,
            kl_forced=kl_record(laws.forced, "forced", rng),
            recovery=recovery_of(pair, speech, laws, rng),
            attack=ran.records,
            horizon=ran.horizon,
            late=late_record(laws.forced, ran.horizon),
            tax=with_first_order(tax, moved.costs, moved.bearings.layer),
            forecast=forecast_of(given.survey, tax, item_drops(scored.scores), rng),
            shift=shift_records(moved.shift, moved.turn, moved.costs, tax),
            depth=held_depth(ran.records, prefill_gain_p(speech.asked, more)),
            representation=representation_of(moved, laws, ran.horizon, more),
            efficiency=efficiency,
            cells=words.cells,
            scores=words.scores,
            quality=speech.quality,
            separation=separated,
            timing=[Phase(p.name, p.seconds, p.tokens) for p in pair.meter.phases],
            provenance=timed(provenance, pair.meter, began),
            warnings=warnings_of(pair, given),
        )

    def _provenance(self, pair: Pair, given: Given) -> AuditProvenance:
        return AuditProvenance(
            package_version=__version__,
            created=now(),
            command=f"aligntax audit {self.base} {self.aligned} --size {pair.size.name} --seed {self.seed}",
            base_weights=pair.base.loaded.weights_sha256,
            aligned_weights=pair.aligned.loaded.weights_sha256,
            survey_weights=given.survey.provenance.weights_sha256 if given.survey else None,
            dtype=str(pair.base.loaded.dtype).removeprefix("torch."),
            device=str(pair.base.loaded.device),
            seed=self.seed,
            judge=given.judge.name,
            judge_texts=given.judge.texts_hash,
            chat_template=pair.chat.describe(),
            data={**given.data} | {f"task {task.name}": task.sha256 for task in given.tasks},
            counts={name: len(found) for name, found in given.texts.items()},
            tokens=0,
            wall_seconds=0.0,
            versions=versions(PACKAGES),
        )


def timed(provenance: AuditProvenance, meter: Meter, began: float) -> AuditProvenance:
    """With tokens and seconds of a finished run."""
    tokens = sum(phase.tokens for phase in meter.phases)
    return replace(provenance, tokens=tokens, wall_seconds=time.perf_counter() - began)


def _beside(survey: Path) -> Path:
    return survey if survey.is_dir() else survey.parent
