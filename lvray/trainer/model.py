"""How is a base model loaded, and an adapter put on it and taken off again?

The one place where our names (rank, alpha, targets) become peft's (r, lora_alpha, target_modules).
A process keeps one base model: attempts come and go on it, and each finds it as the first one did.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, TypeAlias

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from lvray.core.errors import ModelError
from lvray.core.trial import ALL_LINEAR, LoraConfig
from lvray.trainer.tokenizer import TINY, missing

TINY_FOLDER = Path(__file__).parent / "tiny"

Model: TypeAlias = nn.Module
"""A causal language model of transformers, with or without peft's wrapping."""

_loaded: dict[tuple[str, str, str], Model] = {}
"""The process's one base model, by name, device and number type."""


def pick_device(name: str) -> torch.device:
    """Gives the device by name; ``auto`` is CUDA, else MPS, else the CPU.

    Raises:
        ModelError: the machine has no such device.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if not available.get(name, False):
        have = ", ".join(kind for kind, there in available.items() if there)
        raise ModelError(
            f"resources.device: {name} is not to be had on this machine; it has {have} (or say auto)"
        )
    return torch.device(name)


def name_of(device: torch.device) -> str:
    """What a person calls the device: seconds mean little without it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "CPU" if device.type == "cpu" else device.type.upper()


def load_base(model: str, *, device: torch.device, dtype: torch.dtype) -> Model:
    """Loads ``tiny``, a Hugging Face id or a folder, frozen; a second call gives the same object.

    Raises:
        ModelError: the model cannot be had; the message says how it could.
    """
    key = (model, str(device), str(dtype))
    if key not in _loaded:
        _loaded.clear()  # one base a process: two might not fit its memory
        _loaded[key] = _load(model, dtype).to(device)
    return _loaded[key]


def _load(model: str, dtype: torch.dtype) -> Model:
    transformers_logging.disable_progress_bar()
    source = str(TINY_FOLDER) if model == TINY else model
    try:
        base = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    except (OSError, ValueError) as error:
        raise ModelError(missing(model, error)) from error
    for weight in base.parameters():
        weight.requires_grad = False
    model_in_eval: Model = base.eval()
    return model_in_eval


def attach(base: Model, lora: LoraConfig | None, seed: int) -> Model:
    """Puts a fresh adapter on `base`; None gives `base` itself.

    A and B are drawn from `seed` alone, and the process's random generators are left as they were.

    Raises:
        ModelError: a target that is no linear layer of the model; the real ones are listed.
    """
    if lora is None:
        return base
    _check_targets(base, lora)
    config = PeftLoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=ALL_LINEAR if lora.targets == (ALL_LINEAR,) else list(lora.targets),
        lora_dropout=lora.dropout,
        use_rslora=lora.variant == "rslora",
        use_dora=lora.variant == "dora",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        # peft asks transformers by an attribute's old name; nothing that a user of ours could mend.
        warnings.filterwarnings(
            "ignore", message="`is_gradient_checkpointing`", category=FutureWarning
        )
        torch.manual_seed(seed)
        wrapped: Model = get_peft_model(base, config)
    return wrapped


def detach(model: Model) -> Model:
    """Takes the adapter off and gives the base back, bit for bit as it was."""
    if not isinstance(model, PeftModel):
        return model
    base: Any = model.unload()
    if hasattr(base, "peft_config"):
        del base.peft_config  # or peft warns of a second adapter when the next one is attached
    for weight in base.parameters():
        weight.requires_grad = False
    result: Model = base.eval()
    return result


def linear_layers(base: Model) -> tuple[str, ...]:
    """Names that `targets` may hold: the linear layers of the blocks, the head left out."""
    names = {
        name.rpartition(".")[2]
        for name, layer in base.named_modules()
        if isinstance(layer, nn.Linear)
    }
    return tuple(sorted(names - {"lm_head"}))


def _check_targets(base: Model, lora: LoraConfig) -> None:
    real = linear_layers(base)
    for target in lora.targets:
        if target != ALL_LINEAR and target not in real:
            raise ModelError(
                f"lora.targets: the model has no linear layer {target!r}; it has {', '.join(real)} "
                f"(or {ALL_LINEAR} for all of them)"
            )


def load_adapter(base: Model, folder: Path) -> Model:
    """Puts a saved adapter on `base`, for forecasting.

    Raises:
        ModelError: the folder holds no adapter, or one for another model.
    """
    try:
        wrapped: Model = PeftModel.from_pretrained(base, str(folder))
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"{folder}: no adapter for this model: {first}") from error
    return wrapped.eval()
