"""What does a model say of series of one's own?

A run folder, an adapter or a base model becomes a `Forecaster`: a model, and how series are written for it. Its
forecasts are those of a sweep: the same text, grammar and decoding, priced by the same rules.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lvray.core.errors import DataError, ModelError, RunFolderError
from lvray.core.run_folder import RunFolder
from lvray.core.task import ForecastTask
from lvray.core.trial import LoraConfig
from lvray.driver.best import FACTS, FORMAT
from lvray.flops.price import generation
from lvray.flops.shape import shape_of
from lvray.series.codec import Codec
from lvray.series.dataset import Dataset
from lvray.series.forecasts import Forecasts
from lvray.series.metrics import LEVELS, quantiles

if TYPE_CHECKING:
    import pyarrow

Floats: TypeAlias = npt.NDArray[np.float64]

ROOM = 1.5
"""A forecast may take this many times the characters of the longest step of its history."""

PROMPTS_AT_ONCE = 16
"""Series that are forecast together: a matter of memory, not of the result."""

BASE_DECIMALS, BASE_SCALING = 2, "offset-quantile"
"""How series are written for a base model that nobody has trained: each scaled by its own history."""


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

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.model if self.adapter is None else str(self.adapter)


def forecaster_from(source: str, dataset: Dataset, *, convention: str = "coursework") -> Forecaster:
    """Finds the forecaster that `source` names: a run folder (its winner), an adapter of lvray's, or a base model.

    For a base model the scale is that of each series' own history; nothing needs to be fitted.

    Raises:
        RunFolderError: a run folder that has no winner yet.
        ModelError: an adapter that does not say how its series are written, or another that is damaged.
        DataError: the adapter was trained on series of another number of variables.
    """
    place = Path(source)
    run = RunFolder(place)
    if run.journal.exists():
        if not run.best.is_dir():
            raise RunFolderError(
                f"{place}: this run has no winner yet; go on with it, or name an adapter or a base model"
            )
        place = run.best
    if (place / FACTS).is_file():
        found = _adapter(place)
    elif (place / "adapter_config.json").is_file():
        raise ModelError(
            f"{place}: an adapter without {FACTS}, which says how series are written for it; "
            "name the run folder that it is from, or its best/"
        )
    else:
        codec = Codec.fit(dataset.values, decimals=BASE_DECIMALS, method=BASE_SCALING)
        found = Forecaster(source, "none", None, None, codec, convention)
    have, wanted = dataset.values.shape[2], found.codec.variables
    if have != wanted:
        raise DataError(
            f"{dataset.source}: its series have {have} variables ({', '.join(dataset.variables)}); {found.name} was "
            f"trained on {wanted}, and forecasts as many"
        )
    return found


def _adapter(place: Path) -> Forecaster:
    path = place / FACTS
    try:
        row: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if row["format"] != FORMAT:
            raise ModelError(f"{path}: has the format {row['format']!r}, not {FORMAT!r}")
        return Forecaster(
            model=row["model"],
            quantization=row["quantization"],
            adapter=place,
            lora=LoraConfig.from_json(row["lora"]),
            codec=Codec.from_json(row["codec"]),
            convention=row["convention"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error!r}") from error


def task(
    forecaster: Forecaster,
    dataset: Dataset,
    *,
    context: int | None,
    horizon: int,
    samples: int,
    temperature: float,
    held_out: bool,
) -> ForecastTask:
    """What is asked: every system once, from its last `context` steps (None is all), and how many tokens it may take.

    Args:
        forecaster: whose text decides how many tokens a step takes.
        dataset: the series.
        context: time steps that a forecast is given.
        horizon: time steps ahead.
        samples: forecasts that are drawn of each system; 0 makes one greedily.
        temperature: of the draws.
        held_out: whether the last `horizon` steps are kept back and forecast.

    Raises:
        DataError: the series are shorter than that.
    """
    have = dataset.steps - (horizon if held_out else 0)
    given = have if context is None else context
    if not 1 <= given <= have:
        kept = f", {horizon} of which are held out" if held_out else ""
        raise DataError(
            f"{dataset.source}: its series have {dataset.steps} time steps{kept}; a context of {given} is not to be had"
        )
    codec, values = forecaster.codec, dataset.values[:, have - given : have]
    texts = [codec.encode(series, codec.scale_of(series, part="test")) for series in values]
    usual = codec.variables * (1 + codec.point + codec.decimals + 1)
    longest = max(max(map(len, text.split(";"))) + 1 for text in texts)
    return ForecastTask(
        systems=dataset.systems,
        context_steps=given,
        horizon=horizon,
        windows=1,
        every=horizon,
        samples=samples,
        temperature=temperature,
        prompt="raw",
        prompt_tokens=max(map(len, texts)),
        new_tokens=math.ceil(ROOM * horizon * max(usual, longest)),
    )


def price(forecaster: Forecaster, asked: ForecastTask) -> int:
    """FLOPs of these forecasts, at most.

    Raises:
        ModelError: the model's shape is not known.
    """
    return generation(
        shape_of(forecaster.model),
        lora=forecaster.lora,
        convention=forecaster.convention,
        prompt_tokens=asked.prompt_tokens,
        new_tokens=asked.new_tokens,
        batch_size=asked.systems,
        samples=max(1, asked.samples),
    )


def forecast(
    forecaster: Forecaster,
    dataset: Dataset,
    asked: ForecastTask,
    *,
    held_out: bool,
    device: str,
    seed: int,
) -> Forecasts:
    """Forecasts every system; where nothing is held out, the truth is not known yet and is NaN.

    Raises:
        ModelError: the model cannot be had, or the adapter does not fit it.
        DataError: the tokenizer or the series do not allow it.
    """
    from lvray.trainer.generate import forecast_systems  # seconds of imports
    from lvray.trainer.loop import accelerator_on, weight_type
    from lvray.trainer.model import load_adapter, load_base, pick_device
    from lvray.trainer.tokenizer import load_tokenizer

    values = dataset.values
    if not held_out:
        ahead = np.full((dataset.systems, asked.horizon, values.shape[2]), np.nan)
        values = np.concatenate([values, ahead], axis=1)
    values = values[:, -(asked.context_steps + asked.horizon) :]
    where = pick_device(device)
    model = load_base(
        forecaster.model,
        device=where,
        dtype=weight_type(where),
        quantization=forecaster.quantization,
    )
    if forecaster.adapter is not None:
        model = load_adapter(model, forecaster.adapter)
    return forecast_systems(
        model,
        load_tokenizer(forecaster.model),
        forecaster.codec,
        values,
        range(dataset.systems),
        asked,
        batch_size=PROMPTS_AT_ONCE,
        seed=seed,
        device=where,
        autocast=accelerator_on(where.type).autocast,
    )


def times_ahead(dataset: Dataset, horizon: int, *, held_out: bool) -> Floats:
    """The times that are forecast [H]: those held out, or as many more at the series' usual (median) distance."""
    if held_out:
        return dataset.times[-horizon:]
    step = float(np.median(np.diff(dataset.times))) if dataset.steps > 1 else 1.0
    ahead: Floats = dataset.times[-1] + step * np.arange(1, horizon + 1)
    return ahead


def table(made: Forecasts, dataset: Dataset, times: Floats) -> pyarrow.Table:
    """A row for each system, time and variable: the median of the draws and their quantiles, or the one forecast."""
    import pyarrow

    systems, horizon, variables = made.point.shape
    columns: dict[str, Any] = {
        "system": np.repeat(made.systems, horizon * variables),
        "time": np.tile(np.repeat(times, variables), systems),
        "variable": list(dataset.variables) * (systems * horizon),
        "median" if made.samples.shape[1] else "forecast": made.point.ravel(),
    }
    if made.samples.shape[1]:
        for level, values in zip(LEVELS, np.moveaxis(quantiles(made.samples), 1, 0), strict=True):
            if level != 0.5:
                columns[f"q{100 * level:02.0f}"] = values.ravel()
    if np.isfinite(made.truth).all():
        columns["truth"] = made.truth.ravel()
    return pyarrow.table(columns)


def write_table(path: Path, rows: pyarrow.Table) -> None:
    """Writes a table as CSV or Parquet, told apart by the end of the name.

    Raises:
        DataError: another ending, or the file cannot be written.
    """
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(rows, path)
        elif path.suffix == ".parquet":
            pyarrow.parquet.write_table(rows, path)
        else:
            raise DataError(f"{path}: a table of forecasts ends in .csv or .parquet")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
