"""Stay near the model before training: a KL penalty by position, and a penalty on the shift inside a subspace."""

import contextlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from aligntax.data import Encoded
from aligntax.errors import AligntaxError
from aligntax.models import capture_outputs, decoder_blocks, embedding_device, final_hidden
from aligntax.training.positions import by_position, text_kl
from aligntax.training.reference import Reference, without_adapter
from aligntax.training.rows import Sampler, in_batches, pad
from aligntax.training.terms import LossTerm


class ReferenceKL(LossTerm):
    """`KL(pi || pi_0)` on given texts, nats per token, position `t` weighted by `1 + (first - 1) exp(-(t - 1)/decay)`.

    Alignment concentrates its KL on the first tokens of a reply, so on texts that must not change these are held hardest.
    Only rows that `steps` steps (those of all processes together) will draw are read before training; None: all. Logged: the
    loss, and the KL without weights in bins of position (`reference_kl/kl_1`, `kl_2-4`, `kl_5-16`, `kl_17-`).
    """

    name = "reference_kl"

    def __init__(
        self,
        model: PreTrainedModel,
        rows: Sequence[Encoded],
        weight: float = 1.0,
        first: float = 5.0,
        decay: float = 4.0,
        batch: int = 4,
        seed: int = 0,
        steps: int | None = None,
    ) -> None:
        super().__init__(weight)
        if not first > 0 or not decay > 0:
            raise AligntaxError(f"first={first}, decay={decay}: the schedule needs positive numbers")
        self.first, self.decay = first, decay
        self._sampler = Sampler(len(rows), batch, seed)
        self._reference = Reference(model, rows, self._sampler.drawn(steps))

    def schedule(self, positions: Tensor) -> Tensor:
        """Weight of each position, counted from 1."""
        return 1.0 + (self.first - 1.0) * torch.exp(-(positions - 1.0) / self.decay)

    def loss(self, model: PreTrainedModel, step: int, process: int, processes: int) -> Tensor:
        """Weighted mean KL over this step's rows."""
        kl, positions = text_kl(model, self._reference, self._sampler.at(step, process, processes))
        self.note(**by_position(kl, positions))
        return (self.schedule(positions) * kl).mean()


class DirectionPenalty(LossTerm):
    """`mean |U (h_l - h_l^0)|^2` at chosen layers, over the median squared length of `h_l^0`: dimensionless.

    `U` `(r, d)` are orthonormal rows of a layer's capability subspace (taken from a survey): what training moves there
    changes capabilities to first order, so the shift is asked to leave that subspace alone.
    """

    name = "directions"

    def __init__(
        self,
        model: PreTrainedModel,
        rows: Sequence[Encoded],
        subspaces: Mapping[int, Tensor],
        weight: float = 1.0,
        batch: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(weight)
        if not subspaces or not rows:
            raise AligntaxError(f"directions: {len(subspaces)} layers and {len(rows)} texts; give at least one of both")
        depth = len(decoder_blocks(model))
        wrong = [layer for layer in subspaces if not 0 <= layer < depth]
        if wrong:
            raise AligntaxError(f"directions: layers {wrong} do not exist; the model has 0..{depth - 1}")
        self.rows, self.subspaces = list(rows), dict(subspaces)
        self._sampler = Sampler(len(rows), batch, seed)
        self._base: list[dict[int, Tensor]] = [{} for _ in rows]
        squares: dict[int, list[Tensor]] = {layer: [] for layer in subspaces}
        with torch.no_grad():
            for group in in_batches(rows, batch):
                for k, outputs in zip(group, self._outputs(model, group, frozen=True), strict=True):
                    for layer, hidden in outputs.items():
                        self._base[k][layer] = (hidden.float() @ self.subspaces[layer].T.to(hidden.device)).cpu()
                        squares[layer].append(hidden.float().square().sum(-1).cpu())
        self._scale = {layer: float(torch.cat(values).median()) for layer, values in squares.items()}

    def loss(self, model: PreTrainedModel, step: int, process: int, processes: int) -> Tensor:
        """Mean over layers and scored positions."""
        chosen = self._sampler.at(step, process, processes)
        parts = []
        for k, outputs in zip(chosen, self._outputs(model, chosen, frozen=False), strict=True):
            for layer, hidden in outputs.items():
                moved = hidden.float() @ self.subspaces[layer].T.to(hidden.device)
                apart = (moved - self._base[k][layer].to(hidden.device)).square().sum(-1)
                parts.append(apart.mean() / self._scale[layer])
        return torch.stack(parts).mean()

    def _outputs(self, model: PreTrainedModel, chosen: Sequence[int], frozen: bool) -> list[dict[int, Tensor]]:
        """Block outputs at the scored positions of each row, by layer."""
        rows = [self.rows[k] for k in chosen]
        ids, mask, _ = pad(rows, embedding_device(model))
        base = without_adapter(model) if frozen else contextlib.nullcontext()
        with capture_outputs(model, sorted(self.subspaces), detach=False) as outputs, base:
            final_hidden(model, ids, mask)
            return [
                {layer: hidden[k, row.start : len(row.ids)] for layer, hidden in outputs.items()}
                for k, row in enumerate(rows)
            ]
