"""The files of a survey. `survey.json` is written last: where it exists, everything beside it is complete."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from ..data import clean_text
from ..probing import sum_rows
from ..report import render_html, terminal_summary
from ..results import Survey, plain, write_arrays, write_bytes, write_json
from .analysis import cosines
from .assemble import Arrays
from .ending import say_written
from .next_step import after_survey
from .record import run_record

if TYPE_CHECKING:
    from .survey import SurveyCommand

CONTROLS_FILE = "controls.safetensors"


def direction_arrays(arrays: Arrays) -> dict[str, np.ndarray]:
    """`safety`, `task.<name>` `(L, d)` means over groups; `groups.*` `(J, L, d)` sums; `counts.*` `(J,)` items.

    With probes as capability directions these are saved under the same names, and gradients as `gradient.task.<name>`.
    """
    raw = arrays.raw
    main = raw.objectives[arrays.materials.main.name].groups.counts
    found: dict[str, np.ndarray] = {
        "safety": arrays.safety.mean.astype(np.float32),
        "groups.safety": (arrays.safety.groups * main[:, None, None]).astype(np.float32),
        "counts.safety": main.astype(np.int64),
    }
    for name, gathered in raw.tasks.items():
        counts, means = gathered.groups.counts, gathered.groups.means()
        if name in raw.probes:
            found[f"gradient.task.{name}"] = means.mean(0).astype(np.float32)
            means = raw.probes[name]
        found[f"task.{name}"] = means.mean(0).astype(np.float32)
        found[f"groups.task.{name}"] = (means * counts[:, None, None]).astype(np.float32)
        found[f"counts.task.{name}"] = counts.astype(np.int64)
    return found


def control_arrays(arrays: Arrays) -> dict[str, np.ndarray]:
    """`tax` `(K, L)`: the tax of each control task at each layer, nan where undefined; what a family is compared with."""
    safety, controls = arrays.safety.groups, arrays.raw.controls
    return {"tax": np.stack([cosines(safety[:, k], controls[:, :, k]).tax for k in range(safety.shape[1])], axis=1)}


def _parquet(table: dict[str, list]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(table), sink)
    return sink.getvalue()


def item_table(arrays: Arrays) -> dict[str, list]:
    """One row per gradient item: task, format, key of the content, group, metric before training."""
    table: dict[str, list] = {"task": [], "format": [], "item": [], "group": [], "value": []}
    for task in arrays.materials.tasks:
        values = sum_rows(task.gradient.rows, arrays.raw.tasks[task.task.name].values, len(task.gradient.keys))
        table["task"] += [task.task.name] * len(values)
        table["format"] += [task.fmt] * len(values)
        table["item"] += list(task.gradient.keys)
        table["group"] += task.gradient.groups.tolist()
        table["value"] += values.tolist()
    return table


def text_table(arrays: Arrays, tokenizer: object) -> dict[str, list]:
    """The model's own replies to harmless prompts, on which KL was measured: the only file with model text."""
    decode = tokenizer.decode  # type: ignore[attr-defined]
    rows = arrays.raw.texts
    return {
        "prompt": [decode(list(row.ids[: row.start])) for row in rows],
        "reply": [decode(list(row.ids[row.start :])) for row in rows],
    }


def printable(value: Any) -> Any:
    """JSON values with escapes and control characters taken out of every text, keys too."""
    if isinstance(value, dict):
        return {clean_text(key)[0]: printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [printable(item) for item in value]
    return clean_text(value)[0] if isinstance(value, str) else value


def write_survey(command: "SurveyCommand", survey: Survey, arrays: Arrays, tokenizer: object) -> None:
    """Write all files into the output folder and print the summary."""
    out = command.out
    write_arrays(out / "directions.safetensors", direction_arrays(arrays), {"layers": "decoder block outputs, from 0"})
    write_arrays(out / CONTROLS_FILE, control_arrays(arrays), {"layers": "decoder block outputs, from 0"})
    write_bytes(out / "items.parquet", _parquet(item_table(arrays)))
    write_bytes(out / "texts.parquet", _parquet(text_table(arrays, tokenizer)), mode=0o600)
    write_bytes(out / "run.yaml", run_record("survey", command))
    write_bytes(out / "report.html", render_html(survey).encode())
    write_json(out / "survey.json", printable(plain(survey)))
    if not command.quiet:
        console = Console()
        terminal_summary(survey, console)
        say_written(out / "report.html", following=after_survey(vars(command), out), console=console)
