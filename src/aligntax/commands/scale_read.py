"""The surveys of a family: read, checked to be comparable, and taken at one relative depth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.names import split_name
from ..errors import AligntaxError
from ..geometry.family import MIN_WIDTHS
from ..results import Survey, read_arrays, read_survey
from ..stats import CosineTable
from .analysis import cosines
from .outputs import CONTROLS_FILE
from .tax import stage_names


@dataclass(frozen=True)
class Member:
    """One survey of the family: group means of the safety direction `(J, L, d)` and of every task, taxes of control tasks.

    `controls` is `(K, L)`, nan where a control's tax is undefined, or None for a survey that kept none.
    """

    name: str
    path: Path
    survey: Survey
    safety: np.ndarray
    tasks: dict[str, np.ndarray]
    controls: np.ndarray | None

    @property
    def width(self) -> int:
        """Residual width d."""
        return int(self.safety.shape[2])

    @property
    def layers(self) -> int:
        """Number of decoder blocks L."""
        return int(self.safety.shape[1])

    def layer_at(self, depth: float) -> int:
        """The layer (from 0) whose output lies nearest to the share `depth` of the blocks."""
        return min(max(round(depth * self.layers) - 1, 0), self.layers - 1)

    @property
    def depth(self) -> float:
        """Relative depth of the survey's own layer: the share of blocks up to and including it."""
        return (self.survey.layer + 1) / self.layers

    def taxes(self, layer: int) -> CosineTable:
        """Debiased cosines and taxes of every task at `layer`, in the order of `tasks`."""
        return cosines(self.safety[:, layer], np.stack([groups[:, layer] for groups in self.tasks.values()]))


def read_family(words: Sequence[str]) -> list[Member]:
    """Every survey, in the order given; `NAME=PATH` names one.

    Raises AligntaxError for fewer than four surveys or widths, folders that are no surveys, and surveys that cannot be compared: it
    says which two differ, and in what.
    """
    if len(words) < MIN_WIDTHS:
        raise AligntaxError(
            f"{len(words)} survey{'s' * (len(words) != 1)} given ({' '.join(words) or 'none'}); a family needs at least "
            f"{MIN_WIDTHS} models of different width: run `aligntax survey` on more of them"
        )
    given = [split_name(word) for word in words]
    members = [_read(name, Path(path)) for name, (_, path) in zip(stage_names(given), given, strict=True)]
    for member in members[1:]:
        _comparable(members[0], member)
    _all_different(members)
    widths = sorted({member.width for member in members})
    if len(widths) < MIN_WIDTHS:
        raise AligntaxError(
            f"the {len(members)} surveys have {len(widths)} different widths {widths}; a plateau needs at least {MIN_WIDTHS}: "
            "add surveys of other widths"
        )
    return members


def _read(name: str, path: Path) -> Member:
    path = path.expanduser()
    survey = read_survey(path)
    folder = path if path.is_dir() else path.parent
    arrays = read_arrays(folder / "directions.safetensors")
    names = [info.name for info in survey.tasks]
    try:
        safety = _means(arrays, "safety")
        tasks = {task: _means(arrays, f"task.{task}") for task in names}
    except KeyError as missing:
        raise AligntaxError(
            f"{folder / 'directions.safetensors'} has no {missing}; it is not of the survey beside it: run that again"
        ) from missing
    kept = folder / CONTROLS_FILE
    controls = read_arrays(kept)["tax"] if kept.exists() else None
    return Member(name, folder, survey, safety, dict(sorted(tasks.items())), controls)


def _means(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Group means `(J, L, d)` in float64 from sums and counts."""
    return arrays[f"groups.{name}"].astype(np.float64) / arrays[f"counts.{name}"][:, None, None]


def _comparable(first: Member, other: Member) -> None:
    """Refuse surveys that measured different things; `first` is the one the others are held against."""
    a, b = first.survey, other.survey
    settings = {
        "--estimator": (a.estimator, b.estimator),
        "--capability": (a.provenance.capability, b.provenance.capability),
        "--shift": (a.provenance.shift, b.provenance.shift),
        "--formats": (a.provenance.formats[:1], b.provenance.formats[:1]),
    }
    for flag, (mine, theirs) in settings.items():
        if mine != theirs:
            raise AligntaxError(
                f"{first.name} was surveyed with {flag} {_word(mine)} and {other.name} with {_word(theirs)}; "
                "a family is surveyed in one way: run one of them again"
            )
    ours, others = set(first.tasks), set(other.tasks)
    if ours != others:
        only = [
            f"only {m.name} has {', '.join(sorted(extra))}"
            for m, extra in ((first, ours - others), (other, others - ours))
            if extra
        ]
        raise AligntaxError(f"the tasks differ: {'; '.join(only)}; survey the whole family on the same --tasks")
    hashes = {info.name: info.sha256 for info in a.tasks}
    changed = [info.name for info in b.tasks if info.sha256 != hashes[info.name]]
    if changed:
        raise AligntaxError(
            f"the tasks {', '.join(sorted(changed))} of {first.name} and of {other.name} have different items; "
            "survey the whole family on the same files"
        )


def _word(value: object) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


def _all_different(members: Sequence[Member]) -> None:
    """Refuse the same weights twice: a repetition is no second model."""
    seen: dict[str, str] = {}
    for member in members:
        weights = member.survey.provenance.weights_sha256
        if weights is not None and weights in seen:
            raise AligntaxError(
                f"{seen[weights]} and {member.name} are surveys of the same weights; give each model once, or another seed"
            )
        if weights is not None:
            seen[weights] = member.name
