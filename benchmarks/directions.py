"""Seconds of an all-layer difference in means against `repeng`, `steering-vectors` and one prompt at a time, on the same prompts.

By default on all built-in harmful and harmless prompts, as `aligntax survey --size full` reads them.
"""

import math
import statistics
from collections.abc import Callable

import peers
from measure import Line, Run, calibrated, ratio, spread, steady
from survey import Bench, model_options

from aligntax.data import load_contrast

Actions = dict[str, Callable[[], peers.Directions]]


def contenders(bench: Bench, prompts: int) -> Actions:
    """Everybody who may find the directions of so many prompts of either class."""
    contrast = load_contrast("harmlessness")
    classes = (contrast.positive[:prompts], contrast.negative[:prompts])
    texts = peers.make_prompts(bench.loaded, bench.encoder, classes)
    probe = bench.probe(bench.encoder.prompts("prompts", texts.harmful[:4]).rows)
    return {
        "ours": lambda: peers.ours(probe, bench.encoder, texts),
        "one prompt at a time": lambda: peers.per_prompt(bench.loaded, texts),
        "steering-vectors, batch 1": lambda: peers.steering_vectors(bench.loaded, texts, 1),
        "steering-vectors, batch 32": lambda: peers.steering_vectors(bench.loaded, texts, 32),
        "repeng": lambda: peers.repeng(bench.loaded, texts),
    }


def means(actions: Actions, found: dict[str, peers.Directions | str], bench: Bench, run: Run, repeats: int) -> None:
    """Time all that run, interleaved, each round calibrated; `found` is what each came to, or why it does not run."""
    for name, reason in found.items():
        if isinstance(reason, str):
            run.add(Line(name, math.nan, "", f"does not run: {reason}", detail=True))
    directions = {name: value for name, value in found.items() if not isinstance(value, str)}
    seconds = steady({name: actions[name] for name in directions}, repeats, bench.device, run)
    took = {name: statistics.median(x) for name, x in seconds.items()}
    others = {name: x for name, x in took.items() if name != "ours"}
    fastest = min(others, key=lambda name: others[name])
    value = ratio(seconds[fastest], seconds["ours"])
    name = "difference in means: fastest peer over ours"
    run.add(Line(name, value, ">= 3", fastest, unit="s", ours=took["ours"], peers=others))
    for name in directions:
        run.add(Line(f"{name}: seconds", took[name], "", spread(seconds[name]), "s", detail=True))
        if name != "ours":
            goal, note = ("", "estimates another thing") if name == "repeng" else (">= 0.999", "lowest over layers")
            cosine = peers.lowest_cosine(directions["ours"], directions[name])
            run.add(Line(f"{name}: cosine", cosine, goal, note, "cosine", detail=True))


def main() -> None:
    """Read arguments, run every contender once, then all of them in rounds between calibrations, print and save."""
    parser = model_options(__doc__, repeats=2)
    parser.add_argument("--prompts", type=int, default=128, help="prompts of either class")
    given = parser.parse_args()
    bench = Bench(given)
    actions = contenders(bench, given.prompts)
    found = {name: peers.attempt(action) for name, action in actions.items()}
    with calibrated(bench.device, given.json, str(bench.loaded.dtype)) as run:
        means(actions, found, bench, run, given.repeats)


if __name__ == "__main__":
    main()
