"""`aligntax report`: render a survey's files again, without any model."""

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from ..report import render_html, terminal_summary
from ..results import read_survey, write_bytes


@dataclass(frozen=True)
class ReportCommand:
    """Write report.html from the survey.json in each FOLDER and print the summary."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `aligntax survey` wrote."""

    def execute(self) -> None:
        """Render every folder. Raises AligntaxError for a folder without a readable survey.json."""
        console = Console()
        for folder in self.folders:
            survey = read_survey(folder)
            write_bytes(folder / "report.html", render_html(survey).encode())
            terminal_summary(survey, console)
            console.print(f"Report: {folder / 'report.html'}", highlight=False)
