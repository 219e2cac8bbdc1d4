"""Which options, environment and command line make a job of a request? Pure functions.

Options are those of sbatch of Slurm 22.05 (man sbatch).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from lvray.core.errors import UsageError
from lvray.launcher.profile import Profile, as_wall_time, expanded
from lvray.launcher.request import Request, cores

Command: TypeAlias = tuple[tuple[str, ...], ...]
"""A command, the words that belong together side by side."""

FIRST_PORT = 20_000
PORTS_A_JOB = 10
PORT_BLOCKS = 1_000
LOCAL_PORT = 8265
DASHBOARD = f"http://127.0.0.1:{LOCAL_PORT}"
"""Where a job's dashboard is seen on one's own machine, once the tunnel is there."""

LOGIN = "LOGIN"
"""Stands for the login host in what is printed, where the profile names none."""

EXPORT = re.compile(r"""\bexport\s+(\w+)=("[^"]*"|'[^']*'|[^\s;&]+)""")


def options(profile: Profile, asked: Request) -> tuple[str, ...]:
    """Gives the options of sbatch for a job."""
    return tuple(_options(profile, asked))


def _options(profile: Profile, asked: Request) -> Iterator[str]:
    assert asked.seconds is not None, "a job without a wall time"
    yield f"--job-name=lvray-{asked.name}"
    for name, value in (
        ("account", asked.account),
        ("partition", asked.partition),
        ("qos", profile.qos),
    ):
        if value is not None:
            yield f"--{name}={value}"
    yield f"--nodes={asked.nodes}"
    # One task a node: it starts Ray there, and Ray starts the trials.
    yield "--ntasks-per-node=1"
    yield f"--cpus-per-task={cores(profile, asked)}"
    yield from _gpus(profile, asked)
    yield from _memory(profile, asked)
    if profile.exclusive:
        yield "--exclusive"
    yield f"--time={as_wall_time(asked.seconds)}"
    # Only the batch script is told: it tells the driver, and the driver its trials.
    yield f"--signal=B:USR1@{profile.notice_seconds}"
    # After a pause, or when a node is lost; the script runs again from its beginning, and the sweep goes on.
    yield "--requeue"
    # A node that fails takes its trials with it and not the others.
    yield "--no-kill"
    # The log of a job that was requeued goes on in the same file.
    yield "--open-mode=append"
    yield f"--output={_without_patterns(str(asked.logs))}/{asked.name}-%j.log"
    # The script is told by its environment what the site needs, whatever SBATCH_EXPORT says.
    yield "--export=ALL"
    yield from profile.options


def _gpus(profile: Profile, asked: Request) -> Iterator[str]:
    if not asked.gpus_per_node:
        return
    kind = f"{profile.gpu_type}:" if profile.gpu_type else ""
    if profile.gpus_by == "gres":
        yield f"--gres=gpu:{kind}{asked.gpus_per_node}"
    else:
        yield f"--gpus-per-node={kind}{asked.gpus_per_node}"


def _memory(profile: Profile, asked: Request) -> Iterator[str]:
    if profile.memory_per_node:
        yield f"--mem={profile.memory_per_node}"
    elif profile.memory_per_gpu and asked.gpus_per_node:
        yield f"--mem-per-gpu={profile.memory_per_gpu}"


def _without_patterns(path: str) -> str:
    """A path in which sbatch replaces nothing."""
    return path.replace("%", "%%")


def environment(profile: Profile, asked: Request) -> dict[str, str]:
    """Gives the variables that ``slurm/sweep.sbatch`` reads, and those that the sweep does."""
    variables = {}
    if profile.setup:
        variables["LVRAY_SETUP"] = "\n".join(profile.setup)
    variables["LVRAY_PYTHON"] = asked.python
    variables["LVRAY_SCRATCH"] = asked.scratch
    variables["LVRAY_NOTICE"] = str(profile.notice_seconds)
    if profile.login:
        variables["LVRAY_LOGIN"] = profile.login
    return variables | _offline(profile)


def exported(profile: Profile, variables: Mapping[str, str]) -> dict[str, str]:
    """Gives what the setup lines export in so many words: ``export HF_HOME=$HOME/hf``.

    Not seen is what a module or a file that they read exports, and what is made of variables that only these set.
    """
    found: dict[str, str] = {}
    for name, value in EXPORT.findall("\n".join(profile.setup)):
        if value.startswith("'"):  # in which the shell fills nothing in
            found[name] = value.strip("'")
            continue
        with suppress(UsageError):
            found[name] = expanded(value.strip('"'), {**variables, **found}, field="setup")
    return found


def command(profile: Profile, asked: Request, script: Path) -> Command:
    """Gives the command that submits a job."""
    file, *rest = asked.arguments
    wanted = ((option,) for option in options(profile, asked))
    return ("sbatch", "--parsable"), *wanted, (str(script), *file), *rest


def local_environment(profile: Profile) -> dict[str, str]:
    """Gives the variables of a sweep that runs here."""
    return _offline(profile)


def local_command(asked: Request) -> Command:
    """Gives the command that runs the sweep here."""
    file, *rest = asked.arguments
    return (asked.python, "-m", "lvray.sweep", *file), *rest


def words(command: Command) -> list[str]:
    """Gives a command as a process is started with it."""
    return [word for line in command for word in line]


def _offline(profile: Profile) -> dict[str, str]:
    return {"HF_HUB_OFFLINE": "1"} if profile.offline else {}


def as_shell(variables: Mapping[str, str], command: Command, *, folder: str | None = None) -> str:
    """Writes a command with its environment as shell lines that can be pasted.

    Args:
        variables: the environment.
        command: line by line.
        folder: one that must be there first.
    """
    lines = [f"mkdir -p {shlex.quote(folder)} &&"] if folder else []
    lines += [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    first, *rest = (shlex.join(line) for line in command)
    return " \\\n".join([*lines, first, *(f"  {line}" for line in rest)])


def ports(job: str) -> tuple[int, int]:
    """Gives the ports of Ray's GCS and dashboard of a job: each job of a node has a block of its own."""
    first = FIRST_PORT + PORTS_A_JOB * (int(job) % PORT_BLOCKS)
    return first, first + 1


def tunnel(job: str, *, user: str, node: str, login: str | None) -> str:
    """Gives the command, for one's own machine, that brings a job's dashboard to `DASHBOARD`.

    ssh takes the name at its end for the node alone, and one's own machine's for the host on the way.
    """
    return (
        f"ssh -N -L {LOCAL_PORT}:127.0.0.1:{ports(job)[1]} -J {user}@{login or LOGIN} {user}@{node}"
    )
