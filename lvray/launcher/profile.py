"""What may stand in a cluster profile, and how is one found and read?

A profile says what a site has, what it allows, and what a job there asks for unless told otherwise. The text under each
field is its reference. Models are frozen; a key that is not here is a mistake, and all mistakes are told at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, ValidationError

from lvray.core.errors import SpecError, UsageError
from lvray.launcher.shipped import PROFILES, candidates
from lvray.spec import files
from lvray.spec.fields import Count, Flops, Name
from lvray.spec.mistakes import Mistake, explain, nearest
from lvray.spec.schema import Spec
from lvray.spec.tree import Path as KeyPath

DAY, HOUR, MINUTE = 86_400, 3_600, 60

WALL_TIME = re.compile(
    r"(?:(?P<days>\d{1,3})-)?(?P<hours>\d{1,4}):(?P<minutes>[0-5]\d):(?P<seconds>[0-5]\d)"
)

MEMORY = re.compile(r"\d{1,7}[KMGT]?")

OPTION = re.compile(r"--[a-z][a-z-]*(=.+)?", re.DOTALL)

VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")

OURS = (
    "account", "cpus-per-task", "exclusive", "export", "gpus-per-node", "gres", "job-name", "mem", "mem-per-gpu",
    "no-kill", "nodes", "ntasks-per-node", "open-mode", "output", "parsable", "partition", "qos", "requeue", "signal",
    "time",
)  # fmt: skip
"""Options of sbatch that come from other fields or are the same for every job."""

UNFIT = (
    "array",
    "chdir",
    "cluster",
    "clusters",
    "error",
    "no-requeue",
    "ntasks",
    "test-only",
    "wait",
    "wrap",
)
"""Options of sbatch with which the job would not be one driver with its log, known by one number and queued again."""

NOT_BY_NODE = ("cpus-per-gpu", "gpus", "gpus-per-socket", "gpus-per-task", "ntasks-per-gpu")
"""Options of sbatch that count GPUs over the whole job or by its tasks: Ray is started once a node, with what the node has."""

ACCOUNT_LEVEL = re.compile(r"(?<![A-Za-z0-9])SL[0-9](?![A-Za-z0-9])")
"""A service level in an account's name, as in ``PROJECT-SL3-GPU``."""


def wall_time(text: object) -> int:
    """Reads a wall time such as ``12:00:00`` or ``1-12:00:00`` (days first) as seconds.

    Raises:
        ValueError: it is none, or no time at all.
    """
    match = WALL_TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("must be hours:minutes:seconds, such as 12:00:00, or 1-12:00:00 with days")
    seconds = (
        int(match["days"] or 0) * DAY
        + int(match["hours"]) * HOUR
        + int(match["minutes"]) * MINUTE
        + int(match["seconds"])
    )
    if seconds == 0:
        raise ValueError("must be above 0")
    return seconds


def as_wall_time(seconds: int) -> str:
    """Writes seconds as Slurm reads them, ``36:00:00``; what `wall_time` read."""
    hours, rest = divmod(seconds, HOUR)
    return f"{hours:02d}:{rest // MINUTE:02d}:{rest % MINUTE:02d}"


def _memory(value: object) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not MEMORY.fullmatch(text):
        raise ValueError("must be a size with K, M, G or T, such as 240G; 0 is all that a node has")
    return text


def _option(value: object) -> str:
    if not isinstance(value, str) or not OPTION.fullmatch(value):
        raise ValueError("must be one of sbatch's long options, such as --constraint=rome")
    if (word := value.removeprefix("--").partition("=")[0]) in OURS:
        raise ValueError(f"--{word} has its own place: another field, or the same for every job")
    if word in UNFIT:
        raise ValueError(
            f"--{word} does not go with a sweep: one job, one driver, one log, queued again after a pause"
        )
    if word in NOT_BY_NODE:
        raise ValueError(
            f"--{word} does not go with a sweep: GPUs go by nodes here; set gpus_per_node and cores_per_gpu"
        )
    return value


WallTime: TypeAlias = Annotated[int, BeforeValidator(wall_time)]
Memory: TypeAlias = Annotated[str, BeforeValidator(_memory)]
Option: TypeAlias = Annotated[str, BeforeValidator(_option)]
Lines: TypeAlias = Annotated[tuple[str, ...], Field(strict=False)]


class LimitsSpec(Spec):
    """What one job may ask for. Null is no limit, or none that is known."""

    time: WallTime | None = None
    """The longest wall time."""
    nodes: Count | None = None
    """The most nodes."""
    gpus: Count | None = None
    """The most GPUs of one user at a time, over all nodes."""


class Profile(Spec):
    """A cluster profile."""

    site: Name
    """What it is a profile of, in a few words."""

    # What a site's user may change.
    account: Name | None = None
    """The account that pays; null asks for none, so that the scheduler takes its user's default."""
    qos: Name | None = None
    """Quality of service; null is the scheduler's default."""
    nodes: Count = 1
    """Nodes of a job, unless ``--nodes`` says otherwise."""
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs that a job asks for on each node, unless ``--gpus-per-node`` says otherwise; for ``scheduler: local`` how many
    the machine has. 0 trains on the CPUs."""
    time: WallTime | None = None
    """Wall time of a job, unless ``--time`` says otherwise. The sweep itself may take longer: it is paused before, requeued, and
    goes on."""
    trials_per_gpu: Annotated[int, Field(ge=1, le=64)] = 1
    """Trials that share one GPU; `resources.trials_per_gpu` of the sweep, unless ``--set`` says otherwise."""
    runs: Name = "runs"
    """Where run folders are made: on a file system that every node sees. ``$HOME``, ``$USER`` and the like are filled in when a
    job is submitted."""
    python: Name | None = None
    """The Python that runs the sweep, of an environment that every node sees; null is the one that submits. With ``$HOME``
    and the like as in `runs`."""
    setup: Lines = ()
    """Shell lines that a job begins with: modules, and the activation of an environment."""
    offline: bool = False
    """Whether nodes have no way to the Hugging Face hub: nothing then tries (``HF_HUB_OFFLINE=1``), and a job whose base model
    is not here is refused."""
    options: Annotated[tuple[Option, ...], Field(strict=False)] = ()
    """Further long options of sbatch, such as ``--constraint=rome``."""

    # What the site decides.
    scheduler: Literal["slurm", "local"] = "slurm"
    """``slurm`` submits a job; ``local`` runs the sweep where submit is called."""
    partition: Name | None = None
    """The partition; null is the scheduler's default."""
    account_ends: Name | None = None
    """What the account's name must end in; an account is then needed."""
    limits: LimitsSpec = LimitsSpec()
    """What one job may ask for."""
    levels: Mapping[str, LimitsSpec] = {}
    """Limits that hold for accounts of one service level beside `limits`, by the level as it stands in the account's name:
    ``SL3: {time: 12:00:00}`` for ``PROJECT-SL3-GPU``."""
    most_gpus_per_node: Annotated[int, Field(ge=0, le=64)] | None = None
    """GPUs of one node; null is `gpus_per_node`."""
    whole_nodes_if_many: bool = False
    """Whether a job of more than one node must take all GPUs of each."""
    gpu_type: Name | None = None
    """The GPUs' type, where the scheduler must be told it."""
    gpus_by: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    """Which option of sbatch asks for GPUs: older sites know ``gres`` only."""
    cores_per_node: Count | None = None
    """Cores of one node."""
    cores_per_gpu: Count | None = None
    """Cores that go with one GPU; null is the GPU's share of the node."""
    memory_per_node: Memory | None = None
    """Memory of a node that a job asks for, such as ``240G``, ``0`` for all of it; null leaves it to the site's default."""
    memory_per_gpu: Memory | None = None
    """Memory that goes with one GPU, in place of `memory_per_node`."""
    exclusive: bool = False
    """Whether a job wants its nodes to itself, with all their cores."""
    scratch: Name = "/tmp"
    """A folder on each node's own disk, of few letters: sockets are made in it. With ``$USER`` and the like as in `runs`."""
    shared: Lines = ()
    """Folders that every node sees, though their names say otherwise (``/tmp`` on a cluster of one machine)."""
    notice_seconds: Annotated[int, Field(ge=30, le=3600)] = 300
    """Seconds before the end of the wall time at which a sweep is told to pause. Trials pause at their next optimizer step,
    but an evaluation or forecasts that have begun are finished first. The last minute is for ending Ray."""
    login: Name | None = None
    """The login host, for the tunnel to the dashboard."""
    flops_per_second: Flops
    """Accounted FLOP/s of one trial there, for telling beforehand how long a plan takes; ``--speed`` says otherwise."""

    @property
    def most_gpus(self) -> int:
        """GPUs of one node."""
        return self.most_gpus_per_node or self.gpus_per_node

    @property
    def needs_account(self) -> bool:
        """Whether no job goes without an account."""
        return self.account_ends is not None

    def limits_of(self, account: str | None) -> LimitsSpec:
        """Gives the limits of jobs of an account: the narrower where `limits` and its service level both have one."""
        match = ACCOUNT_LEVEL.search(account or "")
        level = self.levels.get(match.group()) if match else None
        if level is None:
            return self.limits
        both = {}
        for name in LimitsSpec.model_fields:
            known = [
                value for of in (self.limits, level) if (value := getattr(of, name)) is not None
            ]
            both[name] = min(known, default=None)
        return LimitsSpec.model_construct(**both)


BATCH_ONLY = (
    "account", "qos", "time", "setup", "options", "partition", "account_ends", "limits", "levels", "whole_nodes_if_many",
    "gpu_type", "memory_per_node", "memory_per_gpu", "exclusive", "login",
)  # fmt: skip
"""Fields that mean something to a scheduler only."""


def load_profile(name: str) -> tuple[Profile, Path]:
    """Finds and reads a profile.

    Args:
        name: a file, or the name of a profile in ``cluster/`` here or of those that came with lvray.

    Raises:
        UsageError: there is no such profile; the message has those that there are.
        SpecError: it has mistakes: all of them, a line each.
    """
    file = find_profile(name)
    root, found = files.read(file, kind="cluster profile", needs="site: and flops_per_second:")
    data = root.plain()
    flops = root.entries.get("flops_per_second")
    if isinstance(data.get("flops_per_second"), float) and flops is not None:
        data["flops_per_second"] = flops.shown()
    profile, mistakes = _checked(data)
    found += mistakes
    if found or profile is None:
        raise SpecError(files.told(found, root))
    return profile, file


def _checked(data: Mapping[str, Any]) -> tuple[Profile | None, list[Mistake]]:
    """The profile, and the mistakes that its fields and rules find.

    Where fields are mistakes, rules are asked of the profile without them, and what they say of those is left out.
    """
    try:
        profile = Profile.model_validate(data)
    except ValidationError as error:
        mistakes = explain(error, Profile)
    else:
        return profile, _broken(profile)
    bad = {mistake.path[0] for mistake in mistakes}
    rest = {key: value for key, value in data.items() if key not in bad}
    partial = Profile.model_validate({"site": "-", "flops_per_second": 1, **rest})
    return None, mistakes + [
        mistake
        for mistake in _broken(partial)
        if bad.isdisjoint({mistake.path[0], *(path[0] for path in mistake.about)})
    ]


def _broken(profile: Profile) -> list[Mistake]:
    return [mistake for rule in RULES for mistake in rule(profile)]


def find_profile(name: str) -> Path:
    """Gives the file of a profile. Raises what `load_profile` raises for one that is not there."""
    if name.endswith((".yaml", ".yml")) or os.sep in name:
        return Path(name)
    known: dict[str, Path] = {}
    for folder in candidates(PROFILES):
        for file in sorted(folder.glob("*.yaml")):
            known.setdefault(file.stem, file)
    if name not in known:
        raise UsageError(f"--cluster {name}: no such profile; {nearest(name, known)}")
    return known[name]


def expanded(text: str, variables: Mapping[str, str], *, field: str) -> str:
    """Fills ``$HOME``, ``${USER}`` and a leading ``~`` in.

    Raises:
        UsageError: a variable is not set.
    """
    if text == "~" or text.startswith("~/"):
        text = f"$HOME{text[1:]}"

    def value(match: re.Match[str]) -> str:
        variable = match[1] or match[2]
        if variable not in variables:
            raise UsageError(
                f"{field}: {text}: ${variable} is not set; set it, or write the path out"
            )
        return variables[variable]

    return VARIABLE.sub(value, text)


def slurm_knows_its_nodes(profile: Profile) -> Iterator[Mistake]:
    """The wall time and the cores of a node go into every job."""
    if profile.scheduler == "slurm":
        for field in ("time", "cores_per_node"):
            if getattr(profile, field) is None:
                yield Mistake((field,), "missing; scheduler slurm needs it", value=False)


def local_asks_no_scheduler(profile: Profile) -> Iterator[Mistake]:
    """What would be passed over without a word is a mistake."""
    if profile.scheduler == "local":
        for field in BATCH_ONLY:
            if field in profile.model_fields_set and getattr(profile, field):
                wrong = "is asked of a scheduler, and scheduler is local; leave it out"
                yield Mistake((field,), wrong, (("scheduler",),))
        if profile.nodes > 1:
            yield Mistake(("nodes",), "scheduler local is one node; leave it out")


def defaults_keep_to_limits(profile: Profile) -> Iterator[Mistake]:
    """What a profile asks for by itself must be allowed."""
    limits = profile.limits
    if profile.time and limits.time and profile.time > limits.time:
        yield Mistake(("time",), f"is more than limits.time, {as_wall_time(limits.time)}")
    if limits.nodes and profile.nodes > limits.nodes:
        yield Mistake(("nodes",), f"is more than limits.nodes, {limits.nodes}")
    if limits.gpus and profile.nodes * profile.gpus_per_node > limits.gpus:
        yield Mistake(("gpus_per_node",), f"is more than limits.gpus, {limits.gpus}, on all nodes")
    if profile.gpus_per_node > profile.most_gpus:
        wrong = f"is more than a node has, most_gpus_per_node: {profile.most_gpus}"
        yield Mistake(("gpus_per_node",), wrong)
    if (
        profile.whole_nodes_if_many
        and profile.nodes > 1
        and profile.gpus_per_node < profile.most_gpus
    ):
        wrong = f"whole_nodes_if_many wants all {profile.most_gpus} GPUs of each of {profile.nodes} nodes"
        yield Mistake(("gpus_per_node",), wrong)


def notice_fits_into_the_time(profile: Profile) -> Iterator[Mistake]:
    """A job that is told to pause when it begins does nothing."""
    if profile.time and profile.notice_seconds >= profile.time:
        wrong = f"must be shorter than time, {as_wall_time(profile.time)}"
        yield Mistake(("notice_seconds",), wrong)


def memory_is_said_once(profile: Profile) -> Iterator[Mistake]:
    """Of the two, sbatch takes one (man sbatch, --mem)."""
    if profile.memory_per_gpu and profile.memory_per_node:
        yield Mistake(("memory_per_gpu",), "beside memory_per_node; give one of the two")


def levels_are_found_in_accounts(profile: Profile) -> Iterator[Mistake]:
    """A level that no account can have limits nothing."""
    for level in profile.levels:
        if not ACCOUNT_LEVEL.fullmatch(level):
            path: KeyPath = ("levels", level)
            yield Mistake(path, "must be a service level such as SL3", value=False)


RULES = (
    slurm_knows_its_nodes,
    local_asks_no_scheduler,
    defaults_keep_to_limits,
    notice_fits_into_the_time,
    memory_is_said_once,
    levels_are_found_in_accounts,
)
