"""Prints what one model, context and batch costs, component by component.

    python -m lvray.price [MODEL] [--context 512] [--batch 1] [--convention coursework]
                          [--rank R [--targets q_proj,v_proj | all-linear] [--head-bias]] [--json]

MODEL is ``tiny``, a Qwen2.5 by its Hugging Face id (default Qwen/Qwen2.5-0.5B-Instruct), or a local folder
with a config.json. Without --rank there is no adapter: the base model as it is. docs/flops.md explains the counts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence

from lvray.core.errors import LvrayError, UsageError
from lvray.core.output import say
from lvray.core.trial import LoraConfig
from lvray.core.units import format_flops, format_share
from lvray.flops.conventions import CONVENTIONS
from lvray.flops.price import Price, price
from lvray.flops.shape import shape_of

DEFAULT_MODEL = "Qwen/Qwen2.5-0.5B-Instruct"


def describe(priced: Price) -> str:
    """The price as a page of text: what was priced, a table whose shares add up to 100%, and a training step."""
    title = (
        f"{priced.shape.name}: {priced.batch_size} × {priced.context_length} tokens, "
        f"{_adapter(priced)}, convention {priced.convention}"
    )
    table = [
        f"{name:<20} {times:>6} {format_flops(flops):>10} {format_share(flops * count, priced.forward):>7}"
        for name, times, flops, count in _rows(priced)
    ]
    return "\n".join(
        [
            title,
            "",
            f"{'component':<20} {'times':>6} {'FLOPs each':>10} {'share':>7}",
            *table,
            "",
            f"{'forward':<20} {format_flops(priced.forward):>17}  {priced.forward:,} FLOPs",
            f"{'train':<20} {format_flops(priced.train):>17}  {priced.train:,} FLOPs",
            f"{'train, a token':<20} {format_flops(priced.flops_per_token):>17}",
        ]
    )


def _rows(priced: Price) -> Iterator[tuple[str, str, int, int]]:
    """Name, number of times as shown, FLOPs each, number of times; indented rows are parts of the row above."""
    layers = priced.layers

    def row(name: str, flops: int, count: int) -> tuple[str, str, int, int]:
        return name, f"×{count}" if count > 1 else "", flops, count

    yield row("positional", priced.positional, 1)
    yield row("block", priced.block, layers)
    yield row("  rmsnorm", priced.rmsnorm, 2 * layers)
    yield row("  attention", priced.attention, layers)
    yield row("  feed_forward", priced.feed_forward, layers)
    yield row("  residual", priced.residual, 2 * layers)
    yield row("lora", priced.lora, 1)
    yield row("final_norm", priced.final_norm, 1)
    yield row("lm_head", priced.lm_head, 1)
    yield row("softmax", priced.softmax, 1)


def _adapter(priced: Price) -> str:
    lora = priced.lora_config
    if lora is None:
        return "no adapter"
    trainable = priced.shape.trainable_weights(lora)
    bias = " and a bias of the head" if lora.head_bias else ""
    return f"LoRA of rank {lora.rank} on {', '.join(lora.targets)}{bias} ({trainable:,} weights)"


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line; 0 well, 1 a model that cannot be priced, 2 usage."""
    arguments = _parser().parse_args(argv)
    try:
        priced = price(
            shape_of(arguments.model),
            lora=_lora(arguments.rank, arguments.targets, head_bias=arguments.head_bias),
            convention=arguments.convention,
            context_length=arguments.context,
            batch_size=arguments.batch,
        )
    except LvrayError as error:
        print(f"lvray price: {error}", file=sys.stderr)
        return error.exit_code
    say(json.dumps(priced.to_json(), indent=1) if arguments.json else describe(priced))
    return 0


def _lora(rank: int | None, targets: str | None, *, head_bias: bool) -> LoraConfig | None:
    """The adapter that the command line asks for."""
    if rank is None:
        if head_bias:
            raise UsageError(
                "--head-bias without --rank: give the adapter's rank, such as --rank 8"
            )
        if targets is not None:
            raise UsageError(
                f"--targets {targets} without --rank: give the adapter's rank, such as --rank 8"
            )
        return None
    if targets is None:
        return LoraConfig(rank=rank, head_bias=head_bias)
    names = tuple(name.strip() for name in targets.split(","))
    return LoraConfig(rank=rank, targets=names, head_bias=head_bias)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lvray price", description="Prints what one model, context and batch costs."
    )
    parser.add_argument(
        "model",
        nargs="?",
        default=DEFAULT_MODEL,
        help=f"tiny, a Qwen2.5 id or a folder ({DEFAULT_MODEL})",
    )
    parser.add_argument("--context", type=int, default=512, help="tokens of a sequence (512)")
    parser.add_argument("--batch", type=int, default=1, help="sequences of a batch (1)")
    parser.add_argument(
        "--convention", default="coursework", help=f"{' or '.join(CONVENTIONS)} (coursework)"
    )
    parser.add_argument(
        "--rank", type=int, metavar="R", help="rank of a LoRA adapter; none without it"
    )
    parser.add_argument(
        "--targets", help="layers that it adapts: names with commas, or all-linear (q_proj,v_proj)"
    )
    parser.add_argument(
        "--head-bias", action="store_true", help="whether a bias of the head is trained too"
    )
    parser.add_argument("--json", action="store_true", help="for programs; FLOPs as strings")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
