"""The shipped base model is what its card says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.torch

FOLDER = Path(__file__).parents[2] / "lvray" / "trainer" / "tiny"


@pytest.fixture(scope="module")
def base():
    import torch

    from lvray.trainer.model import load_base

    return load_base("tiny", device=torch.device("cpu"), dtype=torch.float32)


def test_it_is_small_and_its_card_tells_its_size(base):
    count = sum(weight.numel() for weight in base.parameters())
    assert 1_000_000 <= count <= 2_000_000
    assert f"{count:,}" in (FOLDER / "MODEL_CARD.md").read_text()
    assert (FOLDER / "model.safetensors").stat().st_size <= 6 * 2**20


def test_it_reads_the_text_format_far_better_than_a_uniform_guess(base):
    import torch

    from lvray.series.codec import Codec
    from lvray.series.predator_prey import coursework
    from lvray.trainer.tokenizer import ByteTokenizer

    values = np.asarray(coursework(seed=1, systems=6), dtype=np.float64)
    codec = Codec.fit(values, decimals=2, method="percentile")
    losses = []
    for series in values:
        ids = ByteTokenizer().encode(codec.encode(series, codec.scale_of(series)))[:1000]
        tokens = torch.tensor([ids])
        with torch.no_grad():
            losses.append(base(input_ids=tokens, labels=tokens).loss.item())
    loss = sum(losses) / len(losses)
    assert loss < math.log(13) / 2
    assert loss > 0.3, "a base that leaves nothing to learn"


def test_its_log_ends_at_the_loss_on_its_card():
    rows = [json.loads(line) for line in (FOLDER / "pretraining.jsonl").read_text().splitlines()]
    assert f"{rows[-1]['held_out_loss']:.3f} nats" in (FOLDER / "MODEL_CARD.md").read_text()
    assert rows[-1]["tokens"] > 10**7


def test_pretraining_draws_series_in_the_text_format():
    from lvray.trainer.tiny.pretrain import draw_batch, draw_series, write_text
    from lvray.trainer.tokenizer import ByteTokenizer

    series = draw_series(np.random.default_rng(0), 4, 50, 2)
    assert series.shape == (4, 50, 2)
    assert np.isfinite(series).all()
    assert write_text(series[0, :1], 2).endswith(";")
    batch = draw_batch(np.random.default_rng(1), 3, 256)
    assert batch.shape == (3, 256)
    text = ByteTokenizer().decode(batch[0].tolist())
    assert set(text) <= set("0123456789.,;-")
