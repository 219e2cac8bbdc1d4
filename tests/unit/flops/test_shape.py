"""Shapes: built in, read from a folder, refused."""

import json
from pathlib import Path

import pytest

from lvray.core.errors import ModelError
from lvray.core.trial import LoraConfig
from lvray.flops.shape import SHAPES, TINY, shape_of

SMALL = "Qwen/Qwen2.5-0.5B-Instruct"
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 160,
    "vocab_size": 99,
}


@pytest.fixture
def folder(tmp_path):
    def write(fields):
        text = fields if isinstance(fields, str) else json.dumps(fields)
        (tmp_path / "config.json").write_text(text)
        return str(tmp_path)

    return write


@pytest.mark.parametrize(
    ("model", "parameters"),  # of the released weights
    [
        ("Qwen/Qwen2.5-0.5B", 494_032_768),
        ("Qwen/Qwen2.5-1.5B", 1_543_714_304),
        ("Qwen/Qwen2.5-3B", 3_085_938_688),
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("Qwen/Qwen2.5-14B", 14_770_033_664),
        ("Qwen/Qwen2.5-32B", 32_763_876_352),
        ("Qwen/Qwen2.5-72B", 72_706_203_648),
    ],
)
def test_the_family_has_the_published_numbers_of_parameters(model, parameters):
    assert shape_of(model).parameters() == parameters
    assert shape_of(f"{model}-Instruct").parameters() == parameters
    assert shape_of(f"{model}-Instruct").name == f"{model}-Instruct"


@pytest.mark.parametrize(("rank", "weights"), [(2, 135_168), (4, 270_336), (8, 540_672)])
def test_adapters_on_queries_and_values_have_the_courses_numbers_of_weights(rank, weights):
    lora = LoraConfig(rank=rank, targets=("q_proj", "v_proj"))

    assert shape_of(SMALL).adapter_weights(lora) == weights


@pytest.mark.parametrize(("rank", "weights"), [(2, 287_104), (4, 422_272), (8, 692_608)])
def test_with_the_bias_of_the_head_as_many_weights_are_trained_as_in_the_course(rank, weights):
    lora = LoraConfig(rank=rank, targets=("q_proj", "v_proj"), head_bias=True)

    assert shape_of(SMALL).trainable_weights(lora) == weights
    assert shape_of(SMALL).trainable_weights(None) == 0


def test_all_linear_is_every_layer_of_a_block_and_dora_adds_a_magnitude_an_output():
    every = LoraConfig(rank=2, targets=("all-linear",))
    layers = TINY.linear_layers()

    assert TINY.adapted_layers(every) == layers
    assert TINY.adapter_weights(every) == 4 * 2 * sum(a + b for a, b in layers.values())
    dora = LoraConfig(rank=2, targets=("all-linear",), variant="dora")
    magnitudes = TINY.adapter_weights(dora) - TINY.adapter_weights(every)
    assert magnitudes == 4 * sum(outputs for _, outputs in layers.values())


def test_no_adapter_has_no_weights():
    assert TINY.adapter_weights(None) == 0
    assert TINY.adapted_layers(None) == {}


def test_an_unknown_target_is_answered_with_the_real_ones():
    with pytest.raises(ModelError, match=r"no linear layer 'c_attn'.*q_proj, k_proj.*all-linear"):
        TINY.adapted_layers(LoraConfig(targets=("q_proj", "c_attn")))


def test_multi_head_widens_keys_and_values_only():
    wide = TINY.multi_head().linear_layers()

    assert wide["k_proj"] == wide["v_proj"] == wide["q_proj"] == (128, 128)
    assert {name for name in wide if wide[name] != TINY.linear_layers()[name]} == {
        "k_proj",
        "v_proj",
    }


def test_tiny_is_the_model_inside_the_package():
    folder = Path(__file__).parents[3] / "lvray" / "trainer" / "tiny"
    read = shape_of(str(folder))

    assert {name: getattr(read, name) for name in _numbers()} == {
        name: getattr(TINY, name) for name in _numbers()
    }


def _numbers():
    return [name for name in TINY.__dataclass_fields__ if name != "name"]


def test_a_folder_is_read_with_the_defaults_of_its_architecture(folder):
    shape = shape_of(folder(LLAMA))

    assert (shape.heads, shape.kv_heads, shape.head_dim) == (4, 4, 16)
    assert not shape.tied_head
    assert not shape.attention_bias
    assert shape_of(folder({**LLAMA, "model_type": "qwen2"})).attention_bias
    assert shape_of(folder({**LLAMA, "head_dim": 32, "num_key_value_heads": 1})).head_dim == 32


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("{", "not JSON"),
        ("[]", "holds list"),
        ({**LLAMA, "model_type": "gpt2"}, "'gpt2'.*qwen2, llama, mistral"),
        ({**LLAMA, "hidden_act": "gelu"}, "'gelu'"),
        ({**LLAMA, "vocab_size": "many"}, "vocab_size is 'many'"),
        ({**LLAMA, "num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({**LLAMA, "hidden_size": True}, "hidden_size is True"),
        ({name: LLAMA[name] for name in LLAMA if name != "vocab_size"}, "vocab_size is None"),
    ],
)
def test_a_config_that_cannot_be_priced_is_refused_in_words(folder, fields, message):
    with pytest.raises(ModelError, match=message):
        shape_of(folder(fields))


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json: cannot be read: No such file"):
        shape_of(str(tmp_path))


def test_an_unknown_model_is_answered_with_the_nearest_names():
    with pytest.raises(ModelError, match=r"did you mean Qwen/Qwen2\.5-0\.5B"):
        shape_of("Qwen/Qwen2.5-0.5")
    with pytest.raises(ModelError, match="tiny"):
        shape_of("tiney")
    with pytest.raises(ModelError, match=r"did you mean .*tiny"):
        shape_of("gpt2")


def test_every_built_in_shape_is_found_by_its_own_name():
    assert all(shape_of(name).name == name for name in SHAPES)
    assert len(SHAPES) == 2 * 7 + 1
