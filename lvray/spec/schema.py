"""What may stand in a sweep file, field by field?

The text under each field is its reference: what it is, its unit, what it may be. What no single field
can tell stands in `rules`, and what kinds of values there are in `fields`. Models are frozen; a key that is not
here is a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    model_serializer,
)

from lvray.core.policies import POLICIES
from lvray.spec.fields import (
    Count,
    Counts,
    Flops,
    FlopsOrNone,
    Name,
    Part,
    PartOrValidation,
    Positive,
    Seed,
    Steps,
    Targets,
    Tokens,
    Workers,
)

SHORTHANDS: Mapping[str, str] = {
    "data": "source",
    "scaling": "method",
    "policy": "name",
    "ledger": "path",
}
"""Fields that may be one word, and what that word then is: ``policy: halving`` is ``policy: {name: halving}``."""


class Spec(BaseModel):
    """What every part of a sweep file has in common."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
    )


def _one_word(field: str) -> BeforeValidator:
    key = SHORTHANDS[field]
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def _path_is_a_file(value: object) -> object:
    if isinstance(value, Mapping) and value.get("path") is not None and "source" not in value:
        return {"source": "file", **value}
    return value


def _wandb(value: object) -> object:
    if isinstance(value, bool):
        return {} if value else None
    if value is None or isinstance(value, Mapping):
        return value
    raise ValueError("must be true, false, or keys such as {project: lvray}")


def _or_false(value: object) -> object:
    return False if value is None else value


def _forecast(value: object) -> object:
    if isinstance(value, bool):
        return {} if value else None
    if value is None or isinstance(value, Mapping | ForecastChanges):
        return value
    raise ValueError("must be true, false, or keys such as {samples: 20}")


def _forecast_as_given(changes: ForecastChanges | None) -> object:
    return False if changes is None else changes.given() or True


class SplitSpec(Spec):
    """Which systems train, validate and test. Fractions (0.8) and counts (800) may be mixed."""

    train: Part = 0.8
    """Systems that adapters are trained on and the scaling is fitted to; a fraction or a count."""
    validation: Part = 0.1
    """Systems that trials are judged on; a fraction or a count."""
    test: PartOrValidation = 0.1
    """Systems that no decision sees: the report's forecasts; a fraction or a count. ``validation`` forecasts the systems
    that trials are judged on, so that the forecasts flatter the winner; it is there to repeat what others did."""
    seed: Seed = 0
    """Of the shuffle."""
    order: Literal["random", "file"] = "random"
    """``random`` shuffles the systems first; ``file`` trains on the first ones and tests on the last."""


class DataSpec(Spec):
    """Which series are forecast. One word is a `source`."""

    source: Literal["coursework", "lotka-volterra", "file"] = "coursework"
    """``coursework`` regenerates the course's predator–prey systems, ``lotka-volterra`` solves the classical
    equations, ``file`` reads `path`. Without a source, a `path` alone means ``file``."""
    path: Name | None = None
    """An HDF5, CSV or NPZ file, relative to where the command is run. With a generated source it is read instead."""
    seed: Seed = 0
    """Of the generator; for ``coursework`` 0 is the course's own."""
    systems: Count = 1000
    """Systems that are generated; a file has as many as it has."""
    split: SplitSpec = SplitSpec()
    """Which systems play which part."""
    test_path: Name | None = None
    """A file whose systems are forecast instead of the split's test systems: real series, say, for a model trained on
    generated ones. It has as many variables as the rest."""


class FixedScaling(Spec):
    """x' = x / alpha."""

    method: Literal["fixed"] = "fixed"
    alpha: Positive = 10.0
    """In the data's units."""
    per: Literal["data", "series"] = "data"
    """One scale for the whole data set, or each series its own from its history."""


class MaxScaling(Spec):
    """x' = x · to / max |x|."""

    method: Literal["max"] = "max"
    to: Positive = 9.9
    """What the largest training value becomes."""
    above: Annotated[float, Field(ge=0)] = 0.0
    """Values are left as they are unless their largest is at least this, in the data's units."""
    per: Literal["data", "part", "series"] = "data"
    """One scale for the whole data set; training, validation and test systems each their own; or each series its own from
    its history. ``part`` looks ahead in the systems that are forecast; it is there to repeat what others did."""


class PercentileScaling(Spec):
    """x' = x · to / percentile(|x|)."""

    method: Literal["percentile"] = "percentile"
    percentile: Annotated[float, Field(gt=0, le=100)] = 99.7
    """Percent of the training values that end up below `to`."""
    to: Positive = 10.0
    """What the value at the percentile becomes."""
    per: Literal["data", "series"] = "data"
    """One scale for the whole data set, or each series its own from its history."""


class OffsetQuantileScaling(Spec):
    """x' = (x − o) · to / quantile(x − o), o = min − offset · (max − min), by series and variable."""

    method: Literal["offset-quantile"] = "offset-quantile"
    offset: Annotated[float, Field(ge=0)] = 0.3
    """Share of a series' range that is put below its smallest value."""
    quantile: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Share of the shifted values that end up below `to`."""
    to: Positive = 1.0
    """What the value at the quantile becomes."""
    per: Literal["series"] = "series"
    """Always by series, from its history."""


ScalingSpec: TypeAlias = Annotated[
    FixedScaling | MaxScaling | PercentileScaling | OffsetQuantileScaling, Discriminator("method")
]


class TextSpec(Spec):
    """How numbers are written as text."""

    decimals: Annotated[int, Field(ge=1, le=4)] = 2
    """Digits after the point, 1 to 4."""
    scaling: Annotated[ScalingSpec, _one_word("scaling")] = PercentileScaling()
    """What is done to values before they are written, fitted on training systems only. One word is a `method`."""
    point: bool = True
    """Whether the decimal point is written: without it 0.71 is ``71``, one token less, and all numbers count units of
    the last decimal."""
    trailing_zeros: bool = True
    """Whether 0.40 is written ``0.40``; without them it is ``0.4`` (and 1.00 is ``1.0``). They need the point."""
    steps: Count | None = None
    """Training and validation texts hold the first so many time steps of a system; null is all."""


class ForecastSpec(Spec):
    """The forecasts of test systems that a stage with ``forecast: true`` ends with."""

    systems: Count = 20
    """Test systems that are forecast."""
    context_steps: Counts = (80,)
    """Time steps that a forecast is given; a list makes forecasts from each of these lengths."""
    horizon: Count = 20
    """Time steps that it is asked for."""
    windows: Counts = (1,)
    """Windows of each system that are forecast; a list has one number for each of `context_steps`."""
    every: Count | None = None
    """Time steps between the starts of two windows; null is `horizon`."""
    samples: Annotated[int, Field(ge=0, le=10**4)] = 0
    """Forecasts of each window that are drawn: their median is the forecast, their quantiles its bands. 0 makes one
    greedily."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Of the draws: logits are divided by it."""
    prompt: Literal["raw", "chat"] = "raw"
    """``raw`` is the series alone; ``chat`` asks for its continuation in the chat template of an instruct model."""

    @property
    def windows_by_context(self) -> tuple[tuple[int, int], ...]:
        """Each length of context with its number of windows."""
        each = self.windows * (len(self.context_steps) if len(self.windows) == 1 else 1)
        return tuple(zip(self.context_steps, each, strict=True))


class ForecastChanges(ForecastSpec):
    """What a stage changes in the sweep's `evaluation.forecast`: only fields that were given count."""

    @model_serializer(mode="plain")
    def given(self) -> dict[str, Any]:
        """The fields that were given, as in the file."""
        row = ForecastSpec.model_validate(
            {name: getattr(self, name) for name in self.model_fields_set}
        ).model_dump(mode="json")
        return {name: row[name] for name in row if name in self.model_fields_set}


class EvaluationSpec(Spec):
    """How every trial is measured. The same for all of them, whatever their own context length is."""

    windows: Count = 24
    """Windows of validation text, spread evenly over the validation systems."""
    context_length: Tokens = 512
    """Tokens of one of those windows."""
    batch_size: Count = 8
    """Windows evaluated at once: a matter of memory, not of the result."""
    loss: Literal["full", "numeric"] = "full"
    """The validation loss is a cross-entropy over the whole vocabulary, or over the tokens of numeric text. With
    ``numeric`` validation and forecasts compute, and pay for, those rows of the head alone."""
    forecast: ForecastSpec = ForecastSpec()
    """The forecasts of test systems."""


class LoraSpec(Spec):
    """The adapter (LoRA, arXiv:2106.09685). Mirrors `core.trial.LoraConfig`."""

    rank: Annotated[int, Field(ge=1, le=4096)] = 8
    """Inner size of the two matrices beside each target."""
    alpha: Positive | None = 16.0
    """The adapter's output is scaled by alpha / rank (alpha / √rank for rsLoRA); null is the rank, whatever it is."""
    targets: Targets = ("q_proj", "v_proj")
    """Names of linear layers, or ``all-linear``."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs that is dropped in training."""
    variant: Literal["lora", "rslora", "dora"] = "lora"
    """``rslora`` is arXiv:2312.03732, ``dora`` arXiv:2402.09353."""
    init: Literal["default", "kaiming-normal", "gaussian", "orthogonal"] = "default"
    """First weights: peft's own, or by name; ``kaiming-normal`` is the course's, ``orthogonal`` needs an even rank."""
    head_bias: bool = False
    """Whether a bias of the head is trained too, as in the course's skeleton."""


class TrialSpec(Spec):
    """The config of every trial, unless its stage says otherwise. Mirrors `core.trial.TrialConfig`."""

    lora: LoraSpec = LoraSpec()
    """The adapter."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    """Of AdamW, after the warm-up."""
    schedule: Literal["constant", "wsd", "cosine"] = "constant"
    """``wsd`` is stable, then decays linearly to zero at the end; ``cosine`` decays all the way; all warm up."""
    warmup_steps: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Optimizer steps over which the learning rate rises from zero."""
    decay_fraction: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of all steps over which ``wsd`` decays."""
    context_length: Tokens = 512
    """Tokens of one training sequence."""
    stride: Annotated[int, Field(ge=1, le=2**20)] | None = None
    """Tokens between the starts of two training windows of one system, at most `context_length`; null is half of it."""
    batch_size: Annotated[int, Field(ge=1, le=2**16)] = 4
    """Sequences of one optimizer step."""
    padding: Literal["pad", "drop", "pack"] = "pad"
    """What becomes of a short last window: padded (not in the loss, but paid for), dropped, or joined with others."""
    pad_loss: bool = False
    """Whether training predicts the padding too, as the course's skeleton does; it needs ``loss: full``, as padding is no
    numeric text. Validation never counts it."""
    train_systems: Count | None = None
    """Trains on the first so many of the training systems; null is all of them."""
    loss: Literal["full", "numeric"] = "full"
    """Cross-entropy over the whole vocabulary, or over the tokens of numeric text, which spares the other rows of the head."""
    number_token_weight: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Weight of the number-token loss (arXiv:2411.02083) beside the cross-entropy: a digit costs by how far off it is."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of AdamW."""
    gradient_clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest gradient norm; 0 clips nothing."""
    seed: Seed | None = None
    """Of the adapter's first weights, dropout and the order of batches; null is the sweep's own."""


class TrialChanges(TrialSpec):
    """What a stage changes in the sweep's trial: only fields that were given count, `given` has them."""

    @model_serializer(mode="plain")
    def given(self) -> dict[str, Any]:
        """The fields that were given, nested as in the file."""
        names = (name for name in type(self).model_fields if name in self.model_fields_set)
        return {name: _given(getattr(self, name)) for name in names}


def _given(value: object) -> object:
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value


class PolicySpec(Spec):
    """How the trials of a stage are judged."""

    name: Literal[tuple(POLICIES)] = "fixed"  # type: ignore[valid-type]  # mypy wants the names spelled out here; they have one place, core.policies
    """``fixed`` runs every trial to its last step; ``halving`` gives few steps to many trials and many steps to the best of
    them; ``freeze-thaw`` does half of that, then follows the curves that promise most."""
    reduction_factor: Annotated[float, Field(ge=1.2, le=4)] | None = None
    """η of `halving` and `freeze-thaw`: one in η trials of a rung is promoted to the next; 1.2 to 4, null is 4."""


class AxisSpec(Spec):
    """The values that one field of a trial may have. A list alone is its `choices`."""

    choices: Annotated[tuple[Any, ...], Field(strict=False)] | None = None
    """These values."""
    log: Annotated[tuple[float, float], Field(strict=False)] | None = None
    """A range, lowest and highest, evenly by ratio: for learning rates, ranks, sizes."""
    linear: Annotated[tuple[float, float], Field(strict=False)] | None = None
    """A range, lowest and highest, evenly by difference."""
    when: Mapping[str, Annotated[tuple[Any, ...], Field(strict=False)]] = {}
    """The field is varied only where fields listed before it have one of these values, such as ``{batch_size: [1, 2]}``;
    elsewhere it is that of `trial`."""

    @property
    def ends(self) -> tuple[Any, ...]:
        """Every choice, or the two ends of the range."""
        return next(given for given in (self.choices, self.log, self.linear) if given is not None)


def _axis(value: object) -> object:
    if isinstance(value, list | tuple):
        return {"choices": value}
    if isinstance(value, Mapping | AxisSpec):
        return value
    raise ValueError("must be a list, such as [2, 4, 8], or a range, such as {log: [1e-4, 1e-2]}")


def _axis_as_given(axis: AxisSpec) -> object:
    given = axis.model_dump(exclude_none=True, exclude_defaults=True)
    return given["choices"] if given.keys() == {"choices"} else given


Axis: TypeAlias = Annotated[AxisSpec, BeforeValidator(_axis), PlainSerializer(_axis_as_given)]


class StageSpec(Spec):
    """One part of a sweep: its trials, how they are judged, and what they may spend."""

    name: str
    """Lower-case letters, digits and "-"; it names trials and accounts."""
    zero_shot: bool = False
    """The base model as it is: one trial, measured once, never trained."""
    policy: Annotated[PolicySpec, _one_word("policy")] = PolicySpec()
    """How trials are judged. One word is a `name`."""
    space: Mapping[str, Axis] = {}
    """Values by dotted field of `trial`: lists such as ``lora.rank: [2, 4, 8]``, or ranges such as
    ``learning_rate: {log: [1e-4, 1e-2]}``, which need a `sampler`."""
    sampler: Literal["grid", "random", "tpe", "gp"] = "grid"
    """Which configs of the space are tried: ``grid`` all combinations; ``random`` some, drawn by the seed; ``tpe`` and
    ``gp`` some, each chosen by Optuna from what was heard until it starts."""
    samples: Count | None = None
    """How many configs the samplers but `grid` may try."""
    trial: TrialChanges = TrialChanges()
    """What differs from the sweep's `trial`."""
    steps: Steps = None
    """Optimizer steps of every trial; under halving the most a trial takes. ``fill``: as many as are paid for."""
    evaluations: Annotated[int, Field(ge=1, le=10**4)] = 4
    """Evaluations of a trial, evenly spaced; halving places its own."""
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Most of the sweep's budget that the stage may take from what is left when it starts; null: all that no
    later stage needs."""
    hold_back: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the sweep's budget set aside for this stage before anything runs."""
    from_stage: str | None = Field(default=None, alias="from")
    """An earlier stage whose best config this one starts from."""
    continues: bool = Field(default=False, alias="continue")
    """Whether it takes that trial's weights and optimizer too."""
    forecast: Annotated[
        ForecastChanges | None, BeforeValidator(_forecast), PlainSerializer(_forecast_as_given)
    ] = None
    """Whether test systems are forecast at each trial's last milestone: true, false (None here), or true with changes to
    `evaluation.forecast`, such as ``{prompt: chat}``."""

    @property
    def forecasts(self) -> bool:
        """Whether test systems are forecast."""
        return self.forecast is not None


class ResourcesSpec(Spec):
    """What the sweep may take of the machine."""

    workers: Workers = None
    """Trials at once; ``auto`` (None here) takes what the machine has."""
    trials_per_gpu: Annotated[int, Field(ge=1, le=64)] = 1
    """Trials that share one accelerator."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """``auto`` takes CUDA, else MPS, else the CPU; where trials are given GPUs, CUDA and nothing else."""
    max_failures: Annotated[int, Field(ge=0, le=100)] = 2
    """How often a trial may fail and be tried again from its last checkpoint; once more, and it is given up, or, where the
    machine is to blame, the session ends and the trial is not."""
    dashboard: bool = False
    """Whether a Ray that is started for the sweep has its dashboard; a cluster has the one it was started with."""


class WandbSpec(Spec):
    """Logging to Weights & Biases: one run a trial, grouped by sweep; offline unless a key is there."""

    project: Name = "lvray"
    """The project's name there."""


class LedgerSpec(Spec):
    """A ledger on which several sweeps draw, at the same time or one after the other."""

    path: Name
    """Its file, relative to where the command is run; the first sweep to draw on it makes it."""
    budget: FlopsOrNone = None
    """FLOPs of all sweeps together; null is what the ledger has, or this sweep's own budget if it is new."""


class Sweep(Spec):
    """A sweep file. `load.load` reads one; what has passed it is consistent."""

    name: str
    """Names the run folder, ``runs/<name>``; the file's own name unless given."""
    question: str = ""
    """What the sweep is to find out; the report shows it."""
    budget: Flops
    """FLOPs for everything: training, evaluation, forecasts, and work lost to crashes. Read exactly, up to 1e30."""
    convention: Literal["coursework", "palm-lora"] = "coursework"
    """How FLOPs are counted."""
    model: Name = "tiny"
    """The base model: ``tiny`` (shipped with lvray), a Hugging Face id, or a folder."""
    quantization: Literal["none", "nf4"] = "none"
    """Of the frozen base: ``nf4`` keeps it in 4 bits (QLoRA, arXiv:2305.14314); it needs CUDA and ``lvray[qlora]``. FLOPs
    are counted alike."""
    seed: Seed = 0
    """Of the trials, and of the order in which a search takes them up."""
    data: Annotated[DataSpec, BeforeValidator(_path_is_a_file), _one_word("data")] = DataSpec()
    """The series."""
    text: TextSpec = TextSpec()
    """How they are written."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """How trials are measured."""
    trial: TrialSpec = TrialSpec()
    """The config of every trial, unless its stage says otherwise."""
    stages: Annotated[tuple[StageSpec, ...], Field(strict=False)]
    """In the order in which they run."""
    resources: ResourcesSpec = ResourcesSpec()
    """What the sweep may take of the machine."""
    wandb: Annotated[WandbSpec | None, BeforeValidator(_wandb), PlainSerializer(_or_false)] = None
    """Logging to Weights & Biases: true, false (None here), or keys."""
    ledger: Annotated[LedgerSpec | None, _one_word("ledger")] = None
    """A ledger that several sweeps share; null is the run folder's own. One word is a `path`. The sweep draws its
    own `budget` on it, or what the others have left if that is less, and gives back what it does not spend."""

    def to_json(self) -> dict[str, Any]:
        """Gives the resolved sweep as plain JSON values, keyed as in the file; the budget is a string."""
        return self.model_dump(mode="json", by_alias=True)
