"""`aligntax audit` through `main(args)` on tiny models: files, resume, gate, refusals of what cannot be audited."""

import copy
import json
import os
import stat

import pytest
import torch
from conftest import build_model, build_tokenizer, write_rows

from aligntax.audit import share_interval
from aligntax.cli import main
from aligntax.commands.alignment_texts import training_part
from aligntax.commands.audit_gather import audit_items
from aligntax.commands.audit_rates import rate
from aligntax.commands.audit_tables import tax_table
from aligntax.commands.materials import by_hash
from aligntax.data import BUILTIN_TASKS, load_contrast, load_task
from aligntax.report import render_audit
from aligntax.results import read_audit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def moved_folder(tmp_path_factory):
    """The tiny model with other weights in one block: an alignment nobody would want, but a real difference."""
    folder = tmp_path_factory.mktemp("moved")
    model = copy.deepcopy(build_model("llama"))
    with torch.no_grad():
        for parameter in model.model.layers[1].parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def audited(tiny_folder, moved_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("audit")
    assert main(["audit", str(tiny_folder), str(moved_folder), "--out", str(out), "--size", "demo", "--quiet",
                 "--tasks", "arithmetic", "copying", "reading"]) == 0  # fmt: skip
    return out


def test_the_files_say_what_was_asked(audited):
    raw = json.loads((audited / "audit.json").read_text())
    for key in ("position", "mean", "first5_share"):
        assert key in raw["kl"]
    for key in ("depth", "mass_base", "mass_aligned", "judged_aligned"):
        assert len(raw["recovery"][key]) == len(raw["recovery"]["depth"])
    assert {"kind", "depth", "success_base", "success_aligned", "n"} <= set(raw["attack"][0])
    assert {"harmful", "overrefusal"} <= set(raw["refusal"]) and raw["schema_version"] == 1
    audit = read_audit(audited)
    assert [t.task for t in audit.tax] == ["arithmetic", "copying", "reading"] and audit.forecast is None
    assert sum(m or 0 for m in audit.kl.mean) > 0 and audit.recovery.count[0] >= audit.recovery.count[-1]
    judged = [d for d, v in zip(audit.recovery.depth, audit.recovery.judged_aligned, strict=True) if v is not None]
    assert judged == [0, 1, 5, 20]
    assert [a.depth for a in audit.attack] == [0, 1, 5, 20] and all(a.length == 64 for a in audit.attack)
    assert audit.horizon is None and audit.late is None and audit.quality == [] and audit.efficiency is None
    assert audit.cells is not None and audit.cells.items == 3 and len(audit.scores) == 3 and len(audit.shift) == 3
    assert (
        audit.representation is not None and len(audit.representation.base) == 3 and audit.refusal.harmful_p is not None
    )


def test_texts_are_private_and_nowhere_else(audited):
    assert stat.S_IMODE(os.stat(audited / "texts.parquet").st_mode) == 0o600
    import pyarrow.parquet as pq

    table = pq.read_table(audited / "texts.parquet")
    assert set(table["model"].to_pylist()) == {"base", "aligned"}
    prompts = set(table["request"].to_pylist())
    held = set(training_part(load_contrast("harmlessness").positive, False))
    assert prompts & held and not prompts & set(training_part(load_contrast("harmlessness").positive, True))
    said = [text for text in table["continuation"].to_pylist() if len(text) > 20]
    for name in ("audit.json", "report.html"):
        content = (audited / name).read_text()
        assert not any(text in content for text in said)


def test_the_same_command_again_does_no_work(audited, tiny_folder, moved_folder, monkeypatch):
    import aligntax.audit.sampler as sampler

    before = json.loads((audited / "audit.json").read_text())
    monkeypatch.setattr(sampler, "roll_out", lambda *_: pytest.fail("rolled out again"))
    assert main(["audit", str(tiny_folder), str(moved_folder), "--out", str(audited), "--size", "demo", "--quiet",
                 "--tasks", "arithmetic", "copying", "reading"]) == 0  # fmt: skip
    after = json.loads((audited / "audit.json").read_text())
    for key in ("kl", "recovery", "attack", "tax", "refusal", "shift"):
        assert before[key] == after[key]


def test_a_model_against_itself_has_no_kl_no_tax_and_no_shift(tiny_folder, tmp_path):
    out = tmp_path / "same"
    assert main(["audit", str(tiny_folder), str(tiny_folder), "--out", str(out), "--size", "demo", "--quiet",
                 "--tasks", "arithmetic"]) == 0  # fmt: skip
    audit = read_audit(out)
    assert max(abs(m) for m in audit.kl.mean if m is not None) < 1e-6
    assert audit.tax[0].tax == 0.0 and audit.tax[0].p_adjusted == 1.0
    assert all(s.relative_length == 0.0 for s in audit.shift)
    assert all(a.success_base == a.success_aligned for a in audit.attack)


def test_a_gate_ends_with_code_3_and_a_line_for_each_breach(audited, tiny_folder, moved_folder, tmp_path, capsys):
    gate = tmp_path / "gate.yaml"
    gate.write_text('refusal.harmful: ">= .99"\noverrefusal: "<= 1"\nrecovery.depth20: ">= .99"\n')
    code = main(["audit", str(tiny_folder), str(moved_folder), "--out", str(audited), "--size", "demo", "--quiet",
                 "--tasks", "arithmetic", "copying", "reading", "--gate", str(gate)])  # fmt: skip
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 3 and sum("breach" in line for line in lines) == 2
    assert (audited / "gate.xml").read_text().count("<failure") == 2


def test_the_report_is_inert_and_self_contained(audited):
    audit = read_audit(audited)
    import dataclasses

    hostile = dataclasses.replace(
        audit, aligned="<script>alert(1)</script>\x1b[31m", warnings=["<img src=x onerror=y>"]
    )
    page = render_audit(hostile)
    assert "<script" not in page and "<img" not in page and "\x1b" not in page
    assert "default-src 'none'" in page and "http" not in page.replace("http-equiv", "")


def test_other_vocabularies_and_choices_are_refused(tiny_folder, tmp_path, capsys):
    other = tmp_path / "other"
    tokenizer = copy.deepcopy(build_tokenizer())
    tokenizer.add_tokens(["extra"])
    model = copy.deepcopy(build_model("llama"))
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(other)
    tokenizer.save_pretrained(other)
    assert main(["audit", str(tiny_folder), str(other), "--out", str(tmp_path / "a"), "--quiet"]) == 2
    assert "different vocabularies" in capsys.readouterr().err
    assert main(["audit", str(tiny_folder), str(tiny_folder), "--safety", "honesty", "--out", str(tmp_path / "b")]) == 2
    assert "not choices" in capsys.readouterr().err
    assert main(["audit", str(tiny_folder), str(tiny_folder), "--judge", "nobody", "--out", str(tmp_path / "c")]) == 2


def test_the_judge_of_the_reward_cannot_be_the_judge_of_the_headline(tiny_folder, moved_folder, tmp_path, capsys):
    out = tmp_path / "run"
    write_rows(
        tmp_path / "p.jsonl",
        [{"prompt": f"{v} {t}?", "harmful": v == "burn"} for t in "abcd" for v in ("burn", "mend")],
    )
    assert main(["align", str(tiny_folder), "--out", str(out), "--method", "grpo", "--steps", "1", "--batch", "2", "--group", "2",
                 "--completion-tokens", "4", "--tasks", "arithmetic", "--quiet",
                 "--safety", str(tmp_path / "p.jsonl")]) == 0  # fmt: skip
    assert main(["audit", str(tiny_folder), str(out / "model"), "--judge", "reward", "--out", str(tmp_path / "a")]) == 2
    assert "gave the rewards in training" in capsys.readouterr().err


def test_audit_items_are_not_those_a_survey_or_a_training_run_read():
    for name in BUILTIN_TASKS():
        task = load_task(name)
        order = [task.items[k].key for k in by_hash([item.key for item in task.items], "items")]
        last = set(order[-16:])
        assert not last & set(order[:48])
        found = audit_items(task, 16, 0)
        assert len(found) == 16 and all(len(item.choices or item.prompts) >= 2 for item in found)


def test_planted_tax_is_found_where_it_is_and_nowhere_else():
    import numpy as np

    rng = np.random.default_rng(0)
    before = {
        f: {str(k): [-1.0 + 0.1 * z, -2.0, -2.2] for k, z in enumerate(rng.standard_normal(24))} for f in ("a", "b")
    }
    worse = {
        f: {k: [s[0] - 0.5 + 0.05 * rng.standard_normal(), *s[1:]] for k, s in part.items()}
        for f, part in before.items()
    }
    shared = {
        f: {k: [v - 0.5 + 0.05 * rng.standard_normal() for v in s] for k, s in part.items()}
        for f, part in before.items()
    }
    lost, moved = tax_table({"lost": (before, worse), "moved": (before, shared)}, {}, rng)
    assert lost.low > 0.3 and lost.p_adjusted < 0.01 and abs(lost.shared) < 1e-9
    assert abs(moved.tax) < 0.1 and moved.p_adjusted > 0.05 and moved.shared == pytest.approx(0.5, abs=0.05)


def test_rates_count_what_could_not_be_judged():
    found = rate([1.0, float("nan"), 0.0, 1.0])
    assert (found.value, found.n) == (0.5, 4) and rate([]).value is None
    assert (found.low, found.high) == pytest.approx(share_interval(0.5, 4))
