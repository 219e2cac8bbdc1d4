"""Two layers of random weights, batches of 2 × 64 tokens, at most 20 steps, one thread."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lvray.core.errors import CheckpointError, ModelError, Superseded
from lvray.core.run_folder import checkpoint_path
from lvray.core.trial import TrialConfig
from lvray.flops.price import NUMERIC_TOKENS
from lvray.series import windows as cutting
from lvray.series.forecasts import Forecasts
from lvray.trainer import batches, head, loop
from lvray.trainer.checkpoint import CLAIM, claim, read_checkpoint
from lvray.trainer.loop import lr_at, run
from lvray.trainer.model import detach, load_adapter, load_base
from lvray.trainer.tokenizer import load_tokenizer

pytestmark = pytest.mark.torch


def heard(task, until=None):
    """Runs a task and gives its measurements; ends it by SystemExit after milestone `until`."""
    measurements = []

    def report(measurement):
        measurements.append(measurement)
        if measurement.milestone == until:
            raise SystemExit(0)

    if until is None:
        run(task, report)
    else:
        with pytest.raises(SystemExit):
            run(task, report)
    return measurements


def figures(measurements):
    """What must not differ between two runs: everything but the clock and the attempt's own counters."""
    return [(m.milestone, m.step, m.validation_loss, dict(m.metrics)) for m in measurements]


def state(task, step):
    checkpoint = read_checkpoint(checkpoint_path(Path(task.folder), step))
    return checkpoint.adapter, checkpoint.moments, checkpoint.generators


def same_bits(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_bits(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same_bits, one, other))
    return one == other


# %% Resuming


@pytest.mark.parametrize(
    ("lora", "more"),
    [
        ({}, {}),
        ({"dropout": 0.3}, {}),
        ({"head_bias": True, "init": "kaiming-normal"}, {"pad_loss": True}),
        ({"head_bias": True}, {"loss": "numeric", "number_token_weight": 0.3}),
    ],
    ids=["plain", "dropout", "bias and padding", "numeric, number tokens and bias"],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(make_task, lora, more):
    how = {"lora": lora, "schedule": "cosine", "weight_decay": 0.01, **more}
    whole = make_task(4, 8, 12, name="whole", **how)
    straight = heard(whole)

    parted = make_task(4, 8, 12, name="parted", **how)
    first = heard(parted, until=0)
    torch.rand(100)  # the world goes on in between
    second = heard(replace(parted, reached=0, attempt=2), until=1)
    third = heard(replace(parted, reached=1, attempt=3))

    assert figures(first + second + third) == figures(straight)
    assert same_bits(state(parted, 12), state(whole, 12))


def test_a_resumed_run_with_other_random_numbers_would_be_seen(make_task, monkeypatch):
    """The fault that the test above is for: the generators are not put back."""
    task = make_task(4, 8, lora={"dropout": 0.3})
    straight = heard(task, until=1)
    monkeypatch.setattr(loop, "restore_generators", lambda *_: None)
    assert figures(heard(replace(task, reached=0))) != figures(straight[1:])


def test_milestones_on_the_way_change_nothing(make_task):
    how = {"lora": {"dropout": 0.3}, "schedule": "cosine"}
    often, once = make_task(0, 1, 5, 9, name="often", **how), make_task(9, name="once", **how)
    assert heard(often)[-1].validation_loss == heard(once)[-1].validation_loss
    assert same_bits(state(often, 9), state(once, 9))


def test_an_attempt_that_died_unheard_is_repeated(make_task):
    task = make_task(2, 4, 6)
    first = heard(task, until=1)
    again = heard(replace(task, reached=0, attempt=2))  # nobody heard of milestone 1
    assert figures(again[:1]) == figures(first[1:])
    assert [m.step for m in again] == [4, 6]


@pytest.mark.parametrize("reached", [-1, 0])
def test_a_checkpoint_that_nobody_heard_of_is_not_taken_for_this_trials(make_task, reached):
    """A trial that was shortened meanwhile passes the same step on another schedule."""
    heard(make_task(4, 8, 20, name="shortened", schedule="wsd"), until=1)
    shortened = make_task(4, 8, name="shortened", schedule="wsd", reached=reached)
    heard(shortened)
    heard(make_task(4, 8, 20, name="straight", schedule="wsd"), until=0)
    straight = make_task(4, 8, name="straight", schedule="wsd", reached=reached)
    heard(straight)
    assert same_bits(state(shortened, 8), state(straight, 8))


def test_only_the_last_two_checkpoints_are_kept(make_task, trial_folder):
    heard(make_task(1, 2, 3, 4))
    kept = sorted(path.name for path in (trial_folder("t") / "checkpoints").iterdir())
    assert kept == ["step-00000003", "step-00000004"]


def test_an_attempt_says_that_it_begins_to_compute_once_it_has_all_it_needs(make_task):
    said = []
    run(make_task(1, 2), lambda told: said.append("report"), begun=lambda: said.append("begun"))
    assert said == ["begun", "report", "report"]
    lost = replace(make_task(4, 6, name="lost"), reached=0)
    with pytest.raises(CheckpointError):
        run(lost, lambda told: None, begun=lambda: said.append("begun"))
    assert said.count("begun") == 1


def test_a_missing_checkpoint_is_told_in_words(make_task):
    with pytest.raises(CheckpointError, match="step-00000004"):
        heard(make_task(4, 8, reached=0))


# %% Pausing


def paused(task, after):
    """Runs a task that is asked to pause before its step number `after` (from 0); gives what it reported."""
    told, looks = [], iter(range(10_000))
    run(task, told.append, asked_to_pause=lambda: next(looks) >= after)
    return told


@pytest.mark.parametrize(
    "lora", [{}, {"dropout": 0.3}, {"head_bias": True}], ids=["plain", "dropout", "bias"]
)
def test_a_run_that_pauses_between_milestones_equals_an_uninterrupted_one_bit_for_bit(
    make_task, lora
):
    how = {"lora": lora, "schedule": "cosine", "weight_decay": 0.01}
    whole = make_task(4, 8, 12, name="whole", **how)
    straight = heard(whole)

    task = make_task(4, 8, 12, name="paused", **how)
    *none, first = paused(task, after=3)
    assert (none, first.step) == ([], 3)
    torch.rand(100)  # the world goes on in between
    [second] = paused(replace(task, paused_at=3, attempt=2), after=0)
    *at_4, third = paused(replace(task, paused_at=3, attempt=3), after=3)
    assert [m.step for m in at_4] == [4]
    assert third.step == 6
    rest = heard(replace(task, reached=0, paused_at=6, attempt=4))

    assert figures(at_4 + rest) == figures(straight)
    assert same_bits(state(task, 12), state(whole, 12))
    used = first.flops + second.flops + third.flops + rest[-1].flops
    assert used == straight[-1].flops
    assert second.flops == 0


def test_a_pause_keeps_the_checkpoint_of_the_milestone_and_its_own(make_task, trial_folder):
    task = make_task(4, 8, 12)

    def kept():
        return sorted(int(path.name[5:]) for path in (trial_folder("t") / "checkpoints").iterdir())

    paused(task, after=6)
    assert kept() == [4, 6]
    paused(replace(task, reached=0, paused_at=6, attempt=2), after=1)
    assert kept() == [4, 6, 7]  # until the driver has heard of it
    heard(replace(task, reached=0, paused_at=7, attempt=3), until=1)
    assert kept() == [4, 7, 8]


def test_a_pause_before_the_first_step_leaves_the_checkpoint_that_it_stands_on_alone(
    make_task, trial_folder
):
    """Writing it again would take it away first, and an end in between would lose the trial."""
    task = make_task(4, 8)
    [first] = paused(task, after=0)
    assert (first.step, first.flops) == (0, 0)
    assert not (trial_folder("t") / "checkpoints").exists()
    paused(task, after=3)
    place = checkpoint_path(trial_folder("t"), 3)
    before = place.stat().st_ino
    [again] = paused(replace(task, paused_at=3, attempt=2), after=0)
    assert (again.step, again.flops) == (3, 0)
    assert place.stat().st_ino == before


def test_a_forecast_of_an_attempt_that_was_given_up_is_not_written(make_task, trial_folder):
    task = make_task(0, forecast=True)
    base = replace(task, config=replace(task.config, lora=None))
    claim(trial_folder("t"), ("", 1))
    original = loop.validate

    def validate(bench):
        claim(trial_folder("t"), ("", 2))
        return original(bench)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "validate", validate)
        with pytest.raises(Superseded):
            run(base, lambda told: None)
    assert not (trial_folder("t") / "forecasts").exists()


def test_a_trial_that_is_not_asked_does_not_pause_and_one_at_its_milestone_does_not_either(
    make_task,
):
    told = paused(make_task(2, 4), after=4)
    assert [m.milestone for m in told] == [0, 1]


def test_a_lost_loss_is_told_before_a_pause(make_task):
    [measurement] = paused(make_task(8, 16, learning_rate=1e30, gradient_clip=0.0), after=4)
    assert math.isnan(measurement.validation_loss)
    assert measurement.step < 8


def test_a_forecast_is_not_broken_off(make_task):
    task = make_task(0, forecast=True)
    told = paused(replace(task, config=replace(task.config, lora=None)), after=0)
    assert [m.milestone for m in told] == [0]


def test_an_attempt_that_was_given_up_as_lost_leaves_the_checkpoints_of_the_next_alone(
    make_task, trial_folder
):
    task = make_task(2, 4, 6)

    def report(measurement):
        if measurement.milestone == 0:  # cut off here, while another worker takes the trial up
            claim(trial_folder("t"), ("", 2))

    with pytest.raises(Superseded, match=r"attempt 1 .* attempt 2 has begun"):
        run(task, report)
    kept = sorted(path.name for path in (trial_folder("t") / "checkpoints").iterdir())
    assert kept == ["step-00000002"]
    with pytest.raises(Superseded):
        run(task, report)


def test_an_attempt_of_a_run_that_was_put_aside_writes_nothing_into_the_one_in_its_place(
    make_task, trial_folder
):
    earlier, later = "2026-11-20T09:00:00.000+00:00", "2026-11-20T09:30:00.000+00:00"
    task = replace(make_task(2, 4), run_began=earlier, attempt=3)
    folder = trial_folder("t")

    def put_aside(measurement):
        folder.rename(folder.with_name("t.1"))

    with pytest.raises(Superseded, match=r"another run's by now"):
        run(task, put_aside)
    assert not folder.exists()

    def begun_anew(measurement):
        put_aside(measurement)
        claim(folder, (later, 1))

    folder.with_name("t.1").rename(folder)
    with pytest.raises(
        Superseded, match=r"attempt 4 .* attempt 1 of the run that began 2026-11-20T09:30"
    ):
        run(replace(task, attempt=4), begun_anew)
    assert [path.name for path in folder.iterdir()] == [CLAIM]
    with pytest.raises(Superseded):  # it starts only now
        run(task, put_aside)
    assert [path.name for path in folder.iterdir()] == [CLAIM]


# %% Milestones and FLOPs


def test_training_stops_exactly_at_each_milestone_and_costs_what_was_planned(make_task):
    task = make_task(0, 3, 10, forecast=True)
    measurements = heard(task)
    assert [m.step for m in measurements] == [0, 3, 10]
    assert [m.flops for m in measurements] == [milestone.flops for milestone in task.milestones]
    assert [m.tokens for m in measurements] == [0, 3 * 2 * 64, 10 * 2 * 64]
    moments = state(task, 10)[1]
    assert {int(moment["step"]) for moment in moments.values()} == {10}


def test_a_resumed_attempt_counts_its_own_flops_alone(make_task):
    task = make_task(3, 10, 12)
    heard(task, until=0)
    second = heard(replace(task, reached=0, attempt=2))
    paid = [milestone.flops for milestone in task.milestones]
    assert [m.flops for m in second] == [paid[1] - paid[0], paid[2] - paid[0]]
    assert [m.attempt for m in second] == [2, 2]


def test_the_base_model_has_one_milestone_at_step_0(make_task, trial_folder):
    task = replace(make_task(0, forecast=True), config=TrialConfig(lora=None))
    (measurement,) = heard(task)
    assert (measurement.step, measurement.flops) == (0, task.milestones[0].flops)
    assert math.isfinite(measurement.validation_loss)
    assert set(measurement.metrics) == {"forecast_mae", "forecast_rmse", "forecast_short"}
    assert {path.name for path in trial_folder("t").iterdir()} == {
        "attempt",
        "config.json",
        "forecasts",
    }


def test_an_untrained_adapter_is_the_base_model(make_task):
    base = replace(make_task(0, name="base"), config=TrialConfig(lora=None))
    (adapter,), (plain,) = heard(make_task(0, name="lora")), heard(base)
    assert adapter.validation_loss == pytest.approx(plain.validation_loss, rel=1e-6)


def test_the_end_of_an_attempt_passes_through_and_leaves_a_whole_checkpoint(make_task):
    task = make_task(2, 4)
    (measurement,) = heard(task, until=0)
    assert read_checkpoint(checkpoint_path(Path(task.folder), 2)).step == measurement.step == 2


def test_forecasts_are_in_the_units_of_the_data(make_task, values, trial_folder):
    (measurement,) = heard(make_task(2, forecast=True))
    with np.load(trial_folder("t") / "forecasts" / "10+3.npz") as file:
        assert file["systems"].tolist() == [10, 11]
        np.testing.assert_array_equal(file["history"], values[10:12, :10])
        np.testing.assert_array_equal(file["truth"], values[10:12, 10:13])
        error = np.abs(file["point"] - file["truth"]).mean()
    assert measurement.metrics["forecast_mae"] == pytest.approx(error)
    assert measurement.metrics["forecast_short"] == 0


def test_a_model_that_does_not_chat_says_so_before_it_is_trained(make_task, trial_folder):
    task = make_task(2, 4, forecast=True)
    chat = tuple(replace(asked, prompt="chat") for asked in task.evaluation.forecasts)
    heard = []
    with pytest.raises(ModelError, match="has no chat template"):
        run(replace(task, evaluation=replace(task.evaluation, forecasts=chat)), heard.append)
    assert heard == []
    assert not (trial_folder("t") / "checkpoints").exists()


@pytest.mark.parametrize("step", [1, 2])
def test_every_checkpoint_holds_an_adapter_for_peft(make_task, trial_folder, step):
    task = make_task(1, 2)
    heard(task)
    folder = checkpoint_path(trial_folder("t"), step) / "adapter"
    config = json.loads((folder / "adapter_config.json").read_text())
    weights = load_file(folder / "adapter_model.safetensors")
    assert (config["r"], config["base_model_name_or_path"]) == (2, task.model)
    assert weights
    assert all("lora_" in name for name in weights), "nothing of the base model"


def test_the_measure_is_over_the_rows_that_are_asked_for(make_task):
    """A numeric measure of a trial trained on the whole vocabulary, and the other way round, are both to be had."""
    evaluation = make_task(0).evaluation
    numeric = replace(evaluation, loss="numeric")
    (full,), (fewer,) = (
        heard(make_task(0, name=loss, evaluation=asked, forecast=True))
        for loss, asked in (("full", evaluation), ("numeric", numeric))
    )
    assert fewer.validation_loss < full.validation_loss
    assert dict(fewer.metrics) == pytest.approx(dict(full.metrics))
    (trained,) = heard(make_task(3, name="mixed", loss="numeric"))
    assert math.isfinite(trained.validation_loss)


def test_an_exported_adapter_forecasts_bit_for_bit_as_the_trial_did(make_task, model):
    task = make_task(4, lora={"head_bias": True})
    (measurement,) = heard(task)
    base = load_base(model, device=torch.device("cpu"), dtype=torch.float32)
    folder = checkpoint_path(Path(task.folder), 4) / "adapter"
    adapted = load_adapter(base, folder)
    bench = loop.Bench(
        task,
        torch.device("cpu"),
        loop.accelerator_on("cpu"),
        load_tokenizer(model),
        batches.read_texts(json.dumps(task.to_json()["data"]), task.model),
        adapted,
    )
    assert loop.validate(bench).mean == measurement.validation_loss
    detach(adapted)


# %% One worker, many trials


def bits(model_folder):
    base = load_base(model_folder, device=torch.device("cpu"), dtype=torch.float32)
    return {name: weight.clone() for name, weight in base.state_dict().items()}


def test_trials_one_after_the_other_give_what_each_gives_alone(make_task, model):
    before = bits(model)
    ways = [
        {},
        {"lora": {"variant": "dora"}},
        {"learning_rate": 1e-2},
        {"lora": {"head_bias": True}},
        {"loss": "numeric"},
    ]
    alone = [heard(make_task(5, name=f"alone{i}", **way)) for i, way in enumerate(ways)]
    later = [heard(make_task(5, name=f"later{i}", **way)) for i, way in enumerate(reversed(ways))]
    assert [figures(m) for m in later] == [figures(m) for m in reversed(alone)]
    assert len({m[0].validation_loss for m in alone}) == 5, "the trials must differ to be mixed up"
    assert same_bits(bits(model), before)


def test_the_base_model_is_clean_after_an_attempt_that_was_ended(make_task, model):
    before = bits(model)
    heard(make_task(2, 4), until=0)
    assert same_bits(bits(model), before)


# %% Learning

GOLDEN = [
    4.23706,
    4.01558,
    4.08997,
    4.07037,
    4.07392,
    4.00114,
    4.21599,
    3.90164,
    3.79515,
    3.62354,
    3.7477,
    3.49337,
    3.30168,
    3.70809,
    3.16944,
    3.51501,
    3.34092,
    3.25259,
    3.21417,
    3.13936,
]
"""Training loss of the first 20 steps, nats per token. Anything that changes the weights, the batches, the
schedule or the loss moves it; a change that is meant is a new list and a line in docs/LOG.md."""


def losses(task):
    return [m.metrics["train_loss"] for m in heard(task)]


def test_the_first_20_losses_are_the_golden_ones(make_task):
    assert losses(make_task(*range(1, 21))) == pytest.approx(GOLDEN, abs=1e-4)


@pytest.mark.parametrize(
    ("lora", "more"),
    [
        ({"variant": "lora"}, {}),
        ({"variant": "rslora"}, {}),
        ({"variant": "dora"}, {}),
        ({"init": "kaiming-normal"}, {}),
        ({"init": "gaussian"}, {}),
        ({"init": "orthogonal"}, {}),
        ({"head_bias": True}, {}),
        ({}, {"loss": "numeric"}),
        ({}, {"number_token_weight": 0.3}),
        ({}, {"pad_loss": True}),
    ],
    ids=str,
)
def test_every_kind_of_trial_learns(make_task, lora, more):
    curve = losses(make_task(2, 20, lora=lora, learning_rate=1e-2, **more))
    assert curve[1] < curve[0] - 0.05


def test_padding_is_never_in_the_loss_unless_asked_for(make_task, monkeypatch):
    """With another id in the padding, nothing changes; with the padding counted, it would."""
    plain = losses(make_task(3, 6, name="plain", context_length=96, stride=96))

    def repadded(*args, **how):
        made = cutting.cut(*args, **{**how, "pad_id": 9})
        assert (made.lengths < made.tokens.shape[1]).any(), "no padding, nothing tested"
        return made

    monkeypatch.setattr(batches, "cut", repadded)
    assert losses(make_task(3, 6, name="other", context_length=96, stride=96)) == plain

    def counted(made, **_how):
        labels = np.roll(made.tokens, -1, axis=1)  # the planted fault
        labels[:, -1] = batches.IGNORED
        return labels

    monkeypatch.setattr(batches, "labels_of", counted)
    assert losses(make_task(3, 6, name="fault", context_length=96, stride=96)) != plain


def test_a_lost_loss_is_reported_at_once_with_the_flops_it_took(make_task):
    task = make_task(40, 80, learning_rate=1e30, gradient_clip=0.0, warmup_steps=0)
    (measurement,) = heard(task)
    assert math.isnan(measurement.validation_loss)
    assert measurement.milestone == 0
    assert measurement.step < 40
    assert measurement.flops == measurement.step * task.prices.train_step
    assert not (Path(task.folder) / "checkpoints").exists()


def test_gradients_are_clipped_and_their_norm_is_taken_before(make_task):
    free, tight = (heard(make_task(1, 6, name=f"{c}", gradient_clip=c)) for c in (0.0, 0.01))
    assert free[0].metrics["gradient_norm"] == tight[0].metrics["gradient_norm"] > 0.01
    assert free[1].validation_loss != tight[1].validation_loss


# %% Continuing another trial


@pytest.mark.parametrize("bias", [False, True])
def test_a_trial_that_continues_another_starts_where_that_one_stands(make_task, bias):
    first = make_task(6, name="first", lora={"head_bias": bias, "init": "gaussian"})
    (last,) = heard(first)
    second = make_task(
        0, 2, name="second", schedule="wsd", continues=first.folder, lora={"head_bias": bias}
    )
    start, end = heard(second)
    assert start.validation_loss == last.validation_loss
    assert (start.step, end.step) == (0, 2)
    assert end.flops == second.milestones[-1].flops
    assert {int(moment["step"]) for moment in state(second, 2)[1].values()} == {8}
    assert same_bits(state(second, 0)[0], state(first, 6)[0])


def test_a_continuing_trial_resumes_from_its_own_checkpoints(make_task):
    heard(make_task(3, name="first"))
    how = {"continues": make_task(3, name="first").folder, "schedule": "wsd"}
    straight = heard(make_task(2, 4, name="straight", **how))
    parted = make_task(2, 4, name="parted", **how)
    both = heard(parted, until=0) + heard(replace(parted, reached=0, attempt=2))
    assert figures(both) == figures(straight)


def test_another_adapter_cannot_be_continued(make_task):
    heard(make_task(2, name="first"))
    folder = make_task(2, name="first").folder
    with pytest.raises(CheckpointError, match=r"rank=2.*rank=4"):
        heard(make_task(2, name="second", continues=folder, lora={"rank": 4}))


# %% The learning rate


def rates(steps, **how):
    config = TrialConfig(learning_rate=1.0, **how)
    return [round(lr_at(step, config, steps), 3) for step in range(steps)]


def test_schedules():
    assert rates(8, schedule="constant", warmup_steps=3) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert rates(8, schedule="wsd", warmup_steps=1, decay_fraction=0.5) == [
        0.5, 1, 1, 1, 1, 0.75, 0.5, 0.25,
    ]  # fmt: skip
    assert rates(8, schedule="cosine", warmup_steps=0) == [
        1, 0.962, 0.854, 0.691, 0.5, 0.309, 0.146, 0.038,
    ]  # fmt: skip


@pytest.mark.parametrize("schedule", ["constant", "wsd", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 7, 300])
@pytest.mark.parametrize("warmup_steps", [0, 5, 1000])
def test_every_rate_is_above_zero_and_at_most_the_one_asked(schedule, steps, warmup_steps):
    config = TrialConfig(learning_rate=0.5, schedule=schedule, warmup_steps=warmup_steps)
    assert all(0 < lr_at(step, config, steps) <= 0.5 for step in range(steps))


def test_forecasts_compute_the_rows_of_the_head_that_are_paid_for(make_task, monkeypatch):
    """`evaluation.loss` decides for validation and forecasts alike."""
    seen = []
    plain = head._rows_of_head
    monkeypatch.setattr(
        head, "_rows_of_head", lambda *given: seen.append(len(given[2])) or plain(*given)
    )
    task = make_task(0, forecast=True)
    heard(task)
    assert seen == []
    heard(replace(task, evaluation=replace(task.evaluation, loss="numeric")))
    assert set(seen) == {NUMERIC_TOKENS}
    assert len(seen) > 1 + len(task.evaluation.forecasts), "a pass for each token that is written"


def test_draws_follow_the_trials_seed(make_task, trial_folder):
    def draws(seed):
        task = make_task(0, name=f"seed-{seed}", forecast=True, seed=seed)
        (asked,) = task.evaluation.forecasts
        drawn = replace(task.evaluation, forecasts=(replace(asked, samples=3),))
        heard(replace(task, evaluation=drawn, config=replace(task.config, lora=None)))
        return Forecasts.from_npz(trial_folder(f"seed-{seed}") / "forecasts" / "10+3.npz").samples

    assert not np.array_equal(draws(1), draws(2))
