"""Every prediction, scored by its protocol: a resumable queue that writes runs/predictions/P*.json.

    python runs/predict.py [P1 ...] --recipes out/recipes --out out/predict

P1 takes every checkpoint of `recipes.py` that is there, and a pilot of four steps with another seed, trained first. P2 reads
runs/family/scale.json, P3 the merges under `--merges`, P5 also the trained networks of runs/family/worlds.json where they are.
Finished pieces are kept under `--out`; each prediction is scored anew from them.
"""

import argparse
import shutil
from pathlib import Path

from aligntax.cli import main as aligntax

BASE = "smollm2-135m-instruct"
PUBLIC = Path("../shared/data/tasks")
HERE = Path("runs/predictions")
PILOT_SEED, PILOT_STEPS = 100, 4
NAMES = ("P1", "P2", "P3", "P4", "P5", "P6", "P7")


def pilot(out: Path) -> Path:
    """The pilot's checkpoint: plain refusal training, a few steps, a seed that no recipe has."""
    folder = out / "pilot"
    if not (folder / "align.json").exists():
        how = "--resume" if folder.exists() else "--overwrite"
        words = [
            "align",
            BASE,
            "--lora",
            "--steps",
            str(PILOT_STEPS),
            "--seed",
            str(PILOT_SEED),
            "--out",
            str(folder),
            how,
        ]
        if aligntax(words):
            raise SystemExit("the pilot failed")
    return folder / "model"


def words_of(name: str, given: argparse.Namespace) -> list[str]:
    """What to type for one prediction."""
    found = ["predict", name, "--out", str(given.out)]
    if name == "P1":
        trained = sorted(p.parent for p in given.recipes.glob("*/model/model.safetensors"))
        found += ["--model", BASE, "--aligned", *map(str, trained), "--pilot", str(pilot(given.out))]
        found += ["--data", str(PUBLIC)] if PUBLIC.exists() else []
    family = Path("runs/family/scale.json")
    if name == "P2" and family.exists():
        found += ["--inputs", str(family)]
    merges = sorted(p.parent for p in given.merges.glob("*/merge.json"))
    if name == "P3" and merges:
        found += ["--inputs", *map(str, merges)]
    return found


def main() -> None:
    """Run the named predictions, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(NAMES))
    parser.add_argument("--recipes", type=Path, default=Path("out/recipes"))
    parser.add_argument("--merges", type=Path, default=Path("out/merges"))
    parser.add_argument("--out", type=Path, default=Path("out/predict"))
    given = parser.parse_args()
    HERE.mkdir(parents=True, exist_ok=True)
    for name in given.names:
        if aligntax(words_of(name, given)):
            raise SystemExit(f"{name} failed")
        shutil.copy(given.out / f"{name}.json", HERE / f"{name}.json")
    networks = Path("runs/family/worlds.json")
    if "P5" in given.names and networks.exists():
        place = given.out / "networks"
        if aligntax(["predict", "P5", "--inputs", str(networks), "--out", str(place)]):
            raise SystemExit("P5 on trained networks failed")
        shutil.copy(place / "P5.json", HERE / "networks-P5.json")


if __name__ == "__main__":
    main()
