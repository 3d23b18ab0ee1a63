"""The recovery objective on a real model: at every depth of a harmful continuation, put mass on the tokens that turn back.

The estimand ([S] Def 17 with `rho = Q`): over prefixes `y_<t` of the base model's own harmful continuations,
`sum_t KL(pi || pi_0 at y_<t) + mu sum_t gamma^t (1 - pi(R | y_<t))`, whose optimum at each prefix is
`pi(R) = sigmoid(logit p_0 + mu gamma^t)`. One pass gives all depths of a continuation. Two things stand beside it, because mass
on an opening token is not a recovery: the likelihood of a whole written recovery from a random depth, and the same KL on
harmless conversations, which must not be interrupted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from aligntax.data import Encoded
from aligntax.depth import RecoveryPenalty, recovery_objective, required_penalty
from aligntax.errors import AligntaxError
from aligntax.models import answer_logprobs, embedding_device, logits_of
from aligntax.training.positions import by_position, text_kl
from aligntax.training.reference import Reference
from aligntax.training.rows import Sampler, pad, scored_hidden
from aligntax.training.terms import LossTerm

MOST_DEPTH = 64


@dataclass(frozen=True)
class RecoveryRows:
    """Texts of the objective, as token rows whose scored part is the continuation.

    `harmful`: prompt and harmful continuation; `recoveries[k]`: token ids of a written recovery for row `k`;
    `harmless`: prompt and harmless continuation, held to the reference.
    """

    harmful: Sequence[Encoded]
    recoveries: Sequence[Sequence[int]]
    harmless: Sequence[Encoded] = ()

    def __post_init__(self) -> None:
        if not self.harmful:
            raise AligntaxError("the recovery objective has no harmful continuations; give at least one")
        if len(self.harmful) != len(self.recoveries):
            raise AligntaxError(
                f"{len(self.harmful)} harmful continuations but {len(self.recoveries)} recoveries; give one each"
            )


@dataclass(frozen=True)
class RecoverySettings:
    """`mu` nats at `gamma^t`; `form` linear `1 - p` or log `-log p`; weights of text and of harmless KL; rows a step."""

    mu: float = 1.0
    gamma: float = 1.0
    form: Literal["linear", "log"] = "log"
    text: float = 1.0
    hold: float = 1.0
    batch: int = 4

    def __post_init__(self) -> None:
        RecoveryPenalty(self.mu, self.gamma, self.form)


class RecoveryObjective(LossTerm):
    """A trainer callback that adds the recovery objective to each step; make it before training, from the base model.

    `tokens` are the ids of R. Of the harmless rows those are read before training that `steps` steps (those of all processes
    together) will draw; None: all.
    Logged: mass of R and KL, means over depths and the KL also in bins of position (`recovery/kl_1` and so on), the text's nats
    per token, and `recovery/hold`, the KL of harmless texts, in the same bins.
    """

    name = "recovery"

    def __init__(
        self,
        model: PreTrainedModel,
        rows: RecoveryRows,
        tokens: Sequence[int],
        settings: RecoverySettings | None = None,
        seed: int = 0,
        steps: int | None = None,
    ) -> None:
        super().__init__()
        if not tokens:
            raise AligntaxError("no recovery tokens; give the ids of tokens that begin a refusal")
        self.settings = settings or RecoverySettings()
        self.tokens = sorted(set(tokens))
        self.rows = rows
        cut = [Encoded(row.ids[: row.start + MOST_DEPTH], row.start) for row in rows.harmful]
        self._harmful = Reference(model, cut)
        self._which = Sampler(len(cut), self.settings.batch, seed)
        self._held = Sampler(max(1, len(rows.harmless)), self.settings.batch, seed + 1)
        self._harmless = Reference(model, rows.harmless, self._held.drawn(steps)) if rows.harmless else None
        self.seed = seed

    def aimed_at(self, model: PreTrainedModel, delta: float, depth: int) -> "RecoveryObjective":
        """The same with the least `mu` whose optimum puts mass `>= delta` on R after every prefix down to `depth` ([S] Thm 22,
        sharpened); `mu gamma^T = logit delta - logit p_min`, and `delta` times that in the log form, where
        `logit p* - logit p_0 = x/p*`.

        `p_min` is the least mass of the base model at positions `1..depth` of all its prefixes here (as far as continuations
        reach), as the theorem asks: it enters by its log-odds, so one prefix that is a thousand times worse costs 7 nats.
        Both optima rise with `p_0` and with `x`, so the worst prefix at `depth` gets exactly `delta` and others more. A prefix
        that is not among these may have less.
        """
        masses = []
        for k in range(len(self._harmful.rows)):
            logprobs = self._harmful.logprobs(model, k)[: max(1, depth)]
            masses.append(logprobs[:, self.tokens].double().logsumexp(-1).cpu())
        # Rounding may say that all mass is on R.
        p_min = min(float(torch.cat(masses).min().exp()), 1.0 - 1e-9)
        mu = required_penalty(p_min, delta, self.settings.gamma, depth)
        self.settings = replace(self.settings, mu=mu * delta if self.settings.form == "log" else mu)
        return self

    def loss(self, model: PreTrainedModel, step: int, process: int, processes: int) -> Tensor:
        """Mean over positions of KL and penalty, plus the weighted text and harmless terms."""
        chosen = self._which.at(step, process, processes)
        total = self._prefixes(model, chosen)
        if self.settings.text > 0:
            total = total + self.settings.text * self._text(model, chosen, step)
        if self._harmless is not None and self.settings.hold > 0:
            total = total + self.settings.hold * self._hold(model, self._held.at(step, process, processes))
        return total

    def _prefixes(self, model: PreTrainedModel, chosen: Sequence[int]) -> Tensor:
        rows = [self._harmful.rows[k] for k in chosen]
        kls, log_masses, positions = [], [], []
        for k, hidden in zip(chosen, scored_hidden(model, rows), strict=True):
            logprobs = torch.log_softmax(logits_of(model, hidden), dim=-1)
            kls.append(self._harmful.kl(model, k, logprobs))
            log_masses.append(logprobs[:, self.tokens].logsumexp(-1))
            positions.append(torch.arange(1, len(hidden) + 1, device=logprobs.device))
        kl, log_mass, position = torch.cat(kls), torch.cat(log_masses), torch.cat(positions)
        mass = float(log_mass.detach().exp().mean())
        self.note(mass=mass, kl=float(kl.detach().mean()), **by_position(kl, position))
        penalty = RecoveryPenalty(self.settings.mu, self.settings.gamma, self.settings.form)
        value: Tensor = recovery_objective(log_mass, kl, 1.0 / len(kl), position, penalty)
        return value

    def _text(self, model: PreTrainedModel, chosen: Sequence[int], step: int) -> Tensor:
        """Mean `-log pi` of the written recovery's tokens after a prefix of random depth 1..n; depth 0 is the trainer's."""
        generator = torch.Generator().manual_seed(self.seed * 7919 + step)
        rows = []
        for k in chosen:
            row = self._harmful.rows[k]
            depth = int(torch.randint(1, len(row.ids) - row.start + 1, (1,), generator=generator))
            head = row.ids[: row.start + depth]
            rows.append(Encoded((*head, *self.rows.recoveries[k]), len(head)))
        ids, mask, scored = pad(rows, embedding_device(model))
        value = -answer_logprobs(model, ids, mask, scored).logprobs.mean()
        self.note(text=float(value.detach()))
        return value

    def _hold(self, model: PreTrainedModel, chosen: Sequence[int]) -> Tensor:
        assert self._harmless is not None
        kl, positions = text_kl(model, self._harmless, chosen)
        value = kl.mean()
        self.note(hold=float(value.detach()), **by_position(kl, positions, "hold"))
        return value
