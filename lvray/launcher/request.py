"""What is asked of a cluster for one sweep, and does its profile allow it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lvray.core.errors import UsageError
from lvray.core.units import format_seconds
from lvray.launcher.profile import Profile, as_wall_time, expanded, wall_time

NODE_LOCAL = ("/tmp", "/var/tmp", "/dev/shm", "/local", "/ramdisks", "/scratch/local")
"""Folders that are each node's own on most clusters."""

LONGEST_SCRATCH = 24
"""Bytes of the scratch folder. A socket's path may have 107 (man 7 unix), and below it stand ``/lvray-JOBID`` (up
to 17), ``/session_YYYY-MM-DD_HH-MM-SS_ffffff_PID`` (43) and ``/sockets/plasma_store`` (21)."""

LOGS = "slurm-logs"
"""Beside the run folders: what jobs print."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a command line says in place of the profile; None where it says nothing."""

    nodes: int | None = None
    gpus_per_node: int | None = None
    time: str | None = None
    account: str | None = None
    partition: str | None = None
    runs: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What one job asks for, and what it runs."""

    name: str
    """The sweep's."""
    arguments: tuple[tuple[str, ...], ...]
    """The arguments of `lvray.sweep`: the sweep file, then each option with its value."""
    nodes: int
    gpus_per_node: int
    seconds: int | None
    """Wall time; None where there is no scheduler."""
    account: str | None
    partition: str | None
    runs: str
    """Where run folders lie."""
    scratch: str
    """On each node."""
    python: str
    """Runs the sweep."""

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return self.nodes * self.gpus_per_node

    @property
    def logs(self) -> PurePosixPath:
        """Where jobs' logs lie."""
        return PurePosixPath(self.runs) / LOGS

    def log(self, job: str) -> PurePosixPath:
        """The log of a job, of all its runs."""
        return self.logs / f"{self.name}-{job}.log"


def request(
    profile: Profile,
    wishes: Wishes,
    *,
    name: str,
    arguments: tuple[tuple[str, ...], ...],
    python: str,
    variables: Mapping[str, str],
) -> tuple[Request, list[str]]:
    """Puts what a command line wishes and what the profile has into one request.

    Gives with it what cannot be read, a wall time that is none or a variable that is not set: in its place stands what
    nobody refuses, so that the rest can be judged.

    Args:
        profile: the cluster's.
        wishes: the command line's.
        name: the sweep's.
        arguments: of `lvray.sweep`; where run folders lie is added.
        python: the one that runs this, for a profile that names none.
        variables: the environment, for ``$HOME`` and the like.
    """
    wrong: list[str] = []

    def path(text: str, field: str, otherwise: str) -> str:
        try:
            return expanded(text, variables, field=field)
        except UsageError as error:
            wrong.append(str(error))
            return otherwise

    nodes = wishes.nodes or profile.nodes
    gpus = profile.gpus_per_node if wishes.gpus_per_node is None else wishes.gpus_per_node
    if wishes.gpus_per_node is None and nodes > 1 and profile.whole_nodes_if_many:
        gpus = profile.most_gpus
    try:
        seconds = profile.time if wishes.time is None else wall_time(wishes.time)
    except ValueError as error:
        wrong.append(f"--time {wishes.time}: {error}")
        seconds = None
    runs = path(wishes.runs or profile.runs, "runs", "/")
    asked = Request(
        name=name,
        arguments=(*arguments, ("--runs", runs)),
        nodes=nodes,
        gpus_per_node=gpus,
        seconds=seconds,
        account=wishes.account or profile.account,
        partition=wishes.partition or profile.partition,
        runs=runs,
        scratch=path(profile.scratch, "scratch", NODE_LOCAL[0]),
        python=path(profile.python, "python", python) if profile.python else python,
    )
    return asked, wrong


def cores(profile: Profile, asked: Request) -> int | None:
    """Gives the cores of a node that a job has: all without GPUs, else those that go with its GPUs; None if not known."""
    if profile.cores_per_node is None or not asked.gpus_per_node or profile.exclusive:
        return profile.cores_per_node
    each = profile.cores_per_gpu or max(1, profile.cores_per_node // max(1, profile.most_gpus))
    return min(profile.cores_per_node, each * asked.gpus_per_node)


def charged(profile: Profile, asked: Request) -> tuple[int, str]:
    """Gives what a site counts by the hour, and what it is: the job's GPUs, or its cores where it has none."""
    if asked.gpus:
        each = profile.most_gpus if profile.exclusive else asked.gpus_per_node
        return asked.nodes * each, "GPU"
    return asked.nodes * (cores(profile, asked) or 1), "core"


def workers(
    profile: Profile,
    asked: Request,
    *,
    device: str,
    trials_per_gpu: int,
    wanted: int | None,
    cores_here: int,
) -> int:
    """Gives how many trials run at once, as `ray_tune.session.workers_for` divides a cluster.

    Args:
        profile: the cluster's.
        asked: of it.
        device: the sweep's, ``auto``, ``cpu``, ``cuda`` or ``mps``.
        trials_per_gpu: how many share one.
        wanted: the sweep's `resources.workers`; None takes what there is.
        cores_here: of this machine, for a profile that does not tell.
    """
    if asked.gpus and device in {"auto", "cuda"}:
        fit = asked.gpus * trials_per_gpu
    else:
        fit = asked.nodes * (cores(profile, asked) or cores_here)
    return max(1, min(wanted or fit, fit))


def refusals(profile: Profile, asked: Request, *, cluster: str, here: Path) -> list[str]:
    """Gives everything for which the cluster would refuse the job, or the job could not work there.

    Args:
        profile: the cluster's.
        asked: of it.
        cluster: the profile's file or name, for the messages.
        here: the folder that relative paths are meant from.
    """
    if profile.scheduler == "local":
        return list(_beyond_this_machine(profile, asked))
    return [
        *_account(profile, asked, cluster),
        *_limits(profile, asked),
        *_gpus(profile, asked),
        *_paths(profile, asked, here),
    ]


def _beyond_this_machine(profile: Profile, asked: Request) -> Iterator[str]:
    if asked.nodes > 1:
        yield f"--nodes {asked.nodes}: {profile.site} is one machine (scheduler: local)"
    if asked.gpus_per_node > profile.most_gpus:
        yield f"--gpus-per-node {asked.gpus_per_node}: {profile.site} has {profile.most_gpus}"


def _account(profile: Profile, asked: Request, cluster: str) -> Iterator[str]:
    ends = profile.account_ends
    if ends is None:
        return
    remedy = f"give --account, or set account: in {cluster}"
    if asked.account is None:
        yield f"account: {profile.site} wants one whose name ends in {ends}; {remedy}"
    elif not asked.account.endswith(ends):
        yield f"account {asked.account}: {profile.site} wants one whose name ends in {ends}; {remedy}"


def _limits(profile: Profile, asked: Request) -> Iterator[str]:
    limits = profile.limits_of(asked.account)
    whose = f"accounts like {asked.account}" if asked.account else "a job"
    if asked.seconds is not None and limits.time and asked.seconds > limits.time:
        most = as_wall_time(limits.time)
        yield (
            f"--time {as_wall_time(asked.seconds)}: {profile.site} gives {whose} {most} at most; "
            "ask for that: a sweep that takes longer is paused, requeued, and goes on"
        )
    if asked.seconds is not None and asked.seconds <= profile.notice_seconds:
        notice = format_seconds(profile.notice_seconds)
        yield f"--time {as_wall_time(asked.seconds)}: must be longer than the notice to pause, {notice} (notice_seconds)"
    if limits.nodes and asked.nodes > limits.nodes:
        yield f"--nodes {asked.nodes}: {profile.site} gives a job {limits.nodes} at most"
    if limits.gpus and asked.gpus > limits.gpus:
        yield (
            f"{asked.nodes} nodes × {asked.gpus_per_node} GPUs: {profile.site} gives {whose} {limits.gpus} GPUs "
            "at most; ask for fewer nodes"
        )


def _gpus(profile: Profile, asked: Request) -> Iterator[str]:
    most = profile.most_gpus
    if asked.gpus_per_node > most:
        has = f"has {most} on each node" if most else "has none; take a profile of GPU nodes"
        yield f"--gpus-per-node {asked.gpus_per_node}: {profile.site} {has}"
    elif most and not asked.gpus_per_node:
        yield f"--gpus-per-node 0: {profile.site} is for GPUs; take a profile of CPU nodes"
    elif asked.nodes > 1 and profile.whole_nodes_if_many and asked.gpus_per_node < most:
        yield (
            f"--gpus-per-node {asked.gpus_per_node} on {asked.nodes} nodes: {profile.site} wants all {most} GPUs of each "
            "where a job has more than one node; leave --gpus-per-node out"
        )


def _paths(profile: Profile, asked: Request, here: Path) -> Iterator[str]:
    if len(asked.scratch.encode()) > LONGEST_SCRATCH:
        yield (
            f"scratch {asked.scratch}: {len(asked.scratch.encode())} characters; sockets are made below it, whose paths may "
            f"have 107, so that {LONGEST_SCRATCH} is the most; take a shorter folder of the node's own disk"
        )
    if not asked.scratch.startswith("/"):
        yield f"scratch {asked.scratch}: must begin with /, as every node looks for it by itself"
    if seems_private(profile, asked, here / asked.runs):
        yield (
            f"--runs {asked.runs}: seems to be a node's own disk, which other nodes cannot see; take a folder that all share, or "
            "name it in the profile's shared: if they do see it"
        )


def seems_private(profile: Profile, asked: Request, place: Path) -> bool:
    """Whether a place seems to be on a disk that one node alone sees."""
    private = (*NODE_LOCAL, asked.scratch)
    where = PurePosixPath(place)
    return _below(where, private) and not _below(where, profile.shared)


def _below(path: PurePosixPath, folders: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
