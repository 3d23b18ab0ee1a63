"""What every benchmark shares: a calibration before and after, peak memory, children, a table and its JSON.

A ratio counts only when the machine was equally fast at both ends of the run; otherwise the run is void and says so. A long run may
calibrate between its rounds and keep those that count (`steady`): then the kept rounds say so.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

VOID_ABOVE = 1.2
MIB = 2**20


@dataclass(frozen=True)
class Line:
    """One measured number.

    With `peers`, `value` is a ratio between `ours` and the peer that counts, all of them in `unit`, and `better` says whether
    'more' or 'less' of it is better where no goal does. Without peers `value` is our own number, in `unit`. `goal` is such as
    '>= 3', or '' where the number only informs; `detail` belongs to the line before it; `note` says more. Raises ValueError for
    peers without ours or without a direction.
    """

    name: str
    value: float
    goal: str = ""
    note: str = ""
    unit: str = ""
    ours: float | None = None
    peers: dict[str, float] = field(default_factory=dict)
    better: str = ""
    detail: bool = False

    def __post_init__(self) -> None:
        """A ratio can be shown and guarded only if both sides and its direction are known."""
        if self.peers and (self.ours is None or not self.direction):
            raise ValueError(f"line {self.name!r} has peers: give ours, and a goal or better='more' or 'less'")

    @property
    def direction(self) -> str:
        """'more', 'less', or '' where neither is better."""
        return self.better or {">=": "more", "<=": "less"}.get(self.goal.partition(" ")[0], "")

    @property
    def verdict(self) -> str:
        """'met', 'missed', or '' where there is no goal."""
        if not self.goal:
            return ""
        sign, limit = self.goal.split()
        return "met" if (self.value >= float(limit) if sign == ">=" else self.value <= float(limit)) else "missed"

    def facts(self) -> dict[str, Any]:
        """What is written: one shape for every line of every script; null where a number is missing."""
        value = self.value if math.isfinite(self.value) else None
        return {
            "name": self.name,
            "value": value,
            "ours": self.ours if self.peers else value,
            "peers": self.peers,
            "ratio": value if self.peers else None,
            "unit": self.unit,
            "goal": self.goal,
            "better": self.direction,
            "met": self.verdict == "met" if self.goal else None,
            "detail": self.detail,
            "note": self.note,
        }


@dataclass
class Run:
    """One benchmark run: `calibration` holds seconds before and after, `load` the load averages at both ends.

    `rounds`: the same for each round by itself, where the rounds were calibrated; they then say whether the run is void.
    """

    device: str
    dtype: str = "float32"
    calibration: list[float] = field(default_factory=list)
    rounds: list[list[float]] = field(default_factory=list)
    load: list[tuple[float, float, float]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    began: float = field(default_factory=time.time)

    @property
    def void(self) -> bool:
        """True when the calibration loops differ by more than 20%."""
        return any(max(pair) > VOID_ABOVE * min(pair) for pair in self.rounds or [self.calibration])

    def add(self, *lines: Line) -> None:
        """Keep lines and show each at once, because a run takes minutes."""
        for line in lines:
            self.lines.append(line)
            name, unit = "  " * line.detail + line.name, "" if line.peers else line.unit
            print(f"{name:<46} {line.value:>11.4g} {unit:<8}  {line.goal:<8} {line.verdict:<7} {line.note}", flush=True)

    def close(self, path: Path | None) -> None:
        """Print calibration, load and validity; write everything as JSON when there is a path."""
        before, after = self.calibration
        loads = " and ".join("/".join(f"{x:.2f}" for x in load) for load in self.load)
        print(f"calibration {before * 1e3:.2f} ms before, {after * 1e3:.2f} ms after; load average {loads}")
        for pair in self.rounds:
            print(f"a round between {pair[0] * 1e3:.2f} and {pair[1] * 1e3:.2f} ms")
        print("void: the calibration loops differ by over 20%" if self.void else "valid")
        if path is not None:
            facts = {
                "void": self.void,
                "date": datetime.fromtimestamp(self.began, UTC).date().isoformat(),
                "seconds": round(time.time() - self.began, 1),
                "machine": machine(self.device) | {"dtype": self.dtype},
                "calibration_s": self.calibration,
                "rounds_s": self.rounds,
                "load": self.load,
                "lines": [line.facts() for line in self.lines],
            }
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(facts, indent=1, allow_nan=False) + "\n", encoding="utf-8")


@contextmanager
def calibrated(device: str, path: Path | None, dtype: str = "float32") -> Iterator[Run]:
    """Calibrate, run the body, calibrate again, print and save; `dtype` is what the model computes in."""
    run = Run(device, dtype.removeprefix("torch."))
    run.load.append(os.getloadavg())
    run.calibration.append(calibrate(device))
    yield run
    run.load.append(os.getloadavg())
    run.calibration.append(calibrate(device))
    run.close(path)


def options(description: str | None) -> argparse.ArgumentParser:
    """The parser that every script begins with: --device, read with `resolved`, and --json."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--device", type=resolved, default="auto", help="cpu, cuda, cuda:1, or auto: cuda if there is one"
    )
    parser.add_argument("--json", type=Path, help="write everything there")
    return parser


def resolved(device: str) -> str:
    """A device that torch can name: 'auto' is cuda if there is one, else cpu."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def machine(device: str) -> dict[str, Any]:
    """What the numbers depend on: processor, its cores, threads, the GPU where one is used, versions."""
    found = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in found.splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "torch": torch.__version__,
        "aligntax": version("aligntax"),
    }


def calibrate(device: str, loops: int = 60) -> float:
    """Median seconds of a fixed matrix product (1024 on a CPU, 8192 on a GPU), after as many to warm up."""
    size = 8192 if device.startswith("cuda") else 1024
    matrix = torch.ones(size, size, device=device)
    return statistics.median([timed(lambda: matrix @ matrix, device) for _ in range(2 * loops)][loops:])


def timed(action: Callable[[], Any], device: str) -> float:
    """Wall seconds of one call, the GPU's queue emptied at both ends."""
    wait(device)
    began = time.perf_counter()
    action()
    wait(device)
    return time.perf_counter() - began


def wait(device: str) -> None:
    """Let the GPU finish; nothing to do on a CPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def interleaved(actions: dict[str, Callable[[], Any]], repeats: int, device: str) -> dict[str, list[float]]:
    """Seconds of every action, in rounds A B A B, so that a slow spell of the machine meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            seconds[name].append(timed(action, device))
    return seconds


def steady(actions: dict[str, Callable[[], Any]], repeats: int, device: str, run: Run) -> dict[str, list[float]]:
    """As `interleaved`, but each round stands between two calibrations, and one between which the machine changed is repeated.

    At most three rounds are run for each that is wanted. `run` gets the calibrations around the rounds that are kept, or, where
    too few were steady, around all of them, which makes it void.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    kept: list[list[float]] = []
    every: list[list[float]] = []
    after = calibrate(device)
    for _ in range(3 * repeats):
        before = after
        took = interleaved(actions, 1, device)
        after = calibrate(device)
        every.append([before, after])
        if max(before, after) <= VOID_ABOVE * min(before, after):
            kept.append(every[-1])
            for name, (value,) in took.items():
                seconds[name].append(value)
        if len(kept) == repeats:
            break
    run.rounds = kept if len(kept) == repeats else every
    return seconds if kept else {name: [math.nan] for name in actions}


def ratio(over: list[float], under: list[float]) -> float:
    """Median over rounds of `over / under`."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def spread(seconds: list[float]) -> str:
    """'median (lowest to highest)' in seconds."""
    return f"{statistics.median(seconds):.3g} s ({min(seconds):.3g} to {max(seconds):.3g})"


def reset_peak(device: str) -> None:
    """Forget the peak so far."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: str) -> int:
    """Peak memory of this process: what torch had allocated on a GPU, resident memory on a CPU (Linux).

    Not getrusage, whose maximum a child inherits from its parent through exec.
    """
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM")


def current_bytes(device: str) -> int:
    """Memory that this process holds now, counted as in `peak_bytes`."""
    return torch.cuda.memory_allocated(device) if device.startswith("cuda") else _status("VmRSS")


def _status(name: str) -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def in_child(script: str, arguments: list[str]) -> dict[str, Any]:
    """Run a script in a process of its own; the last line it prints is its answer, as JSON."""
    done = subprocess.run([sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
