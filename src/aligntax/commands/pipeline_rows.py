"""What each stage of a pipeline in the small world learns from: demonstrations, preferences, prompts."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data import ChatFormat, read_preferences
from ..errors import AligntaxError
from ..lab.world import World, draw_reply, good_reply, honesty_items, requests, score
from ..models import ModelSpec, load
from ..probing import Probe, TokenBudget, generate
from ..results import write_bytes
from .alignment_texts import conversation

GOOD = 0.7
"""Share of demonstrations that are what an aligned model says; the others are as in the documents. The rest is left to learn."""
WORLD_TOKENS = 16384
REPLY_ROOM = 10
"""Words that a reply may have beyond the deciding one."""

Rows = list[dict[str, Any]]


def demonstrations(world: World, count: int, seed: int) -> Rows:
    """`count` conversations: requests of both classes in equal parts with mostly good replies, and questions of honesty."""
    rng = random.Random(f"{world.seed}/demonstrations/{seed}")
    asked = [r for bad in (True, False) for r in requests(world, bad, (count + 1) // 2, seed)]
    rows = [
        conversation(r.prompt, (good_reply if rng.random() < GOOD else draw_reply)(world, r, rng), None) for r in asked
    ]
    honest = honesty_items(world, "train", seed)
    rows += [conversation(item["prompt"], item["answer"], None) for item in honest for _ in range(max(1, count // 256))]
    rng.shuffle(rows)
    return rows


def encoded(rows: Sequence[dict[str, Any]], chat: ChatFormat) -> Rows:
    """Conversations as ids, with labels on the reply and its end only."""
    found = []
    for row in rows:
        head = chat.encode_prompt(row["prompt"][-1]["content"])
        tail = [*chat.encode_reply(row["completion"][-1]["content"]), chat.tokenizer.eos_token_id]
        found.append({"input_ids": head + tail, "labels": [-100] * len(head) + tail})
    return found


def policy_prompts(world: World, count: int, seed: int) -> Rows:
    """Prompts of both classes, alternating, for policy optimisation."""
    both = [requests(world, bad, (count + 1) // 2, seed) for bad in (True, False)]
    return [
        {"prompt": conversation(r.prompt, "", None)["prompt"], "harmful": r.harmful}
        for pair in zip(*both, strict=True)
        for r in pair
    ]


def said(folder: Path, prompts: Sequence[str], new_tokens: int, seed: int) -> list[str]:
    """One sampled reply of a checkpoint to each prompt, as text."""
    loaded = load(ModelSpec(str(folder)))
    chat = ChatFormat(loaded.tokenizer)
    probe = Probe(loaded.model, loaded.device, TokenBudget(WORLD_TOKENS), "all", (), lambda tokens: None)
    ids = generate(probe, [chat.encode_prompt(p) for p in prompts], new_tokens, sample=True, seed=seed)
    return [str(loaded.tokenizer.decode(reply, skip_special_tokens=True)) for reply in ids]


def preferences(world: World, policy: Path, count: int, seed: int) -> Rows:
    """`count` pairs of the policy's own sampled replies to training requests, the one of higher gold reward chosen.

    Pairs of equal reward are drawn again. Raises AligntaxError where the policy always says the same.
    """
    found: Rows = []
    for turn in range(4):
        asked = [r for bad in (True, False) for r in requests(world, bad, min(2000, count), seed + turn)]
        random.Random(seed + turn).shuffle(asked)
        prompts = [r.prompt for r in asked]
        sides = [said(policy, prompts, world.decided + REPLY_ROOM, seed + 2 * turn + k) for k in range(2)]
        for request, one, other in zip(asked, *sides, strict=True):
            values = [score(world, request, reply).gold for reply in (one, other)]
            if values[0] == values[1]:
                continue
            best = int(np.argmax(values))
            found.append(_pair(request.prompt, (one, other)[best], (one, other)[1 - best]))
        if len(found) >= count:
            return found[:count]
    if not found:
        raise AligntaxError("every pair of sampled replies is worth the same; preference data needs two classes")
    return found


def _pair(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    turns = conversation(prompt, chosen, None)
    return {
        "prompt": turns["prompt"],
        "chosen": turns["completion"],
        "rejected": conversation("", rejected, None)["completion"],
    }


def kept_preferences(path: Path, given: str, make: Any) -> Rows:
    """Pairs of the user's file, or of `path` where they were made before, or made now and kept there, private."""
    if given:
        return read_preferences(Path(given))
    if not path.exists():
        rows = make()
        write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode(), 0o600)
    return [json.loads(line) for line in path.read_text().splitlines()]


def gold_reward(world: World) -> Any:
    """The exact reward as a function that TRL's policy trainers take."""

    def gold(prompts: Sequence[Any], completions: Sequence[Any], **_: Any) -> list[float]:
        asked = [p if isinstance(p, str) else p[-1]["content"] for p in prompts]
        replies = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
        return [score(world, a, r).gold for a, r in zip(asked, replies, strict=True)]

    return gold
