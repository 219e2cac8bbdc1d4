"""What does a run folder say? Journal, ledger and forecasts, read once, for tables and figures to draw from."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lvray.core.errors import DataError, RunFolderError
from lvray.core.run_folder import RunFolder
from lvray.core.trial import Trial
from lvray.ledger.journal import Journal
from lvray.ledger.ledger import SOURCE, SPENT, Ledger, stage_account, trial_account
from lvray.scheduler.replay import History, StageHistory, fold
from lvray.series.forecasts import Forecasts
from lvray.series.rivals import Rivals

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class StageFlops:
    """What one stage asked, used and gave back, in FLOPs."""

    name: str
    asked: int
    """The price of its plan if nothing ends early."""
    allowed: int
    heard: int
    lost: int
    returned: int


@dataclass(frozen=True, slots=True)
class Facts:
    """A sweep as its run folder tells it, finished or not."""

    folder: RunFolder
    history: History
    ledger: Ledger
    spec: Mapping[str, Any]
    """The resolved sweep file."""
    environment: Mapping[str, Any]
    variables: tuple[str, ...]
    """Names of the variables that are forecast."""
    forecasts: Mapping[str, Mapping[str, Forecasts]]
    """By trial, for those that made any, and by what was asked: ``80+20`` is 20 steps ahead of 80."""
    rivals: Mapping[str, Rivals]
    """What was forecast without a model, by the same names; nothing before the sweep has ended."""

    @property
    def budget(self) -> int:
        """FLOPs granted."""
        return -self.ledger.balance(SOURCE)

    @property
    def spent(self) -> int:
        """FLOPs spent by this sweep, lost ones included."""
        return sum(stage.heard + stage.lost for stage in self.stages)

    @property
    def spent_by_others(self) -> int:
        """FLOPs that other sweeps on the same ledger have spent; 0 where the ledger is our own."""
        return self.ledger.balance(SPENT) - self.spent

    @property
    def stages(self) -> tuple[StageFlops, ...]:
        """The books of each stage, in order."""
        sums = {kind: Counter[str]() for kind in ("allow", "spend", "lose", "return")}
        for transfer in self.ledger.transfers:
            if transfer.kind in sums:
                account = transfer.taker if transfer.kind == "allow" else transfer.giver
                sums[transfer.kind][account] += transfer.flops
        return tuple(self._stage(stage, sums) for stage in self.history.stages.values())

    def _stage(self, stage: StageHistory, sums: Mapping[str, Counter[str]]) -> StageFlops:
        sweep = str(self.spec["name"])
        account = stage_account(sweep, stage.plan.name)
        trials = [trial_account(sweep, name) for name in stage.trials]
        return StageFlops(
            name=stage.plan.name,
            asked=stage.plan.price,
            allowed=sums["allow"][account],
            heard=sum(sums["spend"][trial] for trial in trials),
            lost=sum(sums["lose"][trial] for trial in trials),
            returned=sums["return"][account],
        )

    def lost(self, trial: Trial) -> int:
        """FLOPs that crashes of one trial cost."""
        account = trial_account(str(self.spec["name"]), trial.plan.trial_id)
        return sum(
            transfer.flops
            for transfer in self.ledger.transfers
            if transfer.kind == "lose" and transfer.giver == account
        )

    @property
    def baseline(self) -> Trial | None:
        """The first trial of the base model as it is, if one was heard."""
        untrained = (
            trial for trial in self.history.trials.values() if trial.plan.config.lora is None
        )
        return next((trial for trial in untrained if trial.curve), None)

    @property
    def best(self) -> Trial | None:
        """The winner of the latest stage of trained trials that has one."""
        winners = [
            self.history.trials[stage.best]
            for stage in self.history.stages.values()
            if stage.best is not None
            and self.history.trials[stage.best].plan.config.lora is not None
        ]
        return winners[-1] if winners else None


def read_facts(root: Path) -> Facts:
    """Reads a run folder.

    Raises:
        RunFolderError: it is none, no driver ever began in it, or a file of it is missing or damaged.
        JournalCorrupt: its journal or ledger is damaged.
    """
    if not root.is_dir():
        raise RunFolderError(
            f"{root}: no run folder: {'a file' if root.exists() else 'nothing'} is there"
        )
    folder = RunFolder(root)
    history = fold(Journal(folder.journal).replay())
    if not history.sessions:
        raise RunFolderError(
            f"{root}: no run folder: it has no {folder.journal.name} with a session in it"
        )
    spec = history.sessions[0]["spec"]
    ledger = Ledger.read(Path(history.shared_ledger or folder.ledger))
    made = {name: _forecasts(folder, name) for name in history.trials}
    made = {name: files for name, files in made.items() if files}
    split = _read(folder.split, _json)
    variables = tuple(map(str, split.get("forecast_variables") or split.get("variables", ())))
    rivals = {
        path.stem: _read(path, Rivals.from_npz) for path in sorted(folder.baselines.glob("*.npz"))
    }
    environment = _read(folder.environment, _json)
    return Facts(folder, history, ledger, spec, environment, variables, made, rivals)


def _read(path: Path, reader: Callable[[Path], Read]) -> Read:
    """Reads one file of a run folder; whatever is wrong with it is told with its name."""
    try:
        return reader(path)
    except FileNotFoundError:
        raise RunFolderError(f"{path} is missing; the report needs it") from None
    except (OSError, ValueError, KeyError, DataError, zipfile.BadZipFile) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return held


def _forecasts(folder: RunFolder, trial: str) -> dict[str, Forecasts]:
    """The forecasts of one trial by their name, ``80+20``."""
    return {path.stem: _read(path, Forecasts.from_npz) for path in folder.forecasts(trial)}


def differences(facts: Facts) -> dict[str, dict[str, Any]]:
    """What sets each trained trial apart: its values of the fields that vary within some stage; nothing for the base model."""
    flat = {
        name: _flat(trial.plan.config.to_json()) for name, trial in facts.history.trials.items()
    }
    varied: dict[str, None] = {}
    for stage in facts.history.stages.values():
        rows = [flat[name] for name in stage.trials]
        for field in rows[0] if rows else ():
            if len({json.dumps(row.get(field)) for row in rows}) > 1:
                varied[field] = None
    trained = {name for name, trial in facts.history.trials.items() if trial.plan.config.lora}
    return {
        name: {field: row[field] for field in varied if name in trained and field in row}
        for name, row in flat.items()
    }


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
