"""lm-eval and inspect run for real, on tiny random models and local data, and their logs are read by ours.

They live in an environment of their own (`make eval-env`); without it these tests are skipped.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import build_model, build_tokenizer, write_rows

from aligntax.data.scores import pair_tasks, read_scores

EVAL = Path(__file__).parents[1] / "build" / "eval-venv" / "bin"

HARNESS_TASK = """task: tiny_{kind}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {output}
doc_to_text: "{{{{q}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: {target}
{more}"""

INSPECT_TASK = """import json
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import includes, match
from inspect_ai.solver import generate

@task
def tiny():
    rows = [json.loads(line) for line in open({data!r})]
    samples = [Sample(id=f"s{{k}}", input=row["q"], target=row["choices"][row["gold"]]) for k, row in enumerate(rows)]
    return Task(dataset=MemoryDataset(samples), solver=generate(), scorer=[includes(), match()], epochs=2)
"""

needs_eval = pytest.mark.skipif(
    not ((EVAL / "lm-eval").exists() and (EVAL / "inspect").exists()),
    reason="lm-eval and inspect live in an environment of their own; `make eval-env` makes it",
)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny random models and twelve questions on disk."""
    folder = tmp_path_factory.mktemp("evaluated")
    for seed in (0, 1):
        build_model("llama", seed=seed).save_pretrained(folder / f"m{seed}")
        build_tokenizer().save_pretrained(folder / f"m{seed}")
    rows = []
    for k, (a, b) in enumerate((a, b) for a in range(3, 7) for b in range(2, 5)):
        choices = [str(a + b), str(a + b + 1), str(a + b + 10)]
        rows.append({"q": f"{a} + {b} =", "choices": choices[k % 3 :] + choices[: k % 3], "gold": -k % 3})
    write_rows(folder / "sums.jsonl", rows)
    return folder


def run_tool(*words: str | Path, cwd: Path | None = None) -> str:
    """Run a program of the evaluation environment without network; its output, or a failed test that shows it."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run(
        [str(word) for word in words], env=os.environ | offline, cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@needs_eval
def test_lm_eval_itself_writes_what_we_read(evaluated: Path) -> None:
    metrics = "metric_list: [{metric: acc}, {metric: acc_norm}]"
    text = HARNESS_TASK.format(
        kind="sums", data=evaluated / "sums.jsonl", output="multiple_choice", target="gold", more=metrics
    )
    tasks = evaluated / "tasks"
    tasks.mkdir()
    (tasks / "sums.yaml").write_text(text)
    for seed in (0, 1):
        run_tool(
            EVAL / "lm-eval", "run", "--model", "hf", "--model_args", f"pretrained={evaluated / f'm{seed}'},dtype=float32",
            "--tasks", "tiny_sums", "--include_path", tasks, "--log_samples", "--output_path", evaluated / f"out{seed}",
            "--device", "cpu", "--batch_size", "4",
        )  # fmt: skip
    logs = [read_scores(evaluated / f"out{seed}") for seed in (0, 1)]
    for seed, log in enumerate(logs):
        task = log.tasks["tiny_sums"]
        results = json.loads(next((evaluated / f"out{seed}").rglob("results_*.json")).read_text())["results"][
            "tiny_sums"
        ]
        assert len(task.scores) == 12 and np.mean(list(task.scores.values())) == pytest.approx(results["acc,none"])
        right = {key: float(scores[0] > max(scores[1:])) for key, scores in task.choices["as logged"].items()}
        assert right == task.scores  # gold really comes first, and accuracy follows from the choices
    pair = pair_tasks(*logs)["tiny_sums"]
    assert pair.notes == () and pair.before.choices != pair.after.choices


@needs_eval
def test_inspect_itself_writes_what_we_read(evaluated: Path) -> None:
    """Reading needs inspect too, so our command runs in that environment."""
    (evaluated / "tiny.py").write_text(INSPECT_TASK.format(data=str(evaluated / "sums.jsonl")))
    for seed in (0, 1):
        run_tool(
            EVAL / "inspect", "eval", "tiny.py", "--model", "hf/tiny", "-M", f"model_path={evaluated / f'm{seed}'}",
            "--log-dir", evaluated / f"log{seed}", "--display", "none", "--max-tokens", "4", cwd=evaluated,
        )  # fmt: skip
    out = evaluated / "tax"
    run_tool(
        EVAL / "python", "-m", "aligntax", "tax", f"a={evaluated / 'log0'}", f"b={evaluated / 'log1'}", "--metric", "includes",
        "--out", out,
    )  # fmt: skip
    found = json.loads((out / "tax.json").read_text())
    (row,) = found["pairs"]
    told = [
        json.loads(run_tool(EVAL / "inspect", "log", "dump", next((evaluated / f"log{k}").glob("*.eval"))))
        for k in (0, 1)
    ]
    means = [
        next(score["metrics"]["accuracy"]["value"] for score in log["results"]["scores"] if score["name"] == "includes")
        for log in told
    ]
    assert (row["task"], row["n"], row["metric"]) == ("tiny", 12, "includes")
    assert (row["score_before"], row["score_after"]) == pytest.approx(means)
    assert {source["kind"] for source in found["sources"]} == {"inspect"}
