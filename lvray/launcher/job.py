"""What is known of a job before it is submitted, and how is it told to people and programs?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvray.core.units import format_flops, format_seconds
from lvray.launcher import fit, sbatch
from lvray.launcher.profile import HOUR, Profile, as_wall_time
from lvray.launcher.request import Request, charged


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that is known of a job before it is submitted."""

    profile: Profile
    cluster: str
    """The profile's file."""
    request: Request
    variables: Mapping[str, str]
    """What is added to the environment."""
    command: sbatch.Command
    user: str
    """Whose job it is."""
    budget: int
    """FLOPs of the sweep."""
    rate: int
    """Accounted FLOP/s of one trial, as expected."""
    workers: int
    """Trials at once."""
    seconds: float
    """How long the plan takes at that rate."""
    warnings: tuple[str, ...]

    @property
    def batch(self) -> bool:
        """Whether a scheduler is asked."""
        return self.profile.scheduler == "slurm"

    @property
    def requeues(self) -> int:
        """How often the job is expected to be requeued."""
        wall = self.request.seconds
        if wall is None:
            return 0
        return fit.requeues(self.seconds, wall=wall, notice=self.profile.notice_seconds)

    @property
    def most(self) -> float | None:
        """GPU-hours, or core-hours, that one allocation costs if it takes its whole wall time; None without a scheduler."""
        if self.request.seconds is None:
            return None
        return charged(self.profile, self.request)[0] * self.request.seconds / HOUR

    @property
    def shell(self) -> str:
        """The command with its environment, to be pasted."""
        folder = str(self.request.logs) if self.batch else None
        return sbatch.as_shell(self.variables, self.command, folder=folder)


def described(job: Job) -> str:
    """Tells what a job asks for and how long it takes, as a page of text."""
    asks = job.request
    where = f"{asks.nodes} node{'s' * (asks.nodes > 1)}"
    if asks.gpus_per_node:
        where += f" × {gpus(asks.gpus_per_node)}"
    if asks.seconds is not None:
        where += f", {as_wall_time(asks.seconds)} each time"
    lines = [f"{asks.name} on {job.profile.site}: {where}"]
    once = "1 trial" if job.workers == 1 else f"{job.workers} trials"
    lines.append(
        f"{format_flops(job.budget)} FLOPs, about {format_seconds(job.seconds)} at {format_flops(job.rate)} FLOP/s of each trial, "
        f"{once} at once{_fits(job)}"
    )
    lines += _costs(job)
    lines += [f"warning: {warning}" for warning in job.warnings]
    return "\n".join(lines)


def _costs(job: Job) -> list[str]:
    """What the site may charge, for one allocation at the most and for the plan as told."""
    if job.most is None or job.request.seconds is None:
        return []
    count, what = charged(job.profile, job.request)
    whole = job.requeues + 1
    return [
        f"an allocation costs at most {_hours(job.most)} {what}-hours ({count} {what}{'s' * (count > 1)} × "
        f"{_hours(job.request.seconds / HOUR)} h); the plan takes about {_hours(count * job.seconds / HOUR)}, "
        f"in {whole} allocation{'s' * (whole > 1)}"
    ]


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}".removesuffix(".0")


def _fits(job: Job) -> str:
    if job.request.seconds is None:
        return ""
    if not job.requeues:
        return ": fits into one job"
    times = "once" if job.requeues == 1 else f"{job.requeues} times"
    return f": paused and requeued about {times}, each time the queue lets it in again"


def instructions(job: Job, number: str) -> str:
    """Tells how to follow, pause and stop a job that was submitted."""
    asks = job.request
    run = Path(asks.runs) / asks.name
    tunnel = sbatch.tunnel(number, user=job.user, node="NODE", login=job.profile.login)
    login = "" if job.profile.login else f"; {sbatch.LOGIN} is the host that you log in to"
    return "\n".join(
        [
            f"job {number}",
            f"log        tail -F {asks.log(number)}",
            f"report     python -m lvray.report {run} --watch",
            f"dashboard  {sbatch.DASHBOARD} after, on your own machine: {tunnel}",
            f"           NODE is known once it runs (squeue --jobs={number} --format=%B); the log says where its token is{login}",
            f"pause      scancel --batch --signal=USR1 {number}   (it is queued again and goes on; scontrol hold {number} keeps it there)",
            f"stop       scancel {number}   (the same command goes on later)",
        ]
    )


def to_json(job: Job, number: str | None) -> dict[str, Any]:
    """The job for programs; FLOPs are strings."""
    asks = job.request
    return {
        "sweep": asks.name,
        "cluster": job.cluster,
        "scheduler": job.profile.scheduler,
        "job": number,
        "log": None if number is None else str(asks.log(number)),
        "run": str(Path(asks.runs) / asks.name),
        "environment": dict(job.variables),
        "command": sbatch.words(job.command),
        "nodes": asks.nodes,
        "gpus_per_node": asks.gpus_per_node,
        "wall_seconds": asks.seconds,
        "workers": job.workers,
        "flops_per_second": str(job.rate),
        "seconds": round(job.seconds, 1),
        "requeues": job.requeues,
        "charged": None if job.most is None else f"{charged(job.profile, asks)[1]}-hours",
        "most_an_allocation": None if job.most is None else round(job.most, 2),
        "warnings": list(job.warnings),
    }


def gpus(number: int) -> str:
    """Gives a number of GPUs in words."""
    return f"{number} GPU{'s' * (number > 1)}"
