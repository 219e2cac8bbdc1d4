from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel

from lvray.core.errors import MachineError, ModelError
from lvray.core.trial import LoraConfig
from lvray.trainer import model as model_room
from lvray.trainer.model import (
    attach,
    detach,
    linear_layers,
    load_adapter,
    load_base,
    pick_device,
    save_adapter,
)

pytestmark = pytest.mark.torch

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


VARIANTS = ("lora", "rslora", "dora")
INITS = ("default", "kaiming-normal", "gaussian", "orthogonal")
ADAPTERS = [
    *(LoraConfig(rank=2, targets=("all-linear",), variant=variant) for variant in VARIANTS),
    *(LoraConfig(rank=2, variant=variant, head_bias=True) for variant in VARIANTS),
    *(LoraConfig(rank=2, init=init) for init in INITS),
]


def named(lora):
    return f"{lora.variant} {lora.init}{' bias' * lora.head_bias}"


@pytest.mark.parametrize("lora", ADAPTERS, ids=named)
def test_the_base_comes_back_bit_for_bit(model, lora):
    base = load_base(model, device=CPU, dtype=FLOAT)
    before, said = state(base), logits(base)
    wrapped = attach(base, lora, seed=1)
    disturb(wrapped.train())
    assert not torch.equal(logits(wrapped), said)
    back = detach(wrapped)
    after = state(back)
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(logits(back), said)
    assert not any(weight.requires_grad for weight in back.parameters())


@pytest.mark.parametrize("init", INITS)
def test_the_adapter_is_drawn_from_its_seed_and_disturbs_no_other_chance(model, init):
    base = load_base(model, device=CPU, dtype=FLOAT)
    lora = LoraConfig(rank=2, init=init)
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


@pytest.mark.parametrize("lora", ADAPTERS, ids=named)
def test_a_saved_adapter_gives_identical_logits(model, tmp_path, lora):
    base = load_base(model, device=CPU, dtype=FLOAT)
    before = state(base)
    wrapped = attach(base, lora, seed=1)
    disturb(wrapped.train())
    said = logits(wrapped)
    save_adapter(wrapped, tmp_path, base="a-name")
    back = detach(wrapped)
    assert not torch.equal(logits(back), said)
    again = load_adapter(back, tmp_path)
    assert torch.equal(logits(again), said)
    after = state(detach(again))
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


# %% First weights


def first_weights(base, **how):
    wrapped = attach(base, LoraConfig(rank=16, targets=("all-linear",), **how), seed=3)
    weights = {
        name: w.detach().clone() for name, w in wrapped.named_parameters() if "lora_" in name
    }
    said = logits(wrapped)
    detach(wrapped)
    a = {name: weight for name, weight in weights.items() if "lora_A" in name}
    b = {name: weight for name, weight in weights.items() if "lora_B" in name}
    return a, b, said


@pytest.mark.parametrize(
    ("init", "deviation"),
    [
        ("default", lambda inputs: (3 * inputs) ** -0.5),  # uniform up to 1/√inputs
        ("kaiming-normal", lambda inputs: inputs**-0.5),
        ("gaussian", lambda _inputs: 1 / 16),
    ],
)
def test_a_is_as_large_as_its_name_says_and_b_is_nothing(model, init, deviation):
    base = load_base(model, device=CPU, dtype=FLOAT)
    a, b, said = first_weights(base, init=init)
    scaled = torch.cat([(w / deviation(w.shape[1])).flatten() for w in a.values()])
    assert scaled.std().item() == pytest.approx(1, abs=0.03)
    assert scaled.mean().item() == pytest.approx(0, abs=0.03)
    beyond = (scaled.abs() > 3**0.5 + 1e-3).float().mean().item()
    assert beyond == (0 if init == "default" else pytest.approx(0.083, abs=0.02)), "normal tails"
    assert not any(weight.any() for weight in b.values())
    assert torch.equal(said, logits(base))


def test_orthogonal_a_and_b_say_nothing_together_though_neither_is_nothing(model):
    base = load_base(model, device=CPU, dtype=FLOAT)
    a, b, said = first_weights(base, init="orthogonal")
    for down, up in zip(a.values(), b.values(), strict=True):
        assert up.abs().max() > 0.01
        torch.testing.assert_close(
            up @ down, torch.zeros(len(up), down.shape[1]), rtol=0, atol=1e-5
        )
    torch.testing.assert_close(said, logits(base), rtol=1e-4, atol=1e-4)


def test_an_odd_orthogonal_rank_is_told_in_words(model):
    base = load_base(model, device=CPU, dtype=FLOAT)
    with pytest.raises(ModelError, match="3 is odd"):
        attach(base, LoraConfig(rank=3, init="orthogonal"), seed=1)


# %% The bias of the head


def test_the_bias_starts_as_nothing_and_is_trained(model):
    base = load_base(model, device=CPU, dtype=FLOAT)
    said = logits(base)
    wrapped = attach(base, LoraConfig(rank=2, head_bias=True), seed=1)
    assert torch.equal(logits(wrapped), said)
    disturb(wrapped.train())
    assert wrapped.get_base_model().lm_head.bias.abs().max() > 0
    detach(wrapped)
    assert base.lm_head.bias is None


def test_a_head_with_a_bias_of_its_own_is_refused_and_the_base_stays_as_it_was(model):
    base = load_base(model, device=CPU, dtype=torch.float32)
    head = base.get_output_embeddings()
    before = [type(layer) for layer in base.modules()]
    head.bias = torch.nn.Parameter(torch.zeros(head.out_features), requires_grad=False)
    try:
        with pytest.raises(ModelError, match="a bias of its own"):
            attach(base, LoraConfig(rank=2, head_bias=True), seed=1)
    finally:
        head.bias = None
    assert [type(layer) for layer in base.modules()] == before


def test_plain_peft_reads_the_same_folder_and_lacks_the_bias_alone(model, tmp_path):
    """What the card says of it."""
    base = load_base(model, device=CPU, dtype=FLOAT)
    wrapped = attach(base, LoraConfig(rank=2, head_bias=True), seed=1)
    disturb(wrapped.train())
    said, bias = logits(wrapped), wrapped.get_base_model().lm_head.bias.detach().clone()
    save_adapter(wrapped, tmp_path, base="a-name")
    plain = PeftModel.from_pretrained(detach(wrapped), str(tmp_path))
    torch.testing.assert_close(logits(plain) + bias, said)
    detach(plain)


def test_a_damaged_bias_is_told(model, tmp_path):
    base = load_base(model, device=CPU, dtype=FLOAT)
    wrapped = attach(base, LoraConfig(rank=2, head_bias=True), seed=1)
    save_adapter(wrapped, tmp_path, base="a-name")
    (tmp_path / "head_bias.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="no adapter for this model"):
        load_adapter(detach(wrapped), tmp_path)
    assert base.lm_head.bias is None


def test_an_adapter_that_does_not_fit_leaves_no_half_of_itself_behind(model, tmp_path):
    """peft puts layers in before it reads weights: here weights of another rank."""
    wrapped = attach(load_base(model, device=CPU, dtype=FLOAT), LoraConfig(rank=2), seed=1)
    save_adapter(wrapped, tmp_path, base="a-name")
    detach(wrapped)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**written, "r": 3}))
    with pytest.raises(ModelError, match="no adapter for this model"):
        load_adapter(load_base(model, device=CPU, dtype=FLOAT), tmp_path)
    again = load_base(model, device=CPU, dtype=FLOAT)
    assert not any("lora" in name for name, _ in again.named_modules())


# %% Four bits


def test_four_bits_without_the_package_or_without_cuda_are_told_in_words(model, monkeypatch):
    with monkeypatch.context() as there:
        there.setattr(model_room, "find_spec", lambda _name: None)
        with pytest.raises(ModelError, match=r"pip install 'lvray\[qlora\]'"):
            load_base(model, device=CPU, dtype=FLOAT, quantization="nf4")
    monkeypatch.setattr(model_room, "find_spec", lambda _name: object())
    with pytest.raises(ModelError, match="needs CUDA, and the trial would run on CPU"):
        load_base(model, device=CPU, dtype=FLOAT, quantization="nf4")


def test_four_bits_load_train_and_leave_the_base_as_it_was():
    """The loading code itself; where bitsandbytes is, its linear layers run on a CPU too."""
    pytest.importorskip("bitsandbytes")
    base, same = (model_room._load("tiny", CPU, torch.bfloat16, "nf4") for _ in range(2))
    kinds = {type(layer).__name__ for layer in base.modules() if isinstance(layer, torch.nn.Linear)}
    assert kinds == {"Linear4bit", "Linear"}, "the head stays as it is"
    assert not any(weight.requires_grad for weight in base.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wrapped = attach(base, LoraConfig(rank=2, targets=("all-linear",), head_bias=True), seed=1)
        disturb(wrapped.train())  # first: on a CPU bitsandbytes lays weights out anew to evaluate
        moved = [
            w.any() for name, w in wrapped.named_parameters() if "lora_B" in name or "bias" in name
        ]
        assert all(moved), "B and the bias begin as nothing"
        assert torch.equal(logits(detach(wrapped)), logits(same))


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
    with pytest.raises(MachineError) as told:
        pick_device("cuda")
    assert "device cuda is not to be had on this machine, which has" in str(told.value)
    assert torch.__version__ in str(told.value)
    built = torch.version.cuda or "built without CUDA"
    assert built in str(told.value)
    assert "resources.device=cpu" in str(told.value)
    assert pick_device("auto").type in {"cpu", "mps"}
