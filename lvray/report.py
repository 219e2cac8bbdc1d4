"""Rebuilds the report of a sweep from its run folder, finished or not; or shows the sweep while it runs elsewhere.

    python -m lvray.report runs/grid [--watch]

`--watch` shows what the driver shows, from any machine that sees the run folder, until the sweep has ended.
It only reads, and it waits for a folder that is not there yet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lvray.core.errors import LvrayError


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line; 0 well (Ctrl-C ends a watch well), 1 a deliberate error, 2 usage."""
    parser = argparse.ArgumentParser(
        prog="lvray report", description="Rebuilds a report from its run folder."
    )
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show the sweep while it runs elsewhere, until it has ended; writes nothing, and waits for a folder that is not there yet",
    )
    arguments = parser.parse_args(argv)
    try:
        return _watch(arguments.run) if arguments.watch else _rebuild(arguments.run)
    except LvrayError as error:
        print(f"lvray report: {error}", file=sys.stderr)
        return error.exit_code


def _rebuild(run: Path) -> int:
    from lvray.reporting.page import write

    markdown, page = write(run)
    print(f"{page}\n{markdown}")
    return 0


def _watch(run: Path) -> int:
    from lvray.reporting.watch import watch

    try:
        watch(run)
    except KeyboardInterrupt:
        print("\nno longer watching; the sweep goes on")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
