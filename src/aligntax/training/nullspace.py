"""Train in the null space of what capabilities read: `dW x = 0` for every input `x` a linear layer sees on their prompts.

The *step* is projected, after the optimizer: Adam's scaling and weight decay leave a subspace that the gradient lies in. Only
directions of the inputs are constrained, so `W - W_0 <- (W - W_0)(I - U U^T)` with `U` the leading eigenvectors of the inputs'
second moment. Everything that is not such a layer (norms, biases, embeddings, head) is frozen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from aligntax.errors import AligntaxError


@dataclass(frozen=True)
class Subspace:
    """Directions of a layer's input that must not matter to its update.

    `basis` `(d_in, r)` orthonormal float32: the protected directions, or where more than half are protected the free ones
    (`free` True), whichever are fewer. `rank` is the number protected, `energy` their share of the trace.
    """

    basis: Tensor
    free: bool
    rank: int
    energy: float

    def project(self, matrix: Tensor) -> Tensor:
        """`matrix` `(n, d_in)` without its protected part."""
        basis = self.basis.to(matrix.device, matrix.dtype)
        inside = (matrix @ basis) @ basis.T
        return inside if self.free else matrix - inside

    def hold(self, weight: Tensor, start: Tensor) -> None:
        """Move `weight` `(n, d_in)`, in place, to `start` and what of its way from there the protected inputs do not see.

        Few passes over the matrices, which are what a step waits for. The way is taken first: `weight @ basis` would lose it.
        """
        basis = self.basis.to(weight.device, weight.dtype)
        way = weight - start
        inside = way @ basis
        if self.free:
            torch.addmm(start, inside, basis.T, out=weight)
        else:
            torch.add(start, way.addmm_(inside, basis.T, alpha=-1), out=weight)

    def protected(self) -> Tensor:
        """Orthonormal columns `(d_in, rank)` of the protected directions."""
        if not self.free:
            return self.basis
        return torch.linalg.qr(self.basis.double(), mode="complete")[0][:, self.basis.shape[1] :].to(self.basis.dtype)


def subspace_of(gram: Any, energy: float, name: str) -> Subspace:
    """Leading eigenvectors of a float64 second moment `(d_in, d_in)` that hold `energy` of its trace.

    Raises AligntaxError, naming the layer and the rank, where nothing would be left to train, or nothing is there to protect.
    """
    if not 0.0 < energy <= 1.0:
        raise AligntaxError(f"energy {energy}: the share of the inputs' energy to protect lies in (0, 1]")
    matrix = torch.as_tensor(np.asarray(gram), dtype=torch.float64)
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    values = values.flip(0).clamp(min=0.0)
    vectors = vectors.flip(1)
    total = float(values.sum())
    if not total > 0.0:
        raise AligntaxError(f"{name}: its inputs are zero on every capability prompt; nothing to protect there")
    # Below this an eigenvalue is rounding, whatever energy is asked for.
    real = int((values > values[0] * 1e-12).sum())
    share = values.cumsum(0) / total
    rank = min(int((share < energy - 1e-12).sum()) + 1, real)
    width = len(values)
    if rank >= width:
        raise AligntaxError(
            f"{name}: rank {rank} of {width} is protected at energy {energy}, which leaves an empty null space; "
            "lower the energy or give fewer capability prompts"
        )
    free = rank > width // 2
    basis = vectors[:, rank:] if free else vectors[:, :rank]
    return Subspace(basis.float().contiguous(), free, rank, float(share[rank - 1]))


class NullSpaceProjection(TrainerCallback):
    """Keeps every trained weight matrix on `W_0` plus the null space of its protected inputs; drops into any trainer.

    `subspaces` maps module names of `model` (linear layers) to a Subspace. Make it before training, from the model whose
    behaviour is to be kept: it remembers `W_0` and freezes what it cannot protect. With LoRA the product is what counts:
    `B A U = 0` is kept by `A <- A (I - U U^T)`, whatever `B` is; adapters on other modules are frozen. Not for sharded weights.
    """

    def __init__(self, model: PreTrainedModel, subspaces: Mapping[str, Subspace]) -> None:
        modules = dict(model.named_modules())
        by_suffix = {_plain(name): name for name in modules}
        unknown = [name for name in subspaces if _plain(name) not in by_suffix]
        if unknown:
            raise AligntaxError(f"null space of {unknown[0]!r}: the model has no such module ({len(unknown)} unknown)")
        self.subspaces = dict(subspaces)
        self._factors: dict[str, nn.Parameter] = {}
        self._weights: dict[str, nn.Parameter] = {}
        self._turned: set[str] = set()
        kept: set[int] = set()
        for name in subspaces:
            module = modules[by_suffix[_plain(name)]]
            if hasattr(module, "lora_A"):
                for adapter in module.lora_A:
                    factor = module.lora_A[adapter].weight
                    self._factors[name] = factor
                    kept |= {id(factor), id(module.lora_B[adapter].weight)}
            elif isinstance(getattr(module, "weight", None), nn.Parameter) and module.weight.requires_grad:
                self._weights[name] = module.weight
                if type(module).__name__ == "Conv1D":  # GPT-2 keeps its matrices the other way round
                    self._turned.add(name)
                kept.add(id(module.weight))
        for parameter in model.parameters():
            if id(parameter) not in kept:
                parameter.requires_grad_(False)
        if not self._factors and not self._weights:
            raise AligntaxError("none of the protected layers is trainable; unfreeze them, or put adapters on them")
        self.starts = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._project()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Project what the optimizer did."""
        self._project()

    def _project(self) -> None:
        with torch.no_grad():
            for name, factor in self._factors.items():
                factor.copy_(self.subspaces[name].project(factor))
            for name, weight in self._weights.items():
                self.subspaces[name].hold(self.upright(name, weight), self.upright(name, self.starts[name]))

    def inside(self, parameter: nn.Parameter, direction: Tensor) -> Tensor:
        """The part of a direction in weight space that keeps what is protected; other parameters are let through."""
        for _ in range(
            2
        ):  # a gradient may lie almost wholly in what is protected: once leaves rounding of the large part
            direction = self._inside_once(parameter, direction)
        return direction

    def _inside_once(self, parameter: nn.Parameter, direction: Tensor) -> Tensor:
        for name, factor in self._factors.items():
            if factor is parameter:
                return self.subspaces[name].project(direction)
        for name, weight in self._weights.items():
            if weight is parameter:
                return self.upright(name, self.subspaces[name].project(self.upright(name, direction)))
        return direction

    def upright(self, name: str, matrix: Tensor) -> Tensor:
        """`(d_out, d_in)`, and back."""
        return matrix.T if name in self._turned else matrix

    def residual(self) -> dict[str, float]:
        """`|dW U| / (|dW| |U|)` by layer, Frobenius norms, `U` orthonormal: 0 where nothing leaked; nan where nothing moved."""
        found = {}
        with torch.no_grad():
            for name, weight in self._weights.items():
                found[name] = leak(self.upright(name, weight - self.starts[name]), self.subspaces[name])
            for name, factor in self._factors.items():
                found[name] = leak(factor, self.subspaces[name])
        return found


def leak(change: Tensor, subspace: Subspace) -> float:
    """`|dW U| / (|dW| |U|)` of an update `(d_out, d_in)`: its relative size on protected inputs."""
    matrix = change.double()
    basis = subspace.protected().to(matrix)
    size = float(matrix.norm() * basis.norm())
    return float((matrix @ basis).norm()) / size if size > 0 else float("nan")


def _plain(name: str) -> str:
    """A module's name without what PEFT puts around it."""
    return name.removeprefix("base_model.model.")
