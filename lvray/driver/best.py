"""Puts the winner's adapter where people look for it, with a card that says what it is."""

from __future__ import annotations

import json
import os
import shutil

from lvray.core.errors import RunFolderError
from lvray.core.run_folder import ADAPTER, HEAD_BIAS, RunFolder, checkpoint_path
from lvray.core.trial import Trial
from lvray.core.units import format_flops
from lvray.planner.tasks import located
from lvray.spec.schema import Sweep

CARD = "README.md"

FACTS = "lvray.json"
"""Beside an adapter: its base model, and how series are written for it. `lvray.forecast` reads it."""

FORMAT = "lvray-adapter/1"

BIAS_NOTE = f"""
`{HEAD_BIAS}` is a trained bias of the head and part of the adapter. Plain PEFT does not read it, and without it the
forecasts are others; `lvray.trainer.model.load_adapter` puts it on.
"""


def publish(sweep: Sweep, folder: RunFolder, winner: Trial) -> None:
    """Copies the adapter of `winner`, as it was last measured, to ``best/``, whole or not at all; an older one is replaced.

    Raises:
        RunFolderError: the adapter is missing, or the folder cannot be written.
    """
    adapter = checkpoint_path(folder.trial(winner.plan.trial_id), winner.step) / ADAPTER
    beside = folder.root / f".best.{os.getpid()}"
    try:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(adapter, beside)
        (beside / CARD).write_text(card(sweep, winner), encoding="utf-8")
        (beside / FACTS).write_text(facts(sweep, folder, winner), encoding="utf-8")
        shutil.rmtree(folder.best, ignore_errors=True)
        beside.replace(folder.best)
    except OSError as error:
        raise RunFolderError(f"{adapter} cannot be copied to {folder.best}: {error}") from error


def facts(sweep: Sweep, folder: RunFolder, winner: Trial) -> str:
    """What someone must know to forecast with the adapter, as JSON."""
    lora = winner.plan.config.lora
    assert lora is not None, "only a trained trial has an adapter"
    split = json.loads(folder.split.read_text(encoding="utf-8"))
    row = {
        "format": FORMAT,
        "model": located(sweep.model),
        "quantization": sweep.quantization,
        "convention": sweep.convention,
        "lora": lora.to_json(),
        "variables": split["variables"],
        "codec": split["codec"],
    }
    return json.dumps(row, indent=1) + "\n"


def card(sweep: Sweep, winner: Trial) -> str:
    """A model card in the form of the Hugging Face hub."""
    last = winner.curve[-1]
    figures = {"validation_loss": last.validation_loss, **last.metrics}
    rows = "\n".join(f"| {name} | {value:.6g} |" for name, value in sorted(figures.items()))
    lora = winner.plan.config.lora
    bias = BIAS_NOTE if lora is not None and lora.head_bias else ""
    return f"""---
base_model: {sweep.model}
library_name: peft
tags: [lora, time-series-forecasting, lvray]
---
# {sweep.name}: the winner, {winner.plan.trial_id}

A LoRA adapter for `{sweep.model}` that forecasts time series written as text. It was trained for
{winner.step} steps by trial `{winner.plan.trial_id}` of the sweep `{sweep.name}`
(budget {format_flops(sweep.budget)} FLOPs, convention {sweep.convention}).
{bias}
| figure | value |
|---|---|
{rows}

Losses are in nats per token; forecast errors are in the data's units.

```json
{json.dumps(winner.plan.config.to_json(), indent=1)}
```
"""
