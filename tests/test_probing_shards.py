"""Shards on disk: a killed run resumes with the same numbers, nothing is computed twice, nobody else can read them."""

import dataclasses
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from probing_rows import make_probe, make_rows

from aligntax.commands import gather
from aligntax.commands.gather import Workbench, gather_items, leave_out
from aligntax.commands.materials import ItemRows
from aligntax.commands.sizes import size_named
from aligntax.errors import AligntaxError
from aligntax.probing import Meter, Row, ShardStore, Sinks, answer_metric, fingerprint, shards

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
KEY = ([[1, 2, 3]], "answer", 8)


def make_items(times: int = 4) -> ItemRows:
    """Five items and nine rows, `times` over, every item other tokens."""
    rows = [Row(r.ids, r.start, r.item + 5 * k, r.weight) for k in range(times) for r in make_rows(seed=k)]
    return ItemRows("sums", tuple(rows), tuple(f"i{k}" for k in range(5 * times)), np.arange(5 * times) % 3)


def make_bench(model, folder, advance=lambda n: None) -> Workbench:
    store = ShardStore(folder, {"weights": "abc"})
    return Workbench(make_probe(model, 60, advance=advance), store, Meter(True), size_named("demo"), None, 0, 3)


def same(one, other, tolerance: float) -> None:
    np.testing.assert_allclose(one.groups.sums, other.groups.sums, atol=tolerance, rtol=0)
    np.testing.assert_allclose(one.values, other.values, atol=tolerance, rtol=0)
    assert one.groups.counts.tolist() == other.groups.counts.tolist()


@pytest.mark.parametrize("size", [1, 3, 7])
def test_many_shards_are_one_shard(size, tiny_model, tmp_path, monkeypatch):
    model = tiny_model("llama")
    whole = gather_items(make_bench(model, tmp_path / "one"), make_items(), answer_metric, "answer")
    assert len(list((tmp_path / "one").iterdir())) == 1 and whole.groups.counts.tolist() == [7, 7, 6]
    monkeypatch.setattr(gather, "SHARD_ITEMS", size)
    parts = gather_items(make_bench(model, tmp_path / "many"), make_items(), answer_metric, "answer")
    assert len(list((tmp_path / "many").iterdir())) == -(-20 // size)
    # Other batches, so other float32 rounding; the sums themselves are float64.
    same(parts, whole, 2e-5 * np.abs(whole.groups.sums).max())


def test_a_killed_run_resumes_with_the_same_numbers_and_keeps_what_was_finished(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(gather, "SHARD_ITEMS", 3)
    model, items = tiny_model("gpt2"), make_items()
    tokens: list[int] = []
    whole = gather_items(make_bench(model, tmp_path / "whole", tokens.append), items, answer_metric, "answer")
    seen = 0

    def kill(n: int) -> None:
        nonlocal seen
        seen += n
        if seen > sum(tokens) / 2:
            raise KeyboardInterrupt

    folder = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        gather_items(make_bench(model, folder, kill), items, answer_metric, "answer")
    finished = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert 1 < len(finished) < 7 and all(name.endswith(".safetensors") for name in finished)
    again: list[int] = []
    bench = make_bench(model, folder, again.append)
    resumed = gather_items(bench, items, answer_metric, "answer")
    same(resumed, whole, 1e-10)
    assert (bench.store.reused, bench.store.made) == (len(finished), 7 - len(finished))
    assert 0 < sum(again) < sum(tokens)
    assert all((folder / name).stat().st_mtime_ns == when for name, when in finished.items())
    third = make_bench(model, folder, again.append)
    again.clear()
    same(gather_items(third, items, answer_metric, "answer"), whole, 1e-10)
    assert not again and third.store.made == 0


@pytest.mark.parametrize(
    "damage", [lambda raw: b"", lambda raw: raw[:-9], lambda raw: b"not a shard", lambda raw: raw + b"x"]
)
def test_a_damaged_shard_is_made_anew(damage, tmp_path):
    made = []

    def make():
        made.append(1)
        return {"a": np.arange(6.0).reshape(2, 3)}

    ShardStore(tmp_path, {}).get("x", KEY, make)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    store = ShardStore(tmp_path, {})
    assert np.array_equal(store.get("x", KEY, make)["a"], np.arange(6.0).reshape(2, 3))
    assert len(made) == 2 and (store.made, store.reused) == (1, 0)
    assert np.array_equal(store.get("x", KEY, make)["a"], np.arange(6.0).reshape(2, 3))
    assert len(made) == 2 and store.reused == 1


def test_a_shard_gives_back_every_bit_shape_and_type(tmp_path):
    arrays = {
        "f": np.random.default_rng(0).normal(size=(3, 2)).T,
        "i": np.array([2**62, -1]),
        "none": np.zeros((0, 4), dtype=np.float32),
    }
    store = ShardStore(tmp_path, {})
    for _ in range(2):
        found = store.get("x", KEY, lambda: arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype and np.array_equal(found[name], array)


def test_a_shard_is_found_only_by_what_it_depends_on(tmp_path):
    ShardStore(tmp_path, {"weights": "abc"}).get("x", KEY, lambda: {"a": np.ones(1)})
    assert ShardStore(tmp_path, {"weights": "abc"}).has("x", KEY)
    assert not ShardStore(tmp_path, {"weights": "abd"}).has("x", KEY)
    assert not ShardStore(tmp_path, {"weights": "abc"}).has("y", KEY)
    for other in (([[1, 2, 4]], "answer", 8), ([[1, 2], [3]], "answer", 8), ([[1, 2, 3]], "refusal", 8), KEY[:2]):
        assert not ShardStore(tmp_path, {"weights": "abc"}).has("x", other)
    sunk = ShardStore(tmp_path, {"weights": "abc"})
    sunk.depend(sinks=[0])
    assert not sunk.has("x", KEY)
    assert not ShardStore(None, {"weights": "abc"}).has("x", KEY)


def test_a_fingerprint_tells_structure_apart_and_ignores_the_order_of_keys():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    parts = [(1, 2), ([1, 2],), (12,), ("12",), ("1", "2"), (None,), (), ([],), ({},), (1.0, 2)]
    assert len({fingerprint(*part) for part in parts}) == len(parts)
    with pytest.raises(TypeError):
        fingerprint(object())


def test_gradients_gathered_with_other_sinks_are_not_reused(tiny_model, tmp_path):
    model = tiny_model("llama")
    plain = make_bench(model, tmp_path)
    first = gather_items(plain, make_items(), answer_metric, "answer")
    sunk = leave_out(make_bench(model, tmp_path), Sinks(((0,), (), ()), (1.0, 1.0, 1.0)))
    second = gather_items(sunk, make_items(), answer_metric, "answer")
    assert sunk.store.reused == 0
    assert np.abs(first.groups.sums - second.groups.sums).max() > 1e-3


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_only_the_owner_can_read_shards(tmp_path, monkeypatch):
    folder = tmp_path / "out" / "shards"
    before = os.umask(0)
    try:
        during = []
        store = ShardStore(folder, {})
        save = shards.save_file

        def watch(arrays, path):
            during.append(stat.S_IMODE(path.stat().st_mode))
            save(arrays, path)
            during.append(stat.S_IMODE(path.stat().st_mode))

        monkeypatch.setattr(shards, "save_file", watch)
        store.get("texts", KEY, lambda: {"ids": np.arange(3)})
    finally:
        os.umask(before)
    (path,) = folder.iterdir()
    assert during == [0o600, 0o600] and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_processes_that_make_the_same_shard_at_once_do_not_disturb_each_other(tmp_path):
    together = threading.Barrier(8)

    def make():
        together.wait(timeout=30)
        return {"a": np.arange(200_000)}

    def gets(_):
        store = ShardStore(tmp_path, {})
        return [store.get(f"x{k}", KEY, make)["a"].sum() for k in range(10)]

    with ThreadPoolExecutor(8) as pool:
        assert set(np.ravel(list(pool.map(gets, range(8))))) == {np.arange(200_000).sum()}
    assert not list(tmp_path.glob("*.part")) and len(list(tmp_path.glob("*.safetensors"))) == 10


def test_no_folder_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = ShardStore(None, {})
    for _ in range(2):
        store.get("x", KEY, lambda: {"a": np.ones(1)})
    assert (store.made, store.reused) == (2, 0) and not list(tmp_path.iterdir())


def test_a_disk_that_refuses_is_one_clear_error_and_leaves_no_half_shard(tmp_path, monkeypatch):
    def full(arrays, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "save_file", full)
    with pytest.raises(AligntaxError, match=r"cannot write .*No space left on device; free some space") as caught:
        ShardStore(tmp_path, {}).get("x", KEY, lambda: {"a": np.ones(1)})
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.raises(AligntaxError, match="cannot write"):
        ShardStore(tmp_path / "file", {}).get("x", KEY, lambda: {"a": np.ones(1)})


def test_items_of_a_group_too_small_are_refused_by_name(tiny_model, tmp_path):
    few = dataclasses.replace(make_items(1), name="tiny-task")
    with pytest.raises(AligntaxError, match="tiny-task"):
        gather_items(make_bench(tiny_model("llama"), tmp_path), few, answer_metric, "answer")
