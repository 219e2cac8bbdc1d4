"""How is one trial trained, from where it stands to its last milestone?

`run` reads from top to bottom: texts, base model, adapter, place to start from; then, milestone by
milestone, train exactly to the milestone's step, evaluate, write a checkpoint, report. Nothing here
decides anything: whoever hears the report may end the attempt by raising `SystemExit` from it.

All that outlives a step is in the adapter, the optimizer and the random generators. The batch and
the learning rate are pure functions of the step, so a resumed trial repeats an uninterrupted one bit
for bit on a CPU.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from socket import gethostname
from time import perf_counter

import torch
from accelerate import Accelerator
from peft import PeftModel
from torch.optim import AdamW
from transformers import PreTrainedModel

from lvray.core.errors import CheckpointError
from lvray.core.run_folder import checkpoint_path, write_whole
from lvray.core.task import Task
from lvray.core.trial import LoraConfig, Measurement, Pause, StepPrices, TrialConfig
from lvray.trainer.batches import Batches, Texts, read_texts, training_batches
from lvray.trainer.checkpoint import (
    claim,
    ensure_claimed,
    keep_checkpoints,
    latest_checkpoint,
    put_file,
    read_checkpoint,
    restore_generators,
    restore_weights,
    write_checkpoint,
)
from lvray.trainer.evaluate import (
    WindowLosses,
    validation_windows,
    window_losses,
)
from lvray.trainer.generate import forecast_systems, metrics_of
from lvray.trainer.losses import Objective
from lvray.trainer.model import attach, detach, load_base, name_of, pick_device, save_adapter
from lvray.trainer.prompts import ensure_prompts
from lvray.trainer.tokenizer import Tokenizer, load_tokenizer, numeric_ids

CHECK_EVERY = 16
"""Steps between two looks at whether the loss is still finite: each look waits for the device."""


Report = Callable[[Measurement | Pause], None]
"""Hears of a trial at each milestone, and where it pauses between two."""


def never() -> bool:
    """Nobody asks the trial to pause."""
    return False


@dataclass(frozen=True, slots=True)
class Bench:
    """What one attempt works with."""

    task: Task
    device: torch.device
    accelerator: Accelerator
    tokenizer: Tokenizer
    texts: Texts
    model: PreTrainedModel | PeftModel
    """The base model, with the adapter if the trial has one."""
    asked_to_pause: Callable[[], bool] = never


def run(
    task: Task,
    report: Report,
    *,
    asked_to_pause: Callable[[], bool] = never,
    begun: Callable[[], object] = lambda: None,
) -> None:
    """Trains one trial from where it stood to its last milestone, reporting at each.

    `report` is called when the milestone's checkpoint is on the disk. It may block, and it may raise
    (`SystemExit` ends an attempt): nothing is swallowed. The base model is left as it was found.

    A loss that is not finite ends the attempt: the next milestone is reported at once, with NaN, the
    step that was reached and the FLOPs that were used, and without a checkpoint.

    `asked_to_pause` is looked at before every step. Once it is true the attempt writes a checkpoint where it
    stands, reports a `Pause` and ends; evaluations and forecasts are not broken off.

    `begun` is called once, before the first FLOP is used: model, data and checkpoint are there by then.

    Raises:
        DataError: the data set cannot be read, or is too small or too short for what is asked.
        ModelError: the base model cannot be had, lacks a layer that the adapter is for, or takes no such prompts as
            are asked for.
        CheckpointError: the checkpoint to go on from is missing, damaged, or does not fit.
        MachineError: this machine has no such device.
        RunFolderError: the trial's folder cannot be written.
        Superseded: a later attempt at the trial has begun.
    """
    if task.threads:
        torch.set_num_threads(task.threads)
    claim(Path(task.folder), task.claim)
    config = json.dumps(task.config.to_json(), indent=1)
    write_whole(Path(task.folder) / "config.json", config + "\n")
    device = pick_device(task.device)
    tokenizer = load_tokenizer(task.model)
    texts = read_texts(json.dumps(task.to_json()["data"]), task.model)
    if any(milestone.forecast for milestone in task.milestones):
        for asked in task.evaluation.forecasts:
            ensure_prompts(tokenizer, texts.codec, asked)
    base = load_base(
        task.model, device=device, dtype=weight_type(device), quantization=task.quantization
    )
    model = attach(base, task.config.lora, task.config.seed)
    try:
        bench = Bench(
            task, device, accelerator_on(device.type), tokenizer, texts, model, asked_to_pause
        )
        _reach_milestones(bench, report, begun)
    finally:
        detach(model)


def _reach_milestones(bench: Bench, report: Report, begun: Callable[[], object]) -> None:
    """Trains, evaluates, writes and reports, milestone by milestone."""
    task, config = bench.task, bench.task.config
    torch.manual_seed(config.seed)
    learner = None if config.lora is None else Learner.of(bench, config.lora)
    step, before = learner.start() if learner else (0, Stretch())
    begun()
    meter = Meter(task.prices, tokens_per_step=config.batch_size * config.context_length)
    for index in range(task.reached + 1, len(task.milestones)):
        milestone = task.milestones[index]

        # 1. train exactly to the milestone, or until the loss is lost, or somebody asks for a pause
        here = step
        heard = task.milestones[index - 1].step if index else 0
        stretch = learner.train(step, milestone.step, before) if learner else Stretch()
        own_steps = stretch.steps - before.steps
        step += own_steps
        meter.steps += own_steps
        metrics = stretch.metrics()
        if learner and stretch.finite and step < milestone.step:
            if own_steps:  # else it stands where its checkpoint is, or at its very start
                learner.checkpoint(step, keep={heard, here, step}, unheard=stretch)
            report(Pause(task.trial_id, task.attempt, step, meter.flops, meter.seconds))
            return

        # 2. evaluate
        loss = math.nan
        by_window: tuple[float, ...] = ()
        if stretch.finite:
            losses = validate(bench)
            loss, by_window = losses.mean, losses.each
            meter.evaluations += 1
        finite = math.isfinite(loss)
        if finite and milestone.forecast:
            metrics |= _forecast(bench)
            meter.forecasts += 1

        # 3. write down where the trial stands
        if learner and finite:
            # Until this milestone is heard of, the trial goes on from where this stretch began, and its winner's
            # adapter would be that of the milestone before.
            learner.checkpoint(step, keep={heard, here, step})

        # 4. report, and perhaps never return
        report(
            Measurement(
                trial_id=task.trial_id,
                attempt=task.attempt,
                milestone=index,
                step=step,
                flops=meter.flops,
                validation_loss=loss if finite else math.nan,
                window_losses=by_window if finite else (),
                seconds=meter.seconds,
                tokens=meter.tokens,
                device=name_of(bench.device),
                host=gethostname(),
                metrics=metrics,
            )
        )
        if not finite:
            return
        before = Stretch()


@dataclass(frozen=True, slots=True)
class Stretch:
    """What was trained since the last milestone, by however many attempts."""

    steps: int = 0
    loss_sum: float = 0.0
    """Cross-entropy, nats per token, summed over the steps."""
    norm_sum: float = 0.0
    """Gradient norm before clipping, summed over the steps."""
    learning_rate: float = 0.0
    """Of the last step."""

    @classmethod
    def of(cls, sums: Mapping[str, float]) -> Stretch:
        """Reads what a checkpoint between two milestones holds of it; an empty stretch where it holds nothing."""
        if not sums:
            return cls()
        return cls(int(sums["steps"]), sums["loss_sum"], sums["norm_sum"], sums["learning_rate"])

    @property
    def finite(self) -> bool:
        """Whether the loss of every step was a number."""
        return math.isfinite(self.loss_sum)

    def metrics(self) -> dict[str, float]:
        """Gives means over the steps by name; none if nothing was trained."""
        if not self.steps:
            return {}
        return {
            "train_loss": self.loss_sum / self.steps,
            "gradient_norm": self.norm_sum / self.steps,
            "learning_rate": self.learning_rate,
        }


@dataclass(frozen=True, slots=True)
class Learner:
    """An adapter, its optimizer, and the batches it learns from."""

    bench: Bench
    lora: LoraConfig
    batches: Batches
    objective: Objective
    optimizer: AdamW

    @classmethod
    def of(cls, bench: Bench, lora: LoraConfig) -> Learner:
        """Makes the optimizer of the adapter's weights and cuts the training text into windows."""
        config = bench.task.config
        optimizer = AdamW(
            [weight for weight in bench.model.parameters() if weight.requires_grad],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=bench.device.type == "cuda",
        )
        batches = training_batches(
            bench.texts.train, config, tokenizer=bench.tokenizer, device=bench.device
        )
        objective = Objective.of(config, bench.tokenizer, bench.device)
        return cls(bench, lora, batches, objective, optimizer)

    def start(self) -> tuple[int, Stretch]:
        """Puts weights, moments and generators where the attempt starts.

        Gives the steps done, and those of them that no milestone was told of: an attempt that paused did them.

        A trial that continues another begins with that one's weights and moments, at its own step 0,
        with its own schedule and seed. Checkpoints that nobody heard of are removed.
        """
        task = self.bench.task
        point = resume_point(task)
        unheard = Stretch()
        if point is not None:
            checkpoint = read_checkpoint(point)
            if _shape(checkpoint.lora) != _shape(self.lora):
                raise CheckpointError(
                    f"{point} holds the adapter {checkpoint.lora}, this trial's is {self.lora}; "
                    "a trial can only go on with rank, alpha, targets, variant and head_bias as they were"
                )
            restore_weights(checkpoint, self.bench.model, self.optimizer)
            if not task.begins:
                restore_generators(checkpoint, self.bench.device)
                unheard = Stretch.of(checkpoint.sums)
        heard = {task.milestones[task.reached].step} if task.reached >= 0 else set()
        keep_checkpoints(Path(task.folder), keep=heard if task.begins else heard | {task.start})
        return task.start, unheard

    def train(self, start: int, stop: int, before: Stretch = Stretch()) -> Stretch:
        """Takes optimizer steps `start` to `stop` - 1, fewer if the loss is no longer finite or a pause is asked for.

        Loss and gradient norm are summed on the device, so that it is never waited for between two
        checks.

        Args:
            start: the first step.
            stop: the milestone's.
            before: what other attempts trained since the milestone before.

        Returns:
            `before` and these steps together.
        """
        bench, config = self.bench, self.bench.task.config
        accelerator, model, optimizer = bench.accelerator, bench.model, self.optimizer
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        steps_in_all = bench.task.milestones[-1].step
        clip = config.gradient_clip or math.inf
        loss_sum = torch.tensor(before.loss_sum, device=bench.device)
        norm_sum = torch.tensor(before.norm_sum, device=bench.device)
        done, rate = before.steps, before.learning_rate
        model.train()
        for step in range(start, stop):
            if bench.asked_to_pause():
                break
            rate = lr_at(step, config, steps_in_all)
            for group in optimizer.param_groups:
                group["lr"] = rate
            tokens, labels = self.batches.at(step)
            with accelerator.autocast():
                losses = self.objective.losses(model, tokens, labels)
            accelerator.backward(losses.objective)
            norm_sum += accelerator.clip_grad_norm_(weights, clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss_sum += losses.cross_entropy.detach()
            done += 1
            if done % CHECK_EVERY == 0 and not math.isfinite(loss_sum.item()):
                break
        return Stretch(done, loss_sum.item(), norm_sum.item(), rate)

    def checkpoint(self, step: int, *, keep: set[int], unheard: Stretch | None = None) -> None:
        """Writes the checkpoint after `step` steps; only then removes those not in `keep`.

        Args:
            step: optimizer steps done.
            keep: the checkpoints that stay, by their steps.
            unheard: what was trained since the last milestone, where this is between two.

        Raises:
            Superseded: a later attempt at the trial has begun, and needs checkpoints that this one would remove.
        """
        bench, trial = self.bench, Path(self.bench.task.folder)
        ensure_claimed(trial, bench.task.claim)
        write_checkpoint(
            trial,
            bench.model,
            self.optimizer,
            step=step,
            lora=self.lora,
            device=bench.device,
            export=self.export,
            sums=asdict(unheard) if unheard else {},
        )
        keep_checkpoints(trial, keep=keep)

    def export(self, folder: Path) -> None:
        """Writes the adapter as peft reads it, with nothing of the base model but the name it has in the task."""
        save_adapter(self.bench.model, folder, base=self.bench.task.model)


def _shape(lora: LoraConfig) -> LoraConfig:
    """Gives what must stay as it was when training goes on: all but dropout and the first weights."""
    return replace(lora, dropout=0.0, init="default")


@dataclass(slots=True)
class Meter:
    """What this attempt has used so far."""

    prices: StepPrices
    tokens_per_step: int
    """Padding included: it is compute too."""
    steps: int = 0
    evaluations: int = 0
    forecasts: int = 0
    began: float = field(default_factory=perf_counter)

    @property
    def flops(self) -> int:
        """FLOPs under the sweep's convention; forecasts at their full price, however short they were."""
        return (
            self.steps * self.prices.train_step
            + self.evaluations * self.prices.evaluation
            + self.forecasts * self.prices.forecast
        )

    @property
    def tokens(self) -> int:
        """Training tokens."""
        return self.steps * self.tokens_per_step

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the model and its adapter were in place."""
        return perf_counter() - self.began


def resume_point(task: Task) -> Path | None:
    """Gives the checkpoint an attempt starts from; None is a fresh adapter.

    Raises:
        CheckpointError: the trial to continue from has no checkpoint.
    """
    if not task.begins:
        return checkpoint_path(Path(task.folder), task.start)
    return None if task.continues is None else latest_checkpoint(Path(task.continues))


def lr_at(step: int, config: TrialConfig, steps: int) -> float:
    """Gives the learning rate of optimizer step `step` (from 0) of a trial of `steps` steps.

    All schedules rise in a straight line over the first `warmup_steps`. Then ``constant`` stays,
    ``wsd`` stays and falls in a straight line over the last `decay_fraction` of all steps
    (warm-up–stable–decay, arXiv:2404.06395; linear as in arXiv:2405.18392), ``cosine`` falls as half
    a cosine (arXiv:1608.03983, without restarts). Both falls would be at zero one step after the last.
    """
    warmth = min(1.0, (step + 1) / (config.warmup_steps + 1))
    match config.schedule:
        case "constant":
            height = 1.0
        case "wsd":
            height = min(1.0, (steps - step) / max(config.decay_fraction * steps, 1.0))
        case "cosine":
            course = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
            height = 0.5 * (1.0 + math.cos(math.pi * min(max(course, 0.0), 1.0)))
        case other:
            raise AssertionError(f"no schedule is called {other!r}")
    return config.learning_rate * min(warmth, height)


@cache
def accelerator_on(kind: str) -> Accelerator:
    """Gives the process's one Accelerator: bf16 on CUDA, 32 bits elsewhere.

    One worker runs many trials, and Accelerate keeps its state once a process. Models and optimizers
    are never `prepare`d, so it holds on to none of them: it lends autocast, backward and clipping.
    """
    return Accelerator(cpu=kind == "cpu", mixed_precision="bf16" if kind == "cuda" else "no")


def weight_type(device: torch.device) -> torch.dtype:
    """Gives the type of the frozen weights; peft keeps the adapter's in 32 bits."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def validate(bench: Bench) -> WindowLosses:
    """Gives the losses over the trial's fixed validation windows."""
    evaluation = bench.task.evaluation
    windows = validation_windows(bench.texts.validation, evaluation, pad_id=bench.tokenizer.pad_id)
    return window_losses(
        bench.model,
        windows,
        batch_size=evaluation.batch_size,
        device=bench.device,
        autocast=bench.accelerator.autocast,
        rows=numeric_ids(bench.tokenizer) if evaluation.loss == "numeric" else None,
    )


def _forecast(bench: Bench) -> dict[str, float]:
    """Forecasts test systems, writes a file for each length of context, and gives the figures by name."""
    made = []
    for asked in bench.task.evaluation.forecasts:
        forecasts = forecast_systems(
            bench.model,
            bench.tokenizer,
            bench.texts.codec,
            bench.texts.values,
            bench.task.data.test,
            asked,
            batch_size=bench.task.evaluation.batch_size,
            seed=bench.task.config.seed,
            device=bench.device,
            autocast=bench.accelerator.autocast,
            loss=bench.task.evaluation.loss,
        )
        ensure_claimed(Path(bench.task.folder), bench.task.claim)
        put_file(Path(bench.task.folder) / "forecasts" / f"{asked.name}.npz", forecasts.to_npz())
        made.append(forecasts)
    return metrics_of(made)
