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
    )


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
