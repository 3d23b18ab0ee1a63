"""Predictions P1 to P7 of the theory as protocols: fixed before looking, scored against what happened, beside baselines.

Arrays and result files in, a verdict out; no model is run here.
"""

from .protocol import PROTOCOLS, Protocol
from .scored import Scored, decide, empty, shortage
from .task_families import FamilyTask, family_tasks
from .task_tax import Paid, TaskEvidence, score_task_tax

__all__ = [
    "PROTOCOLS",
    "FamilyTask",
    "Paid",
    "Protocol",
    "Scored",
    "TaskEvidence",
    "decide",
    "empty",
    "family_tasks",
    "score_task_tax",
    "shortage",
]
