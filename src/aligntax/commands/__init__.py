"""Commands: one dataclass with `execute()` per verb; the only place where rooms meet."""

from .align import AlignCommand
from .merge import MergeCommand
from .models import ModelsCommand
from .report import ReportCommand
from .survey import SurveyCommand
from .theory import TheoryCommand

__all__ = ["AlignCommand", "MergeCommand", "ModelsCommand", "ReportCommand", "SurveyCommand", "TheoryCommand"]
