"""What would the sweep's forecasts be worth without a model? The baselines, computed once, when the sweep has ended."""

from __future__ import annotations

import zipfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from lvray.core.errors import RunFolderError
from lvray.core.run_folder import RunFolder, write_whole
from lvray.core.task import DataTask
from lvray.series.forecasts import Forecasts
from lvray.series.readers import read
from lvray.series.rivals import rivals_of
from lvray.spec.schema import Sweep


def write_baselines(sweep: Sweep, folder: RunFolder, data: DataTask, trials: Iterable[str]) -> None:
    """Writes ``baselines/80+20.npz`` for each name of forecasts that some trial has made; nothing where none has.

    Learnt from are the series that trials train on: the training systems, as far as `text.steps` lets them see.

    Raises:
        DataError: the data cannot be read any more.
        RunFolderError: a file of forecasts is damaged, the disk is full, or the folder cannot be written.
    """
    made: dict[str, list[Forecasts]] = defaultdict(list)
    for trial in trials:
        for path in folder.forecasts(trial):
            made[path.stem].append(_read(path))
    if not made:
        return
    seen = read(data.path)
    tested = seen if data.test_path is None else read(data.test_path)
    training = seen.values[list(data.train), : data.steps]
    source = sweep.data.source if data.test_path is None else None
    for name, forecasts in made.items():
        rivals = rivals_of(forecasts, data=tested, training=training, source=source)
        write_whole(folder.baselines / f"{name}.npz", rivals.to_npz())


def _read(path: Path) -> Forecasts:
    try:
        return Forecasts.from_npz(path)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from error
