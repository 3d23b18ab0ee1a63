"""Commands: one dataclass with `execute()` per verb; the only place where rooms meet."""

from .models import ModelsCommand
from .report import ReportCommand
from .survey import SurveyCommand
from .theory import TheoryCommand

__all__ = ["ModelsCommand", "ReportCommand", "SurveyCommand", "TheoryCommand"]
