"""What is a trial, what is planned for it, and what was heard and decided about it?

The nouns of the whole project. Frozen and plain: they cross process borders as JSON
(`to_json` / `from_json`), stand in the journal, and are what a report is computed from.
Counts of FLOPs are `int` and become strings in JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ALL_LINEAR = "all-linear"
"""The name peft gives to every linear layer but the head; a `LoraConfig.targets` of one entry."""


class Status(StrEnum):
    """Where a trial stands. The list is closed."""

    PLANNED = "planned"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    REFUSED = "refused"

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to the trial."""
        return self in {Status.COMPLETED, Status.STOPPED, Status.FAILED, Status.REFUSED}


class Action(StrEnum):
    """What a trial does after a milestone."""

    CONTINUE = "continue"
    PAUSE = "pause"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """The adapter of one trial (LoRA, arXiv:2106.09685). peft's names are used in `trainer.model` only."""

    rank: int = 8
    alpha: float = 16.0
    """The adapter's output is scaled by alpha / rank (alpha / sqrt(rank) for rsLoRA)."""
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    """Names of linear layers, or ``("all-linear",)``."""
    dropout: float = 0.0
    variant: str = "lora"
    """``lora``, ``rslora`` (arXiv:2312.03732) or ``dora`` (arXiv:2402.09353)."""
    init: str = "default"
    """First weights of A (B is zero): ``default`` is peft's Kaiming-uniform, ``kaiming-normal`` has standard deviation
    1/√inputs (the course's skeleton), ``gaussian`` 1/rank; ``orthogonal`` (arXiv:2112.09568's idea) makes A and B so, for an even rank."""
    head_bias: bool = False
    """Whether a bias of the head, zero at first, is trained too."""

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        return {**_values(self), "targets": list(self.targets)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> LoraConfig:
        """Reads what `to_json` wrote."""
        return cls(**{**row, "targets": tuple(row["targets"])})


@dataclass(frozen=True, slots=True)
class TrialConfig:
    """What makes one trial different from another: what Ray calls its config."""

    lora: LoraConfig | None = field(default_factory=LoraConfig)
    """None is the base model as it is: a zero-shot baseline, never trained."""
    learning_rate: float = 1e-4
    schedule: str = "constant"
    """``constant``, ``wsd`` (warm-up, stable, linear decay at the end) or ``cosine``; all with warm-up."""
    warmup_steps: int = 0
    decay_fraction: float = 0.2
    """Share of all steps over which ``wsd`` decays to zero at the end."""
    context_length: int = 512
    """Tokens of one training sequence."""
    stride: int = 256
    """Tokens between the starts of two training windows of one system."""
    batch_size: int = 4
    """Sequences in one optimizer step."""
    padding: str = "pad"
    """What becomes of a short last window: ``pad``, ``drop`` or ``pack``."""
    pad_loss: bool = False
    """Whether training predicts padding too, as the course's skeleton does; validation never does."""
    train_systems: int | None = None
    """The first so many of the training systems; None is all."""
    loss: str = "full"
    """Cross-entropy over the ``full`` vocabulary, or over the tokens of ``numeric`` text only."""
    number_token_weight: float = 0.0
    """Weight of the number-token loss (arXiv:2411.02083) beside the cross-entropy."""
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    """Largest gradient norm; 0 clips nothing."""
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        return {**_values(self), "lora": None if self.lora is None else self.lora.to_json()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> TrialConfig:
        """Reads what `to_json` wrote."""
        lora = None if row["lora"] is None else LoraConfig.from_json(row["lora"])
        return cls(**{**row, "lora": lora})


@dataclass(frozen=True, slots=True)
class StepPrices:
    """What the parts of this trial cost, FLOPs each, under the sweep's convention."""

    train_step: int
    evaluation: int
    """One pass over the validation windows."""
    forecast: int
    """One generation of all forecasts, at most."""

    def to_json(self) -> dict[str, str]:
        """Gives plain JSON values, FLOPs as strings."""
        return {name: str(flops) for name, flops in _values(self).items()}

    @classmethod
    def from_json(cls, row: Mapping[str, str]) -> StepPrices:
        """Reads what `to_json` wrote."""
        return cls(**{name: int(flops) for name, flops in row.items()})


@dataclass(frozen=True, slots=True)
class Milestone:
    """A step at which a trial evaluates, writes a checkpoint, reports, and waits for a decision."""

    step: int
    """Optimizer steps done since the trial began; 0 evaluates the untrained adapter or base model."""
    flops: int
    """FLOPs of the whole trial from its start to here, this milestone's evaluation included."""
    rung: int | None = None
    """The rung at which a halving policy judges here; None between rungs."""
    forecast: bool = False
    """Whether forecasts of held-out systems are generated here too."""

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values, FLOPs as a string."""
        return {**_values(self), "flops": str(self.flops)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Milestone:
        """Reads what `to_json` wrote."""
        return cls(**{**row, "flops": int(row["flops"])})


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """The whole of a trial and its whole price, before it runs."""

    trial_id: str
    stage: str
    config: TrialConfig
    milestones: tuple[Milestone, ...]
    """In order of steps; the last one ends the trial."""
    prices: StepPrices
    """What the milestones' prices are made of."""
    continues: str | None = None
    """The trial whose weights and optimizer this one starts from; None starts afresh."""
    fills: bool = False
    """Whether the trial takes as many steps as its stage can pay for, so that a loss shortens it."""
    open: bool = False
    """Whether its config is chosen only when it starts, from what was heard by then; until then it is the dearest."""

    def __post_init__(self) -> None:
        """Holds the milestones to their order."""
        steps = [milestone.step for milestone in self.milestones]
        flops = [milestone.flops for milestone in self.milestones]
        assert steps, f"{self.trial_id} has no milestone"
        assert steps == sorted(set(steps)), f"{self.trial_id}: steps out of order: {steps}"
        assert flops == sorted(set(flops)), f"{self.trial_id}: prices out of order: {flops}"
        assert flops[0] > 0, f"{self.trial_id}: a milestone that costs nothing"

    @property
    def price(self) -> int:
        """FLOPs of the whole trial if it runs to its end."""
        return self.milestones[-1].flops

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole trial."""
        return self.milestones[-1].step

    def flops_at(self, index: int) -> int:
        """FLOPs from the start to milestone `index`; 0 for -1, before the first milestone."""
        return self.milestones[index].flops if index >= 0 else 0

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        return {
            "trial_id": self.trial_id,
            "stage": self.stage,
            "config": self.config.to_json(),
            "milestones": [milestone.to_json() for milestone in self.milestones],
            "prices": self.prices.to_json(),
            "continues": self.continues,
            "fills": self.fills,
            "open": self.open,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> TrialPlan:
        """Reads what `to_json` wrote."""
        return cls(
            trial_id=row["trial_id"],
            stage=row["stage"],
            config=TrialConfig.from_json(row["config"]),
            milestones=tuple(Milestone.from_json(milestone) for milestone in row["milestones"]),
            prices=StepPrices.from_json(row["prices"]),
            continues=row["continues"],
            fills=row["fills"],
            open=row.get("open", False),
        )


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a trial reports at a milestone. Counters run from the start of the attempt, so hearing one twice changes nothing."""

    trial_id: str
    attempt: int
    """1 for the first start of the trial, one more whenever it starts or resumes in a worker."""
    milestone: int
    """Index into `TrialPlan.milestones`."""
    step: int
    flops: int
    """FLOPs that this attempt used up to and with this milestone's evaluation."""
    validation_loss: float
    """Mean cross-entropy over the fixed validation windows, nats per token; NaN when training diverged."""
    seconds: float
    """Wall-clock seconds of this attempt up to here, model loading not included."""
    tokens: int = 0
    """Training tokens of this attempt up to here, padding included."""
    device: str = ""
    """What it ran on: ``CPU``, or an accelerator by its name."""
    host: str = ""
    """Name of the machine, or node of a cluster, that it ran on."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Further figures by name: ``train_loss``, ``forecast_mae``, …; units stand in docs."""
    window_losses: tuple[float, ...] = ()
    """The loss of each validation window on its own, in their order, for comparing trials window by window."""

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values: FLOPs as a string, floats that JSON lacks (NaN, inf) as strings."""
        return {
            "trial_id": self.trial_id,
            "attempt": self.attempt,
            "milestone": self.milestone,
            "step": self.step,
            "flops": str(self.flops),
            "validation_loss": _plain(self.validation_loss),
            "seconds": self.seconds,
            "tokens": self.tokens,
            "device": self.device,
            "host": self.host,
            "window_losses": list(self.window_losses),
            "metrics": {name: _plain(value) for name, value in self.metrics.items()},
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Measurement:
        """Reads what `to_json` wrote."""
        metrics = {name: float(value) for name, value in row["metrics"].items()}
        loss = float(row["validation_loss"])
        known = {
            name: row[name]
            for name in ("trial_id", "attempt", "milestone", "step", "seconds", "tokens", "device")
        }
        return cls(
            **known,
            flops=int(row["flops"]),
            host=row.get("host", ""),
            validation_loss=loss,
            window_losses=tuple(row.get("window_losses", ())),
            metrics=metrics,
        )


@dataclass(frozen=True, slots=True)
class Pause:
    """Where an attempt stood when it was asked to pause between two milestones; a checkpoint lies there. It ended with this."""

    trial_id: str
    attempt: int
    step: int
    """Optimizer steps done since the trial began."""
    flops: int
    """FLOPs that this attempt used up to here."""
    seconds: float
    """Wall-clock seconds of this attempt up to here, model loading not included."""

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values, FLOPs as a string."""
        return {**_values(self), "flops": str(self.flops)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Pause:
        """Reads what `to_json` wrote."""
        return cls(**{**row, "flops": int(row["flops"])})


def _values(held: DataclassInstance) -> dict[str, Any]:
    """Field by field, values as they are: all that is not plain is replaced by whoever asks."""
    return {each.name: getattr(held, each.name) for each in fields(held)}


def _plain(value: float) -> float | str:
    return (
        value if value - value == 0 else str(value)
    )  # only NaN and the infinities differ from themselves


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says after a measurement; the reason is a sentence with its numbers."""

    action: Action
    reason: str


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial as the scheduler knows it. Frozen: every event makes a new one."""

    plan: TrialPlan
    status: Status = Status.PLANNED
    curve: tuple[Measurement, ...] = ()
    """One measurement a milestone heard, in order, of whichever attempt reached it first."""
    reason: str = ""
    """Why the status is what it is, in words."""
    attempt: int = 0
    """How often the trial was started or resumed in a worker."""
    failures: int = 0
    """Attempts that broke, save those for which the machine is to blame."""
    granted: int = -1
    """Index of the last milestone that is paid for, or -1."""
    pauses: tuple[Pause, ...] = ()
    """Of attempts that were asked to pause between two milestones, in order."""

    @property
    def reached(self) -> int:
        """Index of the last milestone heard of, or -1."""
        return self.curve[-1].milestone if self.curve else -1

    @property
    def step(self) -> int:
        """Optimizer steps at the last milestone heard of."""
        return self.curve[-1].step if self.curve else 0

    @property
    def paused_at(self) -> int | None:
        """Optimizer steps at the pause from which the trial goes on; None where it goes on from a milestone, or the start."""
        last = self.pauses[-1].step if self.pauses else 0
        return last if last > self.step else None

    @property
    def flops_done(self) -> int:
        """FLOPs of the plan behind the place from which the trial goes on."""
        behind = self.plan.flops_at(self.reached)
        if self.paused_at is None:
            return behind
        return behind + (self.paused_at - self.step) * self.plan.prices.train_step

    def flops_until(self, index: int) -> int:
        """FLOPs from where the trial goes on to milestone `index`."""
        return self.plan.flops_at(index) - self.flops_done

    @property
    def flops_heard(self) -> int:
        """FLOPs that were heard of (what was lost comes on top, in the ledger)."""
        return sum({heard.attempt: heard.flops for heard in self._heard}.values())

    @property
    def seconds_heard(self) -> float:
        """Wall-clock seconds of all attempts that were heard of."""
        return sum({heard.attempt: heard.seconds for heard in self._heard}.values())

    @property
    def _heard(self) -> tuple[Measurement | Pause, ...]:
        """All that was heard of it, of each attempt in order: a pause ends one."""
        return (*self.curve, *self.pauses)

    @property
    def loss(self) -> float | None:
        """The latest validation loss, nats per token; None before the first measurement."""
        return self.curve[-1].validation_loss if self.curve else None


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage: its trials, what they may spend in all, and how they are judged."""

    name: str
    trials: tuple[TrialPlan, ...]
    allowance: int
    """FLOPs that the stage may spend."""
    policy: str
    """Name of the policy: ``fixed``, ``halving``."""
    rungs: tuple[int, ...] = ()
    """For policies that promote: how many trials may reach each rung, the first rung first."""
    notes: tuple[str, ...] = ()
    """What a person should know of the plan, a sentence each."""
    spare: int = 0
    """FLOPs that the stage may draw from the sweep beyond its allowance, to do lost work again."""
    horizon: int = 0
    """FLOPs at which trials are compared by extrapolation, for policies that do."""
    spends_all: bool = False
    """Whether the stage goes on for as long as its allowance pays for another stretch."""

    @property
    def price(self) -> int:
        """FLOPs that the stage spends if nothing ends early or is lost: each rung filled by its dearest trials."""
        if self.spends_all:
            return self.allowance
        if not self.rungs:
            return sum(plan.price for plan in self.trials)
        total = 0
        for rung, count in enumerate(self.rungs):
            stretches = sorted((_stretch_to_rung(plan, rung) for plan in self.trials), reverse=True)
            total += sum(stretches[:count])
        return total

    @property
    def stretches(self) -> tuple[int, ...]:
        """FLOPs from each rung's predecessor (or the start) to it, for the dearest trial."""
        return tuple(
            max(_stretch_to_rung(plan, rung) for plan in self.trials)
            for rung in range(len(self.rungs))
        )

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values, FLOPs as a string."""
        return {
            "name": self.name,
            "policy": self.policy,
            "allowance": str(self.allowance),
            "spare": str(self.spare),
            "horizon": str(self.horizon),
            "spends_all": self.spends_all,
            "rungs": list(self.rungs),
            "notes": list(self.notes),
            "trials": [plan.to_json() for plan in self.trials],
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> StagePlan:
        """Reads what `to_json` wrote; further keys (a journal record has some) are passed over."""
        return cls(
            name=row["name"],
            trials=tuple(TrialPlan.from_json(plan) for plan in row["trials"]),
            allowance=int(row["allowance"]),
            policy=row["policy"],
            rungs=tuple(row["rungs"]),
            notes=tuple(row["notes"]),
            spare=int(row.get("spare", 0)),
            horizon=int(row.get("horizon", 0)),
            spends_all=row.get("spends_all", False),
        )


def _stretch_to_rung(plan: TrialPlan, rung: int) -> int:
    """FLOPs that one trial needs from rung - 1 (or its start) to `rung`."""
    at = {
        milestone.rung: milestone.flops
        for milestone in plan.milestones
        if milestone.rung is not None
    }
    return at[rung] - (at[rung - 1] if rung else 0)
