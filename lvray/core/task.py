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

Claim = tuple[str, int]
"""When a run began, and the number of an attempt at a trial of it."""


@dataclass(frozen=True, slots=True)
class DataTask:
    """Which series, in which roles, written as text how."""

    path: str
    """An HDF5, CSV or NPZ file that `series.readers.read` understands."""
    train: tuple[int, ...]
    """Indices of the training systems."""
    validation: tuple[int, ...]
    test: tuple[int, ...]
    """Indices of the systems that are forecast, in `test_path` where there is one."""
    codec: Mapping[str, Any]
    """What `series.codec.Codec.to_json` gave: decimals and the scaling fitted on training systems."""
    test_path: str | None = None
    """A file of its own for the systems that are forecast; None is `path`."""
    steps: int | None = None
    """Training and validation texts hold the first so many time steps; None is all."""


@dataclass(frozen=True, slots=True)
class ForecastTask:
    """Forecasts of test systems from one length of context: what is asked, and at most how many tokens are paid for."""

    systems: int
    """Test systems."""
    context_steps: int
    """Time steps a forecast is given."""
    horizon: int
    """Time steps a forecast is asked for."""
    windows: int
    """Windows of each system: forecasts from different starts."""
    every: int
    """Time steps between the starts of two windows."""
    samples: int
    """Forecasts of a window that are drawn; 0 makes one greedily."""
    temperature: float
    """Of the draws: logits are divided by it."""
    prompt: str
    """``raw`` is the series alone, ``chat`` asks for its continuation in the model's chat template."""
    prompt_tokens: int
    """Most tokens of one prompt: what was priced. The oldest time steps of a longer one are left out."""
    new_tokens: int
    """Most new tokens that one forecast may take: what was priced."""

    @property
    def name(self) -> str:
        """What files and tables call it: ``80+20`` is 20 steps ahead of 80."""
        return f"{self.context_steps}+{self.horizon}"


@dataclass(frozen=True, slots=True)
class EvaluationTask:
    """How every trial of a sweep is measured, so that their losses can be compared."""

    validation_windows: int
    """Windows of validation text, the same for every trial."""
    validation_context: int
    """Tokens of one validation window."""
    batch_size: int
    """Sequences evaluated at once; a matter of memory, not of the result."""
    loss: str = "full"
    """Cross-entropy over the ``full`` vocabulary or over ``numeric`` tokens; forecasts compute the same rows of the head."""
    forecasts: tuple[ForecastTask, ...] = ()
    """What is forecast at milestones that ask for it, one entry for each length of context."""


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
    run_began: str = ""
    """When the run began that this is part of, ISO 8601: an earlier run of that name may have been put aside."""
    reached: int = -1
    """Index of the last milestone heard of: the attempt starts from that milestone's checkpoint."""
    paused_at: int | None = None
    """Step of a pause beyond that milestone, from whose checkpoint the attempt starts instead."""
    continues: str | None = None
    """The folder of the trial whose last checkpoint (adapter and optimizer) this trial starts from."""
    quantization: str = "none"
    """Of the frozen base: ``none``, or ``nf4``, 4-bit NormalFloat (QLoRA, arXiv:2305.14314)."""
    threads: int = 0
    """CPU threads torch may use; 0 leaves torch's own choice."""
    pause_file: str | None = None
    """A file whose appearance asks the attempt to pause at its next step; it too is on storage that every node sees."""

    @property
    def claim(self) -> Claim:
        """Who this attempt is to others at the same trial: of two, the later is greater."""
        return (self.run_began, self.attempt)

    @property
    def begins(self) -> bool:
        """Whether nothing of the trial was done before this attempt."""
        return self.reached < 0 and self.paused_at is None

    @property
    def start(self) -> int:
        """Optimizer steps done where the attempt starts."""
        if self.paused_at is not None:
            return self.paused_at
        return self.milestones[self.reached].step if self.reached >= 0 else 0

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
        forecasts = tuple(ForecastTask(**entry) for entry in row["evaluation"]["forecasts"])
        return cls(
            **{
                **row,
                "data": DataTask(**{**row["data"], **systems}),
                "evaluation": EvaluationTask(**{**row["evaluation"], "forecasts": forecasts}),
                "config": TrialConfig.from_json(row["config"]),
                "milestones": tuple(Milestone.from_json(entry) for entry in row["milestones"]),
                "prices": StepPrices.from_json(row["prices"]),
            }
        )
