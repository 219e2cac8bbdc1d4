"""Base model and data are read once a node, and what cannot be copied is read where it is."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lvray.trainer.near import NODE_CACHE, near, near_model, read_near

BIG = 24 * 1024**2
"""Bytes of a source that takes a while to copy."""

ASK = """
import json, sys
from pathlib import Path
from lvray.trainer.near import near
def read():
    return int(next(line for line in open("/proc/self/io") if line.startswith("rchar")).split()[1])
sys.stdin.readline()
before = read()
copy = near(Path(sys.argv[1]))
print(json.dumps({"copy": copy and str(copy), "inode": copy and copy.stat().st_ino, "read": read() - before}))
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv(NODE_CACHE, str(folder))
    return folder


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "source.h5"
    file.write_bytes(os.urandom(BIG))
    return file


def ask(source: Path, program: str = ASK) -> subprocess.Popen[str]:
    """A process that asks for a copy once it is sent a line."""
    return subprocess.Popen(
        [sys.executable, "-c", program, str(source)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> dict:
    out, err = process.communicate("go\n", timeout=60)
    assert process.returncode == 0, err
    return json.loads(out)


def test_without_the_variable_everything_is_read_where_it_is(source, model, monkeypatch):
    monkeypatch.delenv(NODE_CACHE, raising=False)
    assert near(source) is None
    assert near_model(model) is None


def test_of_many_processes_at_once_one_alone_reads_the_source(cache, source):
    processes = [ask(source) for _ in range(6)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [answer(process) for process in processes]
    assert len({(told["copy"], told["inode"]) for told in answers}) == 1
    # What the kernel says of each: bytes that were read, by whichever call.
    assert sorted(told["read"] >= BIG for told in answers) == [False] * 5 + [True]
    assert Path(answers[0]["copy"]).read_bytes() == source.read_bytes()


def test_a_copy_serves_when_the_source_can_no_longer_be_read(cache, source):
    copy = near(source)
    seen = source.stat()
    source.write_bytes(b"")  # as many bytes and the same time, and nothing of it left
    os.truncate(source, BIG)
    os.utime(source, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert near(source) == copy
    assert any(copy.read_bytes()[:100])


HALT = """
import shutil, sys
from pathlib import Path
from lvray.trainer.near import near
def half(source, to):
    with open(source, "rb") as whole, open(to, "wb") as part:
        part.write(whole.read(1024**2))
    print("half", flush=True)
    sys.stdin.read()
shutil.copyfile = half
near(Path(sys.argv[1]))
"""
"""A worker that comes to a halt in the midst of a copy."""


def test_a_worker_that_is_killed_while_it_copies_leaves_nothing_that_counts(cache, source):
    victim = ask(source, HALT)
    assert victim.stdout.readline() == "half\n", victim.communicate()[1]
    (half,) = cache.glob("*/*")
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    assert half.stat().st_size == 1024**2
    assert not [place for place in cache.iterdir() if not place.suffix], "it counts"
    copy = near(source)
    assert copy is not None
    assert copy.read_bytes() == source.read_bytes()


def test_a_half_copy_of_the_same_source_is_made_anew(cache, source):
    copy = near(source)
    half = copy.parent.with_name(f"{copy.parent.name}.part")
    copy.parent.rename(half)
    os.truncate(half / copy.name, 1000)
    (half / "stray").touch()
    assert near(source) == copy
    assert copy.read_bytes() == source.read_bytes()
    assert [file.name for file in copy.parent.iterdir()] == [source.name]
    assert not half.exists()


@pytest.mark.parametrize("size", [BIG, 7])
def test_a_source_that_changed_is_copied_again(cache, source, size):
    first = near(source)
    source.write_bytes(b"?" * size)
    os.utime(source, (1, 1))
    second = near(source)
    assert second != first
    assert second.read_bytes() == b"?" * size


def test_files_of_one_name_in_two_folders_have_two_copies(cache, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.csv").write_text(name)
        os.utime(tmp_path / name / "data.csv", ns=(0, 0))
    assert [near(tmp_path / name / "data.csv").read_text() for name in ("a", "b")] == ["a", "b"]


def test_a_disk_that_is_too_small_is_not_even_begun_and_told_once(cache, source, caplog):
    os.truncate(source, 2**43)  # a hole of 8 TiB
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BIG, before[1]))  # should it be begun all the same
    try:
        assert near(source) is None
        assert near(source) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (told,) = caplog.messages
    assert f"no copy of {source}, which is read itself: {2**43} bytes do not fit" in told
    assert not list(cache.glob("*.part"))


def test_a_disk_that_fills_while_it_is_copied_to_leaves_nothing_behind(cache, source):
    limited = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({BIG // 2},) * 2)\n"
    process = ask(source, limited + ASK)
    out, err = process.communicate("go\n", timeout=60)
    assert json.loads(out)["copy"] is None
    assert f"no copy of {source}, which is read itself: {os.strerror(errno.EFBIG)}" in err
    assert [place.suffix for place in cache.iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_made_is_told_and_done_without(source, tmp_path, monkeypatch):
    monkeypatch.setenv(NODE_CACHE, str(source / "cache"))  # a file is in the way
    assert near(source) is None


def test_of_a_model_what_is_loaded_is_copied_and_nothing_else(cache, tmp_path):
    folder = tmp_path / "m"
    for name in (
        "config.json",
        "model.safetensors",
        "pytorch_model.bin",
        ".git/big",
        "original/big",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    copy = near_model(str(folder))
    assert sorted(str(file.relative_to(copy)) for file in copy.rglob("*")) == [
        "config.json",
        "model.safetensors",
    ]


def hub(cache: Path, model: str, *names: str) -> Path:
    """A Hugging Face cache with one snapshot, laid out as the hub's client does."""
    home = cache / f"models--{model.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("0123abcd")
    (home / "blobs").mkdir()
    snapshot = home / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for name in names:
        (home / "blobs" / name).write_text(name)
        (snapshot / name).symlink_to(home / "blobs" / name)
    return snapshot


@pytest.mark.parametrize(
    ("names", "whole"),
    [
        (["config.json"], False),
        (["config.json", "model.safetensors"], False),
        (["config.json", "tokenizer_config.json"], False),
        (["config.json", "tokenizer_config.json", "model.safetensors"], True),
    ],
)
def test_a_hub_id_is_copied_once_it_is_whole_in_the_hubs_cache(
    cache, tmp_path, monkeypatch, names, whole
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    hub(tmp_path / "hub", "org/model", *names)
    copy = near_model("org/model")
    assert (copy is not None) == whole
    if copy:
        assert sorted(file.name for file in copy.iterdir()) == sorted(names)
        assert not any(file.is_symlink() for file in copy.iterdir())


def test_a_model_in_parts_is_whole_with_its_last_part(cache, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    names = ["config.json", "tokenizer_config.json", "a.safetensors"]
    snapshot = hub(tmp_path / "hub", "org/model", *names)
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert near_model("org/model") is None
    (snapshot / "b.safetensors").touch()
    assert near_model("org/model") is not None


def test_a_name_that_is_no_model_at_all_is_left_to_who_loads_it(cache):
    assert near_model("no folder, no id") is None


def test_a_copy_that_is_damaged_is_passed_over(cache, source):
    def read(place: str) -> str:
        if place != str(source):
            raise ValueError(place)
        return "the source"

    assert read_near(str(source), near(source), read, ValueError) == "the source"


@pytest.fixture
def forget():
    """Gives a function that makes this process forget what it has loaded."""
    from lvray.trainer import batches, tokenizer
    from lvray.trainer import model as models

    def forget() -> None:
        models._loaded.clear()
        tokenizer.load_tokenizer.cache_clear()
        batches.read_texts.cache_clear()

    yield forget
    forget()


def spoil(file: Path) -> None:
    """Overwrites every byte; size and time stay."""
    seen = file.stat()
    file.write_bytes(b"?" * seen.st_size)
    os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))


@pytest.mark.torch
def test_a_trial_reads_the_copies_and_writes_the_names_of_the_sources(
    cache, make_task, model, data, forget, tmp_path
):
    from lvray.trainer import loop

    own_model, own_data = tmp_path / "own", tmp_path / "own.h5"
    shutil.copytree(model, own_model)
    shutil.copy(data.path, own_data)
    task = make_task(4, model=str(own_model), data=replace(data, path=str(own_data)))
    near_model(str(own_model))
    near(own_data)
    for file in (own_data, *own_model.iterdir()):
        spoil(file)
    forget()
    heard, usual = [], []
    loop.run(task, heard.append)
    loop.run(make_task(4, name="usual"), usual.append)
    assert heard[0].validation_loss == usual[0].validation_loss
    (adapter,) = Path(task.folder).glob("checkpoints/*/adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(own_model)
    assert f"base_model: {own_model}" in (adapter / "README.md").read_text()
    written = [file for file in Path(task.folder).rglob("*") if file.is_file()]
    assert not [file for file in written if str(cache).encode() in file.read_bytes()]


@pytest.mark.torch
def test_errors_name_the_source_and_not_its_copy(cache, make_task, tmp_path, forget):
    from lvray.core.errors import DataError, ModelError
    from lvray.trainer.batches import read_texts
    from lvray.trainer.tokenizer import load_tokenizer

    forget()
    file, folder = tmp_path / "bad.h5", tmp_path / "bad"
    file.write_text("no HDF5")
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    task = make_task(1)
    row = replace(task, data=replace(task.data, path=str(file))).to_json()["data"]
    with pytest.raises(DataError, match=f"^{file}: ") as refused:
        read_texts(json.dumps(row), task.model)
    assert str(cache) not in str(refused.value)
    with pytest.raises(ModelError, match=f"^{folder}: ") as refused:
        load_tokenizer(str(folder))
    assert str(cache) not in str(refused.value)
    assert len([place for place in cache.iterdir() if not place.suffix]) >= 2
