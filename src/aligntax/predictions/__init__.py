"""Predictions P1 to P7 of the theory as protocols: fixed before looking, scored against what happened, beside baselines.

Arrays and result files in, a verdict out; no language model is run here.
"""

from .conflict_scores import ConflictGroups, score_conflict
from .depth_scores import (
    make_attack_worlds,
    make_depth_worlds,
    make_recovery_worlds,
    score_attacks,
    score_depth,
    score_recovery,
)
from .depth_worlds import AttackWorld, DepthWorld, RecoveryWorld
from .family_scores import MergedPair, merged_pair, score_averaging, score_scaling
from .protocol import PROTOCOLS, Protocol
from .scored import Scored, decide, empty, shortage
from .task_families import FamilyTask, family_tasks
from .task_tax import Paid, TaskEvidence, score_task_tax

__all__ = [
    "PROTOCOLS",
    "AttackWorld",
    "ConflictGroups",
    "DepthWorld",
    "FamilyTask",
    "MergedPair",
    "Paid",
    "Protocol",
    "RecoveryWorld",
    "Scored",
    "TaskEvidence",
    "decide",
    "empty",
    "family_tasks",
    "make_attack_worlds",
    "make_depth_worlds",
    "make_recovery_worlds",
    "merged_pair",
    "score_attacks",
    "score_averaging",
    "score_conflict",
    "score_depth",
    "score_recovery",
    "score_scaling",
    "score_task_tax",
    "shortage",
]
