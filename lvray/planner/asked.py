"""Which sweep does a command line ask for? A file, fields that are set, and a scale: of every verb that plans."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from lvray.planner.data import variables_of
from lvray.planner.scaled import factor_from_text, scaled, told
from lvray.spec.load import load
from lvray.spec.schema import Sweep


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for."""

    sweep: Sweep
    note: str | None
    """A line on what was scaled; None where nothing was."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Gives a verb's parser the arguments that `asked` reads."""
    parser.add_argument("sweep", type=Path, help="the sweep file")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="path=value",
        help="one field of it, such as model=tiny",
    )
    parser.add_argument(
        "--scale",
        metavar="F",
        help="that fraction of its budget, and of its steps and windows as many as keep each stage's share",
    )


def asked(arguments: argparse.Namespace) -> Asked:
    """Reads the sweep file that a command line names.

    Raises:
        SpecError: the file or what is set has mistakes.
        UsageError: the scale is no number above 0, or leaves no budget.
        ModelError: a scale is asked for, and a model's shape is not known.
    """
    path, overrides, scale = arguments.sweep, arguments.overrides, arguments.scale
    factor = None if scale is None else factor_from_text(scale)
    sweep = load(path, overrides=overrides)
    if factor is None:
        return Asked(sweep, None)
    small = scaled(sweep, factor, made_for=load(path), variables=variables_of(sweep))
    return Asked(small, told(sweep, small, scale))
