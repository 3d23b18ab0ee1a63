"""An option that a run would not read is refused; a configuration of TRL is taken as it was meant."""

import pytest

from aligntax.cli import main
from aligntax.commands.align import AlignCommand
from aligntax.commands.alignment_checks import checked, recipe_of
from aligntax.commands.alignment_reads import rows_of_a_run, steps_of_a_run
from aligntax.commands.trainers import configuration, read_config
from aligntax.errors import AligntaxError
from aligntax.results import read_align

pytest.importorskip("trl")
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]

SUPERVISED = {
    "--protect replay": {"protect": "replay"},
    "--depth augmentation": {"depth": "augmentation"},
    "--batches matched": {"batches": "matched"},
    "--anchor-share 0.6": {"anchor_share": 0.6},
    "--alarming-share 0.5": {"alarming_share": 0.5},
}
ELSEWHERE = ({"method": "dpo"}, {"method": "rloo"}, {"method": "grpo"}, {"method": "reward"}, {"goal": "capability"})


@pytest.mark.parametrize("option", SUPERVISED)
@pytest.mark.parametrize("run", ELSEWHERE, ids=lambda run: "-".join(run.values()))
def test_options_of_supervised_refusals_are_refused_elsewhere(option, run):
    with pytest.raises(AligntaxError) as told:
        checked(AlignCommand("no such model", **run, **SUPERVISED[option]))
    # A reward model and a capability fine-tune have refusals of their own for --protect and --depth.
    judged = "trains a judge" in str(told.value) or "has no --depth" in str(told.value)
    assert judged or (str(told.value).startswith(option) and "leave it out, or use --method sft" in str(told.value))
    checked(AlignCommand("no such model", **SUPERVISED[option]))


@pytest.mark.parametrize(
    ("given", "said", "with_it"),
    [
        ({"preferences": "x.jsonl"}, "--preferences x.jsonl holds preference pairs, and --method sft reads none", None),
        ({"harmless_pairs": True, "method": "grpo"}, "--method grpo reads none", {"method": "dpo"}),
        ({"reward_model": "judge"}, "--reward-model judge", {"method": "rloo"}),
        ({"adaptive_kl": 0.5, "method": "dpo"}, "--adaptive-kl 0.5", {"method": "grpo"}),
        ({"recover": "0.5@20"}, "--recover 0.5@20", {"depth": "recovery"}),
        ({"protect": "kl,safety"}, "--protect nullspace", {"goal": "capability"}),
        ({"method": "reward", "tax_every": 2}, "--tax-every", {"method": "sft"}),
        ({"draws": 4, "method": "rloo"}, "--draws 4", {"protect": "kl"}),
        ({"draws": 4, "goal": "capability"}, "--draws 4", {"protect": "safety"}),
        ({"look_alikes": True, "goal": "capability"}, "--look-alikes", {"protect": "safety"}),
    ],
)
def test_an_option_that_nothing_reads_is_refused(given, said, with_it):
    with pytest.raises(AligntaxError, match=said) as told:
        checked(AlignCommand("no such model", **given))
    assert "\n" not in str(told.value)
    if with_it:
        checked(AlignCommand("no such model", **{**given, **with_it}))


def test_draws_beside_a_users_pairs_are_refused_unless_harmless_pairs_read_them(tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    with pytest.raises(AligntaxError, match="--draws 2"):
        checked(AlignCommand("m", method="dpo", preferences=str(pairs), draws=2))
    checked(AlignCommand("m", method="dpo", preferences=str(pairs), draws=2, harmless_pairs=True))


def config(folder, text):
    (folder / "trl.yaml").write_text(text)
    return str(folder / "trl.yaml")


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path):
    given = config(
        tmp_path, "learning_rate: 1e-5\nper_device_train_batch_size: '4'\nloss_weights: [1, 5e-1]\nrun_name: 1e5\n"
    )
    found = read_config(given, "dpo")
    assert found == {
        "learning_rate": 1e-5,
        "per_device_train_batch_size": 4,
        "loss_weights": [1, 0.5],
        "run_name": "1e5",
    }
    assert isinstance(found["per_device_train_batch_size"], int)
    (tmp_path / "sft.yaml").write_text("learning_rate: 1e-5\n")
    command = AlignCommand("m", config=str(tmp_path / "sft.yaml"))
    assert configuration(recipe_of(command), tmp_path, "cpu", {}, True).learning_rate == 1e-5


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("learning_rate: fast", "learning_rate is 'fast'; give a number"),
        ("max_steps: 2.5", "max_steps is 2.5; give a whole number"),
        ("max_steps:", "max_steps is None; give a whole number"),
        ("logging_steps: true", "logging_steps is True; give a number"),
        ("warmup: 3", "SFTConfig has no field 'warmup'"),
    ],
)
def test_a_value_that_is_no_number_names_its_field(line, said, tmp_path):
    with pytest.raises(AligntaxError, match=said):
        checked(AlignCommand("no such model", config=config(tmp_path, line)))


def test_epochs_decide_where_no_steps_are_given(tmp_path):
    command = AlignCommand("m", steps=7, config=config(tmp_path, "num_train_epochs: 2\n"))
    args = configuration(recipe_of(command), tmp_path, "cpu", {}, True)
    assert (args.max_steps, args.num_train_epochs) == (-1, 2)
    assert rows_of_a_run(command) is None and steps_of_a_run(command) is None
    command = AlignCommand("m", config=config(tmp_path, "num_train_epochs: 2\nmax_steps: 5\n"))
    assert configuration(recipe_of(command), tmp_path, "cpu", {}, True).max_steps == 5
    assert (rows_of_a_run(command), steps_of_a_run(command)) == (40, 5)


def align(folder, files, out, *more):
    return main(
        ["align", str(folder), "--out", str(out), "--safety", str(files.prompts), "--tasks", str(files.words), "--batch", "2",
         "--completion-tokens", "4", "--protect-items", "4", "--quiet", *more]
    )  # fmt: skip


@pytest.mark.parametrize("text", ["num_train_epochs: 1\n", "max_steps: -1\nnum_train_epochs: 1\n"])
def test_an_epoch_of_preferences_reads_every_pair_once(text, tiny_folder, survey_files, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(f'{{"prompt": "ask {k}", "chosen": "no {k}", "rejected": "yes {k}"}}\n' for k in range(6)))
    more = ("--method", "dpo", "--preferences", str(pairs), "--config", config(tmp_path, text))
    assert align(tiny_folder, survey_files, tmp_path / "out", *more) == 0
    record = read_align(tmp_path / "out")
    assert record.counts["pairs"] == record.samples == 6


def test_an_epoch_of_laid_out_batches_is_every_row_once(tiny_folder, survey_files, tmp_path):
    given = config(tmp_path, "num_train_epochs: 1\nper_device_train_batch_size: 16\n")
    assert align(tiny_folder, survey_files, tmp_path / "out", "--batches", "matched", "--config", given) == 0
    record = read_align(tmp_path / "out")
    rows = 2 * max(record.counts["refusals"], record.counts["anchors"])
    assert [entry["step"] for entry in record.steps if "loss" in entry][-1] == -(-rows // 16)
