"""Commands: one dataclass with `execute()` per verb; the only place where rooms meet."""

from .survey import SurveyCommand

__all__ = ["SurveyCommand"]
