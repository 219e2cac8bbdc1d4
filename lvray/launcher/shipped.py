"""Where do the profiles and batch scripts lie that come with lvray?

In a checkout at its root, beside the package; in an installed wheel inside the package, in ``shipped/``.
"""

from __future__ import annotations

from pathlib import Path

from lvray.core.errors import LvrayError

PACKAGE = Path(__file__).resolve().parents[1]

PROFILES = "cluster"
"""The folder of cluster profiles."""

SCRIPT = Path("slurm") / "sweep.sbatch"
"""The batch script."""


def candidates(name: str | Path, *, package: Path = PACKAGE) -> tuple[Path, ...]:
    """Gives where a file or folder that comes with lvray may lie, the likeliest first.

    The folder that the command is run from goes first, so that one's own profiles and scripts win; then what the
    package brought along.
    """
    return Path(name), package / "shipped" / name, package.parent / name


def found(name: str | Path, *, package: Path = PACKAGE) -> Path:
    """Gives where it lies.

    Raises:
        LvrayError: it is at none of the places.
    """
    places = candidates(name, package=package)
    for place in places:
        if place.exists():
            return place
    looked = ", ".join(str(place) for place in places)
    raise LvrayError(f"{name} came with neither this folder nor the package; looked for {looked}")
