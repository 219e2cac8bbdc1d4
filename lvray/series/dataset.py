"""Which series are there, where do they come from, and which of them may be trained on?

A data set is N systems of V variables at T common times. It is read from

- HDF5 (``.h5``, ``.hdf5``), in the course's layout: ``/trajectories`` [N, T, V] and, if there, ``/time`` [T];
  names may stand in the attribute ``variables`` of ``/trajectories``;
- NPZ (``.npz``): ``values`` or ``trajectories`` [N, T, V] and, if there, ``time`` [T] and ``variables`` [V];
- CSV (``.csv``): a header row, then one row a time step. A column named ``system`` says which system a row
  belongs to; without it the file is one system. The column named ``time``, or else the first, is the time; the
  rest are the variables. Lines that start with ``#`` are comments, blanks around cells do not count, an empty
  cell or ``NA`` is a missing value.

Without times the steps are counted 0, 1, 2, …; without names the variables are called x1, x2, ….
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
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

_DAMAGED_NPZ = (
    OSError,
    EOFError,
    ValueError,  # also an array of Python objects, which would need pickle
    KeyError,
    TypeError,
    NotImplementedError,  # zipfile's word for a compression method that it does not know
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy raises on archives that are damaged; it depends on which byte is."""

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


def read(path: str | Path, *, allow_missing: bool = False) -> Dataset:
    """Reads an HDF5, NPZ or CSV file (told apart by the end of its name).

    Raises:
        DataError: the file is not there, damaged, not laid out as the module says, empty, not numeric,
            holds infinite values, or NaN without `allow_missing`.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path}: a data file ends in {', '.join(_READERS)}, not in {path.suffix or 'nothing'!r}"
        )
    if not path.is_file():
        problem = "a folder, not a data file" if path.is_dir() else "there is no such data file"
        raise DataError(f"{path}: {problem}")
    return reader(path).checked(allow_missing=allow_missing)


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


@dataclass(frozen=True, slots=True)
class Split:
    """Which systems have which role, as indices into the data set; no system has two, unless validation is the test."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def split_systems(
    count: int,
    *,
    train: float,
    validation: float,
    test: float | None,
    seed: int = 0,
    order: str = "random",
) -> Split:
    """Gives every part its systems: an `int` asks for that many, a `float` for that fraction of `count`.

    Fractions that do not come out even are rounded so that their sum does (largest remainder). With the order
    ``file`` the first systems are trained on and the last tested; with ``random`` they are shuffled first, and
    stay shuffled within a part, so that the first few of a part are a fair sample of it. Without a `test` the
    validation systems are the test systems too: what is forecast then has been chosen on.

    Raises:
        DataError: a part would be empty, or the parts ask for more systems than there are.
    """
    wanted = {"train": train, "validation": validation}
    sizes = _sizes(count, wanted if test is None else {**wanted, "test": test})
    if order == "random":
        systems = np.random.default_rng(seed).permutation(count).tolist()
    elif order == "file":
        systems = list(range(count))
    else:
        raise DataError(f"split order {order!r}: it is 'random' or 'file'")
    ends = np.cumsum(list(sizes.values())).tolist()
    held_out = tuple(systems[ends[0] : ends[1]])
    return Split(
        train=tuple(systems[: ends[0]]),
        validation=held_out,
        test=held_out if test is None else tuple(systems[ends[1] : ends[2]]),
    )


def _sizes(count: int, wanted: Mapping[str, float]) -> dict[str, int]:
    """Turns counts and fractions into counts of at least 1 each and at most `count` together."""
    exact = {part: _exact_size(part, share, count) for part, share in wanted.items()}
    total = sum(exact.values(), Fraction(0))
    if total > count:
        shares = ", ".join(f"{part} {share}" for part, share in wanted.items())
        raise DataError(
            f"the split asks for {float(total):g} systems ({shares}), but there are {count}"
        )
    sizes = {part: int(size) for part, size in exact.items()}
    by_remainder = sorted(exact, key=lambda part: sizes[part] - exact[part])
    for part in by_remainder[: int(total) - sum(sizes.values())]:
        sizes[part] += 1
    for part, size in sizes.items():
        if size == 0:
            raise DataError(
                f"the {part} part of the split is empty: {wanted[part]} of {count} systems is none; "
                "ask for more, or give a count such as 1"
            )
    return sizes


def _exact_size(part: str, share: int | float, count: int) -> Fraction:
    if isinstance(share, float):
        if 0 <= share <= 1:
            return Fraction(repr(share)) * count  # of the decimal as written: 0.1 is a tenth
    elif not isinstance(share, bool) and share >= 0:
        return Fraction(share)
    raise DataError(
        f"split {part}: {share!r} is neither a fraction such as 0.8 nor a count such as 800"
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """What a reader took out of a file, not yet looked at."""

    path: Path
    name: str
    """What the file calls the series, for messages."""
    values: npt.NDArray[Any]
    times: npt.NDArray[Any] | None = None
    variables: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()

    def checked(self, *, allow_missing: bool) -> Dataset:
        """Gives the data set, or says the first thing that is wrong with it."""
        if self.values.ndim != 3:
            raise DataError(
                f"{self.path}: {self.name} has shape {self.values.shape}; "
                "it must have three dimensions: systems, time steps, variables"
            )
        if self.values.size == 0:
            raise DataError(f"{self.path}: {self.name} is empty, its shape is {self.values.shape}")
        values = _numbers(self.path, self.name, self.values)
        variables = self._variables()
        _refuse_gaps(self.path, values, variables, allow_missing=allow_missing)
        return Dataset(values, self._times(), variables, str(self.path), self.labels)

    def _variables(self) -> tuple[str, ...]:
        count = self.values.shape[2]
        names = self.variables or tuple(f"x{index + 1}" for index in range(count))
        if len(names) != count:
            raise DataError(f"{self.path}: {len(names)} names {names} for {count} variables")
        return names

    def _times(self) -> Floats:
        steps = self.values.shape[1]
        if self.times is None:
            return np.arange(steps, dtype=np.float64)
        if self.times.shape != (steps,):
            raise DataError(
                f"{self.path}: time has shape {self.times.shape}; {self.name} has {steps} time steps"
            )
        times = _numbers(self.path, "time", self.times)
        rising = np.isfinite(times)
        rising[1:] &= np.diff(times) > 0
        if not rising.all():
            step = int(np.argmin(rising))
            raise DataError(
                f"{self.path}: times must be finite and rise from step to step, "
                f"but time {times[step]:g} at step {step} (counted from 0) does not"
            )
        return times


def _numbers(path: Path, name: str, array: npt.NDArray[Any]) -> Floats:
    if array.dtype.kind not in "fiu":
        raise DataError(f"{path}: {name} holds {array.dtype}, not real numbers")
    return array.astype(np.float64)


def _refuse_gaps(
    path: Path, values: Floats, variables: Sequence[str], *, allow_missing: bool
) -> None:
    bad = np.isinf(values) if allow_missing else ~np.isfinite(values)
    if not bad.any():
        return
    system, step, variable = np.argwhere(bad)[0].tolist()
    raise DataError(
        f"{path}: {bad.sum()} of {values.size} values are {'' if allow_missing else 'NaN or '}infinite; "
        f"the first is {values[system, step, variable]} at system {system}, step {step}, "
        f"variable {variables[variable]!r} (counted from 0); every value must be a finite number"
    )


def _read_hdf5(path: Path) -> _Found:
    import h5py  # 0.2 s, not paid by those who only need a split

    try:
        with h5py.File(path, "r") as file:
            present: list[str] = []
            file.visititems(lambda name, item: _note(present, name, item))
            if "trajectories" not in present:
                raise DataError(
                    f"{path}: there is no dataset /trajectories in this HDF5 file; "
                    f"it has {', '.join('/' + name for name in present) or 'none at all'}"
                )
            series = file["trajectories"]
            names = series.attrs.get("variables")
            return _Found(
                path=path,
                name="/trajectories",
                values=np.asarray(series),
                times=np.asarray(file["time"]) if "time" in present else None,
                variables=None if names is None else _names(names),
            )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        # What h5py raises on damaged files depends on which byte is damaged.
        raise DataError(f"{path}: not a whole HDF5 file: {error}") from error


def _note(present: list[str], name: str, item: object) -> None:
    if hasattr(item, "shape"):  # a dataset; groups have none
        present.append(name)


def _names(names: npt.ArrayLike) -> tuple[str, ...]:
    plain = np.atleast_1d(np.asarray(names)).tolist()
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in plain)


def _read_npz(path: Path) -> _Found:
    try:
        # Opened here: np.load leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            present = tuple(archive.files)
            name = next((name for name in ("values", "trajectories") if name in present), None)
            if name is None:
                raise DataError(
                    f"{path}: there is neither values nor trajectories in this NPZ file; "
                    f"it has {', '.join(present) or 'nothing at all'}"
                )
            time = next((name for name in ("time", "times") if name in present), None)
            return _Found(
                path=path,
                name=name,
                values=archive[name],
                times=None if time is None else archive[time],
                variables=_names(archive["variables"]) if "variables" in present else None,
            )
    except _DAMAGED_NPZ as error:
        raise DataError(f"{path}: not a whole NPZ file of numbers: {error}") from error


def _read_csv(path: Path) -> _Found:
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = list(_csv_rows(text))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8: {error}") from error
    if not rows:
        raise DataError(f"{path}: the file is empty; a CSV file begins with a row of column names")
    (_, header), body = rows[0], rows[1:]
    if all(_is_number(cell) for cell in header):
        raise DataError(f"{path}: the first row {header} holds no names; it must name the columns")
    if not body:
        raise DataError(f"{path}: there is no row below the column names {header}")
    system, columns = _columns(path, header)
    table: dict[str, list[list[float]]] = {}
    for line, cells in body:
        if len(cells) != len(header):
            raise DataError(
                f"{path}, line {line}: {len(cells)} cells, but there are {len(header)} columns"
            )
        label = "" if system is None else cells[system]
        numbers = [_cell(path, line, header[index], cells[index]) for index in columns]
        table.setdefault(label, []).append(numbers)
    labels = () if system is None else tuple(table)
    return _stacked(path, table, tuple(header[index] for index in columns[1:]), labels)


def _columns(path: Path, header: Sequence[str]) -> tuple[int | None, list[int]]:
    """Gives where the system stands, if anywhere, and where the time (first) and the variables stand."""
    names = [name.lower() for name in header]
    if len(set(names)) < len(names) or "" in names:
        raise DataError(f"{path}: the columns are {header}; each needs a name of its own")
    system = names.index("system") if "system" in names else None
    columns = [index for index in range(len(names)) if index != system]
    columns.sort(key=lambda index: names[index] != "time")  # stable: the others stay in file order
    if len(columns) < 2:
        raise DataError(
            f"{path}: the columns are {header}; a time column and at least one variable are needed"
        )
    return system, columns


def _stacked(
    path: Path,
    table: Mapping[str, list[list[float]]],
    variables: tuple[str, ...],
    labels: tuple[str, ...],
) -> _Found:
    """Joins the systems of a CSV file, which must all have the times of the first."""
    blocks = {label: np.array(rows) for label, rows in table.items()}
    first, expected = next(iter(blocks.items()))
    for label, block in blocks.items():
        if not np.array_equal(block[:, 0], expected[:, 0], equal_nan=True):
            raise DataError(
                f"{path}: system {label!r} has {len(block)} rows at times {_span(block)}, system "
                f"{first!r} has {len(expected)} at {_span(expected)}; all must have the same times"
            )
    return _Found(
        path=path,
        name="the table",
        values=np.stack([block[:, 1:] for block in blocks.values()]),
        times=expected[:, 0],
        variables=variables,
        labels=labels,
    )


def _span(block: Floats) -> str:
    return f"{block[0, 0]:g} to {block[-1, 0]:g}"


def _csv_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Gives (line number, cells) of every row that is neither blank nor a comment."""
    numbered = enumerate(text.splitlines(), start=1)
    kept = [(number, line) for number, line in numbered if not _skipped(line)]
    reader = csv.reader((line for _, line in kept), skipinitialspace=True, strict=True)
    for cells in reader:
        yield kept[reader.line_num - 1][0], [cell.strip() for cell in cells]


def _skipped(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _cell(path: Path, line: int, column: str, cell: str) -> float:
    if not cell or cell.upper() == "NA":
        return float("nan")
    if not _is_number(cell):
        raise DataError(f"{path}, line {line}: {cell!r} in column {column!r} is not a number")
    return float(cell)


_READERS: Mapping[str, Callable[[Path], _Found]] = {
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".npz": _read_npz,
    ".csv": _read_csv,
}


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
