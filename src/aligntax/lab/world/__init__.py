"""A small world with its own language, known answers and exact harm, on which real models are trained."""

from aligntax.lab.world.documents import CAPABILITIES, INTRINSIC, Document, Question, ask, documents
from aligntax.lab.world.facts import Domain, World
from aligntax.lab.world.items import capability_items, honesty_items, safety_rows
from aligntax.lab.world.language import FLATTERY, REFUSAL, UNKNOWN, words
from aligntax.lab.world.requests import (
    Request,
    Score,
    draw_reply,
    gold_rewards,
    good_reply,
    harm_information,
    read_request,
    reply_with,
    requests,
    score,
)

__all__ = [
    "CAPABILITIES",
    "FLATTERY",
    "INTRINSIC",
    "REFUSAL",
    "UNKNOWN",
    "Document",
    "Domain",
    "Question",
    "Request",
    "Score",
    "World",
    "ask",
    "capability_items",
    "documents",
    "draw_reply",
    "gold_rewards",
    "good_reply",
    "harm_information",
    "honesty_items",
    "read_request",
    "reply_with",
    "requests",
    "safety_rows",
    "score",
    "words",
]
