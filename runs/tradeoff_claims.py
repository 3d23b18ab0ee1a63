"""From the grid's results to claims: each claim on which the sources disagree, what was measured, and an interval over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tradeoff_figure import figure

from aligntax.lab.world import INTRINSIC
from aligntax.results import write_bytes, write_json
from aligntax.stats import constrained_choice, fit_overoptimisation, hypervolume, pareto_set, weighted_choice
from aligntax.stats.resample import t_quantile

Rows = list[dict[str, Any]]
BETAS = {"beta .01": 0.01, "middle": 0.05, "beta .2": 0.2, "beta 1": 1.0}
PAIRS = {"pairs 32": 32, "pairs 128": 128, "beta .01": 896}
LEVEL = 0.9


def over_seeds(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean over seeds with a t interval; no interval from fewer than two."""
    found = np.array(values, dtype=float)
    if len(found) < 2:
        return {"value": float(found[0]) if len(found) else None, "low": None, "high": None, "seeds": len(found)}
    mean = float(found.mean())
    half = t_quantile(LEVEL, len(found) - 1) * float(found.std(ddof=1)) / len(found) ** 0.5
    return {"value": mean, "low": mean - half, "high": mean + half, "seeds": len(found)}


def verdict(found: dict[str, Any], above: bool) -> str:
    """What the interval says of the claim that the number is `above` 0, or else below it."""
    if found["low"] is None or not (found["low"] > 0 or found["high"] < 0):
        return "undecided"
    return "supported" if (found["low"] > 0) == above else "contradicted"


class Grid:
    """Results by seed and variant."""

    def __init__(self, rows: Rows) -> None:
        self.rows = {(r["seed"], r["variant"]): r for r in rows if "variant" in r}
        self.best = [r for r in rows if "n" in r]
        self.seeds = sorted({seed for seed, _ in self.rows})

    def each(self, names: Sequence[str], value: Callable[..., Any]) -> list[Any]:
        """`value` of the named variants of every seed that has them all."""
        complete = [s for s in self.seeds if all((s, n) in self.rows for n in names)]
        return [value(*(self.rows[s, n] for n in names)) for s in complete]

    def slope(self, names: Sequence[str], x: Sequence[float], key: str) -> dict[str, Any]:
        """Least-squares slope of `key` on `x` over the named variants, one for each seed."""
        return over_seeds(self.each(names, lambda *rows: float(np.polyfit(x, [r[key] for r in rows], 1)[0])))

    def difference(self, one: str, other: str, key: str) -> dict[str, Any]:
        """`one - other` in `key`, paired by seed."""
        return over_seeds(self.each([one, other], lambda a, b: a[key] - b[key]))


def lost(before: dict[str, Any], after: dict[str, Any], intrinsic: bool) -> float:
    """Mean accuracy lost over the tasks that share structure with safety, or over the others."""
    names = [name for name in before["tasks"] if (name in INTRINSIC) == intrinsic]
    return float(np.mean([before["tasks"][name] - after["tasks"][name] for name in names]))


def claims(grid: Grid) -> Rows:
    """One row a claim: claim, source, result, interval, verdict."""
    log_beta = list(np.log10(list(BETAS.values())))
    rows: Rows = []

    def add(claim: str, source: str, what: str, found: dict[str, Any], above: bool = True) -> None:
        rows.append({"claim": claim, "source": source, "measured": what, **found, "verdict": verdict(found, above)})

    for key, claim, above in (
        ("gold reward", "beta up, alignment up", True),
        ("capability", "beta up, capability down", False),
        ("kl", "beta up, KL to the reference down (the objective's own answer)", False),
    ):
        found = grid.slope(list(BETAS), log_beta, key)
        source = "[R] core trade-off" if key != "kl" else "theory 6.2, 8"
        add(claim, source, f"slope of {key} on log10 beta, .01 to 1", found, above)
    add_sources(grid, add)
    add_overoptimisation(grid, add)
    return rows


def add_sources(grid: Grid, add: Callable[..., None]) -> None:
    """Sources of the tax one at a time, adaptive beta, diversity."""
    tax = over_seeds(grid.each(["start"], lambda r: r["pretrained"]["capability"] - r["capability"]))
    add("alignment costs capability: SFT", "[R] alignment tax", "capability, pretrained - SFT", tax)
    rest = grid.difference("start", "middle", "capability")
    add("alignment costs capability: policy optimisation", "[R] alignment tax", "capability, SFT - RLOO", rest)
    own = over_seeds(grid.each(["start", "middle"], lambda a, b: lost(a, b, True) - lost(a, b, False)))
    add(
        "tasks that share structure with safety pay more",
        "[G] intrinsic and incidental overlap",
        "accuracy lost from SFT to RLOO: recipes and persuasion - the other six",
        own,
    )
    for key in ("capability", "gold reward"):
        found = grid.difference("gold", "middle", key)
        add(
            f"an imperfect reward model costs {key}",
            "[R] reward modelling",
            f"{key}, gold - learned reward, same beta",
            found,
        )
        found = grid.difference("group 32", "group 2", key)
        add(f"gradient variance costs {key}", "[R] policy optimisation", f"{key}, groups of 32 - groups of 2", found)
    found = grid.difference("adaptive", "middle", "kl")
    add(
        "adaptive beta holds the policy nearer",
        "[R] adaptive KL",
        "KL (nats a reply), adaptive - fixed beta from the same start",
        found,
        above=False,
    )
    found = grid.difference("adaptive", "middle", "gold reward")
    add("adaptive beta gives more alignment", "[R] adaptive KL", "gold reward, adaptive - fixed", found)
    for key in ("distinct keys", "distinct"):
        found = grid.difference("start", "middle", key)
        add(
            "policy optimisation loses diversity",
            "[R] mode collapse",
            f"share of {key} among 8 replies, SFT - RLOO",
            found,
        )


def add_overoptimisation(grid: Grid, add: Callable[..., None]) -> None:
    """Where gold reward turns while the proxy rises, by best of n and by policy optimisation."""
    for count in (32, 128, 896):
        own = [r for r in grid.best if r["pairs"] == count]
        fall = over_seeds(falls([r["gold"] for r in own]))
        add(
            "gold reward falls again as the proxy is pushed",
            "[R] over-optimisation",
            f"best of n, {count} pairs: gold at the n that is best on the other seeds - gold at 64",
            fall,
        )
    both = [
        (a["gold"][-1], b["gold"][-1])
        for a in grid.best
        for b in grid.best
        if a["seed"] == b["seed"] and (a["pairs"], b["pairs"]) == (896, 32)
    ]
    found = over_seeds([a - b for a, b in both])
    add(
        "more preferences, less over-optimisation", "[R] over-optimisation", "gold at best of 64, 896 - 32 pairs", found
    )
    for name, count in PAIRS.items():
        curves = grid.each([name], lambda r: smooth(r["curves"]["rewards/gold/mean"]))
        found = over_seeds(falls(curves))
        add(
            "gold reward falls again as the proxy is pushed",
            "[R] over-optimisation",
            f"RLOO at beta .01, {count} pairs: gold (mean of 10 steps) where it is best on the other seeds - last",
            found,
        )
    found = grid.difference("beta .01", "pairs 32", "gold reward")
    add(
        "more preferences, less over-optimisation",
        "[R] over-optimisation",
        "gold reward after RLOO at beta .01, 896 - 32 pairs",
        found,
    )


def falls(curves: Sequence[Sequence[float]]) -> list[float]:
    """For each seed, gold where the *other* seeds peak minus gold at the end: its own peak is above its end by luck alone."""
    if len(curves) < 2:
        return []
    found = []
    for k, own in enumerate(curves):
        others = np.mean([curve[: len(own)] for j, curve in enumerate(curves) if j != k], axis=0)
        found.append(float(own[int(np.argmax(others))] - own[-1]))
    return found


def smooth(curve: list[list[float]], window: int = 10) -> list[float]:
    """Running means of a curve given as (step, value)."""
    values = np.array([value for _, value in curve])
    return np.convolve(values, np.ones(window) / window, "valid").tolist() if len(values) >= window else values.tolist()


def fits(grid: Grid) -> Rows:
    """The two forms of 6.5, pooled over seeds, each seed measured from its own value at KL = 0."""
    rng, rows = np.random.default_rng(0), []
    for count in (32, 128, 896):
        own = [r for r in grid.best if r["pairs"] == count]
        kl, gold = [k for r in own for k in r["kl"]], [g - r["gold"][0] for r in own for g in r["gold"]]
        rows.append(_fit("best-of-n", count, kl, gold, rng))
    for name, count in PAIRS.items():
        points = [
            p
            for s in grid.seeds
            if (s, name) in grid.rows
            for p in _policy_points(grid.rows[s, name], grid.rows[s, "start"])
        ]
        rows.append(_fit("policy", count, [k for k, _ in points], [g for _, g in points], rng))
    return [row for row in rows if row]


def _policy_points(row: dict[str, Any], start: dict[str, Any]) -> list[tuple[float, float]]:
    """(KL, gold over the first steps) of each step with a positive sampled KL."""
    gold, kl = dict(row["curves"]["rewards/gold/mean"]), dict(row["curves"]["kl"])
    first = float(np.mean(list(gold.values())[:3]))
    return [(kl[s], gold[s] - first) for s in gold if s in kl and kl[s] > 0]


def _fit(form: Any, count: int, kl: list[float], gold: list[float], rng: np.random.Generator) -> dict[str, Any]:
    if len({k for k in kl if k > 0}) < 4:
        return {}
    found = fit_overoptimisation(kl, gold, form, rng, 1000)
    shown = {
        name: [getattr(found, name).value, getattr(found, name).low, getattr(found, name).high]
        for name in ("alpha", "beta", "peak_kl", "peak_gold")
    }
    return {"form": form, "pairs": count, "points": len(kl), "largest_kl": max(kl), **shown}


def choices(grid: Grid) -> dict[str, Any]:
    """Weighted, constrained and staged choice among the candidates on the first seed, scored on the others."""
    names = sorted({n for _, n in grid.rows if all((s, n) in grid.rows for s in grid.seeds)})
    if len(grid.seeds) < 2 or len(names) < 4:
        return {}
    first, rest = grid.seeds[0], grid.seeds[1:]
    c = np.array([grid.rows[first, n]["capability"] for n in names])
    a = np.array([grid.rows[first, n]["gold reward"] for n in names])
    floor = float(np.quantile(a, 0.7))
    half = np.flatnonzero(a >= np.median(a))
    picked = {f"weighted, {w:g} of capability": weighted_choice(c, a, w) for w in (0.1, 0.3, 0.5, 0.7, 0.9)}
    picked[f"constrained, gold reward >= {floor:.2f}"] = constrained_choice(c, a, floor)
    picked["staged, the better half by gold reward, then capability"] = int(half[np.argmax(c[half])])
    rows = [
        {
            "rule": rule, "chosen": names[k],
            "capability": over_seeds([grid.rows[s, names[k]]["capability"] for s in rest]),
            "gold reward": over_seeds([grid.rows[s, names[k]]["gold reward"] for s in rest]),
        }
        for rule, k in picked.items()
    ]  # fmt: skip
    start = grid.rows[first, "start"]
    corner = [start["capability"] - 0.2, start["gold reward"]]
    points = np.stack([c, a], axis=1)
    return {
        "candidates": names, "rows": rows, "pareto": [names[k] for k in pareto_set(points)],
        "hypervolume": hypervolume(points, corner), "reference": corner, "chosen_on_seed": first, "scored_on_seeds": rest,
    }  # fmt: skip


def write_report(read: Rows, folder: Path) -> None:
    """`tradeoffs.json` and `tradeoffs.svg` in `folder`."""
    grid = Grid(read)
    kept = [{k: v for k, v in row.items() if k != "curves"} for row in grid.rows.values()]
    found = {
        "seeds": grid.seeds,
        "level": LEVEL,
        "claims": claims(grid),
        "fits": fits(grid),
        "choice": choices(grid),
        "runs": kept,
        "best_of_n": grid.best,
    }
    write_json(folder / "tradeoffs.json", found)
    write_bytes(folder / "tradeoffs.svg", figure(list(grid.rows.values()), grid.best, BETAS).encode())
    for row in found["claims"]:
        span = "" if row["low"] is None else f" [{row['low']:+.3f}, {row['high']:+.3f}]"
        value = "not run" if row["value"] is None else f"{row['value']:+.3f}"
        print(f"{row['verdict']:>12}  {row['claim']} ({row['source']}): {row['measured']} {value}{span}")
