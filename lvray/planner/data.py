"""Which series does a sweep read, which systems play which part, and how are they written as text?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lvray.core.errors import DataError
from lvray.core.run_folder import RunFolder, write_whole
from lvray.core.task import DataTask
from lvray.core.trial import StagePlan
from lvray.series.codec import Codec
from lvray.series.dataset import Dataset, load
from lvray.series.readers import read
from lvray.series.split import Split, split_systems
from lvray.series.windows import cut
from lvray.spec.schema import ForecastSpec, Sweep
from lvray.spec.space import forecast_of

GENERATED_VARIABLES = 2
"""Prey and predator."""


def variables_of(sweep: Sweep) -> int:
    """How many variables the series have; a file is opened for it, a generated data set is not made."""
    return read(Path(sweep.data.path)).values.shape[2] if sweep.data.path else GENERATED_VARIABLES


def prepare(sweep: Sweep, folder: RunFolder, *, again: bool = False) -> DataTask:
    """Reads or generates the series, splits the systems, fits the codec on the training ones.

    What it finds is written to ``split.json``. A driver that goes on with a sweep (`again`) reads it from
    there, so that the same systems play the same parts.

    Raises:
        DataError: the data cannot be read, split or scaled, or the series are too short to forecast.
    """
    path = load(
        sweep.data.source, path=sweep.data.path, seed=sweep.data.seed, systems=sweep.data.systems
    )
    if again and folder.split.exists():
        row = json.loads(folder.split.read_text(encoding="utf-8"))
        return _task(sweep, str(path), row, row["codec"])
    dataset = read(path)
    split = split_of(sweep, dataset)
    tested = dataset if sweep.data.test_path is None else read(sweep.data.test_path)
    if tested is not dataset:
        _same_variables(dataset, tested)
        split = replace(split, test=tuple(range(tested.systems)))
    _long_enough(sweep, tested)
    seen = dataset.values[:, : sweep.text.steps]
    codec = Codec.fit(
        seen[list(split.train)],
        others={
            "validation": seen[list(split.validation)],
            "test": tested.values[list(split.test)],
        },
        **codec_arguments(sweep),
    )
    written = {
        "source": dataset.source,
        "variables": list(dataset.variables),
        "forecast_variables": list(tested.variables),
        **asdict(split),
        "codec": codec.to_json(),
    }
    write_whole(folder.split, json.dumps(written, indent=1) + "\n")
    return _task(sweep, str(path), asdict(split), codec.to_json())


def _task(
    sweep: Sweep, path: str, parts: Mapping[str, Sequence[int]], codec: Mapping[str, Any]
) -> DataTask:
    return DataTask(
        path=path,
        train=tuple(parts["train"]),
        validation=tuple(parts["validation"]),
        test=tuple(parts["test"]),
        codec=codec,
        test_path=sweep.data.test_path,
        steps=sweep.text.steps,
    )


def ensure_enough(sweep: Sweep, plans: Sequence[StagePlan], data: DataTask) -> None:
    """Holds the texts to what evaluation and trials ask of them, which a worker would find out too late.

    A token is a character here: of numeric text every tokenizer that lvray takes makes it so.

    Raises:
        DataError: fewer validation windows or test systems than are evaluated (and paid for), or a trial
            whose training texts give no window.
    """
    codec = Codec.from_json(data.codec)
    values = read(Path(data.path)).values

    def texts(systems: Sequence[int], part: str) -> list[bytes]:
        return [
            codec.encode(series, codec.scale_of(series, part=part)).encode()
            for series in values[list(systems), : data.steps]
        ]

    asked, length = sweep.evaluation.windows, sweep.evaluation.context_length
    validation = texts(data.validation, "validation")
    have = len(cut(validation, length=length, stride=length, padding="pad", pad_id=0))
    if have < asked:
        raise DataError(
            f"evaluation.windows asks for {asked} windows of {length} tokens, and the {len(data.validation)} "
            f"validation systems give {have}; ask for {have}, or give data.split.validation more systems"
        )
    _enough_systems(sweep, data)
    configs = {trial.config for stage in plans for trial in stage.trials if trial.steps}
    asked_for = [config.train_systems or 0 for config in configs]
    for stage in sweep.stages:  # a sampler may choose later what no plan has yet
        if "train_systems" in stage.space:
            asked_for += [int(end or 0) for end in stage.space["train_systems"].ends]
    most = max(asked_for, default=0)
    if most > len(data.train):
        raise DataError(
            f"train_systems asks for {most} training systems, and there are {len(data.train)}; "
            f"ask for {len(data.train)} at most, or give data.split.train more"
        )
    everyone = len(data.train)
    ways = {
        (config.context_length, config.stride, config.padding, config.train_systems or everyone)
        for config in configs
    }
    train = texts(data.train, "train") if ways else []
    for length, stride, padding, systems in sorted(ways):
        cut(train[:systems], length=length, stride=stride, padding=padding, pad_id=0)


def split_of(sweep: Sweep, dataset: Dataset) -> Split:
    """Systems by part, as the sweep file asks."""
    wanted = sweep.data.split
    return split_systems(
        len(dataset.values),
        train=wanted.train,
        validation=wanted.validation,
        test=None if wanted.test == "validation" else wanted.test,
        seed=wanted.seed,
        order=wanted.order,
    )


def codec_arguments(sweep: Sweep) -> Mapping[str, Any]:
    """The sweep's `text:` as `Codec.fit` takes it."""
    text = sweep.text
    return {
        "decimals": text.decimals,
        "point": text.point,
        "trailing_zeros": text.trailing_zeros,
        **text.scaling.model_dump(),
    }


def _forecasts(sweep: Sweep) -> Iterator[tuple[str, ForecastSpec]]:
    """What is forecast, stage by stage, and the place in the sweep file that asks for it."""
    for stage in sweep.stages:
        if stage.forecast is not None:
            own = stage.forecast.model_fields_set
            place = f"forecast of stage {stage.name}" if own else "evaluation.forecast"
            yield place, forecast_of(sweep, stage)


def _enough_systems(sweep: Sweep, data: DataTask) -> None:
    have = len(data.test)
    for place, asked in _forecasts(sweep):
        if have < asked.systems:
            file = sweep.data.test_path
            part = "validation" if sweep.data.split.test == "validation" else "test"
            remedy = f"or give data.split.{part} more" if file is None else f"all that {file} has"
            raise DataError(
                f"{place} asks for {asked.systems} test systems, and there are {have}; "
                f"ask for {have}, {remedy}"
            )


def _long_enough(sweep: Sweep, dataset: Dataset) -> None:
    have = dataset.values.shape[1]
    for place, asked in _forecasts(sweep):
        for context, count in asked.windows_by_context:
            need = context + (count - 1) * (asked.every or asked.horizon) + asked.horizon
            if have < need:
                more = f", in {count} windows" if count > 1 else ""
                raise DataError(
                    f"{dataset.source}: its series have {have} time steps; {place} asks for "
                    f"{context} of context and {asked.horizon} of horizon{more}, {need} together"
                )


def _same_variables(data: Dataset, forecast: Dataset) -> None:
    if data.values.shape[2] != forecast.values.shape[2]:
        raise DataError(
            f"{forecast.source}: its series have {forecast.values.shape[2]} variables, those of the training data "
            f"({data.source}) {data.values.shape[2]}; data.test_path needs as many"
        )
