"""A real Slurm of two nodes for the tests of this folder, and a check after each that nothing is left on it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
FOLDER = Path("/tmp/lvray-slurm")  # short: sockets of Ray lie below it
NODES = ("lvt1", "lvt2")
PATIENCE = 900
"""Seconds that anything may take. Generous, for it costs nothing where all goes well, on a machine of any speed."""
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "DEADLINE", "BOOT_FAIL"}


def wait_until(
    true: Callable[[], object], what: str, seconds: float = PATIENCE, log: Callable[[], str] = str
) -> None:
    """Waits until something holds; if it does not come about, tells of `what`, of `log` and of Slurm's own logs."""
    end = monotonic() + seconds
    while not true():
        if monotonic() > end:
            daemons = [FOLDER / "slurmctld.log", *sorted(FOLDER.glob("*/slurmd.log"))]
            logs = [path.read_text()[-2000:] for path in daemons]
            pytest.fail("\n".join([f"not in {seconds:.0f} s: {what}", *logs, log()]))
        sleep(0.2)


@dataclass
class Job:
    """A sweep that was submitted; where it was submitted its run folder lies."""

    site: Site
    number: str
    home: Path
    logs: Path

    @property
    def folder(self) -> Path:
        """The run folder of the small sweep."""
        return self.home / "runs" / "small"

    @property
    def address(self) -> str:
        """Of its Ray, as its log tells it."""
        line = next(line for line in self.log().splitlines() if line.startswith("  Ray "))
        return line.split()[1].rstrip(",")

    def shown(self) -> dict[str, str]:
        """What Slurm says of it."""
        words = self.site.run("scontrol", "show", "job", "--oneliner", self.number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def log(self) -> str:
        return "".join(path.read_text() for path in self.logs.glob(f"*-{self.number}.log"))

    def journal(self, event: str | None = None) -> list[dict]:
        path = self.folder / "journal.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        return [row for row in rows if event in (None, row["event"])]

    def running(self) -> set[str]:
        """Gives the trials that are at work, as its journal has it."""
        at_work = set()
        for row in self.journal():
            match row["event"]:
                case "start":
                    at_work.add(row["trial_id"])
                case "decision" if row["status"] != "running":
                    at_work.discard(row["trial_id"])
                case "pause":
                    at_work.discard(row["pause"]["trial_id"])
                case "failure" | "interruption":
                    at_work.discard(row["trial_id"])
        return at_work

    def wait_until(self, true: Callable[[], object], what: str) -> None:
        """Waits until something holds that has to come about while this job is not at its end."""

        def there() -> bool:
            state = self.shown()["JobState"]
            if true():
                return True
            if state in ENDED:
                pytest.fail(f"job {self.number} ended as {state} before {what}:\n{self.log()}")
            return False

        wait_until(there, f"{what}, of job {self.number}", log=self.log)

    def wait_for(self, event: str, count: int = 1) -> None:
        """Waits until its journal tells of so many events."""
        self.wait_until(lambda: len(self.journal(event)) >= count, f"{count} times {event}")

    def wait_for_requeue(self) -> None:
        """Waits until Slurm has queued it again."""
        again = f"job {self.number} queued again"
        wait_until(lambda: int(self.shown()["Restarts"]), again, log=self.log)

    def end(self) -> str:
        """Waits until it has ended, and gives the state it ended in."""
        ended = f"the end of job {self.number}"
        wait_until(lambda: self.shown()["JobState"] in ENDED, ended, log=self.log)
        return self.shown()["JobState"]

    def minutes(self) -> int:
        """Whole minutes since it was started."""
        hours, minutes, _ = self.shown()["RunTime"].split(":")
        return 60 * int(hours) + int(minutes)

    def cancel(self) -> None:
        self.site.run("scancel", self.number)

    def audit(self) -> dict:
        command = [sys.executable, "-m", "lvray.audit", str(self.folder), "--json"]
        asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return json.loads(asked.stdout)


class Site:
    """Two nodes with two CPUs and a make-believe GPU each, and their Slurm."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.environment = os.environ | {
            "SLURM_CONF": str(FOLDER / "slurm.conf"),
            "PYTHONPATH": str(ROOT),
            "LVRAY_PYTHON": sys.executable,
            "LVRAY_SCRATCH": str(FOLDER / "disk"),
        }

    def run(self, *command: str, **more: str) -> str:
        """Gives what a command of Slurm prints."""
        ran = self._ran(command, more)
        assert ran.returncode == 0, (command, ran.stderr)
        return ran.stdout

    def submit(
        self, home: Path, *arguments: str, options: tuple[str, ...] = (), **environment: str
    ) -> Job:
        """Submits the small sweep as people do: from where run folders and the log shall lie."""
        number = self.run(
            *("sbatch", "--parsable", f"--chdir={home}", *options),
            *(str(ROOT / "slurm" / "sweep.sbatch"), str(ROOT / "tests" / "ray" / "small.yaml")),
            *arguments,
            **environment,
        ).strip()
        return self.submitted(number, home, home)

    def submitted(self, number: str, home: Path, logs: Path) -> Job:
        """Takes note of a job, for the end of the test."""
        self.jobs.append(Job(self, number, home, logs))
        return self.jobs[-1]

    def first_process(self, node: str) -> int:
        return int((FOLDER / node / "pid").read_text())

    def on(self, node: str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a command on a node, as somebody who is logged in there."""
        entered = ["nsenter", "--all", f"--target={self.first_process(node)}", *command]
        return self._ran(entered, environment)

    def _ran(
        self, command: Sequence[str], more: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment | more,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def kill(self, node: str) -> None:
        """Cuts a node off, then kills all its processes: as if its power had failed, nobody hears of their end."""
        subprocess.run(["ip", "link", "set", self._link(node), "down"], check=True)
        daemon = int((FOLDER / node / "slurmd.pid").read_text())
        self.on(node, "kill", "-KILL", str(daemon))  # a node has process ids of its own
        while found := self.processes(node):
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def restart(self, node: str) -> None:
        """Starts the daemon of a node that was killed, and waits until Slurm gives it jobs again, as after a boot."""
        for path in self.disk(node).iterdir():
            shutil.rmtree(path)
        subprocess.run(["ip", "link", "set", self._link(node), "up"], check=True)
        subprocess.run([HERE / "up.sh", FOLDER, node], check=True, timeout=PATIENCE)
        with suppress(
            AssertionError
        ):  # refused while Slurm has not yet seen that the node was gone
            self.run("scontrol", "update", f"NodeName={node}", "State=RESUME")

        def idle() -> bool:
            return "State=IDLE " in self.run("scontrol", "show", "node", node)

        wait_until(idle, f"node {node} being idle")

    def _link(self, node: str) -> str:
        """The real machine's end of a node's cable."""
        return f"lvtv{NODES.index(node) + 1}"

    def processes(self, node: str) -> dict[int, str]:
        """Gives the command lines of all that runs on a node beside its own daemon, by process id."""
        first = self.first_process(node)
        space = Path(f"/proc/{first}/ns/pid").readlink()
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if (folder / "ns" / "pid").readlink() != space:
                    continue
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue  # it ended as we looked, or nobody may look
            line = " ".join(words).strip()
            its_own = line in {"sleep 3600", f"slurmd -N {node}"} or int(folder.name) == first
            if line and not its_own:  # no line: a process that has ended and is not yet collected
                found[int(folder.name)] = line
        return found

    def trials(self, node: str) -> list[int]:
        """Gives the processes on a node in which a trial runs."""
        return [pid for pid, line in self.processes(node).items() if "ray::ImplicitFunc" in line]

    def seconds_worked(self) -> float:
        """CPU seconds of all processes in which trials run."""
        ticks = 0
        for pid in (pid for node in NODES for pid in self.trials(node)):
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    @contextmanager
    def frozen_trials(self) -> Iterator[None]:
        """Holds every process in which a trial runs, wherever it stands, as a machine does that is infinitely slow."""
        held = [pid for node in NODES for pid in self.trials(node)]
        assert held, "no trial to hold"
        for pid in held:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in held:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def disk(self, node: str) -> Path:
        return FOLDER / node / "disk"

    def left(self) -> list[str]:
        """Gives all that is there and would not be if no job had ever run."""
        steps = self.run("squeue", "--noheader", "--steps", "--format=step %i").splitlines()
        lines = [
            f"{node}: {line[:120]}" for node in NODES for line in self.processes(node).values()
        ]
        files = [f"{node}: {path}" for node in NODES for path in self.disk(node).iterdir()]
        return steps + lines + files


def _why_not() -> str | None:
    """Why this machine cannot play two nodes, or None."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    missing = [
        name
        for name in ("slurmctld", "slurmd", "munged", "ip", "unshare")
        if not shutil.which(name)
    ]
    if missing:
        return f"needs slurm-wlm, munge and iproute2: there is no {', '.join(missing)}"
    spaces = ["unshare", "--mount", "--uts", "--net", "--pid", "--fork", "--mount-proc", "true"]
    tried = subprocess.run(spaces, capture_output=True, text=True, check=False)
    return f"namespaces are forbidden here: {tried.stderr.strip()}" if tried.returncode else None


@pytest.fixture(scope="session")
def site():
    why_not = _why_not()
    if why_not and os.environ.get("LVRAY_SLURM_TESTS") == "required":
        pytest.fail(why_not)
    if why_not:
        pytest.skip(why_not)
    with Path(f"{FOLDER}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run of these tests on this machine is waited for
        try:
            subprocess.run([HERE / "up.sh", FOLDER], check=True, timeout=PATIENCE)
            yield Site()
        finally:
            subprocess.run([HERE / "down.sh", FOLDER], check=True, timeout=PATIENCE)


@pytest.fixture(autouse=True)
def _nothing_is_left(site):
    """No process, file or step of any job outlives a test; jobs of a test that failed are ended."""
    yield
    jobs, site.jobs = site.jobs, []
    running = [job for job in jobs if job.shown()["JobState"] not in ENDED]
    for job in running:
        job.cancel()
    for job in running:
        job.end()
    end = monotonic() + 60  # Slurm tells of an end before the last process is gone
    while site.left() and monotonic() < end:
        sleep(0.5)
    assert site.left() == []
