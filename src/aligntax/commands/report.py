"""`aligntax report`: render result files again, without any model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from ..errors import AligntaxError
from ..report import audit_summary, render_audit, render_html, terminal_summary
from ..report.loop_page import STEPS, read_loop, render_loop
from ..report.pipeline_page import pipeline_summary, render_pipeline
from ..report.scale_page import render_scale, scale_summary
from ..results import read_audit, read_survey, write_bytes
from ..results.pipeline import read_pipeline
from ..results.scale import read_scale

Summary = Callable[[Any, Console], None]
PAGES: Mapping[str, tuple[Callable[[Path], Any], Callable[[Any], str], Summary]] = {
    "survey.json": (read_survey, render_html, terminal_summary),
    "audit.json": (read_audit, render_audit, audit_summary),
    "pipeline.json": (read_pipeline, render_pipeline, pipeline_summary),
    "scale.json": (read_scale, render_scale, scale_summary),
}


@dataclass(frozen=True)
class ReportCommand:
    """Write report.html again from the result file in each FOLDER, and print the summary."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `aligntax survey`, `audit`, `pipeline`, `scale` or `demo` wrote."""

    def execute(self) -> None:
        """Render every folder. Raises AligntaxError for a folder without a readable result."""
        console = Console()
        for folder in self.folders:
            write_bytes(folder / "report.html", page(folder, console).encode())
            console.print(f"Report: {folder / 'report.html'}", highlight=False)


def page(folder: Path, console: Console) -> str:
    """The report of what lies in `folder`; its summary goes to the console. Raises AligntaxError where nothing does."""
    if all((folder / name / f"{name}.json").is_file() for name in STEPS):
        return render_loop(*read_loop(folder))
    for name, (read, render, summary) in PAGES.items():
        if (folder / name).is_file():
            found = read(folder)
            summary(found, console)
            return render(found)
    raise AligntaxError(
        f"{folder} holds none of {', '.join(PAGES)}; "
        "give a folder that `aligntax survey`, `audit`, `pipeline`, `scale` or `demo` wrote"
    )
