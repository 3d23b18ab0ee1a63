"""How near each recipe came to the frontier (theory 1.13): its gain in refusal over the most that the survey allows at the same KL
and the same capability changes, on prompts and items that nothing was trained on. Added to the records that lack it.

    python runs/efficiency.py --out out/recipes --survey out/survey [--results runs/recipes]
"""

import argparse
import json
from pathlib import Path

from recipes import BASE

from aligntax.commands.align import AlignCommand
from aligntax.commands.alignment_gather import Bench
from aligntax.commands.alignment_measure import measuring
from aligntax.data import ChatFormat
from aligntax.models import ModelSpec, load
from aligntax.probing import Meter
from aligntax.results import plain


def main() -> None:
    """Score the base once, then every checkpoint beside its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/recipes"), help="checkpoints, as `recipes.py` left them")
    parser.add_argument("--results", type=Path, default=Path("runs/recipes"), help="records to add it to")
    parser.add_argument("--survey", type=Path, default=Path("out/survey"))
    given = parser.parse_args()
    base = load(ModelSpec(BASE, dtype="float32"))
    command = AlignCommand(BASE, survey=str(given.survey), texts=str(given.out / "texts"))
    with Meter(False) as meter:
        ruler = measuring(Bench(command, base, ChatFormat(base.tokenizer), meter))
        if ruler is None:
            raise SystemExit(f"{given.survey} has no gradients of refusal; survey with --estimator gradient")
        for record in sorted(given.results.glob("*-*.json")):
            name, _, step = record.stem.partition("@")
            found, folder = json.loads(record.read_text()), given.out / name
            place = next((p for p in (folder / "model", folder) if (p / "config.json").exists()), None)
            if step or place is None or "efficiency" in found:
                continue
            _, share = ruler.read(load(ModelSpec(str(place), dtype="float32")).model)
            record.write_text(json.dumps(found | {"efficiency": plain(share)}, indent=1) + "\n")
            print(name, share.exact_share, share.within_share, share.reason, flush=True)


if __name__ == "__main__":
    main()
