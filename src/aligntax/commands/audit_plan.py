"""`audit --plan`: tokens, memory and time of every phase, from encoded rows alone. No pass through a model is made.

Upper bounds: every reply is taken to be as long as it may be, and the base model to go along with every request. Time is counted as
a survey's plan counts it.
"""

from collections.abc import Iterator

from ..audit import encode_turns, make_requests, wrapper_cases
from ..audit.attacks import BREADTH, CONTINUE, PARTIAL_TOKENS, SCOUT_TOKENS
from ..audit.horizon import FIRST_PASS, GRID
from ..data import refusal_openings
from ..models import text_config
from .audit_behaviour import OPENINGS
from .audit_efficiency import DRAWS as FISHER_DRAWS
from .audit_efficiency import TEXT_TOKENS, TEXTS
from .audit_gather import Pair, audit_items, item_tokens
from .audit_run import MOST_DEPTH, SHIFT_ITEMS, Given
from .audit_words import DRAWS, cell_items, preference_items, question
from .materials import Encoder
from .plan_table import PlannedPhase, gib, show_plan

ROLLOUT = 1.5
"""Passes a token that is written counts for: it is read alone, so that little is done at a time."""


def planned_audit(pair: Pair, given: Given) -> list[PlannedPhase]:
    """Every phase with the most tokens that it can have, both models together."""
    lengths = {name: [len(r.prompt) for r in make_requests(texts, pair.chat)] for name, texts in given.texts.items()}
    size, asked = pair.size, lengths["harmful"]
    said = sum(sum(part) + len(part) * size.tokens for part in lengths.values())
    prefills = sum(sum(asked) + len(asked) * (d + size.tokens) for d in size.depths if d)
    read = 2 * (sum(asked) + len(asked) * MOST_DEPTH) + sum(lengths["harmless"]) + len(lengths["harmless"]) * MOST_DEPTH
    scored, first, cells, preferred = _task_tokens(pair, given)
    states = sum(asked) + sum(lengths["harmless"]) + (sum(asked) + first if given.survey else 0)
    phases = [
        PlannedPhase("replies", 2 * said, ROLLOUT),
        PlannedPhase("prefills", 2 * prefills, ROLLOUT),
        *(_attacks(pair, given) if given.everything else ()),
        PlannedPhase("next-token laws", 2 * read, 1),
        PlannedPhase("first tokens", 2 * sum(sum(part) + len(part) for part in lengths.values()), 1),
        PlannedPhase("tasks", 2 * scored, 1),
        PlannedPhase("preferences", 2 * preferred, 1),
        PlannedPhase("questions", 2 * cells, ROLLOUT),
        PlannedPhase("states and projections", 2 * (states + sum(asked) + len(asked) * MOST_DEPTH), 1),
    ]
    if given.survey is not None:
        texts = sorted(lengths["harmless"])[-TEXTS:]
        phases.append(PlannedPhase("frontier", sum(texts) + len(texts) * TEXT_TOKENS, 1 + FISHER_DRAWS))
    count = min(max(size.sampled, given.prompts), len(lengths["harmless"]))
    if count:
        drawn = DRAWS * (sum(lengths["harmless"][:count]) + count * size.tokens)
        phases.append(PlannedPhase("samples", 2 * drawn, ROLLOUT))
    return phases


def _task_tokens(pair: Pair, given: Given) -> tuple[int, int, int, int]:
    """Tokens of the scored rows, of those that give the first-order tax, of the questions with their replies, of the contrasts."""
    encoder = Encoder(pair.chat, pair.base.loaded.context_length or 2**20, 8, pair.seed)
    items = {task.name: audit_items(task, pair.size.items, pair.seed) for task in given.tasks}
    scored = item_tokens(encoder, items)
    first = sum(encoder.items(name, own[:SHIFT_ITEMS], "plain").tokens for name, own in items.items())
    asked = cell_items(items, pair.size.cells)
    words = sum(len(pair.chat.encode_prompt(question(item))) + pair.size.cell_tokens for _, item in asked)
    preferred = item_tokens(encoder, preference_items(pair.size.items), ("chat",))
    return scored, first, words, preferred


def _attacks(pair: Pair, given: Given) -> Iterator[PlannedPhase]:
    """What `--attacks all` adds; the harm horizon is that of one model."""
    requests, tokens = make_requests(given.texts["harmful"], pair.chat), pair.size.tokens
    n, prompts = len(requests), sum(len(r.prompt) for r in requests)
    replies = prompts + n * tokens
    grid = [depth for depth in GRID if depth < tokens]
    yield PlannedPhase("harm horizon", (2 + len(grid)) * FIRST_PASS * replies, ROLLOUT)
    disguised = sum(len(case.prompt) + tokens for case in wrapper_cases(requests, pair.chat))
    yield PlannedPhase("disguises", 2 * disguised, ROLLOUT)
    sampled = sum(2 * (prompts + n * (depth + tokens)) for depth in pair.size.depths)
    yield PlannedPhase("sampled prefills", 2 * sampled, ROLLOUT)
    turns = sum(len(encode_turns(pair.chat, [r.text, "", CONTINUE])) + 2 * PARTIAL_TOKENS + tokens for r in requests)
    yield PlannedPhase("earlier turn", 2 * turns, ROLLOUT)
    opened = max(len(pair.chat.encode_reply(opening)) for opening in refusal_openings()[:OPENINGS])
    yield PlannedPhase("refusal openings", 2 * OPENINGS * (replies + n * opened), ROLLOUT)
    scouts = BREADTH * (prompts + n * (1 + SCOUT_TOKENS))
    yield PlannedPhase("rank-assisted", 2 * (scouts + replies + n), ROLLOUT)
    yield PlannedPhase("past the horizon", 4 * (replies + n * tokens), ROLLOUT)


def memory(pair: Pair) -> tuple[int, int]:
    """Bytes of both models' weights, and of the cache of one batch of rollouts at most."""
    weights = sum(p.numel() * p.element_size() for m in pair.both() for p in m.loaded.model.parameters())
    config = text_config(pair.base.loaded.model)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    bytes_each = next(pair.base.loaded.model.parameters()).element_size()
    cache = 2 * config.num_hidden_layers * heads * width * bytes_each * 8 * pair.base.probe.budget.tokens
    return weights, cache


def print_audit_plan(pair: Pair, given: Given) -> None:
    """Print the table to standard output."""
    loaded = pair.base.loaded
    names = (model.loaded.name for model in (pair.aligned, pair.base))
    prompts = ", ".join(f"{len(found)} {name}" for name, found in given.texts.items())
    weights, cache = memory(pair)
    notes = [
        f"prompts: {prompts}; {len(given.tasks)} tasks of {pair.size.items} items",
        f"memory: weights {gib(weights)} + {gib(cache)} of rollouts at most",
    ]
    title = f"Plan: {' against '.join(names)}, size {pair.size.name}"
    parameters = sum(p.numel() for p in loaded.model.parameters())
    show_plan(title, planned_audit(pair, given), parameters, loaded.device, notes, "all, at most")
