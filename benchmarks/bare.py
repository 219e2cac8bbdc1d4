"""The yardstick of the other benchmarks: a plain transformers + PEFT training loop, nothing of lvray's own."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

TINY = Path(__file__).resolve().parents[1] / "lvray" / "trainer" / "tiny"


def bare_model(rank: int, seed: int = 0) -> nn.Module:
    """The shipped base model with a LoRA adapter on all linear layers."""
    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model: nn.Module = get_peft_model(base, config)
    return model.train()


def seconds_of_steps(
    model: nn.Module, *, steps: int, batch_size: int, context_length: int
) -> float:
    """Wall-clock seconds of `steps` optimizer steps on random numeric tokens."""
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(11, 27, (steps, batch_size, context_length), generator=generator)
    begun = perf_counter()
    for batch in tokens:
        model(input_ids=batch, labels=batch).loss.backward()
        nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return perf_counter() - begun


def seconds_of_forward(model: nn.Module, *, batch_size: int, context_length: int) -> float:
    """Wall-clock seconds of one forward pass without gradients."""
    tokens = torch.randint(
        11, 27, (batch_size, context_length), generator=torch.Generator().manual_seed(0)
    )
    begun = perf_counter()
    with torch.no_grad():
        model(input_ids=tokens)
    return perf_counter() - begun
