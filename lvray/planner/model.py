"""Can the base model be had at all? Asked before anything is paid for, since a worker would ask too late."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lvray.core.errors import ModelError, missing_model

TINY = "tiny"
HUB_SECONDS = 10


def ensure_available(model: str, quantization: str = "none") -> None:
    """Finds the model in the package, in a folder, in the hub's cache or on the hub; loads nothing.

    Raises:
        ModelError: it is nowhere (the message says what to download and how to point at it), or what quantizes it is
            not installed.
    """
    if quantization == "nf4" and find_spec("bitsandbytes") is None:
        raise ModelError(
            "quantization: nf4 needs the package bitsandbytes, which is not installed here; "
            "pip install 'lvray[qlora]', or set quantization: none"
        )
    if model == TINY or Path(model).is_dir():
        return
    from huggingface_hub import HfApi, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(model, "config.json"), str):
        return
    try:
        HfApi().model_info(model, timeout=HUB_SECONDS)
    except Exception as error:  # whatever the hub's client raises, the remedy is the same
        raise ModelError(missing_model(model, str(error).splitlines()[0])) from error
