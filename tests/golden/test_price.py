"""`lvray price`: whole pages against files, light imports, clear refusals.

A page that changed on purpose is written anew by its own command, e.g.
``python -m lvray.price > tests/golden/price_default.txt``; the diff then shows what changed.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lvray.price import main

GOLDEN = Path(__file__).parent
PAGES = {
    "default": [],
    "lora": ["--rank", "8", "--context", "768", "--batch", "4"],
    "tiny_palm": ["tiny", "--rank", "4", "--targets", "all-linear", "--convention", "palm-lora"],
    "default_json": ["--json"],
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_reads_as_it_did(page, capsys):
    assert main(PAGES[page]) == 0

    assert capsys.readouterr().out == (GOLDEN / f"price_{page}.txt").read_text(encoding="utf-8")


def test_the_shares_of_a_page_add_up_to_everything(capsys):
    main(["tiny", "--rank", "8"])
    shares = [
        float(line.split()[-1].rstrip("%"))
        for line in capsys.readouterr().out.splitlines()
        if line.endswith("%") and not line.startswith(" ")
    ]

    assert sum(shares) == pytest.approx(100, abs=0.3)


def test_the_bias_of_the_head_is_among_the_weights_that_are_trained(capsys):
    assert main(["--rank", "2", "--head-bias"]) == 0
    assert "q_proj, v_proj and a bias of the head (287,104 weights)" in capsys.readouterr().out


def test_json_has_every_component(capsys):
    main(["--json"])

    keys = (
        "positional rmsnorm residual attention feed_forward block blocks final_norm lm_head softmax"
    )
    assert {*keys.split(), "lora", "forward", "train"} <= json.loads(capsys.readouterr().out).keys()


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["--context", "0"], 2, "context_length is 0"),
        (["--convention", "flops"], 2, "no FLOP convention 'flops'"),
        (["--rank", "0"], 2, "rank is 0"),
        (["--targets", "q_proj"], 2, "--targets q_proj without --rank"),
        (["--head-bias"], 2, "--head-bias without --rank"),
        (["--rank", "2", "--targets", "q_proj,wq"], 1, "no linear layer 'wq'"),
        (["Qwen/Qwen2.5-0.5"], 1, "did you mean Qwen/Qwen2.5-0.5B"),
    ],
)
def test_what_cannot_be_priced_is_one_clear_message(argv, code, message, capsys):
    assert main(argv) == code

    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("lvray price: ")
    assert message in told.err
    assert told.err.count("\n") == 1


def test_a_word_for_a_number_is_a_usage_error():
    with pytest.raises(SystemExit) as exit_:
        main(["--batch", "many"])
    assert exit_.value.code == 2


def test_it_starts_without_torch_ray_or_numpy():
    heavy = {"torch", "ray", "numpy", "pydantic", "transformers"}
    code = "import sys, lvray.price; lvray.price.main([]); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "lvray.flops.price" in done.stderr.split()
    assert heavy.isdisjoint(done.stderr.split())
