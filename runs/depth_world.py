"""Safety depth in trained networks: where KL goes when harm is decided at word 1, 8 or 20, and how deep recovery training reaches.

    python runs/depth_world.py [--out out/depth] [--seeds 0 1 2]

Every world and seed is pretrained, aligned to exact harm (RLOO), fine-tuned harmlessly, taught to recover, and read by position;
all of it is kept. Writes runs/family/depth.json and runs/family/worlds.json, which `aligntax predict P5 --inputs` reads.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from aligntax.commands.scale_depth import (
    DECIDED,
    SEEDS,
    DepthReading,
    depth_reading,
    depth_worlds,
    recovery_worlds,
    score_shares,
)
from aligntax.predictions import score_depth, score_recovery
from aligntax.results import plain

PLACE = Path("runs/family")


def summary(one: DepthReading) -> dict[str, object]:
    """The row of one world and seed that the log quotes."""
    kl = np.array(one.kl)
    near = kl[max(0, one.decided - 2) : one.decided + 1].sum()
    return {
        "decided": one.decided, "seed": one.seed, "harm": [one.harm_base, one.harm_aligned, one.equilibrium_harm],
        "kl": float(kl.sum()), "equilibrium_kl": float(np.sum(one.equilibrium_kl)), "peak_at": int(kl.argmax()) + 1,
        "share_within_one_of_decided": float(near / kl.sum()), "share_past_decided": float(kl[one.decided :].sum() / kl.sum()),
        "horizon": one.horizon, "reward_horizon": one.reward_horizon, "horizon_gap": one.horizon_gap,
        "late": one.late_verdict, "late_kl": one.late_kl, "late_rise": one.late_rise,
    }  # fmt: skip


def main() -> None:
    """Run what is missing, then write what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/depth"))
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    args = parser.parse_args()
    readings = []
    for seed in args.seeds:
        for decided in DECIDED:
            readings.append(depth_reading(args.out / f"{decided}-{seed}", decided, seed))
            print(json.dumps(plain(summary(readings[-1]))), flush=True)
    worlds = [
        {
            "name": w.name, "deciding": w.deciding, "kl": w.kl, "information": w.information, "entropy": w.entropy,
            "benign": w.benign,
        }
        for w in depth_worlds(readings)
    ]  # fmt: skip
    found = {
        "summary": [summary(one) for one in readings], "p5": score_depth(depth_worlds(readings), 0),
        "p5_shares": score_shares(readings), "p6": score_recovery(recovery_worlds(readings), 0), "readings": readings,
    }  # fmt: skip
    PLACE.mkdir(parents=True, exist_ok=True)
    (PLACE / "depth.json").write_text(json.dumps(plain(found), indent=1) + "\n")
    (PLACE / "worlds.json").write_text(json.dumps(plain(worlds), indent=1) + "\n")


if __name__ == "__main__":
    main()
