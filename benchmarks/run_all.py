"""Run every benchmark script, each in a process of its own, and keep what they found.

Without options: all scripts, then results.json beside this file (results-cuda.json on a GPU) and the table in README.md.
--guard writes neither, but compares the ratios with the committed ones and exits with 1 if one got worse by more than the margin.
--table only rewrites the table from the committed files. A script whose calibration differed is run again after a minute, --tries
times in all. What still differs or fails is recorded as such: mend the cause, or wait for an idle machine, and run again with
--keep 24, which keeps what is valid and younger than 24 hours.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import guard
import record
import table

HERE = Path(__file__).parent
README, BUILD = HERE.parent / "README.md", HERE.parent / "build" / "bench"
SCRIPTS = ("geometry", "survey", "directions", "harm_information", "audit", "rollouts", "align")
FILES = {"cpu": HERE / "results.json", "cuda": HERE / "results-cuda.json"}
SAME = ("cpu", "cores", "threads", "torch", "aligntax")  # not the device: numpy rooms run on the CPU beside a GPU
HOUR = 3600.0
REST = 60.0
"""Seconds before a script whose calibration differed is run again: a processor that ran hot comes back meanwhile."""


def kept(path: Path, hours: float, machine: dict[str, Any]) -> dict[str, Any] | None:
    """A script's JSON if it is younger than so many hours, valid, and from the same processor, threads and versions."""
    if not path.exists() or time.time() - path.stat().st_mtime > hours * HOUR:
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    same = all(found["machine"][key] == machine[key] for key in SAME)
    return found if same and not found["void"] else None


def run_script(script: Path, device: str, out: Path) -> record.Part:
    """Run one script, its output shown as it comes; a failure is an outcome, with the last line it printed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    command = [sys.executable, str(script), "--device", device, "--json", str(out)]
    last = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    if child.returncode != 0 or not out.exists():
        return record.Part(script.stem, None, f"exit code {child.returncode}: {last[:200]}")
    return record.Part(script.stem, json.loads(out.read_text(encoding="utf-8")))


def run_scripts(
    scripts: Sequence[Path], device: str, build: Path, hours: float, machine: dict[str, Any], tries: int = 1
) -> list[record.Part]:
    """Every script in turn, a void one up to `tries` times; those whose JSON may be kept are not run."""
    parts = []
    for script in scripts:
        out = build / f"{script.stem}.json"
        found = kept(out, hours, machine) if hours > 0 else None
        print(f"\n== {script.stem}" + (" (kept)" if found else ""), flush=True)
        part = record.Part(script.stem, found) if found else run_script(script, device, out)
        for _ in range(tries - 1):
            if part.state != "void":
                break
            print(f"\n== {script.stem} once more, in {REST:g} s", flush=True)
            time.sleep(REST)
            part = run_script(script, device, out)
        parts.append(part)
    return parts


def measure_all(device: str, hours: float, tries: int) -> dict[str, Any]:
    """Run all scripts and gather what they found; written to the build folder at once."""
    from measure import machine  # here, because the table and the guard need no torch

    folder = BUILD / device.partition(":")[0]
    here = machine(device)
    parts = run_scripts([HERE / f"{name}.py" for name in SCRIPTS], device, folder, hours, here, tries)
    results = record.gather(parts, here)
    record.write(folder / "results.json", results)
    return results


def judged(committed: dict[str, Any], results: dict[str, Any], margin: float) -> int:
    """Print what the guard found; 1 if something got worse or failed, 2 if nothing could be judged, else 0."""
    findings = guard.compare(committed, results, margin)
    for line in findings.said:
        print(f"note: {line}")
    for line in findings.worse:
        print(f"worse: {line}")
    print(f"{findings.judged} compared with the committed results, {len(findings.worse)} worse")
    if findings.worse or failed(results):
        return 1
    return 0 if findings.judged else 2


def failed(results: dict[str, Any]) -> list[str]:
    """Scripts that did not come to an end."""
    return [script for script, about in results["scripts"].items() if about["state"] == "failed"]


def write_tables() -> None:
    """The README's tables from the committed files that exist."""
    table.write(README, [results for path in FILES.values() if (results := record.read(path)) is not None])


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, or auto: cuda if there is one")
    parser.add_argument("--keep", type=float, default=0.0, metavar="HOURS", help="keep valid parts younger than this")
    parser.add_argument(
        "--tries", type=int, default=3, help="runs of a script until its calibration agrees (default 3)"
    )
    parser.add_argument("--margin", type=float, default=guard.MARGIN, help="relative change that counts as worse")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--guard", action="store_true", help="compare with the committed ratios and write nothing there")
    only.add_argument("--table", action="store_true", help="only rewrite the table in README.md")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run, record and compare; the exit code."""
    given = arguments(words)
    if given.table:
        write_tables()
        return 0
    from measure import resolved

    device = resolved(given.device)
    path = FILES.get(device.partition(":")[0])
    if path is None:
        print(f"--device {device}: the benchmarks run on {' and '.join(FILES)}", file=sys.stderr)
        return 2
    committed = record.read(path)
    if given.guard and committed is None:
        print(f"nothing to compare with: {path} does not exist; `make bench` makes it", file=sys.stderr)
        return 2
    results = measure_all(device, given.keep, given.tries)
    code = judged(committed, results, given.margin) if committed else 0
    if given.guard:
        return code
    record.write(path, results)
    write_tables()
    print(f"Wrote: {path} and the table in {README}")
    for script, about in results["scripts"].items():
        if about["state"] != "valid":
            print(f"{about['state']}: {script}; `make bench KEEP=24` runs it again and keeps what is valid")
    return 1 if failed(results) else 0


if __name__ == "__main__":
    sys.exit(main())
