"""Where a base model must lie for somebody who cannot ask the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import try_to_load_from_cache

from lvray.core.errors import ModelError
from lvray.planner.model import ensure_whole, hub_cache

NEEDED = ("config.json", "tokenizer_config.json")
INDEX = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}


def snapshot(cache, model, *names):
    place = cache / f"models--{model.replace('/', '--')}"
    folder = place / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0123abcd", encoding="utf-8")
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("model", ["org/model", "model"])
def test_a_whole_snapshot_is_found_where_the_hubs_client_finds_it(tmp_path, model):
    folder = snapshot(tmp_path, model, *NEEDED, "model.safetensors")
    assert ensure_whole(model, tmp_path) == folder
    assert try_to_load_from_cache(model, "config.json", cache_dir=tmp_path) == str(
        folder / "config.json"
    )


def test_the_model_in_the_package_is_there_anywhere(tmp_path):
    assert ensure_whole("tiny", tmp_path) is None


@pytest.mark.parametrize(
    "names",
    [
        (*NEEDED, "model.safetensors"),
        (*NEEDED, "pytorch_model.bin"),
        ("config.json", "tokenizer.json", "model.safetensors"),
        (*NEEDED, "model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors"),
    ],
)
def test_config_tokenizer_and_weights_are_a_whole_model(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text(json.dumps(INDEX), encoding="utf-8")
    assert ensure_whole(str(tmp_path), tmp_path / "none") == tmp_path


@pytest.mark.parametrize(
    ("names", "lacks"),
    [
        (("config.json",), "tokenizer_config.json, model.safetensors"),
        (("tokenizer_config.json", "model.safetensors"), "config.json"),
        ((*NEEDED, "model.safetensors.index.json", "model-1.safetensors"), "model-2.safetensors"),
    ],
)
def test_what_a_part_of_a_model_lacks_is_told(tmp_path, names, lacks):
    folder = snapshot(tmp_path, "org/Model", *names)
    if "model.safetensors.index.json" in names:
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps(INDEX), encoding="utf-8")
    with pytest.raises(ModelError) as told:
        ensure_whole("org/Model", tmp_path)
    assert f"whole in {folder} (no {lacks})" in str(told.value)
    assert "`hf download org/Model --local-dir models/model`" in str(told.value)


def test_an_index_that_cannot_be_read_is_not_whole(tmp_path):
    folder = snapshot(tmp_path, "org/model", *NEEDED)
    (folder / "model.safetensors.index.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match=r"no model\.safetensors\.index\.json"):
        ensure_whole("org/model", tmp_path)


def test_a_link_to_weights_that_are_gone_is_none(tmp_path):
    folder = snapshot(tmp_path, "org/model", *NEEDED)
    (folder / "model.safetensors").symlink_to(tmp_path / "blobs" / "gone")
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        ensure_whole("org/model", tmp_path)


def test_half_a_folder_is_completed_in_its_place(tmp_path):
    with pytest.raises(ModelError) as told:
        ensure_whole(str(tmp_path), tmp_path)
    assert f"--local-dir {tmp_path}`, then --set model={tmp_path}" in str(told.value)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"XDG_CACHE_HOME": "/xdg"},
        {"HF_HOME": "/hf", "XDG_CACHE_HOME": "/xdg"},
        {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/hf"},
        {"HF_HUB_CACHE": "~/new", "HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/hf"},
    ],
)
def test_the_cache_is_where_the_hubs_client_has_it(variables, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ab123")
    variables = {"HOME": "/home/ab123", "PATH": os.environ["PATH"], **variables}
    asked = "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"
    told = subprocess.run(
        [sys.executable, "-c", asked], env=variables, capture_output=True, text=True, check=True
    )
    assert hub_cache(variables) == Path(told.stdout.strip())
