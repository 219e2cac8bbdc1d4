"""Is a base model whole in a folder, as transformers loads it?

A download that was broken off, or one that asked for the config alone, looks like a model and is none.
"""

from __future__ import annotations

import json
from pathlib import Path


def lacking(folder: Path) -> list[str]:
    """Gives the files of config, tokenizer and weights that are not there; none of a whole model."""
    lacks = [] if (folder / "config.json").is_file() else ["config.json"]
    tokenizers = "tokenizer_config.json", "tokenizer.json"
    if not any((folder / name).is_file() for name in tokenizers):
        lacks.append(tokenizers[0])
    return lacks + _lacking_weights(folder)


def _lacking_weights(folder: Path) -> list[str]:
    for name in ("model.safetensors", "pytorch_model.bin"):  # in transformers' own order
        if (folder / name).is_file():
            return []
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            except (ValueError, KeyError):
                return [index.name]
            return sorted(part for part in parts if not (folder / part).is_file())
    return ["model.safetensors"]
