"""Geometry at the size of a large model: d = 8192, 256 tasks, 80 layers, float32 input. Goal: 6 s and 2 GB.

Timed: signed cosines, sum and joint tax of every layer, and the tolerance programme with its shadow prices at one
layer. Making the input is not timed, but it is in memory. `independent` rows are noise around eight shared directions;
`duplicated` repeats each row once, so that every Gram matrix is singular. `bare products` is the least that all of this needs:
one float32 product of every layer's rows with themselves. The room is numpy, so that --device changes nothing.
"""

import argparse
import json
import time

import numpy as np
from measure import Line, calibrated, in_child, options, peak_bytes

from aligntax.geometry import layers_tax, max_safety_with_tolerances

GB = 1e9
BUDGET = 1.0


def make_layers(layers: int, tasks: int, d: int, duplicated: bool) -> tuple[np.ndarray, np.ndarray]:
    """Safety `(L, d)` and capabilities `(L, m, d)`, float32, made in place layer by layer."""
    rng = np.random.default_rng(0)
    rows = np.empty((layers, tasks, d), dtype=np.float32)
    for layer in rows:
        rng.standard_normal(dtype=np.float32, out=layer)
        shared = rng.standard_normal((8, d), dtype=np.float32)
        layer += 0.5 * rng.standard_normal((tasks, 8), dtype=np.float32) @ shared
        if duplicated:
            layer[tasks // 2 :] = layer[: tasks - tasks // 2]
    safety = rng.standard_normal((layers, d), dtype=np.float32) + rows[:, :16].mean(axis=1)
    return safety, rows


def bare(rows: np.ndarray) -> float:
    """Seconds of one product of every layer's rows with themselves."""
    began = time.perf_counter()
    for layer in rows:
        layer @ layer.T
    return time.perf_counter() - began


def lines(kind: str, found: dict[str, float]) -> list[Line]:
    """Seconds and memory against their limits, and both as ratios."""
    note = f"layers {found['tax_s']:.2f} s, tolerances {found['tolerance_s']:.2f} s"
    facts = f"joint {found['joint']:.3f}, sum {found['sum']:.3f}, {found['active']:.0f} tasks active"
    took, bare_s, peak, size = (
        found["tax_s"] + found["tolerance_s"],
        found["bare_s"],
        found["peak"] / GB,
        found["input"] / GB,
    )
    return [
        Line(f"{kind}: seconds", took, "<= 6", note, unit="s"),
        Line(f"{kind}: peak memory", peak, "<= 2", facts, unit="GB"),
        Line(
            f"{kind}: seconds over bare products",
            took / bare_s,
            unit="s",
            ours=took,
            peers={"bare products": bare_s},
            better="less",
        ),
        Line(f"{kind}: peak over input", peak / size, unit="GB", ours=peak, peers={"input": size}, better="less"),
    ]


def child(layers: int, tasks: int, d: int, kind: str) -> dict[str, float]:
    """Seconds of both parts, peak bytes, and numbers that show that something was computed."""
    safety, rows = make_layers(layers, tasks, d, kind == "duplicated")
    began = time.perf_counter()
    tax = layers_tax(safety, rows)
    between = time.perf_counter()
    middle = layers // 2
    tolerances = np.full(tasks, 0.01 * BUDGET)
    solution = max_safety_with_tolerances(safety[middle], rows[middle], tolerances, BUDGET)
    ended = time.perf_counter()
    peak = float(peak_bytes("cpu"))
    return {
        "tax_s": between - began,
        "tolerance_s": ended - between,
        "bare_s": bare(rows),
        "input": float(safety.nbytes + rows.nbytes),
        "peak": peak,
        "joint": float(tax.joint[middle]),
        "sum": float(tax.total[middle]),
        "active": float(solution.active.sum()),
    }


def main() -> None:
    """Read arguments, run each kind in a process of its own, print and save."""
    parser = options(__doc__)
    parser.add_argument("--layers", type=int, default=80)
    parser.add_argument("--tasks", type=int, default=256)
    parser.add_argument("--width", type=int, default=8192)
    parser.add_argument("--child", choices=("independent", "duplicated"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(given.layers, given.tasks, given.width, given.child)))
        return
    size = ["--layers", str(given.layers), "--tasks", str(given.tasks), "--width", str(given.width)]
    with calibrated("cpu", given.json) as run:
        for kind in ("independent", "duplicated"):
            found = in_child(__file__, [*size, "--child", kind])
            run.add(*lines(kind, found))


if __name__ == "__main__":
    main()
