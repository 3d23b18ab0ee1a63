"""`aligntax align`: train a model to be safe, so that little is paid and the alignment goes deep.

The command composes rooms: the model speaks first (anchors, its own compliance), then what must not change is gathered, then a
TRL trainer runs with the protections as callbacks. All that varies between recipes is which callbacks it is given.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from ..data import ChatFormat
from ..models import ModelSpec, load
from ..probing import Meter
from ..results import Align
from ..training import KLCallback
from . import alignment_output as output
from .alignment_checks import check_base, checked
from .alignment_folder import WEIGHTS, folder_of
from .alignment_gather import Bench, gather
from .alignment_measure import measuring
from .alignment_mix import Mix
from .alignment_plan import print_plan
from .alignment_reads import steps_of_a_run
from .alignment_trainer import made_trainer, trainable
from .alignment_whole import merged, sharding
from .ending import say_written
from .launch import first_process
from .next_step import after_align
from .protections import Settings, build, own_survey
from .record import chat_options
from .recovery_tokens import check_tokens


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
    """Requests: [NAME=]FILE, [NAME=]HARMFUL_FILE,HARMLESS_FILE, hf:DATASET:CONFIG:SPLIT, or a built-in name (its training part).
    A `completion` or `messages` beside a prompt is what is learnt there."""
    look_alikes: bool = False
    """Add built-in pairs of a harmful and a harmless prompt: up to 260 that sound alike and 351 plain ones, of either a quarter
    as many as the run reads rows. To a file of your own only the harmless prompts in alarming words are added."""
    preferences: str = ""
    """Preference pairs in TRL's format (prompt, chosen, rejected): a file, or hf:DATASET:CONFIG:SPLIT. Default: refusal over own
    compliance."""
    tasks: tuple[str, ...] = ()
    """Capability tasks to protect (or to learn, with --goal capability). Default: all built-in ones."""
    survey: str = ""
    """Folder of a survey of this model: for --protect directions, and to say how efficient the update was."""
    steps: int = 60
    """Optimizer steps."""
    batch: int = 8
    """Rows a step and process; refusals but for --anchor-share."""
    anchor_share: float = 0.5
    """Share of the rows of sft that answer harmless prompts, in (0, 1)."""
    alarming_share: float | None = None
    """Share of those whose prompts only sound alarming. Default: as many as there are."""
    batches: Literal["random", "stratified", "matched"] = "random"
    """Rows of sft drawn at random, in their shares in every batch, or so with the nearest harmless prompt by each refusal."""
    draws: int = 1
    """Replies drawn to a prompt whose greedy one the reward judge hears as a refusal; the most compliant is kept. 1: greedy."""
    harmless_pairs: bool = False
    """Add preference pairs that forbid refusing: own answer to a harmless prompt over its own refusal, or a written one."""
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
    renew_every: int = 10
    """Steps between renewals of the capability gradients (--protect gradient)."""
    mu: float = 1.0
    """Recovery penalty in nats at depth 0."""
    gamma: float = 1.0
    """Discount of the penalty by token of depth, in (0, 1]."""
    recovery_form: Literal["linear", "log"] = "log"
    """Penalty 1 - p, whose signal vanishes where p is small, or -log p."""
    recover: str = ""
    """Wanted recovery DELTA@DEPTH, such as 0.5@20: sets --mu from the base model's least mass down to there (theory 5.5, 5.7)."""
    recovery_tokens: tuple[str, ...] = ()
    """Texts of one token, such as " Sorry", beside the first tokens of written openings and of the model's own refusals."""
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
    kl_every: int = 20
    """Steps between measurements of the KL to the base by position, on 8 anchors; also at the last step. 0: never."""
    texts: str = ""
    """Private folder for the model's own texts, to share between runs. Default: under state/."""
    save_every: int = 20
    """Steps between saved states."""
    save_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number type of the released weights; float32 keeps small updates whole."""
    config: str = ""
    """YAML with fields of TRL's configuration, which win over the above; num_train_epochs without max_steps over --steps too."""
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
    plan: bool = False
    """Print tokens, memory and time per phase, and start nothing."""
    quiet: bool = False
    """No progress bars."""

    def execute(self) -> Align | None:
        """Train, write the folder and return its record; None with `plan`. Raises AligntaxError for input that cannot be used."""
        began = time.perf_counter()
        names = checked(self)
        check_base(self)
        place = folder_of(self)
        if not self.plan:
            place.prepare(self.resume, self.overwrite)
        loaded = merged(
            load(ModelSpec(self.model, self.revision, self.adapter, "float32", self.device, self.trust_remote_code))
        )
        if self.survey:
            own_survey(self.survey, loaded.weights_sha256)
        chat = ChatFormat(loaded.tokenizer, self.system, chat_options(self.chat_template_kwargs))
        check_tokens(self, chat)
        if self.plan:
            print_plan(self, loaded, chat, names)
            return None
        quiet = self.quiet or not first_process()
        with Meter(quiet) as meter:
            bench = Bench(self, loaded, chat, meter)
            place.confirm({WEIGHTS: str(loaded.weights_sha256), **bench.sources})
            texts = gather(bench, names)
            ruler = measuring(bench)
        model = trainable(self, loaded)
        gathered = (texts.subspaces, texts.protected, texts.moved, texts.directions)
        protected = build(names, model, gathered, self._settings())
        trainer, judge = made_trainer(self, (model, loaded, chat), texts, protected, place.state)
        if self.kl_every and self.method != "reward" and texts.anchors and not sharding(trainer):
            trainer.add_callback(KLCallback(model, texts.anchors, self.kl_every))
        state = place.last_state() if self.resume else None
        clock = output.Clock(began, state)
        trainer.add_callback(clock)
        seconds = output.train(trainer, place, state)
        record = output.Finished(self, loaded, chat, texts, protected, judge, trainer, seconds, clock, ruler)
        found = output.release(record, place)
        if not quiet:
            say_written(
                place.checkpoint, place.out / "report.html", following=after_align(vars(self), place.checkpoint)
            )
        return found

    def mix(self) -> Mix:
        """How rows of sft stand together. Raises AligntaxError for shares out of range."""
        return Mix(self.anchor_share, self.alarming_share, self.batches, self.seed)

    def _settings(self) -> Settings:
        steps = steps_of_a_run(self)
        return Settings(self.energy, self.kl_weight, self.directions_weight, self.renew_every, self.seed, steps)
