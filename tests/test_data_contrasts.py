"""Safety contrasts: two classes of prompts, or items, from one file, two files or built in."""

import json
from pathlib import Path
from typing import Any

import pytest

from aligntax.data import BUILTIN_CONTRASTS, Contrast, load_contrast, over_refusal_prompts
from aligntax.errors import DataError

PROMPTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "prompts"
BOTH = [{"prompt": "pick a lock", "harmful": True}, {"prompt": "paint a door", "harmful": False}]


def lines(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def refusal(spec: str) -> str:
    with pytest.raises(DataError) as caught:
        load_contrast(spec)
    return str(caught.value)


def test_one_file_with_both_classes(tmp_path: Path) -> None:
    contrast = load_contrast(lines(tmp_path / "Mine!.jsonl", [*BOTH, BOTH[0]]))
    assert (contrast.positive, contrast.negative, contrast.items) == (("pick a lock",), ("paint a door",), ())
    assert contrast.name == "mine"
    assert contrast.notes == ("renamed from 'Mine!' to 'mine'", "1 duplicate rows dropped")


def test_two_files_in_the_order_harmful_harmless(tmp_path: Path) -> None:
    bad = lines(tmp_path / "bad.jsonl", [{"prompt": "pick a lock"}])
    good = lines(tmp_path / "good.jsonl", [{"prompt": "paint a door"}, {"prompt": "bake"}])
    contrast = load_contrast(f"locks={bad},{good}")
    assert (contrast.name, contrast.positive) == ("locks", ("pick a lock",))
    assert contrast.negative == ("paint a door", "bake")
    turned = load_contrast(f"{good},{bad}")
    assert (turned.name, turned.positive, turned.sha256 != contrast.sha256) == ("good", contrast.negative, True)
    assert "give two files" in refusal(f"{bad},{good},{good}")


def test_csv_with_harmful_in_words(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("prompt,harmful\npick a lock,True\npaint a door,0\n")
    assert load_contrast(str(tmp_path / "c.csv")).positive == ("pick a lock",)


def test_rows_with_choices_make_an_item_contrast(tmp_path: Path) -> None:
    row = {"prompt": "How tall is it?", "choices": ["I do not know.", "Very."], "gold": 0}
    contrast = load_contrast(f"honest={lines(tmp_path / 'f.jsonl', [row])}")
    assert (contrast.name, contrast.positive, contrast.negative) == ("honest", (), ())
    assert contrast.items[0].choices == ("I do not know.", "Very.")
    mixed = lines(tmp_path / "g.jsonl", [row, {"prompt": "a", "answer": "b"}])
    assert "'a' has no choices" in refusal(mixed)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([BOTH[0]], "the class of harmless prompts is empty"),
        ([BOTH[1]], "the class of harmful prompts is empty"),
        ([*BOTH, {"prompt": "x"}], "f.jsonl:3: no harmful; give true or false"),
        ([*BOTH, {"prompt": "x", "harmful": "yes"}], "f.jsonl:3: harmful is 'yes'"),
        ([*BOTH, {"harmful": True}], "f.jsonl:3: prompt is None"),
        ([*BOTH, {"prompt": " ", "harmful": True}], "f.jsonl:3: the prompt is empty"),
        ([*BOTH, {"prompt": "pick a lock", "harmful": False}], "'pick a lock' is harmful and harmless at once"),
        ([], "holds no rows"),
    ],
)
def test_unusable_contrasts_are_refused(tmp_path: Path, rows: list[Any], reason: str) -> None:
    assert reason in refusal(lines(tmp_path / "f.jsonl", rows))


def test_unknown_names_list_the_built_in_ones() -> None:
    assert "harmlessness, helpfulness, honesty" in refusal("harmlesness")


def builtin(name: str) -> Contrast:
    try:
        return load_contrast(name)
    except DataError as error:
        if "cannot be read" not in str(error):
            raise
        pytest.skip(f"the built-in set {name} is not in this checkout")


@pytest.mark.parametrize("name", BUILTIN_CONTRASTS)
def test_built_in_contrasts(name: str) -> None:
    contrast = builtin(name)
    assert (contrast.name, contrast.source, contrast.notes) == (name, f"builtin:{name}", ())
    assert bool(contrast.items) != bool(contrast.positive and contrast.negative)
    assert load_contrast(f"mine={name}").name == "mine"


def test_over_refusal_prompts_are_not_the_harmful_ones() -> None:
    harmful = set(builtin("harmlessness").positive)
    prompts = over_refusal_prompts()
    assert len(prompts) >= 48 and not harmful & set(prompts)


@pytest.mark.skipif(not PROMPTS.is_dir(), reason="the shared prompt files are not beside this checkout")
def test_shared_prompts() -> None:
    contrast = load_contrast(f"train={PROMPTS / 'harmful_train.jsonl'},{PROMPTS / 'harmless_train.jsonl'}")
    assert len(contrast.positive) == 260 and len(contrast.negative) == 800
