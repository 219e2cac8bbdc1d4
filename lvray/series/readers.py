"""How is a data file read, and what is said of one that cannot be?

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
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lvray.core.errors import DataError
from lvray.series.dataset import Dataset

Floats: TypeAlias = npt.NDArray[np.float64]


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
    try:
        path.stat()
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such data file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if not path.is_file():
        raise DataError(f"{path}: a folder, not a data file")
    return reader(path).checked(allow_missing=allow_missing)


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
