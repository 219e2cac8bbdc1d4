"""What must hold across fields, that no field can tell alone?

Each rule is a small function that yields the mistakes it finds; `RULES` is all of them, in the order in
which they are asked. A rule says what it looked at (`Mistake.about`), so that it keeps quiet when one of those
fields is a mistake itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from pydantic import ValidationError

from lvray.core.policies import POLICIES
from lvray.spec.mistakes import Mistake, explain, nearest, unknown_key
from lvray.spec.schema import AxisSpec, ForecastSpec, StageSpec, Sweep, TrialSpec
from lvray.spec.space import apply, as_field, fields, flat, forecast_of
from lvray.spec.tree import Path

Rule: TypeAlias = Callable[[Sweep], Iterator[Mistake]]

SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
STAGE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")

MOST_TRIALS = 1_000_000
"""Trials of one stage: every one of them is planned, priced and printed before the sweep begins."""

ADAPTER_SHAPE = ("lora.rank", "lora.alpha", "lora.targets", "lora.variant", "lora.head_bias")
"""Fields that decide which weights an adapter has, and how large its output is."""


def check(sweep: Sweep) -> list[Mistake]:
    """Asks every rule."""
    return [mistake for rule in RULES for mistake in rule(sweep)]


def sweep_name_is_simple(sweep: Sweep) -> Iterator[Mistake]:
    """It names a folder and accounts in the ledger."""
    if not SWEEP_NAME.fullmatch(sweep.name):
        wrong = 'must be at most 64 letters, digits, ".", "_" or "-", the first a letter or digit'
        yield Mistake(("name",), f"{sweep.name!r} names the run folder and {wrong}", value=False)


def data_file_has_a_path(sweep: Sweep) -> Iterator[Mistake]:
    """There is nothing to read otherwise."""
    if sweep.data.source == "file" and sweep.data.path is None:
        wrong = "missing; source file needs the path of an HDF5, CSV or NPZ file"
        yield Mistake(("data", "path"), wrong, about=(("data", "source"),), value=False)


def split_is_no_more_than_there_is(sweep: Sweep) -> Iterator[Mistake]:
    """Fractions sum to 1 at most; what is asked for of a generated data set is there."""
    split, parts = ("data", "split"), ("train", "validation", "test")
    asked = [getattr(sweep.data.split, part) for part in parts]
    about = (*((*split, part) for part in parts), ("data", "systems"), ("data", "path"))
    share = sum((Decimal(repr(part)) for part in asked if isinstance(part, float)), Decimal(0))
    if share > 1:
        wrong = f"the fractions sum to {share}; they must sum to 1 at most"
        yield Mistake(split, wrong, about, value=False)
    elif sweep.data.path is None and sweep.data.source != "file":
        systems = sweep.data.systems
        wanted = share * systems + sum(part for part in asked if isinstance(part, int))
        if wanted > systems:
            wrong = f"asks for {wanted.normalize():f} systems and {systems} are generated; ask for fewer, or raise data.systems"
            yield Mistake(split, wrong, about, value=False)


def only_points_have_zeros_behind_them(sweep: Sweep) -> Iterator[Mistake]:
    """Without a point 0.4 and 0.04 would both be ``4``."""
    if not sweep.text.point and not sweep.text.trailing_zeros:
        wrong = "needs the point; without it every number has all its decimals"
        yield Mistake(("text", "trailing_zeros"), wrong, about=(("text", "point"),))


def forecasts_have_a_window_each(sweep: Sweep) -> Iterator[Mistake]:
    """A list of windows has a number for each length of context, and no length stands twice: it names a file."""
    path: Path = ("evaluation", "forecast")
    shared = list(_windows_and_contexts(path, sweep.evaluation.forecast))
    yield from shared
    for index, stage in enumerate(sweep.stages):
        if not shared and stage.forecast is not None and stage.forecast.model_fields_set:
            own: Path = ("stages", index, "forecast")
            yield from _windows_and_contexts(own, forecast_of(sweep, stage))


def _windows_and_contexts(path: Path, asked: ForecastSpec) -> Iterator[Mistake]:
    contexts, windows = asked.context_steps, asked.windows
    about = (*path, "context_steps"), (*path, "windows")
    if len(set(contexts)) < len(contexts):
        wrong = "has a length twice; each is forecast once"
        yield Mistake((*path, "context_steps"), wrong, about)
    if len(windows) not in {1, len(contexts)}:
        lengths = f"{len(contexts)} length{'s' if len(contexts) > 1 else ''} of context"
        wrong = f"has {len(windows)} numbers for {lengths}; one for each, or one for all"
        yield Mistake((*path, "windows"), wrong, about)


def tiny_does_not_chat(sweep: Sweep) -> Iterator[Mistake]:
    """The embedded model has no chat template; told once where it is asked for, if any stage forecasts so."""
    told: set[Path] = set()
    for index, stage in enumerate(sweep.stages):
        if sweep.model != "tiny" or stage.forecast is None:
            continue
        if forecast_of(sweep, stage).prompt == "chat":
            own = "prompt" in stage.forecast.model_fields_set
            before: Path = ("stages", index) if own else ("evaluation",)
            told.add((*before, "forecast", "prompt"))
    for path in sorted(told, key=str):
        wrong = "the model tiny has no chat template; raw would do, or an instruct model such as Qwen/Qwen2.5-0.5B-Instruct"
        yield Mistake(path, wrong, about=(("model",),))


def there_is_a_stage(sweep: Sweep) -> Iterator[Mistake]:
    """A sweep without one does nothing."""
    if not sweep.stages:
        yield Mistake(("stages",), "must have at least one stage")


def stage_names_are_simple(sweep: Sweep) -> Iterator[Mistake]:
    """They stand in paths, accounts and trial ids."""
    for index, stage in enumerate(sweep.stages):
        if not STAGE_NAME.fullmatch(stage.name):
            wrong = 'must be at most 40 lower-case letters, digits or "-"'
            yield Mistake(("stages", index, "name"), wrong)


def stage_names_are_unique(sweep: Sweep) -> Iterator[Mistake]:
    """And none is what a trial of another stage is called: ``search-1`` is the first trial of ``search``."""
    names = [stage.name for stage in sweep.stages]
    for index, name in enumerate(names):
        path = ("stages", index, "name")
        if name in names[:index]:
            yield Mistake(path, "stands twice; each stage needs a name of its own")
        family, _, number = name.rpartition("-")
        if number.isdigit() and any(
            other.name == family and _trials(other) > 1 for other in sweep.stages
        ):
            yield Mistake(path, f"is what a trial of stage {family} is called; choose another name")


def from_names_an_earlier_stage(sweep: Sweep) -> Iterator[Mistake]:
    """One with an adapter to start from."""
    for index, stage in enumerate(sweep.stages):
        if stage.from_stage is None or stage.zero_shot:
            continue
        path = ("stages", index, "from")
        earlier = {other.name: other for other in sweep.stages[:index]}
        trained = [name for name, other in earlier.items() if not other.zero_shot]
        found = earlier.get(stage.from_stage)
        if found is not None and found.zero_shot:
            yield Mistake(
                path, f"is a zero-shot stage, which has no config to start from{_or(trained)}"
            )
        elif found is None and any(
            other.name == stage.from_stage for other in sweep.stages[index:]
        ):
            yield Mistake(path, f"does not run before this stage{_or(trained)}")
        elif found is None:
            yield Mistake(path, f"no earlier stage has this name{_or(trained, stage.from_stage)}")


def _or(names: Sequence[str], word: str | None = None) -> str:
    if not names:
        return "; no earlier stage trains anything"
    if word is not None:
        return f"; {nearest(word, names)}"
    return (
        f"; {', '.join(names)} would do"
        if len(names) == 1
        else f"; one of {', '.join(names)} would do"
    )


def continue_needs_from(sweep: Sweep) -> Iterator[Mistake]:
    """Weights are taken of a stage that is named, and fit only an adapter of the same shape."""
    for index, stage in enumerate(sweep.stages):
        if not stage.continues:
            continue
        path = ("stages", index)
        if stage.from_stage is None:
            wrong = "needs from, the stage whose weights are taken"
            yield Mistake((*path, "continue"), wrong, about=((*path, "from"),))
        for key in ADAPTER_SHAPE:
            for part, place in (("trial", tuple(key.split("."))), ("space", (key,))):
                given = flat(stage.trial.given()) if part == "trial" else stage.space
                if key in given:
                    wrong = "an adapter that continues keeps its shape; leave this out, or set continue: false"
                    yield Mistake((*path, part, *place), wrong)


def shares_sum_to_one_at_most(sweep: Sweep) -> Iterator[Mistake]:
    """What is promised to stages and held back for them comes out of one budget."""
    total = Decimal(0)
    for index, stage in enumerate(sweep.stages):
        for key, share in (("share", stage.share), ("hold_back", stage.hold_back)):
            total += Decimal(repr(share)) if share is not None else 0
            if share is not None and total > 1:
                wrong = (
                    f"shares and hold-backs sum to {total} up to here; they must sum to 1 at most"
                )
                yield Mistake(("stages", index, key), wrong)
                return


def zero_shot_trains_nothing(sweep: Sweep) -> Iterator[Mistake]:
    """So what belongs to training has no meaning in it."""
    for index, stage in enumerate(sweep.stages):
        if not stage.zero_shot:
            continue
        given = {
            "policy": stage.policy.name != "fixed",
            "space": bool(stage.space),
            "trial": bool(stage.trial.model_fields_set),
            "steps": stage.steps is not None,
            "from": stage.from_stage is not None,
            "continue": stage.continues,
        }
        for key in (key for key, meant in given.items() if meant):
            wrong = "a zero-shot stage measures the base model as it is; leave this out"
            yield Mistake(("stages", index, key), wrong, value=False)


def steps_are_given_where_they_are_needed(sweep: Sweep) -> Iterator[Mistake]:
    """A fixed policy cannot choose them, halving does, and only one trial can take all that is left."""
    for index, stage in enumerate(sweep.stages):
        if stage.zero_shot:
            continue
        path: Path = ("stages", index, "steps")
        about = (*path[:2], "policy", "name"), (*path[:2], "zero_shot")
        plans_steps = POLICIES[stage.policy.name].plans_steps
        if not plans_steps and stage.steps is None:
            wrong = f"missing; the policy {stage.policy.name} needs a number of steps, or fill"
            yield Mistake(path, wrong, about, value=False)
        if plans_steps and stage.steps == "fill":
            wrong = f"{stage.policy.name} plans steps itself; leave this out, or give the most a trial may take"
            yield Mistake(path, wrong, about)
        if not plans_steps and stage.steps == "fill" and _trials(stage) != 1:
            wrong = f"one trial can take all that is left, {_trials(stage)} cannot; give a number, or leave out space"
            yield Mistake(path, wrong, (*about, (*path[:2], "space")))


def fixed_has_nothing_to_set(sweep: Sweep) -> Iterator[Mistake]:
    """Nobody is compared, so nothing says how."""
    for index, stage in enumerate(sweep.stages):
        if stage.policy.name == "fixed" and stage.policy.reduction_factor is not None:
            path: Path = ("stages", index, "policy", "reduction_factor")
            wrong = "the policy fixed compares nobody; leave this out, or name another policy"
            yield Mistake(path, wrong, about=((*path[:3], "name"),))


def space_is_made_of_fields(sweep: Sweep) -> Iterator[Mistake]:
    """Its keys are fields of a trial, its values are values of that field, each once."""
    for index, stage in enumerate(sweep.stages):
        path: Path = ("stages", index, "space")
        before: list[str] = []
        for key, axis in stage.space.items():
            if key not in fields():
                yield unknown_key((*path, key), fields())
                continue
            kinds = [kind for kind in AXIS_KINDS if getattr(axis, kind) is not None]
            if len(kinds) != 1:
                wrong = (
                    f"needs one of {', '.join(AXIS_KINDS)}, and has {' and '.join(kinds) or 'none'}"
                )
                yield Mistake((*path, key), wrong, value=False)
            elif axis.choices == ():
                yield Mistake((*path, key), "needs at least one value")
            elif axis.choices is not None:
                inner = ("choices",) if axis.when else ()
                yield from _values_of_a_field((*path, key, *inner), key, axis.choices)
            else:
                yield from _ends_of_a_range((*path, key, kinds[0]), key, axis)
            for other in axis.when:
                if other not in before:
                    wrong = f"must be a field that stands before {key} in this space"
                    yield Mistake((*path, key, "when", other), wrong, value=False)
            before.append(key)
        if _trials(stage) > MOST_TRIALS:
            wrong = f"spans {_trials(stage):.0f} trials; {MOST_TRIALS} is the most a stage can have"
            yield Mistake(path, wrong, value=False)


AXIS_KINDS = ("choices", "log", "linear")


def _ends_of_a_range(path: Path, key: str, axis: AxisSpec) -> Iterator[Mistake]:
    low, high = axis.ends
    if not low < high:
        yield Mistake(path, "must be the lowest value and a higher one")
    elif axis.log is not None and low <= 0:
        yield Mistake(path, "must be above 0: a range by ratio has no zero in it")
    else:
        yield from _values_of_a_field(path, key, [as_field(key, low), as_field(key, high)])


def sampler_has_something_to_choose_from(sweep: Sweep) -> Iterator[Mistake]:
    """Ranges need one, a grid needs none, and both must be told how many."""
    for index, stage in enumerate(sweep.stages):
        path: Path = ("stages", index)
        ranges = [key for key, axis in stage.space.items() if axis.log or axis.linear]
        if stage.sampler == "grid":
            for key in ranges:
                wrong = (
                    "a grid takes lists; give a list, or a sampler (random, tpe, gp) and samples"
                )
                yield Mistake((*path, "space", key), wrong, ((*path, "sampler"),), value=False)
            if stage.samples is not None:
                wrong = "a grid tries every combination; leave this out, or name a sampler"
                yield Mistake((*path, "samples"), wrong, ((*path, "sampler"),))
        elif not stage.space:
            yield Mistake((*path, "sampler"), "needs a space to choose from")
        elif stage.samples is None:
            wrong = (
                f"missing; the sampler {stage.sampler} needs to know how many configs it may try"
            )
            yield Mistake((*path, "samples"), wrong, ((*path, "sampler"),), value=False)


def _values_of_a_field(path: Path, key: str, values: Sequence[Any]) -> Iterator[Mistake]:
    known: list[object] = []
    for index, value in enumerate(values):
        try:
            trial = TrialSpec.model_validate(apply({}, {key: value}))
        except ValidationError as error:
            for mistake in explain(error, TrialSpec):
                # Behind the field's own names there may be a place inside of the value.
                yield Mistake((*path, index, *mistake.path[len(key.split(".")) :]), mistake.wrong)
            continue
        normal = flat(trial.model_dump())[key]
        if normal in known:
            yield Mistake((*path, index), "stands twice; a trial is not paid for twice")
        known.append(normal)


def stride_is_at_most_the_context(sweep: Sweep) -> Iterator[Mistake]:
    """A longer one would pass over tokens."""
    stride, context = ("trial", "stride"), ("trial", "context_length")
    told = sweep.trial.stride is not None and sweep.trial.stride > sweep.trial.context_length
    if told:
        wrong = f"more than context_length, {sweep.trial.context_length}; at most that many"
        yield Mistake(stride, wrong, about=(context,))
    for index, stage in enumerate(sweep.stages):
        own = {**flat(stage.trial.given()), **stage.space}
        if stage.zero_shot or not {"stride", "context_length"} & own.keys():
            continue
        strides = [value for value in _possible(sweep, stage, "stride") if isinstance(value, int)]
        contexts = [
            value for value in _possible(sweep, stage, "context_length") if isinstance(value, int)
        ]
        if strides and contexts and max(strides) > min(contexts):
            key = "stride" if "stride" in own else "context_length"
            path: Path = ("stages", index, "space" if key in stage.space else "trial")
            about = stride, context, (*path, "stride"), (*path, "context_length")
            wrong = f"a stride of {max(strides)} is more than a context_length of {min(contexts)}, and tokens would be passed over; at most the context_length"
            yield Mistake((*path, key), wrong, about, value=False)


def padding_is_no_numeric_text(sweep: Sweep) -> Iterator[Mistake]:
    """So a loss over the tokens of numeric text cannot predict it."""
    pads, loss = ("trial", "pad_loss"), ("trial", "loss")
    wrong = "padding is none of the tokens that loss: numeric predicts; leave this out, or set loss: full"
    if sweep.trial.pad_loss and sweep.trial.loss == "numeric":
        yield Mistake(pads, wrong, about=(loss,))
        return
    for index, stage in enumerate(sweep.stages):
        own = {**flat(stage.trial.given()), **stage.space}
        if stage.zero_shot or not {"pad_loss", "loss"} & own.keys():
            continue
        both = (
            True in _possible(sweep, stage, "pad_loss"),
            "numeric" in _possible(sweep, stage, "loss"),
        )
        if all(both):
            key = "pad_loss" if "pad_loss" in own else "loss"
            path: Path = ("stages", index, "space" if key in stage.space else "trial", key)
            told = (
                wrong
                if key == "pad_loss"
                else "numeric predicts no padding, as pad_loss asks; leave one of them out"
            )
            yield Mistake(path, told, about=(pads, loss), value=False)


def orthogonal_adapters_have_an_even_rank(sweep: Sweep) -> Iterator[Mistake]:
    """A and B share its dimensions, half each."""
    wrong = "orthogonal shares the rank between A and B, half each, and a rank here is odd; take even ones"
    base, rank = ("trial", "lora", "init"), ("trial", "lora", "rank")
    if sweep.trial.lora.init == "orthogonal" and sweep.trial.lora.rank % 2:
        yield Mistake(base, wrong, about=(rank,), value=False)
        return
    for index, stage in enumerate(sweep.stages):
        given = flat(stage.trial.given())
        if stage.zero_shot or not {"lora.init", "lora.rank"} & {*given, *stage.space}:
            continue
        ranks = [value for value in _possible(sweep, stage, "lora.rank") if isinstance(value, int)]
        axis = stage.space.get("lora.rank")
        ranged = axis is not None and axis.choices is None
        if "orthogonal" in _possible(sweep, stage, "lora.init") and (
            ranged or any(number % 2 for number in ranks)
        ):
            key = "lora.init" if "lora.init" in {*given, *stage.space} else "lora.rank"
            place = ("space", key) if key in stage.space else ("trial", *key.split("."))
            yield Mistake(("stages", index, *place), wrong, about=(base, rank), value=False)


def four_bits_need_cuda(sweep: Sweep) -> Iterator[Mistake]:
    """What quantizes the base model runs there alone."""
    if sweep.quantization == "nf4" and sweep.resources.device in {"cpu", "mps"}:
        wrong = (
            f"needs CUDA, and resources.device is {sweep.resources.device}; leave one of them out"
        )
        yield Mistake(("quantization",), wrong, about=(("resources", "device"),))


def four_bits_have_no_orthogonal_adapter(sweep: Sweep) -> Iterator[Mistake]:
    """A and B are made in its number type by peft, and 4 bits have no gradients."""
    if sweep.quantization != "nf4":
        return
    wrong = "orthogonal adapters cannot be put on a base of 4 bits; take another init, or quantization: none"
    base: Path = ("trial", "lora", "init")
    if sweep.trial.lora.init == "orthogonal":
        yield Mistake(base, wrong, about=(("quantization",),), value=False)
    for index, stage in enumerate(sweep.stages):
        given, key = flat(stage.trial.given()), "lora.init"
        for part, place, values in (
            ("trial", ("lora", "init"), (given.get(key),)),
            ("space", (key,), stage.space[key].ends if key in stage.space else ()),
        ):
            if "orthogonal" in values:
                path: Path = ("stages", index, part, *place)
                yield Mistake(path, wrong, about=(("quantization",),), value=False)


def _possible(sweep: Sweep, stage: StageSpec, key: str) -> tuple[Any, ...]:
    """The values that a field of a trial may have in a stage, its `from` included."""
    given: Mapping[str, Any] = flat(stage.trial.given())
    if key in stage.space:
        return stage.space[key].ends
    if key in given:
        return (given[key],)
    before = sweep.stages[: sweep.stages.index(stage)]
    for earlier in before:
        if earlier.name == stage.from_stage:
            return _possible(sweep, earlier, key)
    return (flat(sweep.trial.model_dump())[key],)


def _trials(stage: StageSpec) -> float:
    if stage.sampler != "grid":
        return stage.samples or 1
    return math.prod(len(axis.ends) for axis in stage.space.values() if axis.choices is not None)


RULES: tuple[Rule, ...] = (
    sweep_name_is_simple,
    data_file_has_a_path,
    split_is_no_more_than_there_is,
    only_points_have_zeros_behind_them,
    forecasts_have_a_window_each,
    tiny_does_not_chat,
    there_is_a_stage,
    stage_names_are_simple,
    stage_names_are_unique,
    from_names_an_earlier_stage,
    continue_needs_from,
    shares_sum_to_one_at_most,
    zero_shot_trains_nothing,
    steps_are_given_where_they_are_needed,
    fixed_has_nothing_to_set,
    space_is_made_of_fields,
    sampler_has_something_to_choose_from,
    stride_is_at_most_the_context,
    padding_is_no_numeric_text,
    orthogonal_adapters_have_an_even_rank,
    four_bits_need_cuda,
    four_bits_have_no_orthogonal_adapter,
)
