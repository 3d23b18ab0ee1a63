"""`aligntax report`: render result files again, without any model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.text import Text

from ..errors import AligntaxError
from ..report import audit_summary, render_audit, render_html, terminal_summary
from ..report.align_page import align_summary, render_align
from ..report.loop_page import STEPS, read_loop, render_loop, story
from ..report.merge_page import merge_summary, render_merge
from ..report.pipeline_page import pipeline_summary, render_pipeline
from ..report.scale_page import render_scale, scale_summary
from ..results import Align, Audit, Merge, Survey, read_align, read_audit, read_merge, read_survey, write_bytes
from ..results.pipeline import read_pipeline
from ..results.scale import Scale, read_scale
from .ending import say_written
from .next_step import Words, after_align, after_audit, after_merge, after_survey, recorded


@dataclass(frozen=True)
class Page:
    """How a result file is read, shown as a page and in a terminal, and what its folder can be given to next."""

    read: Callable[[Path], Any]
    render: Callable[[Any], str]
    summary: Callable[[Any, Console], None]
    following: Callable[[Any, Path], Words]


def _after_survey(survey: Survey, folder: Path) -> Words:
    return after_survey({"model": survey.model, **recorded(folder)}, folder)


def _after_align(align: Align, folder: Path) -> Words:
    own = {"model": align.model, "method": align.method, "adapter": align.provenance.adapter}
    return after_align({**own, **recorded(folder)}, folder / align.checkpoint)


def _after_audit(audit: Audit, folder: Path) -> Words:
    return after_audit({"base": audit.base, "aligned": audit.aligned, **recorded(folder)}, audit.size)


def _after_merge(merge: Merge, folder: Path) -> Words:
    return after_merge({"base": merge.provenance.base.name, **recorded(folder)}, folder)


def _after_scale(scale: Scale, _: Path) -> Words:
    largest = max(scale.sources, key=lambda source: source.width)
    return ("aligntax", "align", largest.model, "--survey", largest.path)


PAGES = {
    "survey.json": Page(read_survey, render_html, terminal_summary, _after_survey),
    "audit.json": Page(read_audit, render_audit, audit_summary, _after_audit),
    "align.json": Page(read_align, render_align, align_summary, _after_align),
    "merge.json": Page(read_merge, render_merge, merge_summary, _after_merge),
    "pipeline.json": Page(read_pipeline, render_pipeline, pipeline_summary, lambda *_: ()),
    "scale.json": Page(read_scale, render_scale, scale_summary, _after_scale),
}


@dataclass(frozen=True)
class ReportCommand:
    """Write report.html again from the result file in each FOLDER, and print the summary."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `aligntax survey`, `audit`, `align`, `merge`, `pipeline`, `scale` or `demo` wrote."""

    def execute(self) -> None:
        """Render every folder. Raises AligntaxError for a folder without a readable result."""
        console = Console()
        written: list[Path] = []
        following: Words = ()
        for folder in self.folders:
            html, following = page(folder, console)
            write_bytes(folder / "report.html", html.encode())
            written.append(folder / "report.html")
        say_written(*written, following=following, console=console)


def page(folder: Path, console: Console) -> tuple[str, Words]:
    """The report of what lies in `folder`, and the command that goes on from it; its summary goes to the console.

    Raises AligntaxError where no result lies.
    """
    if all((folder / name / f"{name}.json").is_file() for name in STEPS):
        loop = read_loop(folder)
        for paragraph in story(*loop):
            console.print(Text(paragraph))
        return render_loop(*loop), ("aligntax", "survey", "YOUR-MODEL", "--size", "quick")
    for name, kind in PAGES.items():
        if (folder / name).is_file():
            found = kind.read(folder)
            kind.summary(found, console)
            return kind.render(found), kind.following(found, folder)
    raise AligntaxError(
        f"{folder} holds none of {', '.join(PAGES)}; "
        "give a folder that `aligntax survey`, `audit`, `align`, `merge`, `pipeline`, `scale` or `demo` wrote"
    )
