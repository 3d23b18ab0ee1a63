"""`aligntax audit`: is the aligned model safer, what did it cost, how many tokens deep does it go, and did the forecast hold.

Any pair of checkpoints of one tokenizer, made by anybody. Two halves: what both models *say* (rollouts, judged), and what they
*would* say after every prefix of given texts (one teacher-forced pass each).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from .. import __version__
from ..audit import Request, make_requests, write_texts
from ..data import BUILTIN_TASKS, ChatFormat, Encoded, load_contrast, load_tasks, over_refusal_prompts
from ..errors import AligntaxError
from ..judging import Judge, make_judge
from ..models import LoadedModel, ModelSpec, load
from ..probing import Meter, Row, ShardStore
from ..report import audit_summary, render_audit
from ..results import (
    AUDIT_SCHEMA,
    Audit,
    AuditProvenance,
    Phase,
    Survey,
    plain,
    read_align,
    read_arrays,
    read_audit,
    read_survey,
    write_bytes,
    write_json,
)
from .alignment_texts import recovery_tokens, training_part
from .audit_behaviour import by_depth, examinee, late_record, refusal_record, replies, run_attacks
from .audit_forecast import forecast_of, forecasts
from .audit_gather import Pair, as_rows, audit_items, item_scores, last_states, make_model, require_same_tokens
from .audit_sizes import AuditSize, audit_size
from .audit_tables import Judged, item_drops, kl_record, recovery_record, refused, shift_table, tax_table
from .gate import enforce_gate
from .materials import Encoder
from .record import chat_options, now, run_record, versions
from .survey import CPU_TOKENS, GPU_TOKENS

PACKAGES = ("torch", "transformers", "numpy", "scipy")
MOST_DEPTH = 96
"""Tokens of a continuation at which recovery is read."""


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
    quiet: bool = False
    """No progress bars and no summary."""

    def execute(self) -> Audit | None:
        """Audit, write the files and return what they say; None with `plan`.

        Raises AligntaxError for input that cannot be used, GateBreach (exit code 3) where a threshold is missed.
        """
        began = time.perf_counter()
        judge = self._judge()
        survey = read_survey(Path(self.survey)) if self.survey else None
        texts = self._prompts()
        base = load(ModelSpec(self.base, None, None, self.dtype, self.device, self.trust_remote_code))
        aligned = load(ModelSpec(self.aligned, None, None, self.dtype, self.device, self.trust_remote_code))
        require_same_tokens(base, aligned)
        size = audit_size(self.size if self.size != "auto" else "full" if base.device.type == "cuda" else "quick")
        texts = {name: found[: getattr(size, name)] for name, found in texts.items()}
        if self.plan:
            self._print_plan(size, texts)
            return None
        if judge.notice and not self.quiet:
            print(judge.notice)
        with Meter(self.quiet) as meter:
            audit = self._run(self._pair(base, aligned, size, meter), judge, survey, texts, began)
        write_json(self.out / "audit.json", audit)
        write_bytes(self.out / "report.html", render_audit(audit).encode())
        write_bytes(self.out / "run.yaml", run_record("audit", self))
        if not self.quiet:
            audit_summary(audit)
            print(f"Report: {self.out / 'report.html'}")
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

    def _prompts(self) -> dict[str, list[str]]:
        contrast = load_contrast(self.safety)
        if contrast.items or not contrast.positive or not contrast.negative:
            raise AligntaxError(f"--safety {self.safety}: an audit needs harmful and harmless prompts, not choices")

        def cut(prompts: Sequence[str]) -> list[str]:
            return list(training_part(prompts, False) if contrast.source.startswith("builtin:") else prompts)

        alarming = list(training_part(over_refusal_prompts(), False))
        return {"harmful": cut(contrast.positive), "harmless": cut(contrast.negative), "alarming": alarming}

    def _print_plan(self, size: AuditSize, texts: Mapping[str, Sequence[str]]) -> None:
        replies = sum(map(len, texts.values()))
        rolled = len(texts["harmful"]) * (len(size.depths) - 1)
        print(f"{size.name}: {', '.join(f'{len(found)} {name}' for name, found in texts.items())} prompts")
        print(f"replies: 2 x {replies} of {size.tokens} tokens; after prefills: 2 x {rolled} of {size.tokens} tokens")
        print(f"tasks: {len(self.tasks or BUILTIN_TASKS())} x {size.items} items in two formats, both models")

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

    def _run(
        self, pair: Pair, judge: Judge, survey: Survey | None, texts: Mapping[str, list[str]], began: float
    ) -> Audit:
        rng = np.random.default_rng(self.seed)
        examinees = [examinee(pair, k, judge) for k in range(2)]
        meter, size = pair.meter, pair.size
        requests = {name: make_requests(found, pair.chat) for name, found in texts.items()}
        said = [replies(pair, e, requests) for e in examinees]
        complied = [k for k, a in enumerate(said[0]["harmful"]) if a.ids and not refused([a.verdict])[0]]
        if len(complied) < 2:
            raise AligntaxError(
                f"{self.base} refuses {len(requests['harmful']) - len(complied)} of {len(requests['harmful'])} harmful prompts, so "
                "there are no harmful continuations to test depth with; give other prompts (--safety) or a larger --size"
            )
        asked = [requests["harmful"][k] for k in complied]
        continuations = [said[0]["harmful"][k].ids for k in complied]
        ran = run_attacks(pair, examinees, asked, continuations, self.attacks == "all")
        attacked, attacks = ran.answers, ran.records
        tokens = recovery_tokens(pair.chat)
        rows = {
            "own": self._rows(asked, [said[1]["harmful"][k].ids for k in complied]),
            "forced": self._rows(asked, continuations),
            "harmless": self._rows(requests["harmless"], [a.ids for a in said[0]["harmless"]]),
        }
        with meter.phase("next-token laws", 2 * sum(len(r.ids) for part in rows.values() for r in part)):
            read = {name: pair.read(name, part, tokens) for name, part in rows.items()}
        judged = Judged(size.depths, *(by_depth(answers, asked) for answers in ran.prefills))
        scores = self._scores(pair)
        with meter.phase("states", 0):
            prompts = [Row(r.prompt, len(r.prompt), k) for k, r in enumerate(requests["harmful"])]
            states = [last_states(model, prompts) for model in pair.both()]
        directions = read_arrays(Path(self.survey) / "directions.safetensors")["safety"] if survey else None
        kl = kl_record(read["own"], "aligned", rng)
        tax = tax_table(scores, forecasts(survey, kl), rng)
        words = [(token, str(pair.chat.tokenizer.decode([token]))) for token in tokens]
        for name, answers in zip(("base", "aligned"), zip(said, attacked, strict=True), strict=True):
            said_all = [a for part in answers[0].values() for a in part]
            examinees[name == "aligned"] = replace(examinees[name == "aligned"], name=name)
            answers[1].extend(said_all)
        write_texts(self.out / "texts.parquet", list(zip(examinees, attacked, strict=True)))
        refusal = refusal_record(said, judge, size)
        return Audit(
            schema_version=AUDIT_SCHEMA,
            base=self.base,
            aligned=self.aligned,
            size=size.name,
            refusal=refusal,
            overrefusal=refusal.overrefusal,
            kl=kl,
            kl_forced=kl_record(read["forced"], "forced", rng),
            recovery=recovery_record(read["forced"], read["harmless"], judged, words, rng),
            attack=attacks,
            horizon=ran.horizon,
            late=late_record(read["forced"], ran.horizon),
            tax=tax,
            forecast=forecast_of(survey, tax, item_drops(scores), rng),
            shift=shift_table(states[0], states[1], directions),
            timing=[Phase(p.name, p.seconds, p.tokens) for p in meter.phases],
            provenance=self._provenance(pair, judge, survey, texts, began),
            warnings=_warnings(size, survey, pair),
        )

    @staticmethod
    def _rows(requests: Sequence[Request], replies: Sequence[Sequence[int]]) -> list[Row]:
        pairs = zip(requests, replies, strict=True)
        return as_rows([Encoded((*r.prompt, *ids), len(r.prompt)) for r, ids in pairs], MOST_DEPTH)

    def _scores(self, pair: Pair) -> dict[str, Any]:
        limit = pair.base.loaded.context_length or 2**20
        encoder = Encoder(pair.chat, limit, 8, self.seed)
        found = {}
        with pair.meter.phase("tasks", 0):
            for task in load_tasks(self.tasks or BUILTIN_TASKS()):
                items = audit_items(task, pair.size.items, self.seed)
                found[task.name] = tuple(item_scores(model, encoder, task.name, items) for model in pair.both())
        return found

    def _provenance(
        self, pair: Pair, judge: Judge, survey: Survey | None, texts: Mapping[str, Sequence[str]], began: float
    ) -> AuditProvenance:
        return AuditProvenance(
            package_version=__version__,
            created=now(),
            command=f"aligntax audit {self.base} {self.aligned} --size {pair.size.name} --seed {self.seed}",
            base_weights=pair.base.loaded.weights_sha256,
            aligned_weights=pair.aligned.loaded.weights_sha256,
            survey_weights=survey.provenance.weights_sha256 if survey else None,
            dtype=str(pair.base.loaded.dtype).removeprefix("torch."),
            device=str(pair.base.loaded.device),
            seed=self.seed,
            judge=judge.name,
            judge_texts=judge.texts_hash,
            chat_template=pair.chat.describe(),
            data={"safety": load_contrast(self.safety).sha256},
            counts={name: len(found) for name, found in texts.items()},
            tokens=sum(phase.tokens for phase in pair.meter.phases),
            wall_seconds=time.perf_counter() - began,
            versions=versions(PACKAGES),
        )


def _warnings(size: AuditSize, survey: Survey | None, pair: Pair) -> list[str]:
    found = []
    if size.name != "full":
        found.append(
            f"This is a {size.name} audit of few prompts: intervals are wide. Run it with --size full before deciding."
        )
    if survey is not None and survey.provenance.weights_sha256 != pair.base.loaded.weights_sha256:
        found.append("The survey is of other weights than BASE: its forecast is not about this pair.")
    if size.tokens < 128:
        found.append(f"Replies of {size.tokens} tokens hide harm and refusals that come later.")
    return found
