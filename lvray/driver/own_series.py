"""What does a model say of series of one's own?

A run folder, an adapter or a base model becomes a `Forecaster`: a model, and how series are written for it. Its
forecasts are those of a sweep: the same text, grammar and decoding, priced by the same rules.

A history may have gaps: the text has an empty field for a missing value. What a forecast is held against may
have none.

Shapes: N systems, T time steps of history, H of horizon, V variables.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lvray.core.errors import DataError, ModelError, RunFolderError, UsageError
from lvray.core.run_folder import RunFolder, write_whole
from lvray.core.task import ForecastTask
from lvray.core.trial import LoraConfig
from lvray.driver.best import FACTS, FORMAT
from lvray.flops.price import generation
from lvray.flops.shape import SHAPES, shape_of
from lvray.planner.model import ensure_available
from lvray.series.codec import Codec
from lvray.series.dataset import Dataset
from lvray.series.forecasts import Forecasts
from lvray.series.metrics import LEVELS, quantiles

if TYPE_CHECKING:
    import pyarrow

Floats: TypeAlias = npt.NDArray[np.float64]

PROMPTS_AT_ONCE = 16
"""Series that are forecast together: a matter of memory, not of the result."""

BASE_DECIMALS, BASE_SCALING = 2, "offset-quantile"
"""How series are written for a base model that nobody has trained: each scaled by its own history."""

HEAD = "full"
"""The rows of the head that are computed, and paid for."""

ENDINGS = (".csv", ".parquet")
"""What the name of a table may end in."""

USUAL_SIZE = 10.0
"""Below this lie most numbers of a training text, unless its scaling has another `to`."""

FOREIGN = 2.0
"""A history that reaches this many times the usual size is foreign to its forecaster, and so is one that stays below
a fortieth of it."""


@dataclass(frozen=True, slots=True)
class Forecaster:
    """A model and how series are written for it."""

    model: str
    quantization: str
    adapter: Path | None
    """The folder of an adapter; None is the base model as it is."""
    lora: LoraConfig | None
    """What the adapter is, for its price."""
    codec: Codec
    convention: str
    """How FLOPs are counted."""
    variables: tuple[str, ...] = ()
    """What the adapter's training data call their variables; empty for a base model."""

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.model if self.adapter is None else str(self.adapter)


def check_place(path: Path, data: Path) -> None:
    """Refuses a place for the table before an hour is spent on what would stand in it.

    Args:
        path: of the table; the figure comes beside it.
        data: the series, which it must not replace.

    Raises:
        UsageError: an ending that is no table's, or the data file itself.
        RunFolderError: a folder, or a place in a folder that cannot be written.
    """
    if path.suffix not in ENDINGS:
        raise UsageError(
            f"--out {path}: a table of forecasts ends in {' or '.join(ENDINGS)}, not in {path.suffix or 'nothing'!r}"
        )
    if path.resolve() == data.resolve():
        raise UsageError(f"--out {path}: these are the data themselves; name another file")
    folder = next(each for each in path.absolute().parents if each.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        problem = "it is a folder" if path.is_dir() else f"{folder} is no folder to write in"
        raise RunFolderError(f"{path}: cannot be written: {problem}")


def history_of(
    dataset: Dataset, *, context: int | None, horizon: int, held_out: bool
) -> tuple[Floats, Floats]:
    """Gives what a forecast is made from [N, T, V], and what it is held against [N, H, V]: NaN unless `held_out`.

    Args:
        dataset: the series.
        context: time steps that a forecast is given, the last ones; None is all.
        horizon: time steps ahead.
        held_out: whether the last `horizon` steps are kept back and forecast.

    Raises:
        DataError: the series are shorter than that, end in a step without a value, have none of some variable,
            or miss values that are held out.
    """
    steps, source = dataset.steps, dataset.source
    have = steps - horizon if held_out else steps
    if have < 1:
        raise DataError(
            f"{source}: its series have {_counted(steps, 'time step')}; with {horizon} held out there is nothing to "
            "forecast from"
        )
    given = have if context is None else context
    if given > have:
        kept = f", {horizon} of them held out" if held_out else ""
        raise DataError(
            f"{source}: its series have {_counted(steps, 'time step')}{kept}; "
            f"a context of {given} is not to be had, {have} is the longest"
        )
    history = dataset.values[:, have - given : have]
    _check_gaps(dataset, history, dataset.times[have - 1])
    if not held_out:
        return history, np.full((dataset.systems, horizon, history.shape[2]), np.nan)
    truth = dataset.values[:, have:]
    missing = np.argwhere(np.isnan(truth))
    if len(missing):
        system, step, variable = missing[0].tolist()
        raise DataError(
            f"{source}: {len(missing)} of the {truth.size} values that are held out are missing, the first is "
            f"{dataset.variables[variable]!r} of system {dataset.label(system)} at time {dataset.times[have + step]:g}; "
            "an error is measured on known values alone"
        )
    return history, truth


def _check_gaps(dataset: Dataset, history: Floats, last: float) -> None:
    """Refuses histories that nothing can be said of; single values may be missing."""
    unknown = np.isnan(history)
    ends = np.flatnonzero(unknown[:, -1].all(axis=1))
    if ends.size:
        raise DataError(
            f"{dataset.source}: system {dataset.label(int(ends[0]))} has no value at time {last:g}, the last that a "
            "forecast is given; leave time steps out that are not known yet"
        )
    empty = np.argwhere(unknown.all(axis=1))
    if len(empty):
        system, variable = empty[0].tolist()
        raise DataError(
            f"{dataset.source}: system {dataset.label(system)} has no value of {dataset.variables[variable]!r} in the "
            f"{_counted(history.shape[1], 'time step')} that a forecast is given"
        )


def without_gaps(history: Floats) -> Floats:
    """Gives a history [N, T, V] with straight lines over its gaps, and its outermost values beyond them."""
    filled = history.copy()
    steps = np.arange(history.shape[1])
    for system, variable in np.argwhere(np.isnan(history).any(axis=1)).tolist():
        series = history[system, :, variable]
        known = ~np.isnan(series)
        filled[system, :, variable] = np.interp(steps, steps[known], series[known])
    return filled


def forecaster_from(
    source: str,
    dataset: Dataset,
    history: Floats | None = None,
    *,
    convention: str = "coursework",
) -> Forecaster:
    """Finds the forecaster that `source` names: a run folder (its winner), an adapter of lvray's, or a base model.

    For a base model the scale is that of each series' own history; nothing else needs to be fitted.

    Args:
        source: a run folder, an adapter's folder, or a model's name or folder.
        dataset: the series, for their names.
        history: what is known of them [N, T, V], and nothing after it is looked at; None is all.
        convention: how the FLOPs of a base model are counted; an adapter has its own.

    Raises:
        RunFolderError: a run folder that has no winner yet.
        ModelError: nothing of that name, or an adapter that does not say how its series are written or is damaged.
        DataError: the adapter was trained on series of another number of variables.
    """
    place = Path(source)
    run = RunFolder(place)
    if run.journal.exists():
        if not run.best.is_dir():
            raise RunFolderError(
                f"{place}: this run has no winner yet, whose adapter would lie in {run.best.name}/; go on with it, "
                "or name an adapter or a base model"
            )
        place = run.best
    if (place / FACTS).is_file():
        found = _adapter(place)
    elif (place / "adapter_config.json").is_file():
        raise ModelError(
            f"{place}: an adapter without {FACTS}, which says how series are written for it; a sweep writes both "
            "into best/ of its run folder when it ends"
        )
    elif source not in SHAPES and not place.is_dir():
        raise ModelError(
            f"--from {source}: no run folder or adapter is there, and no base model of that name is known; "
            f"{_meant(source)}"
        )
    else:
        known = dataset.values if history is None else history
        codec = Codec.fit(known, decimals=BASE_DECIMALS, method=BASE_SCALING)
        codec = replace(codec, signed=True)  # one that falls may fall below its own scale's zero
        return Forecaster(source, "none", None, None, codec, convention)
    have, wanted = len(dataset.variables), found.codec.variables
    if have != wanted:
        raise DataError(
            f"{dataset.source}: its series have {_counted(have, 'variable')} ({', '.join(dataset.variables)}); "
            f"{found.name} was trained on {wanted}, and forecasts as many"
        )
    return found


def _meant(source: str) -> str:
    """What may have been meant: folders beside the one that is not there, and models by similar names."""
    parent = Path(source).parent
    beside = (
        [str(each) for each in sorted(parent.iterdir()) if each.is_dir()] if parent.is_dir() else []
    )
    near = get_close_matches(source, [*beside, *SHAPES], n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"those are {', '.join(SHAPES)}"


def _adapter(place: Path) -> Forecaster:
    path = place / FACTS
    try:
        row: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if row["format"] != FORMAT:
            raise ModelError(f"{path}: has the format {row['format']!r}, not {FORMAT!r}")
        return Forecaster(
            model=str(row["model"]),
            quantization=str(row["quantization"]),
            adapter=place,
            lora=LoraConfig.from_json(row["lora"]),
            codec=Codec.from_json(row["codec"]),
            convention=str(row["convention"]),
            variables=tuple(row["variables"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error!r}") from error


def notes(forecaster: Forecaster, dataset: Dataset, history: Floats) -> list[str]:
    """What someone should know who reads the forecast, a sentence each: most often nothing."""
    told = []
    gaps = int(np.isnan(history).sum())
    if gaps:
        told.append(
            f"{gaps} of {history.size} values of the history are missing: the model reads empty fields, baselines get "
            "straight lines between the neighbours"
        )
    if forecaster.variables and forecaster.variables != dataset.variables:
        pairs = zip(dataset.variables, forecaster.variables, strict=True)
        told.append(f"it was trained on others: {', '.join(f'{a} as {b}' for a, b in pairs)}")
    return told + _foreign(forecaster.codec, history)


def _foreign(codec: Codec, history: Floats) -> list[str]:
    """Says of histories that they look like none of the training systems', as far as the text is concerned."""
    scaled = np.stack([codec.scale_of(each, part="test").apply(each) for each in history])
    largest = float(np.nanmax(np.abs(scaled)))
    usual = codec.parameters.get("to", USUAL_SIZE)
    told = []
    if codec.per != "series" and not usual / (20 * FOREIGN) <= largest <= FOREIGN * usual:
        told.append(
            f"these series are foreign to it: they reach {largest:.3g} where most numbers of its training texts lie "
            f"below {usual:g}, and its scale is fixed; one trained with scaling: offset-quantile takes any size"
        )
    if not codec.signed and np.nanmin(scaled) < -(10.0**-codec.decimals):
        told.append("these series have negative numbers, and its forecasts are never below zero")
    return told


def task(
    forecaster: Forecaster, history: Floats, *, horizon: int, samples: int, temperature: float
) -> ForecastTask:
    """What is asked: every system once, and how many tokens that may take.

    Args:
        forecaster: whose text decides how many tokens a step takes.
        history: what a forecast is made from [N, T, V].
        horizon: time steps ahead.
        samples: forecasts that are drawn of each system; 0 makes one greedily.
        temperature: of the draws.

    Raises:
        DataError: a value that cannot be written as text.
    """
    codec = forecaster.codec
    texts = [codec.encode(series, codec.scale_of(series, part="test")) for series in history]
    return ForecastTask(
        systems=len(history),
        context_steps=history.shape[1],
        horizon=horizon,
        windows=1,
        every=horizon,
        samples=samples,
        temperature=temperature,
        prompt="raw",
        prompt_tokens=max(map(len, texts)),
        new_tokens=horizon * _longest_step(codec),  # so that none ever ends too soon
    )


def _longest_step(codec: Codec) -> int:
    """Gives the most tokens that the grammar lets a time step of a forecast have."""
    number = codec.signed + codec.integer_digits + codec.point + codec.decimals
    return codec.variables * (number + 1)


def price(forecaster: Forecaster, asked: ForecastTask) -> int:
    """FLOPs of these forecasts, at most.

    Raises:
        ModelError: the model's shape is not known.
        UsageError: the adapter's convention is not known.
    """
    return generation(
        shape_of(forecaster.model),
        lora=forecaster.lora,
        convention=forecaster.convention,
        prompt_tokens=asked.prompt_tokens,
        new_tokens=asked.new_tokens,
        batch_size=asked.systems,
        samples=max(1, asked.samples),
        head=HEAD,
    )


def forecast(
    forecaster: Forecaster,
    history: Floats,
    truth: Floats,
    asked: ForecastTask,
    *,
    device: str,
    seed: int,
) -> Forecasts:
    """Forecasts every system.

    Args:
        forecaster: who.
        history: from what [N, T, V].
        truth: what happened [N, H, V], NaN where nobody knows; it is handed on and not looked at.
        asked: what `task` gave for this history.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: of the draws.

    Raises:
        ModelError: the model cannot be had, or the adapter does not fit it.
        DataError: the history is too long for the model.
    """
    ensure_available(forecaster.model, forecaster.quantization)
    from lvray.trainer.generate import forecast_systems  # seconds of imports
    from lvray.trainer.loop import accelerator_on, weight_type
    from lvray.trainer.model import detach, load_adapter, load_base, longest_text, pick_device
    from lvray.trainer.tokenizer import load_tokenizer

    where = pick_device(device)
    model = load_base(
        forecaster.model,
        device=where,
        dtype=weight_type(where),
        quantization=forecaster.quantization,
    )
    _check_length(forecaster, asked, longest_text(model))
    if forecaster.adapter is not None:
        model = load_adapter(model, forecaster.adapter)
    try:
        return forecast_systems(
            model,
            load_tokenizer(forecaster.model),
            forecaster.codec,
            np.concatenate([history, truth], axis=1),
            range(len(history)),
            asked,
            batch_size=PROMPTS_AT_ONCE,
            seed=seed,
            device=where,
            autocast=accelerator_on(where.type).autocast,
            loss=HEAD,
        )
    finally:
        detach(model)  # the process keeps the base model, and the next forecaster may be another


def _check_length(forecaster: Forecaster, asked: ForecastTask, longest: int) -> None:
    tokens = asked.prompt_tokens + asked.new_tokens
    if tokens <= longest:
        return
    a_step = -(-asked.prompt_tokens // asked.context_steps)  # rounded up
    fits = (longest - asked.new_tokens) // a_step
    remedy = f"--context {fits} would do" if fits > 0 else "ask for a shorter --horizon"
    raise DataError(
        f"{asked.horizon} steps from a context of {asked.context_steps} are up to {tokens} tokens of text, and "
        f"{forecaster.model} reads {longest}; {remedy}"
    )


def times_ahead(dataset: Dataset, horizon: int, *, held_out: bool) -> Floats:
    """The times that are forecast [H]: those held out, or as many more at the series' usual (median) distance."""
    if held_out:
        return dataset.times[-horizon:]
    step = float(np.median(np.diff(dataset.times))) if dataset.steps > 1 else 1.0
    ahead: Floats = dataset.times[-1] + step * np.arange(1, horizon + 1)
    return ahead


def table(made: Forecasts, dataset: Dataset, times: Floats) -> pyarrow.Table:
    """A row for each system, time and variable: the median of the draws and their quantiles, or the one forecast.

    Systems have the labels of the file, or their numbers in it, from 0.
    """
    import pyarrow

    systems, horizon, variables = made.point.shape
    labels = [dataset.label(each) if dataset.labels else each for each in made.systems.tolist()]
    columns: dict[str, Any] = {
        "system": [label for label in labels for _ in range(horizon * variables)],
        "time": np.tile(np.repeat(_shown(times, 15), variables), systems),
        "variable": list(dataset.variables) * (systems * horizon),
        "median" if made.samples.shape[1] else "forecast": _shown(made.point),
    }
    if made.samples.shape[1]:
        for level, values in zip(LEVELS, np.moveaxis(quantiles(made.samples), 1, 0), strict=True):
            if level != 0.5:
                columns[f"q{100 * level:02.0f}"] = _shown(values)
    if np.isfinite(made.truth).all():
        columns["truth"] = made.truth.ravel()
    return pyarrow.table(columns)


def _shown(values: Floats, digits: int = 12) -> Floats:
    """Gives the values one after the other, without the last digits, which are the arithmetic's: 0.3, not 0.30000000000000004."""
    return np.array([float(f"{value:.{digits}g}") for value in values.ravel().tolist()])


def write_table(path: Path, rows: pyarrow.Table) -> None:
    """Writes a table as CSV or Parquet, told apart by the end of the name, whole or not at all.

    Raises:
        RunFolderError: the file cannot be written.
    """
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    assert path.suffix in ENDINGS, f"{path}: `check_place` lets no such ending pass"
    memory = pyarrow.BufferOutputStream()
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(rows, memory)
    else:
        pyarrow.parquet.write_table(rows, memory)
    write_whole(path, memory.getvalue().to_pybytes())


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
