"""Sends a sweep file to a cluster as one job, or runs it here; checks first what can be checked.

python -m lvray.submit SWEEP.yaml --cluster NAME|FILE [--dry-run] [--follow] [--nodes N] [--gpus-per-node N] [--time 12:00:00]
    [--account A] [--partition P] [--set path=value …] [--scale F] [--runs FOLDER] [--fresh] [--speed 4e12] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from lvray.core.arguments import count, positive
from lvray.core.errors import LvrayError, ModelError, UsageError
from lvray.core.output import say
from lvray.core.trial import StagePlan
from lvray.core.units import flops_from_text
from lvray.launcher import fit, sbatch, slurm
from lvray.launcher.follow import Log, follow
from lvray.launcher.job import Job, described, gpus, instructions, to_json
from lvray.launcher.profile import Profile, load_profile
from lvray.launcher.request import Request, Wishes, refusals, request, seems_private, workers
from lvray.launcher.shipped import SCRIPT, found
from lvray.planner.asked import add_arguments, asked
from lvray.planner.data import variables_of
from lvray.planner.model import ensure_whole, hub_cache
from lvray.planner.speed import Pace, seconds
from lvray.planner.stages import outline
from lvray.spec.schema import Sweep

Found = TypeVar("Found")

Judged: TypeAlias = tuple[list[str], list[str]]
"""Why a job cannot be, and what a person should know of it otherwise."""


def prepared(arguments: argparse.Namespace, *, variables: Mapping[str, str], python: str) -> Job:
    """Reads the sweep file and the profile and checks one against the other.

    What is wrong is told together, as far as one thing can be judged without the other: no plan without a sweep.

    Args:
        arguments: the command line.
        variables: the environment.
        python: this Python.

    Raises:
        LvrayError: the sweep file or the profile has mistakes, the budget does not pay for the plan, the cluster would
            refuse the job, or the sweep could not be finished there.
    """
    errors: list[LvrayError] = []
    found_profile = _unless(errors, lambda: load_profile(arguments.cluster))
    sweep = _unless(errors, lambda: _sweep(arguments))
    plans = None if sweep is None else _unless(errors, lambda: _plans(sweep))
    rate = _unless(errors, lambda: _rate(arguments.speed))
    if found_profile is None:
        raise _as_one(errors)
    profile, file = found_profile
    rate = rate or profile.flops_per_second
    own_share = None if sweep is None else _own_share(sweep)
    job, unread = request(
        profile,
        _wishes(arguments),
        name=arguments.sweep.stem if sweep is None else sweep.name,
        arguments=((str(arguments.sweep),), *_sweep_options(arguments, profile, own_share)),
        python=python,
        variables=variables,
    )
    refused = refusals(profile, job, cluster=str(file), here=Path.cwd())
    judged: list[Judged] = [
        ([*_only_for_schedulers(arguments, profile), *unread, *refused], []),
        ([], list(_private_python(profile, job))),
    ]
    if sweep is not None:
        judged.append(_device(job, sweep))
        if not any(isinstance(error, ModelError) for error in errors):  # told already
            judged.append(_model(profile, job, sweep, variables, dry_run=arguments.dry_run))
    if plans is not None:
        judged.append(_unpausable(profile, job, plans, rate))
    wrong = [line for lines, _ in judged for line in lines]
    warnings = [line for _, lines in judged for line in lines]
    if wrong:
        errors.append(UsageError("\n".join(wrong)))
    if sweep is None or plans is None or errors:
        raise _as_one(errors)
    at_once = workers(
        profile,
        job,
        device=sweep.resources.device,
        trials_per_gpu=own_share or profile.trials_per_gpu,
        wanted=sweep.resources.workers,
        cores_here=os.cpu_count() or 1,
    )
    batch = profile.scheduler == "slurm"
    return Job(
        profile=profile,
        cluster=str(file),
        request=job,
        variables=sbatch.environment(profile, job) if batch else sbatch.local_environment(profile),
        command=sbatch.command(profile, job, found(SCRIPT)) if batch else sbatch.local_command(job),
        user=variables.get("USER", "USER"),
        budget=sweep.budget,
        rate=rate,
        workers=at_once,
        seconds=_plan_seconds(plans, Pace(float(rate), at_once)),
        warnings=tuple(warnings),
    )


def _unless(errors: list[LvrayError], work: Callable[[], Found]) -> Found | None:
    """What `work` gives; None where it is a mistake, which is then among `errors`."""
    try:
        return work()
    except LvrayError as error:
        errors.append(error)
        return None


def _as_one(errors: Sequence[LvrayError]) -> LvrayError:
    """All of them in one; a mistake of the command line or a file among them gives the exit code."""
    if len(errors) == 1:
        return errors[0]
    usage = any(isinstance(error, UsageError) for error in errors)
    return (UsageError if usage else LvrayError)("\n".join(str(error) for error in errors))


def _sweep(arguments: argparse.Namespace) -> Sweep:
    wanted = asked(arguments)
    if wanted.note:
        print(wanted.note, file=sys.stderr)
    return wanted.sweep


def _plans(sweep: Sweep) -> Sequence[StagePlan]:
    return outline(sweep, variables=variables_of(sweep))


def _wishes(arguments: argparse.Namespace) -> Wishes:
    return Wishes(
        arguments.nodes,
        arguments.gpus_per_node,
        arguments.time,
        arguments.account,
        arguments.partition,
        arguments.runs,
    )


def _own_share(sweep: Sweep) -> int | None:
    """How many trials share a GPU, where the sweep file or the command line says so."""
    said = "trials_per_gpu" in sweep.resources.model_fields_set
    return sweep.resources.trials_per_gpu if said else None


def _sweep_options(
    arguments: argparse.Namespace, profile: Profile, own_share: int | None
) -> list[tuple[str, ...]]:
    """What is handed on to `lvray.sweep`, and the profile's trials a GPU where nobody else said how many."""
    options: list[tuple[str, ...]] = [("--set", override) for override in arguments.overrides]
    if arguments.scale is not None:
        options.append(("--scale", arguments.scale))
    if own_share is None and profile.most_gpus:
        options.append(("--set", f"resources.trials_per_gpu={profile.trials_per_gpu}"))
    if arguments.fresh:
        options.append(("--fresh",))
    return options


def _only_for_schedulers(arguments: argparse.Namespace, profile: Profile) -> list[str]:
    given = [
        option
        for option, value in (
            ("--time", arguments.time),
            ("--account", arguments.account),
            ("--partition", arguments.partition),
            ("--follow", arguments.follow or None),
        )
        if value is not None
    ]
    if not given or profile.scheduler != "local":
        return []
    return [
        f"{', '.join(given)}: {arguments.cluster} runs the sweep here, and asks no scheduler; leave it out"
    ]


def _rate(text: str | None) -> int | None:
    """The rate that was given; None where none was."""
    if text is None:
        return None
    try:
        rate = flops_from_text(text)
    except ValueError:
        rate = 0
    if rate == 0:
        raise UsageError(f"--speed {text}: must be accounted FLOP/s of one trial, such as 4e12")
    return rate


def _plan_seconds(plans: Sequence[StagePlan], pace: Pace) -> float:
    return sum(seconds(plan, pace) for plan in plans)


def _private_python(profile: Profile, job: Request) -> Iterator[str]:
    if profile.scheduler == "slurm" and seems_private(profile, job, Path(job.python)):
        yield (
            f"python {job.python} seems to be on this machine's own disk, which the nodes cannot see; make its environment in a "
            "folder that all share, or name it in the profile's shared: if they do see it"
        )


def _device(job: Request, sweep: Sweep) -> Judged:
    if sweep.resources.device == "cuda" and not job.gpus:
        return [
            "resources.device is cuda in the sweep file, and the job asks for no GPUs; give --gpus-per-node, or "
            "--set resources.device=auto"
        ], []
    if sweep.resources.device == "cpu" and job.gpus:
        return [], [
            f"resources.device is cpu in the sweep file, and the job asks for {gpus(job.gpus)} that it would leave idle; "
            "--set resources.device=auto, or take a profile of CPU nodes"
        ]
    return [], []


def _model(
    profile: Profile, job: Request, sweep: Sweep, variables: Mapping[str, str], *, dry_run: bool
) -> Judged:
    """Whether the base model is there for a job that cannot ask the hub.

    A dry run may be made on a machine that has nothing to do with the cluster, and is told what submitting would be.
    """
    if not profile.offline:
        return [], []
    cache = hub_cache({**variables, **sbatch.exported(profile, variables)})
    try:
        place = ensure_whole(sweep.model, cache)
    except ModelError as error:
        told = [str(error)]
        return ([], told) if dry_run else (told, [])
    if place and profile.scheduler == "slurm" and seems_private(profile, job, place.absolute()):
        return [], [
            f"model {place} seems to be on this machine's own disk, which the nodes cannot see"
        ]
    return [], []


def _unpausable(profile: Profile, job: Request, plans: Sequence[StagePlan], rate: int) -> Judged:
    """Whether the job has time for the longest piece of the plan that cannot be paused."""
    if job.seconds is None or job.seconds <= profile.notice_seconds:
        return [], []
    stretch = fit.longest_unpausable(plans)
    times = {"wall": job.seconds, "notice": profile.notice_seconds}
    if never := fit.refusal(stretch, flops_per_second=rate, **times):
        return [never], []
    late = fit.warning(stretch, flops_per_second=rate, **times)
    return [], [late] if late else []


def _commented(text: str) -> str:
    return "\n".join(f"# {line}" for line in text.splitlines())


def _submitted(job: Job) -> str:
    logs = Path(job.request.logs)
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LvrayError(
            f"{logs}: cannot be made: {error.strerror}; take another folder with --runs"
        ) from error
    sent = slurm.submit(sbatch.words(job.command), job.variables, login=job.profile.login)
    if sent.notices:
        print(sent.notices, file=sys.stderr)
    return sent.job


def _run_here(job: Job) -> int:
    """Becomes the sweep, so that Ctrl-C and exit codes are the sweep's own."""
    words = sbatch.words(job.command)
    sys.stdout.flush()
    try:
        os.execvpe(words[0], words, {**os.environ, **job.variables})
    except OSError as error:
        raise LvrayError(
            f"{words[0]}: cannot be run: {error.strerror}; mend python: in the profile"
        ) from error


def _followed(job: Job, number: str) -> int:
    """Follows a job to its end; 0 where it completed or where a person stopped following."""

    def tell(line: str) -> None:
        say(f"[job {number}] {line}")

    def runs_on(node: str) -> str:
        tunnel = sbatch.tunnel(number, user=job.user, node=node, login=job.profile.login)
        return f"on {node}; dashboard: {sbatch.DASHBOARD} after {tunnel}"

    try:
        last = follow(
            lambda: slurm.look(number),
            Log(Path(job.request.log(number))),
            say=tell,
            show=lambda text: print(text, end="", flush=True),
            runs_on=runs_on,
            wait=time.sleep,
        )
    except KeyboardInterrupt:
        say(f"\nno longer followed; job {number} goes on (scancel {number} stops it)")
        return 0
    if last is None:
        raise LvrayError(
            f"job {number} is not known to Slurm any more; {job.request.log(number)} has its last words"
        )
    if last.state == "COMPLETED":
        return 0
    code = f", exit code {last.exit_code}" if last.exit_code else ""
    raise LvrayError(
        f"job {number} ended as {last.state}{code}; {job.request.log(number)} has its last words"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line; 0 well, 1 a deliberate error, 2 usage, a bad sweep file or a bad profile."""
    arguments = _parser().parse_args(argv)
    try:
        job = prepared(arguments, variables=os.environ, python=sys.executable)
        if arguments.dry_run:
            say(
                json.dumps(to_json(job, None), indent=1)
                if arguments.json
                else f"{_commented(described(job))}\n{job.shell}"
            )
            return 0
        return _sent(job, as_json=arguments.json, followed=arguments.follow)
    except LvrayError as error:
        print(f"lvray submit: {error}", file=sys.stderr)
        return error.exit_code


def _sent(job: Job, *, as_json: bool, followed: bool) -> int:
    if not job.batch:
        if not as_json:
            say(described(job))
        return _run_here(job)
    number = _submitted(job)
    say(
        json.dumps(to_json(job, number), indent=1)
        if as_json
        else f"{described(job)}\n{instructions(job, number)}"
    )
    return _followed(job, number) if followed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lvray submit",
        description="Sends a sweep file to a cluster as one job, or runs it here.",
    )
    add_arguments(parser)
    parser.add_argument(
        "--cluster",
        required=True,
        metavar="NAME|FILE",
        help="a profile: its name in cluster/ here or among those that came with lvray, or its file",
    )
    parser.add_argument("--nodes", type=positive, help="nodes of the job (default: the profile's)")
    parser.add_argument(
        "--gpus-per-node", type=count, metavar="N", help="GPUs on each (default: the profile's)"
    )
    parser.add_argument(
        "--time", metavar="12:00:00", help="wall time of the job (default: the profile's)"
    )
    parser.add_argument("--account", help="who pays (default: the profile's)")
    parser.add_argument("--partition", help="(default: the profile's)")
    parser.add_argument(
        "--runs", metavar="FOLDER", help="where run folders are made (default: the profile's)"
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="put a run folder of that name aside and start anew, as lvray.sweep does",
    )
    parser.add_argument(
        "--speed",
        metavar="RATE",
        help="accounted FLOP/s of one trial, to tell how long the plan takes (default: the profile's)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print environment and command, to be pasted; submit nothing",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="print the job's states and its log until it ends; Ctrl-C stops following, not the job",
    )
    parser.add_argument("--json", action="store_true", help="for programs; FLOPs as strings")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
