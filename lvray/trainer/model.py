"""How is a base model loaded, and an adapter put on it and taken off again?

The one place where our names (rank, alpha, targets) become peft's (r, lora_alpha, target_modules).
A process keeps one base model: attempts come and go on it, and each finds it as the first one did.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import safetensors.torch
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from lvray.core.errors import MachineError, ModelError
from lvray.core.run_folder import HEAD_BIAS
from lvray.core.trial import ALL_LINEAR, LoraConfig
from lvray.trainer.head import causal_model
from lvray.trainer.near import near_model, read_near
from lvray.trainer.tokenizer import TINY, missing

TINY_FOLDER = Path(__file__).parent / "tiny"

Model: TypeAlias = nn.Module
"""A causal language model of transformers, with or without peft's wrapping."""

PEFT_INIT = {
    "default": True,
    "kaiming-normal": True,  # peft has no name for it: `attach` draws A again
    "gaussian": "gaussian",
    "orthogonal": "orthogonal",
}
"""Our names of an adapter's first weights as peft's `init_lora_weights`."""

OLD_NAME = "`is_gradient_checkpointing`"
"""peft asks transformers by an attribute's old name: how the warning begins, which no user of ours could mend."""

_loaded: dict[tuple[str, str, str, str], Model] = {}
"""The process's one base model, by name, device, number type and quantization."""


class HeadBias(nn.Parameter):
    """A bias of the head that belongs to the adapter: `detach` takes it off, and no other."""


def pick_device(name: str) -> torch.device:
    """Gives the device by name; ``auto`` is CUDA, else MPS, else the CPU.

    Raises:
        MachineError: the machine has no such device, or one that does not work.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    have = [kind for kind, there in available.items() if there]
    kind = have[0] if name == "auto" else name
    if kind not in have:
        raise MachineError(
            f"device {kind} is not to be had on this machine, which has {', '.join(have)}: {_why_not(kind)}"
        )
    device = torch.device(kind)
    if kind == "cuda":
        _try_out(device)
    return device


def _why_not(kind: str) -> str:
    """What torch says of a device that it does not have, and what would be right."""
    if kind != "cuda":
        return f"torch {torch.__version__} finds none; name another one, or say auto"
    if torch.version.cuda is None:
        told = "is built without CUDA; install one that is built with it"
    else:
        told = (
            f"is built for CUDA {torch.version.cuda} and finds no GPU that it can use; "
            "`nvidia-smi` there tells whether the driver works and is new enough"
        )
    return f"torch {torch.__version__} {told}, or take the CPU (in a sweep, --set resources.device=cpu)"


def _try_out(device: torch.device) -> None:
    """Puts one number on the device: a GPU that is broken, or that another process has to itself, is listed all the same."""
    try:
        torch.zeros(1, device=device)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        raise MachineError(
            f"device {device} of this machine does not work: {first}; `nvidia-smi` there tells more"
        ) from error


def name_of(device: torch.device) -> str:
    """What a person calls the device: seconds mean little without it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "CPU" if device.type == "cpu" else device.type.upper()


def load_base(
    model: str, *, device: torch.device, dtype: torch.dtype, quantization: str = "none"
) -> Model:
    """Loads ``tiny``, a Hugging Face id or a folder, frozen; a second call gives the same object.

    Args:
        model: its name.
        device: where it is put.
        dtype: of its weights.
        quantization: ``none``, or ``nf4`` for 4-bit NormalFloat linear layers.

    Raises:
        ModelError: the model cannot be had; the message says how it could.
    """
    key = (model, str(device), str(dtype), quantization)
    if key not in _loaded:
        if quantization == "nf4":
            _check_four_bits(device)
        _loaded.clear()  # one base a process: two might not fit its memory
        _loaded[key] = _load(model, device, dtype, quantization)
    return _loaded[key]


def _load(model: str, device: torch.device, dtype: torch.dtype, quantization: str) -> Model:
    transformers_logging.disable_progress_bar()
    source = str(TINY_FOLDER) if model == TINY else model
    copy = None if model == TINY else near_model(model)

    def read(place: str) -> PreTrainedModel:
        if quantization == "nf4":
            return AutoModelForCausalLM.from_pretrained(
                place, dtype=dtype, quantization_config=_four_bits(), device_map={"": device}
            )
        return AutoModelForCausalLM.from_pretrained(place, dtype=dtype).to(device)

    try:
        base = read_near(source, copy, read, OSError, ValueError)
    except (OSError, ValueError) as error:
        raise ModelError(missing(model, error)) from error
    # What is written of it, wherever it was read.
    base.name_or_path = base.config.name_or_path = source
    # peft's `prepare_model_for_kbit_training` would also keep norms, embedding and head in 32 bits, which is most of
    # what 4 bits save in a small model, and compute gradients of the inputs, for checkpointing that nobody asked for.
    for weight in base.parameters():
        weight.requires_grad = False
    model_in_eval: Model = base.eval()
    return model_in_eval


def _four_bits() -> BitsAndBytesConfig:
    """4-bit NormalFloat, its constants quantized too, products in bf16: QLoRA, arXiv:2305.14314."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _check_four_bits(device: torch.device) -> None:
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            "quantization: nf4 needs the package bitsandbytes, which is not installed here; "
            "pip install 'lvray[qlora]', or set quantization: none"
        )
    if device.type != "cuda":
        raise ModelError(
            f"quantization: nf4 needs CUDA, and the trial would run on {name_of(device)}; "
            "run it on a machine with an NVIDIA GPU, or set quantization: none"
        )


def longest_text(base: Model) -> int:
    """Gives how many tokens the model was made to read, what it writes included."""
    config: Any = base.config
    return int(config.max_position_embeddings)


def attach(base: Model, lora: LoraConfig | None, seed: int) -> Model:
    """Puts a fresh adapter on `base`; None gives `base` itself.

    A and B are drawn from `seed` alone, and the process's random generators are left as they were.

    Raises:
        ModelError: a target that is no linear layer of the model (the real ones are listed), an orthogonal adapter
            of odd rank, or a bias for a head that has one.
    """
    if lora is None:
        return base
    _check_targets(base, lora)
    if lora.head_bias:
        _check_head(base)
    if lora.init == "orthogonal" and lora.rank % 2:
        raise ModelError(
            f"lora.init: orthogonal halves the rank between A and B; {lora.rank} is odd, take an even one"
        )
    config = PeftLoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=ALL_LINEAR if lora.targets == (ALL_LINEAR,) else list(lora.targets),
        lora_dropout=lora.dropout,
        use_rslora=lora.variant == "rslora",
        use_dora=lora.variant == "dora",
        init_lora_weights=PEFT_INIT[lora.init],
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=OLD_NAME, category=FutureWarning)
        torch.manual_seed(seed)
        wrapped: Model = get_peft_model(base, config)
        if lora.init == "kaiming-normal":
            _draw_kaiming_normal(wrapped)
    if lora.head_bias:
        _put_bias(wrapped, torch.zeros(causal_model(wrapped).get_output_embeddings().out_features))
    return wrapped


def _check_head(base: Model) -> None:
    """Asked before peft changes the base, which a refusal must leave as it is."""
    if causal_model(base).get_output_embeddings().bias is not None:
        raise ModelError(
            "lora.head_bias: the head of this model has a bias of its own; leave it out"
        )


def _draw_kaiming_normal(wrapped: Model) -> None:
    """Draws every A [rank, inputs] from N(0, 1 / inputs): arXiv:1502.01852, eq. 10, with the gain of a linear layer, 1."""
    for name, weight in wrapped.named_parameters():
        if ".lora_A." in name:
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)


def _put_bias(wrapped: Model, bias: torch.Tensor) -> None:
    """Gives the head a bias [K] that is trained."""
    head = causal_model(wrapped).get_output_embeddings()
    head.bias = HeadBias(bias.to(head.weight.device, torch.float32))


def detach(model: Model) -> Model:
    """Takes the adapter off and gives the base back, bit for bit as it was."""
    if not isinstance(model, PeftModel):
        return model
    head = causal_model(model).get_output_embeddings()
    if isinstance(head.bias, HeadBias):
        head.bias = None
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


def save_adapter(model: Model, folder: Path, *, base: str) -> None:
    """Writes the adapter as peft reads it, and a bias of the head beside it, which peft does not know.

    Nothing of the base model is written but its name in the task, `base`, wherever this machine happens to keep it.
    """
    assert isinstance(model, PeftModel), "only an adapter is saved"
    for config in model.peft_config.values():
        config.base_model_name_or_path = base
    model.save_pretrained(str(folder), save_embedding_layers=False)
    bias = causal_model(model).get_output_embeddings().bias
    if isinstance(bias, HeadBias):
        safetensors.torch.save_file({"bias": bias.detach().cpu()}, folder / HEAD_BIAS)


def load_adapter(base: Model, folder: Path) -> Model:
    """Puts a saved adapter on `base`, with the bias of the head if there is one, for forecasting.

    Raises:
        ModelError: the folder holds no adapter, or one for another model.
    """
    file = folder / HEAD_BIAS
    try:
        bias = safetensors.torch.load_file(file)["bias"] if file.exists() else None
        if bias is not None:
            _check_head(base)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=OLD_NAME, category=FutureWarning)
            wrapped: Model = PeftModel.from_pretrained(base, str(folder))
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        _loaded.clear()  # peft may have put half of it on: that base is not used again
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"{folder}: no adapter for this model: {first}") from error
    if bias is not None:
        _put_bias(wrapped, bias)
    return wrapped.eval()
