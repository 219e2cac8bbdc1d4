"""Where is a base model or a data file read from, when many workers of a node want the same?

From the node's own disk, if the environment variable LVRAY_NODE_CACHE names a folder there: the first worker to ask
copies the source, the others wait for it, and all map the same file into memory. Otherwise, and where there is no room for
a copy, from the source itself.

    $LVRAY_NODE_CACHE/<key>/<name>    a copy, whole: the key is made of the source's path, sizes and times
    $LVRAY_NODE_CACHE/<key>.part/     a copy in the making, or the half one of a worker that was killed
    $LVRAY_NODE_CACHE/<key>.lock      held by whoever copies
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from lvray.core.model_files import lacking

NODE_CACHE = "LVRAY_NODE_CACHE"
"""The environment variable that names a folder on the node's own disk."""

WEIGHTS = ".safetensors"
OTHER_WEIGHTS = (".bin", ".pth", ".pt", ".h5", ".msgpack", ".onnx", ".gguf", ".ot")
"""The same weights again, in files that are not read where there are safetensors."""

Read = TypeVar("Read")

_log = logging.getLogger(__name__)
_told: set[str] = set()
"""What this process has been warned of."""


def read_near(
    source: str,
    copy: Path | None,
    read: Callable[[str], Read],
    *damage: type[Exception],
) -> Read:
    """Gives what `read` makes of the node's copy of `source`; of `source` itself, where there is none or it is damaged.

    So every error is told of the source, under its own name.

    Args:
        source: a file, a folder, or the id of a model.
        copy: the node's own, if there is one.
        read: reads it, wherever it is.
        damage: what `read` raises of something that it cannot read.
    """
    if copy is not None:
        with suppress(*damage):
            return read(str(copy))
    return read(source)


def near(source: Path) -> Path | None:
    """Gives the node's own copy of a file, or of the files in a folder; None where there is none.

    A source that changes is copied again. The copy is there whole or not at all, whoever is killed.
    """
    cache = os.environ.get(NODE_CACHE)
    if not cache or not source.exists():
        return None
    try:
        return _copied(source, Path(cache))
    except OSError as error:
        _tell(f"{cache}: no copy of {source}, which is read itself", error)
        return None


def near_model(model: str) -> Path | None:
    """Gives the node's own copy of a base model: of a folder, or of a hub id that is whole in the Hugging Face cache.

    None where there is none: transformers then finds or fetches the model.
    """
    if not os.environ.get(NODE_CACHE):
        return None
    folder = Path(model) if Path(model).is_dir() else _snapshot(model)
    return None if folder is None else near(folder)


def _tell(words: str, error: OSError) -> None:
    """Warns once a process: the tokenizer, the model and the data may all find no room."""
    if words not in _told:
        _told.add(words)
        _log.warning("%s: %s", words, error.strerror or error)


def _copied(source: Path, cache: Path) -> Path:
    files = _files(source)
    known = [(str(file), (seen := file.stat()).st_size, seen.st_mtime_ns) for file in files]
    key = hashlib.sha256(json.dumps([str(source.absolute()), known]).encode()).hexdigest()[:16]
    place = cache / key
    if not place.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / f"{key}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists():
                _copy(source, files, place, size=sum(size for _, size, _ in known))
    return place / source.name


def _copy(source: Path, files: Iterable[Path], place: Path, *, size: int) -> None:
    """Copies the files to a folder beside `place`, which then becomes `place`."""
    part = place.with_name(f"{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    free = shutil.disk_usage(place.parent).free
    if size > free:
        raise OSError(f"{size} bytes do not fit the {free} that are free")
    try:
        for file in files:
            to = part / source.name / file.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, to)
            _flush(to)
        part.rename(place)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _flush(file: Path) -> None:
    """Puts the file on the disk: a node that loses its power must not keep the name alone."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def _files(source: Path) -> list[Path]:
    """The file itself, or the files of a folder that a model is loaded from: none below it, none hidden."""
    if not source.is_dir():
        return [source]
    files = sorted(
        file for file in source.iterdir() if file.is_file() and not file.name.startswith(".")
    )
    if any(file.suffix == WEIGHTS for file in files):
        files = [file for file in files if file.suffix not in OTHER_WEIGHTS]
    return files


def _snapshot(model: str) -> Path | None:
    """The folder of a hub id in the Hugging Face cache; None where it is not there whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        snapshot = Path(snapshot_download(model, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return None if lacking(snapshot) else snapshot
