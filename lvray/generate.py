"""Write a predator–prey data set to an HDF5 file.

    python -m lvray.generate coursework --out lotka_volterra_data.h5
    python -m lvray.generate lotka-volterra --out classical.h5 --seed 7 --systems 200

`coursework` with seed 0 is the course's own data set, every value within 1e-6; other seeds give fresh systems
of the same kind (Rosenzweig–MacArthur). `lotka-volterra` integrates the classical equations. The file has
/trajectories, float32 [systems, 100, 2] (prey, predator), and /time, float64 [100].
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lvray.core.errors import DataError, LvrayError, UsageError
from lvray.series import dataset, predator_prey

_ENDINGS = (".h5", ".hdf5")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; gives its exit code."""
    arguments = _parser().parse_args(argv)
    out: Path = arguments.out
    try:
        _refuse(out, force=arguments.force)
        made = dataset.generate(arguments.source, seed=arguments.seed, systems=arguments.systems)
        dataset.write(out, made)
    except LvrayError as error:
        print(f"lvray generate: {error}", file=sys.stderr)
        return error.exit_code
    print(
        f"{out}: {made.systems} systems of {made.steps} steps, {' and '.join(made.variables)} "
        f"({made.source}), {out.stat().st_size} bytes"
    )
    return 0


def _refuse(out: Path, *, force: bool) -> None:
    """Refuses what would be found out only after the work is done."""
    if out.suffix.lower() not in _ENDINGS:
        raise UsageError(f"--out {out}: an HDF5 file is written, its name ends in .h5 or .hdf5")
    if out.is_dir():
        raise DataError(f"{out}: a folder; --out names the file to write")
    if out.exists() and not force:
        raise DataError(f"{out}: there is such a file already; --force overwrites it")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lvray generate", description="Write a predator–prey data set to an HDF5 file."
    )
    parser.add_argument("source", choices=sorted(dataset.GENERATED), help="which equations")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.h5", help="file to write")
    parser.add_argument(
        "--seed",
        type=_whole(0, predator_prey.LARGEST_SEED),
        default=0,
        help="0 (the default) with coursework is the course's own data set",
    )
    parser.add_argument(
        "--systems", type=_whole(1, 10**7), default=1000, help="how many systems (default 1000)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite the file if it is there")
    return parser


def _whole(low: int, high: int) -> Callable[[str], int]:
    """Gives a reader of whole numbers from low to high, for argparse."""

    def number(text: str) -> int:
        if not (text.isdecimal() and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return number


if __name__ == "__main__":
    raise SystemExit(main())
