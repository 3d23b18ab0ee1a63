"""The folder of an alignment run: what it holds, whose it is, and what a killed run resumes from."""

from __future__ import annotations

import json
import shutil
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState

from ..errors import AligntaxError, ResumeError
from ..results import plain, read_align, write_bytes
from .launch import first_process, processes

if TYPE_CHECKING:
    from .align import AlignCommand

READ, WEIGHTS = "read", "the base's weights"
"""Where `run.json` keeps hashes of what was read, and the name of the weights among them."""
_NOT_SETTINGS = ("out", "texts", "resume", "overwrite", "quiet", "plan")


def settings_of(command: AlignCommand) -> dict[str, Any]:
    """What decides the result: two runs with the same settings are the same run."""
    values = {name: plain(getattr(command, name)) for name in command.__dataclass_fields__}
    return {name: value for name, value in values.items() if name not in _NOT_SETTINGS}


def folder_of(command: AlignCommand) -> Folder:
    """The output folder of a command."""
    defaults = {one.name: plain(one.default) for one in fields(command) if one.default is not MISSING}
    known = settings_of(command)
    return Folder(command.out, known, {name: value for name, value in defaults.items() if name in known})


@dataclass(frozen=True)
class Folder:
    """`out`, the settings of the run in it, and the default of every setting that has one."""

    out: Path
    settings: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        """Where the trainer keeps what a killed run resumes from."""
        return self.out / "state"

    @property
    def checkpoint(self) -> Path:
        """The released model."""
        return self.out / "model"

    def prepare(self, resume: bool, overwrite: bool) -> None:
        """Make the folder ready. Raises AligntaxError where it holds another run, or this one and nothing was said.

        Of several processes the first does it while the others wait, lest they write into what it clears.
        """
        if first_process():
            self._begin(resume, overwrite)
        if processes() > 1:
            PartialState().wait_for_everyone()

    def _begin(self, resume: bool, overwrite: bool) -> None:
        found = self._noted() if resume else None
        read = found.pop(READ, None) if found else None
        # A run that failed before its first step leaves texts and settings only: nothing to lose, nothing to resume.
        states = any(self.state.glob("checkpoint-*"))
        holds = states or any(p.name != "state" for p in self.out.glob("*"))
        if overwrite and holds:
            read = None
            for part in (self.state, self.checkpoint):
                shutil.rmtree(part, ignore_errors=True)
            for name in ("align.json", "report.html", "run.yaml"):
                (self.out / name).unlink(missing_ok=True)
        elif resume and states and found is None:
            raise AligntaxError(
                f"--resume: {self.state} holds a state that was not written by this run; give --overwrite, or another --out"
            )
        elif resume:
            # A setting that this version added had its default before.
            wanted = json.loads(json.dumps(self.settings))
            before = {**self.defaults, **(found or wanted)}
            changed = sorted(k for k in {*before, *wanted} if before.get(k) != wanted.get(k))
            if changed:
                other = ", ".join(changed)
                raise ResumeError(
                    f"--resume: {self.out} holds a run with other {other}; use its settings, or --overwrite",
                    tuple(changed),
                )
        elif holds:
            raise AligntaxError(f"--out {self.out} is not empty; give --resume to go on there, or --overwrite")
        self._note(self.settings | ({READ: read} if read and holds else {}))
        self.state.chmod(0o700)

    def _noted(self) -> dict[str, Any] | None:
        """What `run.json` says, None where there is none. Raises AligntaxError where it cannot be read."""
        mark = self.state / "run.json"
        try:
            found = json.loads(mark.read_text(encoding="utf-8")) if mark.exists() else None
        except (OSError, ValueError) as error:
            raise AligntaxError(f"{mark} cannot be read ({error}); give --overwrite, or another --out") from error
        if found is not None and not isinstance(found, dict):
            raise AligntaxError(f"{mark} holds no settings; give --overwrite, or another --out")
        return found

    def _note(self, values: dict[str, Any]) -> None:
        write_bytes(self.state / "run.json", json.dumps(values, indent=1).encode(), 0o600)

    def confirm(self, read: dict[str, str]) -> None:
        """Note the sha256 of all that this run reads, by name. Raises AligntaxError where the run that it resumes read others.

        Of a run that noted none the record says what it read; where there is none either, nothing can be compared.
        """
        noted = self._noted() or self.settings
        before = noted.get(READ) or self._recorded()
        for name in sorted({*before, *read}) if before else ():
            old, new = before.get(name), read.get(name)
            if old != new:
                raise AligntaxError(
                    f"--resume: {self.out} holds a run that read {name} as {_short(old)}, now it is {_short(new)}; "
                    "give what it read, --overwrite, or another --out"
                )
        if first_process():
            self._note(noted | {READ: read})

    def _recorded(self) -> dict[str, str]:
        if not (self.out / "align.json").exists():
            return {}
        found = read_align(self.out).provenance
        return {WEIGHTS: str(found.weights_sha256), **found.data}

    def last_state(self) -> str | None:
        """Newest complete checkpoint of the trainer."""
        found = [p for p in self.state.glob("checkpoint-*") if (p / "trainer_state.json").exists()]
        return str(max(found, key=lambda p: int(p.name.rpartition("-")[2]))) if found else None


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "nothing"
