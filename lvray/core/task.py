"""What does a worker need to know to run one trial, with nothing else at hand?

A `Task` is plain data (JSON both ways) made by the driver from the sweep file, the trial's plan and
the run folder. The trainer reads nothing but this, the data file and the base model, so it runs
alone on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lvray.core.trial import Milestone, StepPrices, TrialConfig


@dataclass(frozen=True, slots=True)
class DataTask:
    """Which series, in which roles, written as text how."""

    path: str
    """An HDF5, CSV or NPZ file that `series.dataset.read` understands."""
    train: tuple[int, ...]
    """Indices of the training systems."""
    validation: tuple[int, ...]
    test: tuple[int, ...]
    codec: Mapping[str, Any]
    """What `series.codec.Codec.to_json` gave: decimals and the scaling fitted on training systems."""


@dataclass(frozen=True, slots=True)
class EvaluationTask:
    """How every trial of a sweep is measured, so that their losses can be compared."""

    validation_windows: int
    """Windows of validation text, the same for every trial."""
    validation_context: int
    """Tokens of one validation window."""
    batch_size: int
    """Sequences evaluated at once; a matter of memory, not of the result."""
    forecast_systems: int
    """Test systems forecast at milestones that ask for it; 0 for none."""
    forecast_context_steps: int
    """Time steps a forecast is given."""
    forecast_horizon: int
    """Time steps a forecast is asked for."""
    forecast_prompt_tokens: int
    """Most tokens of one prompt: what was priced. The oldest time steps of a longer one are left out."""
    forecast_tokens: int
    """Most new tokens that one forecast may take: what was priced."""


@dataclass(frozen=True, slots=True)
class Task:
    """Everything one attempt at one trial needs."""

    trial_id: str
    attempt: int
    model: str
    """``tiny``, a Hugging Face id, or a folder."""
    device: str
    """``auto``, ``cpu``, ``cuda`` or ``mps``."""
    data: DataTask
    evaluation: EvaluationTask
    config: TrialConfig
    milestones: tuple[Milestone, ...]
    prices: StepPrices
    folder: str
    """The trial's own folder, ``runs/<sweep>/trials/<trial_id>``, on storage that every node sees."""
    reached: int = -1
    """Index of the last milestone heard of: the attempt starts from that milestone's checkpoint."""
    continues: str | None = None
    """The folder of the trial whose last checkpoint (adapter and optimizer) this trial starts from."""
    threads: int = 0
    """CPU threads torch may use; 0 leaves torch's own choice."""

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        row = asdict(self)
        row["config"] = self.config.to_json()
        row["milestones"] = [milestone.to_json() for milestone in self.milestones]
        row["prices"] = self.prices.to_json()
        row["data"] = {**asdict(self.data), "codec": dict(self.data.codec)}
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Task:
        """Reads what `to_json` wrote."""
        systems = {name: tuple(row["data"][name]) for name in ("train", "validation", "test")}
        return cls(
            **{
                **row,
                "data": DataTask(**{**row["data"], **systems}),
                "evaluation": EvaluationTask(**row["evaluation"]),
                "config": TrialConfig.from_json(row["config"]),
                "milestones": tuple(Milestone.from_json(entry) for entry in row["milestones"]),
                "prices": StepPrices.from_json(row["prices"]),
            }
        )
