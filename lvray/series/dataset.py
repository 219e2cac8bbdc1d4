"""Which series are there, and where do they come from?

A data set is N systems of V variables at T common times: generated here and kept in a cache, or read from a file
(`readers`).
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lvray.core.errors import DataError
from lvray.series import predator_prey

Floats: TypeAlias = npt.NDArray[np.float64]

GENERATED: Mapping[str, Callable[[int, int], npt.NDArray[np.floating[Any]]]] = {
    "coursework": predator_prey.coursework,
    "lotka-volterra": predator_prey.lotka_volterra,
}
"""Data sets that need no file: name → function of seed and number of systems."""


_CACHE_LAYOUT = 1
"""Part of every cached file's name; one more whenever the same seed would give other numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Series of several systems at common times. The arrays cannot be written to."""

    values: Floats
    """[N, T, V], in the data's own units; NaN where a value is missing."""
    times: Floats
    """[T], strictly increasing."""
    variables: tuple[str, ...]
    source: str
    """Where it comes from, for people."""
    labels: tuple[str, ...] = ()
    """What the file calls each system; empty where it only numbers them, from 0."""

    def __post_init__(self) -> None:
        _, steps, variables = self.values.shape
        assert self.values.size > 0, f"an empty data set: {self.values.shape}"
        assert self.times.shape == (steps,), f"{self.times.shape} times for {steps} steps"
        assert len(self.variables) == variables, f"{self.variables} name {variables} variables"
        assert len(self.labels) in (0, len(self.values)), f"{self.labels} label {len(self.values)}"
        self.values.setflags(write=False)
        self.times.setflags(write=False)

    @property
    def systems(self) -> int:
        """How many systems there are, N."""
        return len(self.values)

    def label(self, system: int) -> str:
        """What the file calls a system, or its number, from 0."""
        return self.labels[system] if self.labels else str(system)

    @property
    def steps(self) -> int:
        """How many time steps each system has, T."""
        return len(self.times)


def generate(source: str, *, seed: int, systems: int) -> Dataset:
    """Generates one of the data sets named in `GENERATED`.

    Raises:
        DataError: there is no such source, or the seed or number of systems cannot be.
    """
    if source not in GENERATED:
        raise DataError(f"data source {source!r} cannot be generated; {', '.join(GENERATED)} can")
    return Dataset(
        values=GENERATED[source](seed, systems).astype(np.float64),
        times=predator_prey.times(),
        variables=predator_prey.VARIABLES,
        source=f"{source}, seed {seed}",
    )


def write(path: str | Path, dataset: Dataset) -> None:
    """Writes an HDF5 file in the course's layout (series as float32), whole or not at all.

    Raises:
        DataError: the file cannot be written: no space, no permission.
    """
    _write_bytes(Path(path), _hdf5_bytes(dataset))


def load(source: str, *, path: str | Path | None, seed: int, systems: int) -> Path:
    """Gives the file that holds a data set, generating and caching it where it needs no file of its own.

    A given `path` is the data set, whatever the source is called. Generated ones are kept in ``$LVRAY_CACHE``,
    ``$XDG_CACHE_HOME/lvray`` or ``~/.cache/lvray``, whichever is set first, each beside its checksum; a
    file that does not match it is made again.

    Raises:
        DataError: there is no such file or source, or the cache cannot be written.
    """
    if path is not None:
        given = Path(path)
        if not given.is_file():
            raise DataError(f"{given}: there is no such data file")
        return given
    if source == "file":
        raise DataError("data source 'file' needs a path to an HDF5, NPZ or CSV file")
    cached = cache_folder() / f"{source}-v{_CACHE_LAYOUT}-seed{seed}-systems{systems}.h5"
    checksum = cached.with_suffix(".sha256")
    if not _whole(cached, checksum):
        content = _hdf5_bytes(generate(source, seed=seed, systems=systems))
        for part, written in ((cached, content), (checksum, _sha256(content))):
            _write_bytes(part, written, remedy="; $LVRAY_CACHE may name another folder")
    return cached


def cache_folder() -> Path:
    """Gives the folder where generated data sets are kept; it need not exist yet."""
    if own := os.environ.get("LVRAY_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "lvray"
    return Path.home() / ".cache" / "lvray"


def _hdf5_bytes(dataset: Dataset) -> bytes:
    """Gives the whole file in memory: the HDF5 library's own writing does not fail cleanly on a full disk."""
    import h5py

    with np.errstate(over="ignore"):
        values = dataset.values.astype(np.float32)
    if np.isinf(values).any():
        raise DataError(f"{dataset.source}: values above 3e38 do not fit the float32 of the layout")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        series = file.create_dataset("trajectories", data=values)
        series.attrs["variables"] = list(dataset.variables)
        file.create_dataset("time", data=dataset.times)
    return buffer.getvalue()


def _write_bytes(path: Path, content: bytes, *, remedy: str = "") -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"{path}: {len(content)} bytes could not be written: {reason}{remedy}"
        ) from error


def _replace(path: Path, content: bytes) -> None:
    """Puts the content where `path` says in one step, by way of a temporary file beside it."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp lets nobody else read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _whole(cached: Path, checksum: Path) -> bool:
    """Tells whether a cached file is there and as it was written."""
    try:
        return checksum.read_bytes() == _sha256(cached.read_bytes())
    except OSError:  # not there, or not to be read: it is made, and writing says what is wrong
        return False


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
