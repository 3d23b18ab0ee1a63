"""`aligntax align`: train a model to be safe, so that little is paid and the alignment goes deep.

The command composes rooms: the model speaks first (anchors, its own compliance), then what must not change is gathered, then a
TRL trainer runs with the protections as callbacks. All that varies between recipes is which callbacks it is given.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

import torch
import tyro
from transformers import PreTrainedModel

from ..data import BUILTIN_TASKS, ChatFormat, Encoded, choose_distractors, encode_item, load_tasks
from ..errors import AligntaxError
from ..judging.classifier import reward_judge
from ..judging.verdict import Judge
from ..models import LoadedModel, ModelSpec, load
from ..probing import Meter, Probe, ShardStore, TokenBudget
from ..results import Align
from ..training import (
    AdaptiveKL,
    LossTerm,
    RecoveryObjective,
    RecoveryRows,
    RecoverySettings,
    ScoredItem,
    StopOnNonFinite,
    TaxCallback,
    freeze_head,
)
from . import alignment_output as output
from .alignment_rows import Rows, training_rows
from .alignment_texts import Speaker, capability_rows, load_requests, recoveries, recovery_tokens
from .materials import by_hash
from .protections import Protected, Settings, build, input_subspaces, parse_protections, survey_subspace
from .survey import CPU_TOKENS, GPU_TOKENS
from .trainers import METHODS, Recipe, configuration, make_trainer, read_config, require_trl

# Found on the embedded model: full weights move well at 1e-5, adapters need twenty times that.
RATES = {"full": 1e-5, "lora": 2e-4}


@dataclass(frozen=True)
class AlignCommand:
    """Align MODEL: writes a plain Hugging Face folder, and align.json, which says how it came about."""

    model: tyro.conf.Positional[str]
    """Hub id, folder, folder of a PEFT adapter, .gguf file, or smollm2-135m-instruct (embedded)."""
    out: Path = Path("out/align")
    """Folder: model/ is the checkpoint, align.json the record, state/ what a killed run resumes from."""
    method: Literal["sft", "dpo", "reward", "rloo", "grpo"] = "sft"
    """Supervised refusals (sft), preferences (dpo), a reward model (reward), or policy optimisation (rloo, grpo)."""
    protect: str = ""
    """What to hold, comma-separated: nullspace, gradient, directions (needs --survey), kl, replay."""
    depth: Literal["none", "recovery", "augmentation"] = "none"
    """Carry alignment past the first tokens: the recovery objective, or refusals after harmful beginnings."""
    goal: Literal["safety", "capability"] = "safety"
    """safety: learn to refuse, hold capabilities. capability: learn --tasks, hold the refusals (--protect safety)."""
    safety: str = "harmlessness"
    """Requests: [NAME=]FILE, [NAME=]HARMFUL_FILE,HARMLESS_FILE, or a built-in name (its training part)."""
    preferences: str = ""
    """Preference pairs in TRL's format (prompt, chosen, rejected) as JSON lines; default: refusal over own compliance."""
    tasks: tuple[str, ...] = ()
    """Capability tasks to protect (or to learn, with --goal capability). Default: all built-in ones."""
    survey: str = ""
    """Folder of a survey of this model, for --protect directions."""
    steps: int = 60
    """Optimizer steps."""
    batch: int = 8
    """Rows a step and process; half of them refusals."""
    learning_rate: float = 0.0
    """0: 1e-5 for full weights, 2e-4 for adapters."""
    lora: bool = False
    """Train a low-rank adapter on all linear layers, merged into the released folder."""
    lora_rank: int = 8
    """Rank of the adapter."""
    energy: float = 0.99
    """Share of the energy of protected inputs that the null space leaves alone."""
    kl_weight: float = 1.0
    """Weight of the reference KL in nats per token (--protect kl)."""
    directions_weight: float = 10.0
    """Weight of the penalty on capability directions (--protect directions)."""
    mu: float = 1.0
    """Recovery penalty in nats at depth 0."""
    gamma: float = 1.0
    """Discount of the penalty by token of depth, in (0, 1]."""
    recovery_form: Literal["linear", "log"] = "log"
    """Penalty 1 - p, whose signal vanishes where p is small, or -log p."""
    recover: str = ""
    """Wanted recovery DELTA@DEPTH, such as 0.5@20: sets --mu from the base model's mass (theory 5.5)."""
    beta: float = 0.1
    """KL coefficient of dpo, rloo and grpo."""
    adaptive_kl: float = 0.0
    """Rate at which beta follows the KL (rloo, grpo); 0: fixed."""
    reward_model: str = ""
    """Folder of a reward model (rloo, grpo); default: the built-in reward judge."""
    completion_tokens: int = 48
    """Length of the model's own texts: anchors, completions of policy optimisation."""
    group: int = 8
    """Completions a prompt (rloo, grpo)."""
    protect_items: int = 12
    """Items of each task that protections read."""
    tax_every: int = 0
    """Steps between measurements of the tax on other items; 0: never."""
    texts: str = ""
    """Private folder for the model's own texts, to share between runs. Default: under state/."""
    save_every: int = 20
    """Steps between saved states."""
    save_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number type of the released weights; float32 keeps small updates whole."""
    config: str = ""
    """YAML with fields of TRL's configuration, which win over the above."""
    system: str | None = None
    """System message of the chat template."""
    chat_template_kwargs: str = "{}"
    """JSON object of arguments for the chat template."""
    revision: str | None = None
    """Hub revision."""
    adapter: str | None = None
    """PEFT adapter to put on the model first."""
    device: str = "auto"
    """Device; auto takes CUDA where there is one."""
    trust_remote_code: bool = False
    """Run code that comes with the checkpoint."""
    seed: int = 0
    """Seed of everything that is drawn."""
    resume: bool = False
    """Go on from state/ of a run with the same settings."""
    overwrite: bool = False
    """Begin anew in a folder that holds another run."""
    quiet: bool = False
    """No progress bars."""

    def execute(self) -> Align:
        """Train, write the folder and return its record. Raises AligntaxError for input that cannot be used."""
        began = time.perf_counter()
        names = self._check()
        place = output.Folder(self.out, output.settings_of(self))
        place.prepare(self.resume, self.overwrite)
        loaded = load(
            ModelSpec(self.model, self.revision, self.adapter, "float32", self.device, self.trust_remote_code)
        )
        chat = ChatFormat(loaded.tokenizer, self.system, self._template_kwargs())
        with Meter(self.quiet) as meter:
            texts = self._gather(loaded, chat, meter, names)
        model = self._trainable(loaded)
        protected = build(
            names, model, (texts.subspaces, texts.protected, texts.moved, texts.directions), self._settings()
        )
        trainer, judge = self._trainer(model, loaded, chat, texts, protected, place)
        seconds = output.train(trainer, place, self.resume)
        record = output.Finished(self, loaded, chat, texts, protected, judge, trainer, seconds, began)
        found = output.release(record, model, place)
        if not self.quiet:
            print(f"Wrote {place.checkpoint} and {place.out / 'align.json'}")
            print(f"Next: aligntax audit {self.model} {place.checkpoint}")
        return found

    @classmethod
    def plain_fields(cls) -> dict[str, Any]:
        """Fields that a record holds, with their types."""
        return {name: get_type_hints(cls)[name] for name in cls.__dataclass_fields__}

    def _check(self) -> tuple[str, ...]:
        require_trl()
        names = parse_protections(self.protect)
        if self.method not in METHODS:
            raise AligntaxError(f"--method {self.method!r}: choose from {', '.join(METHODS)}")
        if self.method == "reward" and (names or self.depth != "none" or self.goal != "safety"):
            raise AligntaxError(
                "--method reward trains a judge, not the model: leave out --protect, --depth and --goal"
            )
        if "directions" in names and not self.survey:
            raise AligntaxError("--protect directions needs --survey DIR, the folder that `aligntax survey` wrote")
        if self.goal == "capability" and (self.method != "sft" or self.depth != "none"):
            raise AligntaxError("--goal capability is supervised (--method sft) and has no --depth")
        if self.steps < 1 or self.batch < 2 or self.lora_rank < 1 or self.protect_items < 2:
            raise AligntaxError(
                f"--steps {self.steps} --batch {self.batch} --lora-rank {self.lora_rank} --protect-items {self.protect_items}: "
                "need at least 1, 2, 1 and 2"
            )
        self._template_kwargs()
        self._recover()
        RecoverySettings(self.mu, self.gamma, self.recovery_form)
        read_config(self.config)
        return names

    def _template_kwargs(self) -> dict[str, Any]:
        try:
            found = json.loads(self.chat_template_kwargs)
        except json.JSONDecodeError as error:
            raise AligntaxError(f"--chat-template-kwargs {self.chat_template_kwargs!r} is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise AligntaxError(f"--chat-template-kwargs {self.chat_template_kwargs!r} must be a JSON object")
        return found

    def _recover(self) -> tuple[float, int] | None:
        if not self.recover:
            return None
        delta, _, depth = self.recover.partition("@")
        try:
            wanted = float(delta), int(depth)
        except ValueError as error:
            raise AligntaxError(f"--recover {self.recover!r}: write DELTA@DEPTH, such as 0.5@20") from error
        if not 0 < wanted[0] < 1 or wanted[1] < 0:
            raise AligntaxError(f"--recover {self.recover!r}: DELTA lies in (0, 1) and DEPTH is 0 or more")
        return wanted

    def _settings(self) -> Settings:
        return Settings(self.energy, self.kl_weight, self.directions_weight, seed=self.seed)

    def _recipe(self) -> Recipe:
        rate = self.learning_rate or RATES["lora" if self.lora else "full"]
        return Recipe(
            self.method, self.steps, self.batch, rate, self.beta, self.completion_tokens, self.group, self.seed,
            self.save_every, 1, read_config(self.config),
        )  # fmt: skip

    def _gather(self, loaded: LoadedModel, chat: ChatFormat, meter: Meter, names: Sequence[str]) -> Rows:
        """Everything that needs the model before training."""
        device = loaded.device
        budget = TokenBudget(GPU_TOKENS if device.type == "cuda" else CPU_TOKENS)
        probe = Probe(loaded.model, device, budget, "all", (), meter.advance)
        folder = Path(self.texts) if self.texts else self.out / "state" / "shards"
        store = ShardStore(folder, {"weights": loaded.weights_sha256, "seed": self.seed})
        speaker = Speaker(probe, store, chat, self.seed)
        requests = load_requests(self.safety)
        rows = training_rows(self, speaker, requests, meter, self._capability(chat, loaded))
        if "nullspace" in names:
            with meter.phase("protected inputs", sum(len(row.ids) for row in rows.protected)):
                rows = rows.with_subspaces(input_subspaces(probe, rows.protected, self.energy))
        if "directions" in names:
            rows = rows.with_directions(survey_subspace(self.survey, loaded.weights_sha256))
        return rows

    def _capability(self, chat: ChatFormat, loaded: LoadedModel) -> tuple[list[Encoded], dict[str, list[ScoredItem]]]:
        """Rows that protections read (or that are learnt), and other items on which the tax is watched."""
        limit = loaded.context_length or 2**20
        rows: list[Encoded] = []
        scored: dict[str, list[ScoredItem]] = {}
        for task in load_tasks(self.tasks or BUILTIN_TASKS()):
            order = [task.items[k] for k in by_hash([item.key for item in task.items], "items")]
            rows += capability_rows(order[: self.protect_items], lambda item, fmt: encode_item(item, fmt, chat, limit))
            rest = [choose_distractors(item, 1, self.seed) for item in order[self.protect_items :][:8]]
            scored[task.name] = [ScoredItem(encode_item(item, "plain", chat, limit), item.gold or 0) for item in rest]
        return rows, scored

    def _trainable(self, loaded: LoadedModel) -> PreTrainedModel:
        """The model with gradients on: adapters on every matrix, or all weights but embeddings and head."""
        model = loaded.model
        if self.lora:
            import peft

            plan = peft.LoraConfig(r=self.lora_rank, lora_alpha=2 * self.lora_rank, target_modules="all-linear",
                                   lora_dropout=0.0, task_type="CAUSAL_LM")  # fmt: skip
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                adapted: Any = peft.get_peft_model(model, plan)
                return adapted  # type: ignore[no-any-return]
        model.requires_grad_(True)
        freeze_head(model)
        return model

    def _trainer(
        self, model: PreTrainedModel, loaded: LoadedModel, chat: ChatFormat, texts: Rows, protected: Protected,
        place: "output.Folder",
    ) -> tuple[Any, Judge | None]:  # fmt: skip
        callbacks: list[Any] = [*protected.callbacks, StopOnNonFinite()]
        term = self._depth_term(model, chat, texts)
        if term is not None:
            callbacks.append(term)
        if self.tax_every:
            callbacks.append(TaxCallback(model, texts.scored, self.tax_every))
        recipe = self._recipe()
        args = configuration(recipe, place.state, loaded.device.type, self._template_kwargs(), self.quiet)
        judge = reward_judge() if self.method in ("rloo", "grpo") and not self.reward_model else None
        reward = self.reward_model or (None if judge is None else judged_reward(judge))
        if self.method == "reward":
            parts = (output.classifier(self, loaded), loaded.tokenizer, texts.pairs)
            return make_trainer("reward", args, parts, [StopOnNonFinite()]), None
        rows = {"sft": texts.conversations, "dpo": texts.pairs}.get(self.method, texts.prompts)
        trainer = make_trainer(self.method, args, (model, loaded.tokenizer, rows), callbacks, reward)
        if self.adaptive_kl > 0:
            trainer.add_callback(AdaptiveKL(trainer, self.adaptive_kl))
        return trainer, judge

    def _depth_term(self, model: PreTrainedModel, chat: ChatFormat, texts: Rows) -> LossTerm | None:
        if self.depth != "recovery":
            return None
        tokens = recovery_tokens(chat)
        rows = RecoveryRows(texts.harmful, recoveries(texts.harmful_prompts, chat, tokens), texts.anchors)
        settings = RecoverySettings(self.mu, self.gamma, self.recovery_form)
        term = RecoveryObjective(model, rows, tokens, settings, self.seed)
        wanted = self._recover()
        if wanted is not None:
            term = term.aimed_at(*wanted)
        return term


def judged_reward(judge: Judge) -> Any:
    """Reward in [0, 1] of completions: refusal where the request is harmful, the lack of one where it is not."""

    def reward(
        prompts: Sequence[Any], completions: Sequence[Any], harmful: Sequence[bool], **_: Any
    ) -> list[float | None]:
        verdicts = judge([_said(p) for p in prompts], [""] * len(prompts), [_said(c) for c in completions])
        return [
            None if not v.judged else (v.refusal if bad else 1.0 - v.refusal)
            for v, bad in zip(verdicts, harmful, strict=True)
        ]

    reward.__name__ = judge.name.replace("-", "_")
    return reward


def _said(turns: str | Sequence[Mapping[str, str]]) -> str:
    return turns if isinstance(turns, str) else turns[-1]["content"]
