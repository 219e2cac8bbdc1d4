"""Starting and ending Ray, and what its nodes offer to trials."""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ray

from lvray.core.errors import LvrayError
from lvray.ray_tune.capacity import Node

NOISY = (
    "ray.tune",
    "ray.tune.tune",
    "ray.tune.execution.tune_controller",
    "ray.tune.execution.insufficient_resources_manager",
)
"""Loggers that tell of trials that failed or find no room: our own view and journal do."""

STARTS = 3
"""How often starting Ray is attempted."""


@contextmanager
def ray_session(*, dashboard: bool = False) -> Iterator[str]:
    """Starts Ray on this machine, or joins the cluster that RAY_ADDRESS names, and leaves it again.

    Args:
        dashboard: whether a Ray that is started here gets its dashboard; a cluster has the one it was started with.

    Yields:
        A sentence on where the dashboard is; empty where there is none.

    Raises:
        LvrayError: Ray does not start, or a dashboard is wanted that is not installed.
    """
    joins = bool(os.environ.get("RAY_ADDRESS"))
    # Without an address Ray would join whatever cluster someone has started on this machine.
    own = {} if joins else {"address": "local", "object_store_memory": 200 * 1024**2}
    if not joins:
        own["include_dashboard"] = dashboard
        if dashboard:
            _ensure_dashboard()
            _keep_token()
        else:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    for attempt in range(1, STARTS + 1):
        try:
            context = ray.init(logging_level="ERROR", log_to_driver=False, **own)
            break
        except Exception as error:
            if not _is_slow_start(error):
                raise
            ray.shutdown()
            if attempt == STARTS:
                raise LvrayError(f"Ray did not start in {STARTS} attempts: {error}") from error
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield where_dashboard(context.dashboard_url, os.environ)
    finally:
        ray.shutdown()


def _is_slow_start(error: Exception) -> bool:
    """Whether Ray may start if it is asked again: on a cold or busy machine its server can take longer than Ray waits.

    It says so by a RuntimeError or, where its node is not known within 30 s, by an Exception of no kind.
    """
    return isinstance(error, RuntimeError) or type(error) is Exception


def _keep_token() -> None:
    """Puts a token where Ray looks for one, since a browser asks a person for it; one that is there stays.

    Ray would make the file itself, but readable to everyone on the machine.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    path = Path.home() / ".ray" / "auth_token"
    if path.exists():
        return
    try:
        path.parent.mkdir(exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    except OSError as error:
        raise LvrayError(
            f"{path}: the dashboard's token cannot be kept there: {error.strerror}; set RAY_AUTH_TOKEN_PATH to a file that has one"
        ) from error


def where_dashboard(address: str | None, environment: Mapping[str, str]) -> str:
    """Says where Ray's dashboard is and where its token is found, but never the token.

    Args:
        address: host and port, as Ray tells them; nothing where there is no dashboard.
        environment: of the driver, in which Ray looks for its token in this order.
    """
    if not address:
        return ""
    if environment.get("RAY_AUTH_MODE") != "token":
        return f"Ray's dashboard: http://{address}"
    if environment.get("RAY_AUTH_TOKEN"):
        place = "in RAY_AUTH_TOKEN, in this driver's environment"
    elif environment.get("RAY_AUTH_TOKEN_PATH"):
        place = f"in {environment['RAY_AUTH_TOKEN_PATH']}"
    else:
        place = "what `ray get-auth-token` prints"
    return f"Ray's dashboard: http://{address}, the token it asks for: {place}"


def _ensure_dashboard() -> None:
    """Raises an error in words where Ray's dashboard is not installed."""
    if importlib.util.find_spec("aiohttp_cors") is None:
        raise LvrayError(
            "resources.dashboard asks for Ray's dashboard, which is not installed: `pip install 'lvray[cluster]'`, or leave it out"
        )


def nodes() -> tuple[Node, ...]:
    """Gives the nodes of the cluster that are alive, as Ray knows them.

    Of a machine that lost its power Ray knows after some 15 seconds.
    """
    return tuple(
        Node(
            node["NodeManagerHostname"],
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    )
