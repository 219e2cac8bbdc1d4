"""On what did a sweep run? Versions, commit and machine, so that its figures can be read later."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lvray import __version__
from lvray.core.batch import job_id, queued_again
from lvray.core.run_folder import RunFolder

PACKAGES = ("ray", "torch", "transformers", "peft", "accelerate", "numpy", "scipy", "h5py")


@dataclass(frozen=True, slots=True)
class Environment:
    """What ran the sweep."""

    lvray: str
    commit: str
    """Of the checkout that lvray was imported from; empty for an installed package."""
    python: str
    system: str
    processor: str
    cores: int
    packages: dict[str, str]
    job: str = ""
    """Id of the Slurm job; empty outside one."""

    def to_json(self) -> dict[str, object]:
        """Gives plain JSON values."""
        return asdict(self)

    def to_text(self) -> str:
        """The file ``environment.json``."""
        return json.dumps(self.to_json(), indent=1) + "\n"


def environment() -> Environment:
    """Looks around, importing none of the packages it names."""
    return Environment(
        lvray=__version__,
        commit=_commit(Path(__file__).parent),
        python=platform.python_version(),
        system=platform.platform(),
        processor=_processor(),
        cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        packages={name: _version(name) for name in PACKAGES},
        job=job_id(),
    )


def begun_by_this_job(folder: RunFolder) -> bool:
    """Whether this is a job that was queued again, and the run in `folder` is what it did before.

    A job that asks for a fresh run asks again whenever it is started again; that run is fresh already.
    """
    if not queued_again() or not folder.environment.exists():
        return False
    written = json.loads(folder.environment.read_text(encoding="utf-8"))
    return bool(written.get("job") == job_id())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit(folder: Path) -> str:
    """The checkout's commit, with a + where files differ from it."""
    try:
        asked = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.strip() if asked.returncode == 0 else ""


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
