"""What ended an attempt: an error that its worker tells of, its process, or its whole node?

When a node dies, its workers' connections break seconds before Ray itself calls the node dead (measured: 2 s against
15 s). So a node that Ray still believes in is asked whether it answers.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle
from ray._private.state import actors
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.experiment import Trial as TuneTrial

from lvray.core.errors import Blame
from lvray.ray_tune.trainable import AttemptFailed, Failure

ANSWER_SECONDS = 1.0
"""How long a node may take to accept a connection."""


def failure_of(trial: TuneTrial) -> Failure:
    """Says what is known of how an attempt failed."""
    # Where Tune has put it a moment ago: `get_pickled_error` looks where it is copied to, later.
    put = trial.pickled_error_file
    error = cloudpickle.loads(Path(put).read_bytes()) if put else None
    if isinstance(error, RayTaskError) and isinstance(error.cause, AttemptFailed):
        return error.cause.failure
    node = _node_of(error) if isinstance(error, RayActorError) else None
    if node is None:
        return Failure("the worker process ended without a word")
    host = node["NodeManagerHostname"]
    if not node["Alive"]:
        why = node["DeathReasonMessage"]
        return Failure(f"the node {host} was lost" + (f": {why}" if why else ""), Blame.MACHINE)
    if not _answers(node):
        return Failure(f"the node {host} was lost: it does not answer", Blame.MACHINE)
    return Failure(f"the worker process on {host} ended without a word")


def _node_of(error: RayActorError) -> Mapping[str, Any] | None:
    """The node on which the actor was, as `ray.nodes` tells of it; None where the actor never came to one."""
    if error.actor_id is None:
        return None
    place = actors(error.actor_id).get("Address", {}).get("NodeID")
    return next((node for node in ray.nodes() if node["NodeID"] == place), None)


def _answers(node: Mapping[str, Any]) -> bool:
    place = node["NodeManagerAddress"], node["NodeManagerPort"]
    try:
        socket.create_connection(place, timeout=ANSWER_SECONDS).close()
    except OSError:
        return False
    return True
