"""Commands: one dataclass with `execute()` per verb; the only place where rooms meet."""

from .align import AlignCommand
from .audit import AuditCommand
from .merge import MergeCommand
from .models import ModelsCommand
from .report import ReportCommand
from .survey import SurveyCommand
from .tax import TaxCommand
from .theory import TheoryCommand

__all__ = [
    "AlignCommand",
    "AuditCommand",
    "MergeCommand",
    "ModelsCommand",
    "ReportCommand",
    "SurveyCommand",
    "TaxCommand",
    "TheoryCommand",
]
