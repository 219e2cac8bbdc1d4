"""Rebuilds the report of a sweep from its run folder, finished or not.

python -m lvray.report runs/grid
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lvray.core.errors import LvrayError


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line; 0 well, 1 a deliberate error, 2 usage."""
    parser = argparse.ArgumentParser(
        prog="lvray report", description="Rebuilds a report from its run folder."
    )
    parser.add_argument("run", type=Path, help="the run folder")
    arguments = parser.parse_args(argv)
    from lvray.reporting.page import write

    try:
        markdown, page = write(arguments.run)
    except LvrayError as error:
        print(f"lvray report: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{page}\n{markdown}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
