from __future__ import annotations

import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from lvray.core.errors import ModelError  # noqa: E402 -- after the check that torch is there
from lvray.core.trial import LoraConfig  # noqa: E402
from lvray.trainer.model import (  # noqa: E402
    attach,
    detach,
    linear_layers,
    load_adapter,
    load_base,
    pick_device,
)

CPU, FLOAT = torch.device("cpu"), torch.float32
TOKENS = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]])


def state(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=TOKENS).logits


def disturb(model):
    """Trains a little, so that the adapter says something."""
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.5)
    for _ in range(3):
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()


def test_a_base_is_loaded_once_and_frozen(model):
    base = load_base(model, device=CPU, dtype=FLOAT)
    assert load_base(model, device=CPU, dtype=FLOAT) is base
    assert not any(weight.requires_grad for weight in base.parameters())


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_the_base_comes_back_bit_for_bit(model, variant):
    base = load_base(model, device=CPU, dtype=FLOAT)
    before, said = state(base), logits(base)
    wrapped = attach(base, LoraConfig(rank=2, targets=("all-linear",), variant=variant), seed=1)
    disturb(wrapped.train())
    assert not torch.equal(logits(wrapped), said)
    back = detach(wrapped)
    after = state(back)
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(logits(back), said)
    assert not any(weight.requires_grad for weight in back.parameters())


def test_the_adapter_is_drawn_from_its_seed_and_disturbs_no_other_chance(model):
    base = load_base(model, device=CPU, dtype=FLOAT)
    lora = LoraConfig(rank=2)
    torch.manual_seed(5)
    chance = torch.random.get_rng_state()
    drawn = []
    for seed in (1, 1, 2):
        wrapped = attach(base, lora, seed=seed)
        drawn.append({n: w.clone() for n, w in wrapped.named_parameters() if "lora_A" in n})
        detach(wrapped)
    assert torch.equal(torch.random.get_rng_state(), chance)
    first, same, other = drawn
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_only_the_adapter_is_trained_and_it_starts_as_nothing(model):
    base = load_base(model, device=CPU, dtype=FLOAT)
    said = logits(base)
    wrapped = attach(base, LoraConfig(rank=2, targets=("q_proj", "v_proj")), seed=1)
    trainable = [name for name, weight in wrapped.named_parameters() if weight.requires_grad]
    assert trainable
    assert all("lora_" in name for name in trainable)
    assert torch.equal(logits(wrapped), said)
    detach(wrapped)


def test_a_saved_adapter_gives_identical_logits(model, tmp_path):
    base = load_base(model, device=CPU, dtype=FLOAT)
    wrapped = attach(base, LoraConfig(rank=2, targets=("all-linear",)), seed=1)
    disturb(wrapped.train())
    said = logits(wrapped)
    wrapped.save_pretrained(tmp_path)
    again = load_adapter(detach(wrapped), tmp_path)
    assert torch.equal(logits(again), said)
    detach(again)


def test_an_unknown_target_is_refused_with_the_real_ones(model):
    base = load_base(model, device=CPU, dtype=FLOAT)
    assert "q_proj" in linear_layers(base)
    assert "lm_head" not in linear_layers(base)
    with pytest.raises(ModelError, match=r"'q_prj'; it has down_proj.*v_proj"):
        attach(base, LoraConfig(targets=("q_prj",)), seed=1)


def test_a_model_that_is_nowhere_is_told_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="no model that can be loaded"):
        load_base(str(tmp_path), device=CPU, dtype=FLOAT)


def test_a_folder_without_an_adapter_is_told(model, tmp_path):
    base = load_base(model, device=CPU, dtype=FLOAT)
    with pytest.raises(ModelError, match="no adapter for this model"):
        load_adapter(base, tmp_path)


def test_a_device_that_is_not_there_is_told_with_those_that_are():
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ModelError, match=r"cuda is not to be had on this machine; it has .*cpu"):
        pick_device("cuda")
    assert pick_device("auto").type in {"cpu", "mps"}
