"""A checkpoint's index is untrusted: it may name files of its own folder and no others."""

import json

import pytest

from aligntax.errors import ModelError
from aligntax.models import resolve


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "deep/model-1.safetensors"])
def test_an_index_that_points_outside_its_folder_is_refused(shard, tmp_path, tiny_folder):
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "config.json").write_bytes((tiny_folder / "config.json").read_bytes())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(ModelError, match="points outside its folder"):
        resolve(str(folder), None, None).weight_files()
