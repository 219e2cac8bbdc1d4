"""How is Slurm asked? The thin edge: sbatch and scontrol as subprocesses, their words read and their refusals told."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lvray.core.errors import LvrayError

PATIENCE_SECONDS = 60
"""After which a command of Slurm's that does not answer is given up."""

REMEDIES = (
    ("invalid account", "`sacctmgr show associations user=$USER` has your accounts; give one with --account"),
    ("invalid partition", "`sinfo --summarize` has the partitions; give one with --partition"),
    ("partition name", "`sinfo --summarize` has the partitions; give one with --partition"),
    ("invalid qos", "`sacctmgr show associations user=$USER` has what you may use; set qos: in the profile"),
    ("node configuration", "ask for fewer GPUs or nodes, or mend cores_per_node and memory in the profile"),
    ("node count", "ask for fewer --nodes"),
    ("time limit", "ask for a shorter --time"),
    ("generic resource", "mend gpu_type and gpus_by in the profile: `sinfo -o '%P %G'` has the GPUs' names"),
    ("gres", "mend gpu_type and gpus_by in the profile: `sinfo -o '%P %G'` has the GPUs' names"),
    ("unrecognized option", "mend options: in the profile"),
    ("unable to contact", "the scheduler does not answer; try again later"),
    ("configuration source", "this machine belongs to no cluster; submit from a login node"),
)  # fmt: skip
"""What sbatch says, in lower case, and what to do about it; the first that fits."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A job, as Slurm shows it at one moment."""

    state: str
    """In Slurm's word: ``PENDING``, ``RUNNING``, ``COMPLETED`` …"""
    reason: str
    """Why it waits or ended, in Slurm's word; "" without."""
    node: str
    """Where the batch script runs; "" before it does."""
    restarts: int
    """How often it was requeued."""
    exit_code: int
    """Of the batch script, once it has ended."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """What sbatch says of a job that it took."""

    job: str
    """Its id."""
    notices: str
    """Of the site, on limits and accounts; "" without."""


def submit(words: Sequence[str], variables: Mapping[str, str], *, login: str | None) -> Submitted:
    """Submits a job.

    Args:
        words: sbatch, with ``--parsable``.
        variables: what is added to the environment.
        login: the site's login host, for whoever is elsewhere.

    Raises:
        LvrayError: there is no sbatch here, or it refused.
    """
    where = f" ({login})" if login else ""
    try:
        done = subprocess.run(
            words,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
    except FileNotFoundError:
        raise LvrayError(
            f"{words[0]} is not on this machine; submit from the cluster's login node{where}, or look at the job with --dry-run"
        ) from None
    except subprocess.TimeoutExpired:
        raise LvrayError(
            f"sbatch did not answer in {PATIENCE_SECONDS} seconds; look with `squeue --me` whether the job was taken, then try again"
        ) from None
    if done.returncode:
        raise LvrayError(refused(done.stderr))
    # "123" or, of several clusters, "123;name" (man sbatch, --parsable).
    job = done.stdout.strip().partition(";")[0]
    if not job.isdigit():
        raise LvrayError(f"sbatch gave no job id but {done.stdout.strip()!r}; is it Slurm's own?")
    return Submitted(job, done.stderr.strip())


def refused(said: str) -> str:
    """Tells of a refusal: sbatch's own words, and what to do."""
    own = "; ".join(
        line.removeprefix("sbatch: ").removeprefix("error: ")
        for line in said.splitlines()
        if line.strip()
    )
    remedy = next(
        (remedy for words, remedy in REMEDIES if words in own.lower()),
        "--dry-run prints the whole command",
    )
    return f"sbatch refused the job: {own or 'without a word'}; {remedy}"


def look(job: str) -> Seen | None:
    """Asks after a job; None where Slurm knows it no more, minutes after its end.

    Raises:
        LvrayError: there is no scontrol here, or the scheduler does not answer.
    """
    words = ["scontrol", "show", "job", "--oneliner", job]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
        )
    except FileNotFoundError:
        raise LvrayError("scontrol is not on this machine; follow from the login node") from None
    except subprocess.TimeoutExpired:
        raise LvrayError("the scheduler does not answer") from None
    if done.returncode:
        if "invalid job id" in done.stderr.lower():
            return None
        raise LvrayError(f"scontrol: {done.stderr.strip() or done.stdout.strip()}")
    return seen(done.stdout)


def seen(text: str) -> Seen:
    """Reads one line of ``scontrol show job --oneliner``."""
    fields = dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", text))
    reason = fields.get("Reason", "")
    code = fields.get("ExitCode", "0:0").partition(":")[0]
    return Seen(
        state=fields.get("JobState", "UNKNOWN"),
        reason="" if reason == "None" else reason,
        node=fields.get("BatchHost", ""),
        restarts=int(fields.get("Restarts", "0")),
        exit_code=int(code) if code.isdigit() else 0,
    )
