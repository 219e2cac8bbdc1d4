from __future__ import annotations

import pytest

from lvray.core.errors import ModelError
from lvray.trainer.tokenizer import ByteTokenizer, load_tokenizer

pytestmark = pytest.mark.torch


def test_numeric_text_has_the_ids_of_qwen():
    encode = ByteTokenizer().encode
    assert encode("1.23") == [16, 13, 17, 18]
    assert encode("0123456789") == list(range(15, 25))
    assert encode(",.;-") == [11, 13, 26, 12]


def test_every_printable_ascii_character_is_its_code_less_33():
    text = "".join(map(chr, range(33, 127)))
    assert ByteTokenizer().encode(text) == [ord(character) - 33 for character in text]


@pytest.mark.parametrize(
    "text", ["", "0.95,1.04;", "grüße 雪 \n\t\x00", "".join(map(chr, range(300)))]
)
def test_any_text_comes_back(text):
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_ids_cover_all_bytes_once_and_leave_room_for_specials():
    tokenizer = ByteTokenizer()
    ids = {tokenizer.encode(bytes([byte]).decode("latin-1"))[-1] for byte in range(128)}
    assert len(ids) == 128
    assert tokenizer.pad_id == 256
    assert tokenizer.vocabulary == 260
    assert tokenizer.decode([256, 15, 257]) == "0"


def test_a_tokenizer_from_a_folder_gives_one_token_a_character(model):
    tokenizer = load_tokenizer(model)
    text = "1.23,-4.56;"
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids).replace(" ", "") == text


def test_a_tokenizer_that_joins_digits_is_refused(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["<pad>", *"0123456789.,;-", "1.23"])}
    made = Tokenizer(models.WordLevel(words, "<pad>"))
    made.pre_tokenizer = pre_tokenizers.Split(",", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="one a character"):
        load_tokenizer(str(tmp_path))


def test_a_folder_without_a_tokenizer_is_told(tmp_path):
    with pytest.raises(ModelError, match=r"no tokenizer|no model|cannot be loaded|neither"):
        load_tokenizer(str(tmp_path))
