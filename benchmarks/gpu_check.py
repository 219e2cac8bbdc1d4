"""How fast does Qwen2.5-0.5B's shape train with LoRA on this GPU? Random weights, so nothing is downloaded.

    python benchmarks/gpu_check.py [--context 512] [--batch 4] [--rank 8] [--steps 20] [--nf4]

Needs torch, transformers and peft; neither Ray nor a sweep file. It uses lvray's own adapter and prices.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from lvray.core.trial import ALL_LINEAR, LoraConfig
from lvray.flops.price import train_step
from lvray.flops.shape import shape_of
from lvray.trainer.model import attach, load_base

MODEL = "Qwen/Qwen2.5-0.5B-Instruct"


def random_base(device: torch.device) -> Qwen2ForCausalLM:
    """A causal LM of Qwen2.5-0.5B's shape with random weights, bf16, frozen."""
    shape = shape_of(MODEL)
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=shape.tied_head,
    )
    with torch.device(device):
        base = Qwen2ForCausalLM(config).to(torch.bfloat16)
    for weight in base.parameters():
        weight.requires_grad = False
    return base


def in_four_bits(device: torch.device) -> nn.Module:
    """The same, its linear layers in 4 bits: written to the disk, as quantization begins with reading."""
    with TemporaryDirectory() as folder:
        random_base(torch.device("cpu")).save_pretrained(folder)
        return load_base(folder, device=device, dtype=torch.bfloat16, quantization="nf4")


def flops_per_second_of_matmul(device: torch.device, size: int = 8192, repeats: int = 20) -> float:
    """What a large bf16 product reaches here: the peak that matters, whatever the data sheet says."""
    left = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    right = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        left @ right
    torch.cuda.synchronize()
    begun = perf_counter()
    for _ in range(repeats):
        left @ right
    torch.cuda.synchronize()
    return repeats * 2 * size**3 / (perf_counter() - begun)


def main() -> int:
    """Prints step time, tokens per second and the share of the peak; 1 without CUDA."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--nf4", action="store_true", help="the frozen base in 4 bits")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print(
            "gpu_check: no CUDA device here; run it on a machine with an NVIDIA GPU",
            file=sys.stderr,
        )
        return 1
    device = torch.device("cuda")
    lora = LoraConfig(rank=arguments.rank, alpha=2.0 * arguments.rank, targets=(ALL_LINEAR,))
    base = in_four_bits(device) if arguments.nf4 else random_base(device)
    model = attach(base, lora, seed=0).train()
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-4)
    tokens = torch.randint(11, 27, (arguments.batch, arguments.context), device=device)
    times = []
    for _ in range(arguments.steps + 5):
        torch.cuda.synchronize()
        begun = perf_counter()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        times.append(perf_counter() - begun)
    step = statistics.median(times[5:])
    peak = flops_per_second_of_matmul(device)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(
        f"{MODEL} shape, LoRA rank {arguments.rank} on all linear layers, {arguments.batch} x {arguments.context} tokens"
    )
    print(f"step {1000 * step:.1f} ms, {arguments.batch * arguments.context / step:.0f} tokens/s")
    print(
        f"peak of a large bf16 product: {peak:.3e} FLOP/s; memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    )
    for convention in ("coursework", "palm-lora"):
        flops = train_step(
            shape_of(MODEL),
            lora=lora,
            convention=convention,
            context_length=arguments.context,
            batch_size=arguments.batch,
        )
        print(
            f"{convention}: {flops:.3e} FLOPs a step, {flops / step:.3e} FLOP/s, {flops / step / peak:.1%} of the peak"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
