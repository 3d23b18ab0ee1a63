"""Prompts, tasks and contrasts, and their token ids; a tokenizer is an argument, no model library is imported."""

from aligntax.data.chat import FALLBACK_TEMPLATE, ChatFormat
from aligntax.data.contrasts import (
    BUILTIN_CONTRASTS,
    load_contrast,
    look_alikes,
    over_refusal_prompts,
    plain_pairs,
    request_categories,
)
from aligntax.data.encode import FORMATS, Encoded, choose_distractors, encode_item, encode_task
from aligntax.data.items import Contrast, Item, Task, clean_text
from aligntax.data.preferences import read_preferences
from aligntax.data.refusals import refusal_categories, refusal_openings, write_recovery, write_refusal
from aligntax.data.tasks import BUILTIN_TASKS, load_task, load_tasks

__all__ = [
    "BUILTIN_CONTRASTS",
    "BUILTIN_TASKS",
    "FALLBACK_TEMPLATE",
    "FORMATS",
    "ChatFormat",
    "Contrast",
    "Encoded",
    "Item",
    "Task",
    "choose_distractors",
    "clean_text",
    "encode_item",
    "encode_task",
    "load_contrast",
    "load_task",
    "load_tasks",
    "look_alikes",
    "over_refusal_prompts",
    "plain_pairs",
    "read_preferences",
    "refusal_categories",
    "refusal_openings",
    "request_categories",
    "write_recovery",
    "write_refusal",
]
