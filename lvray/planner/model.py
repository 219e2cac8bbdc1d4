"""Can the base model be had at all? Asked before anything is paid for, since a worker would ask too late."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from lvray.core.errors import ModelError, missing_model
from lvray.core.model_files import lacking

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


def ensure_whole(model: str, cache: Path) -> Path | None:
    """Finds the model where nobody can ask the hub: in the package, in a folder, or whole in the hub's cache.

    Args:
        model: as a sweep file names it.
        cache: `hub_cache` of whoever will load it.

    Returns:
        The folder that it lies in; None for the one in the package.

    Raises:
        ModelError: it is not there, or only a part of it; the message says what to download and how to point at it.
    """
    if model == TINY:
        return None
    folder = Path(model) if Path(model).is_dir() else _snapshot(model, cache)
    lacks = [] if folder is None else lacking(folder)
    if folder is not None and not lacks:
        return folder
    where = f"in {cache}" if folder is None else f"whole in {folder} (no {', '.join(lacks)})"
    own, hub = f"models/{Path(model).name.lower()}", model
    if folder == Path(model):
        own, hub = model, "ITS-HUB-ID"
    raise ModelError(
        f"model {model}: is not {where}, and nodes cannot ask the hub (offline: true); where there is a network, "
        f"`hf download {hub} --local-dir {own}`, then --set model={own}"
    )


def hub_cache(variables: Mapping[str, str]) -> Path:
    """Gives where the hub's client keeps downloads in an environment (docs of huggingface_hub, "Environment variables")."""
    home = variables.get("XDG_CACHE_HOME") or f"{variables.get('HOME', '~')}/.cache"
    own = variables.get("HF_HOME") or f"{home}/huggingface"
    cache = variables.get("HF_HUB_CACHE") or variables.get("HUGGINGFACE_HUB_CACHE") or f"{own}/hub"
    return Path(cache).expanduser()


def _snapshot(model: str, cache: Path) -> Path | None:
    """The folder of a hub id in the cache, as its client lays it out; None where there is none."""
    place = cache / f"models--{model.replace('/', '--')}"
    try:
        commit = (place / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    folder = place / "snapshots" / commit
    return folder if folder.is_dir() else None
