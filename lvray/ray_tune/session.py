"""Starting and ending Ray, and what the machine offers to trials."""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from lvray.core.errors import LvrayError

NOISY = ("ray.tune", "ray.tune.tune", "ray.tune.execution.tune_controller")
"""Loggers that print the traceback of a trial that failed: our own view and journal tell of it."""

STARTS = 3
"""How often starting Ray is attempted."""


@dataclass(frozen=True, slots=True)
class Workers:
    """How many trials run at once, and what each of them gets."""

    count: int
    cpus: float
    """Cores a trial."""
    gpus: float
    """Share of a GPU a trial; 0 on a machine without."""

    @property
    def threads(self) -> int:
        """CPU threads that torch may use in one trial; two on shared cores slow each other down."""
        return max(1, int(self.cpus))


@contextmanager
def ray_session() -> Iterator[None]:
    """Starts Ray on this machine, or joins the cluster that RAY_ADDRESS names, and leaves it again."""
    joins = bool(os.environ.get("RAY_ADDRESS"))
    if not joins:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    own = (
        {}
        if joins
        else {"object_store_memory": 200 * 1024**2, "include_dashboard": _has_dashboard()}
    )
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(logging_level="ERROR", log_to_driver=False, **own)
            break
        except (
            RuntimeError
        ) as error:  # on a cold disk the first start of Ray's server can take longer than Ray waits
            ray.shutdown()
            if attempt == STARTS:
                raise LvrayError(f"Ray did not start in {STARTS} attempts: {error}") from error
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ray.shutdown()


def _has_dashboard() -> bool:
    """Whether ray[default] is installed: asking Ray for a dashboard without it raises."""
    return importlib.util.find_spec("aiohttp_cors") is not None


def workers_for(trials: int, *, wanted: int | None, trials_per_gpu: int, device: str) -> Workers:
    """Divides what the cluster has among the trials of a stage.

    Args:
        trials: how many trials there are to run; fewer trials get more cores each.
        wanted: how many at once, or None to let the machine decide: one a core, or as many as fit its GPUs.
        trials_per_gpu: how many trials share one GPU.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """
    have = ray.cluster_resources()
    cores = max(1, int(have.get("CPU", 1)))
    gpus = int(have.get("GPU", 0)) if device in {"auto", "cuda"} else 0
    fit = gpus * trials_per_gpu if gpus else cores
    count = max(1, min(trials, wanted or fit, fit))
    return Workers(count, cpus=max(1, cores // count), gpus=1 / trials_per_gpu if gpus else 0)
