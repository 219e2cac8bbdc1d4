"""Is this the session of a batch job that was queued again, and goes on with what it began?

Slurm starts a requeued job by the same command line, in the same job id.
"""

from __future__ import annotations

import os


def job_id() -> str:
    """Gives the id of the Slurm job that this process belongs to; empty outside one."""
    return os.environ.get("SLURM_JOB_ID", "")


def queued_again() -> bool:
    """Whether this process belongs to a job that Slurm has started before."""
    return bool(job_id()) and os.environ.get("SLURM_RESTART_COUNT", "0") not in {"", "0"}


def patience() -> float:
    """Seconds to wait for a run folder that another driver holds.

    The driver before us may have died with its node, and some file servers keep a dead node's locks for minutes.
    """
    return 300.0 if queued_again() else 0.0
