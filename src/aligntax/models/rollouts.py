"""Rollouts that share what they have in common: the template, the prompt, and every prefill that another one begins with.

Keys and values of a token depend on what stands before it only. So prompts are run once, growing prefills of one continuation
are one row cut at several lengths, and all draws from one place start from one copy. A greedy rollout whose own choices are the
tokens of a longer prefill *is* the rollout from there, and the two are computed once. Rows that have ended leave the batch.

A rollout depends on its own start and seed alone: not on the batch, on the order, or on who shares with whom (to rounding).
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from aligntax.errors import DataError
from aligntax.models.blocks import embedding_device, text_config
from aligntax.models.decoding import Rollout, Strand, choose, decode, end_tokens
from aligntax.models.hidden_logits import CHUNK_BYTES, final_hidden, logits_of
from aligntax.models.prefix import can_cut, common_length


@dataclass(frozen=True)
class Start:
    """Where a rollout begins: token ids of the prompt and of the prefill, how many tokens may follow, and how they are chosen.

    `seed` None is greedy; a number draws at temperature 1, the same number the same draw.
    """

    prompt: tuple[int, ...]
    prefill: tuple[int, ...]
    new_tokens: int
    seed: int | None = None

    def __post_init__(self) -> None:
        if not self.prompt or self.new_tokens < 1:
            raise DataError(
                f"a rollout of {self.new_tokens} tokens after a prompt of {len(self.prompt)}; give at least one of each"
            )

    @property
    def ids(self) -> tuple[int, ...]:
        """Prompt and prefill."""
        return self.prompt + self.prefill


def roll_out(model: PreTrainedModel, starts: Sequence[Start]) -> list[Rollout]:
    """What the model writes from every start, in their order; all of them are one batch (see `run_groups` for several).

    Greedy ids are those of one row at a time without a cache. Families that keep a running state take that slow way.
    Raises NonFiniteError for NaN or infinite logits.
    """
    if not starts:
        return []
    with torch.no_grad():
        if not can_cut(model):
            return [_alone(model, start) for start in starts]
        forest = _Forest(model, starts)
        strands = forest.strands()
        waiting = [strand for strand in strands if strand.open]
        if waiting:
            cache, mask, hidden = forest.open(waiting)
            decode(model, waiting, cache, mask, hidden)
    found: list[Rollout | None] = [None] * len(starts)
    for strand in strands:
        for place in strand.places:
            found[place.index] = place.finish(strand)
    return [rollout for rollout in found if rollout is not None]


def top_tokens(model: PreTrainedModel, prefixes: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """The `count` likeliest next tokens after each prefix, likeliest first; those that end the text are left out."""
    ends = end_tokens(model)
    found = []
    with torch.no_grad():
        for prefix in prefixes:
            ids = torch.tensor([list(prefix)], device=embedding_device(model))
            logits = logits_of(model, final_hidden(model, ids, torch.ones_like(ids))[:, -1])[0]
            order = logits.topk(min(count + len(ends), len(logits))).indices.tolist()
            found.append([token for token in order if token not in ends][:count])
    return found


def _alone(model: PreTrainedModel, start: Start) -> Rollout:
    """One row, the whole text again for every token."""
    ends, strand = end_tokens(model), Strand.of(0, 0, start.new_tokens, start.seed)
    ids = list(start.ids)
    while strand.open:
        row = torch.tensor([ids], device=embedding_device(model))
        hidden = final_hidden(model, row, torch.ones_like(row))[:, -1]
        strand.take(choose(logits_of(model, hidden), [strand])[0], ends)
        ids = [*start.ids, *strand.tokens]
    return strand.places[0].finish(strand)


@dataclass(frozen=True)
class _Rows:
    """Keys and values `(rows, heads, columns, width)` by layer; the tokens of row `r` stand in columns `begins[r]` and on."""

    layers: tuple[tuple[Tensor | None, Tensor | None], ...]
    begins: tuple[int, ...]

    def spread(self, rows: Sequence[int], kept: Sequence[int], device: torch.device) -> tuple[DynamicCache, Tensor]:
        """A cache of the first `kept` tokens of the given rows, right-aligned, and its mask `(B, max kept)`."""
        width = max(kept)
        lengths = torch.tensor(list(kept), device=device)[:, None]
        first = torch.tensor([self.begins[r] for r in rows], device=device)[:, None]
        at = torch.arange(width, device=device)[None] - (width - lengths)
        if not width:
            return DynamicCache(), torch.zeros(len(rows), 0, dtype=torch.long, device=device)
        columns = first + at.clamp(min=0)
        source = torch.tensor(list(rows), device=device)[:, None]
        layers = [tuple(_picked(x, source, columns) for x in pair) for pair in self.layers]
        return DynamicCache(ddp_cache_data=layers), (at >= 0).long()


def _picked(states: Tensor | None, source: Tensor, columns: Tensor) -> Tensor | None:
    # Without a config every layer of the cache is a full one, so that sliding windows can be cut as well.
    if states is None:
        return None
    device = states.device
    return states[source.to(device), :, columns.to(device)].transpose(1, 2)


class _Forest:
    """The prefixes of a batch of starts, run once: `hidden` `(hosts, T, d)` begins at the last token of the prompt.

    A *host* is a prefill that none of the others extends; the rest are hosts cut short.
    """

    def __init__(self, model: PreTrainedModel, starts: Sequence[Start]) -> None:
        self.model, self.starts = model, starts
        device = embedding_device(model)
        self.device = torch.device("cpu") if device.type == "meta" else device
        self.ends = end_tokens(model)
        prompts = sorted({start.prompt for start in starts})
        self.hosts = [
            (p, prefill) for p in prompts for prefill in _longest({s.prefill for s in starts if s.prompt == p})
        ]
        head = common_length(prompts)
        rows, _ = self._extend(_Rows((), (0,)), [0], [0], [prompts[0][:head]])
        rows, _ = self._extend(rows, [0] * len(prompts), [head] * len(prompts), [p[head:-1] for p in prompts])
        number = {prompt: k for k, prompt in enumerate(prompts)}
        self.rows, self.hidden = self._extend(
            rows,
            [number[p] for p, _ in self.hosts],
            [len(p) - 1 for p, _ in self.hosts],
            [(*p[-1:], *prefill) for p, prefill in self.hosts],
        )

    def _extend(
        self, rows: _Rows, sources: Sequence[int], kept: Sequence[int], ids: Sequence[tuple[int, ...]]
    ) -> tuple[_Rows, Tensor]:
        """New rows: the first `kept` tokens of a source row, then its `ids`; hidden states `(B, T, d)` of the latter."""
        cache, before = rows.spread(sources, kept, self.device)
        width, time = before.shape[1], max(map(len, ids))
        hidden = torch.empty(len(ids), 0, 0, device=self.device)
        if time:
            row = torch.zeros(len(ids), time, dtype=torch.long, device=self.device)
            mask = torch.zeros_like(row)
            for k, tokens in enumerate(ids):
                row[k, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
                mask[k, : len(tokens)] = 1
            hidden = final_hidden(self.model, row, torch.cat([before, mask], dim=1), cache)
        layers = tuple((getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in cache.layers)
        return _Rows(layers, tuple(width - k for k in kept)), hidden

    def strands(self) -> list[Strand]:
        """The rows to decode: one for each draw, and one for all greedy starts that come through the same place."""
        place_of = {host: k for k, host in enumerate(self.hosts)}
        greedy = self._choices({self._host(s, place_of) for s in self.starts if s.seed is None})
        found: list[Strand] = []
        shared: dict[tuple[int, int], Strand] = {}
        for index, start in enumerate(self.starts):
            host, length = self._host(start, place_of), len(start.prefill)
            if start.seed is not None:
                found.append(Strand.of(index, host, start.new_tokens, start.seed, length))
                continue
            said = self._follow(start, host, greedy)
            place = (host, length + len(said))
            shared.setdefault(place, Strand(*place, uniforms=None)).join(index, said, start.new_tokens)
        return [*found, *shared.values()]

    def _host(self, start: Start, place_of: dict[tuple[tuple[int, ...], tuple[int, ...]], int]) -> int:
        exact = place_of.get((start.prompt, start.prefill))
        # In sorted order a prefill stands right before its extensions.
        return bisect_left(self.hosts, (start.prompt, start.prefill)) if exact is None else exact

    def _choices(self, hosts: Iterable[int]) -> dict[int, list[int]]:
        """What greedy decoding would say after each token of a host `(1 + len(prefill),)`."""
        vocab = getattr(text_config(self.model), "vocab_size", None) or 2**17
        size, found = max(1, CHUNK_BYTES // (4 * vocab)), {}
        for host in hosts:
            own = self.hidden[host, : 1 + len(self.hosts[host][1])]
            pieces = [logits_of(self.model, own[k : k + size]).argmax(-1) for k in range(0, len(own), size)]
            found[host] = torch.cat(pieces).tolist()
        return found

    def _follow(self, start: Start, host: int, greedy: dict[int, list[int]]) -> list[int]:
        """Tokens of the host that the start would choose itself, up to one that ends the text."""
        whole, length, said = self.hosts[host][1], len(start.prefill), list[int]()
        while length < len(whole) and len(said) < start.new_tokens and greedy[host][length] == whole[length]:
            if whole[length] in self.ends:
                break
            said.append(whole[length])
            length += 1
        return said

    def open(self, strands: Sequence[Strand]) -> tuple[DynamicCache, Tensor, Tensor]:
        """Cache, mask `(B, W)` and last hidden states `(B, d)` from which these strands go on."""
        hosts = [strand.host for strand in strands]
        kept = [len(self.hosts[s.host][0]) + s.length for s in strands]
        cache, mask = self.rows.spread(hosts, kept, self.device)
        return cache, mask, self.hidden[hosts, [strand.length for strand in strands]]


def _longest(prefills: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Those that no other one extends, sorted.

    >>> _longest([(), (1,), (1, 2), (3,)])
    [(1, 2), (3,)]
    """
    order = sorted(prefills)
    return [a for a, b in zip(order, [*order[1:], None], strict=True) if b is None or b[: len(a)] != a]
