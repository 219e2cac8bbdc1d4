"""The heart: grants stretches of trials, hears what they measured, judges, and keeps the books.

Events in, instructions out. Nothing here knows of Ray, processes or clocks: a driver (Ray, or virtual
time) asks `next_grant` when a worker is free, tells `hear` what a trial measured and `fail` when one
broke, and does as it is told. Two orders make a crash at any moment harmless:

- a grant is in the ledger *before* anyone may use it, and in the journal before a worker hears of it;
- a measurement is in the journal *before* it is paid for, since paying again is harmless (every
  transfer has a key) and forgetting is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lvray.core.errors import Blame, Overdraft
from lvray.core.trial import (
    Action,
    Decision,
    Measurement,
    Pause,
    StagePlan,
    Status,
    Trial,
    TrialPlan,
)
from lvray.core.units import format_flops
from lvray.ledger.books import Books
from lvray.scheduler.milestones import fill
from lvray.scheduler.policy import Policy, Winner, finite_loss
from lvray.scheduler.roster import Roster

Record = Callable[[Mapping[str, Any]], None]
"""Writes one line to the journal, durably, before it returns."""


Choose = Callable[[Trial, Roster], TrialPlan | None]
"""Gives an open trial its config and milestones, no dearer than those it has; None where no config is left to try."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A stretch of a trial that is paid for: from the milestone it reached to the one it may reach."""

    plan: TrialPlan
    attempt: int
    reached: int
    """Index of the milestone whose checkpoint the stretch starts from; -1 for the very start."""
    until: int
    """Index of the last milestone paid for."""
    flops: int
    paused_at: int | None = None
    """Steps at a pause beyond that milestone, whose checkpoint the stretch starts from instead."""

    def flops_to(self, index: int) -> int:
        """FLOPs that the attempt has used when it comes to milestone `index`."""
        return self.flops - self.plan.flops_at(self.until) + self.plan.flops_at(index)


class Scheduler:
    """One stage of a sweep, from its plan to its winner."""

    def __init__(
        self,
        stage: StagePlan,
        policy: Policy,
        books: Books,
        record: Record,
        *,
        session: int = 1,
        most_failures: int = 2,
        trials: Mapping[str, Trial] | None = None,
        choose: Choose | None = None,
    ) -> None:
        """Takes up a stage.

        Args:
            stage: its plan.
            policy: who judges.
            books: the sweep's accounts; the stage's allowance is already in its own.
            record: writes the journal.
            session: counts the drivers that worked on this sweep. It stands in the keys of reservations:
                one that a killed driver made and told nobody of must not pay for one of ours.
            most_failures: how often a trial may break before it is given up; or, where the machine is to blame, before the
                session is.
            trials: where the trials stand if the stage was begun before (`scheduler.replay`).
            choose: chooses the configs of trials that are open.
        """
        self.stage = stage
        self.trials = Roster(
            (Trial(plan) for plan in stage.trials) if trials is None else trials.values()
        )
        self._policy = policy
        self._books = books
        self._record = record
        self._session = session
        self._most_failures = most_failures
        self._choose = choose
        self._held = ""
        """Why nothing more is granted, in words; empty while it is."""
        self._breakdowns: Counter[str] = Counter()
        """How often in a row the machine was to blame, by trial. The next session, on a machine that was mended, counts anew."""
        self._breakdown = ""

    # What a driver asks.

    @property
    def running(self) -> int:
        """How many trials hold a grant."""
        return self.trials.count(Status.RUNNING)

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing more can be granted; asking changes nothing."""
        return self.running == 0 and self._affordable() is None

    @property
    def held(self) -> bool:
        """Whether `hold` was called: nothing is granted any more, though it could be paid for."""
        return bool(self._held)

    @property
    def breakdown(self) -> str:
        """Why this session cannot go on, in words, where the machine fails a trial too often; else empty.

        Nothing is granted any more then. No trial is given up: the next session goes on with each of them.
        """
        return self._breakdown

    def next_grant(self) -> Grant | None:
        """Pays for the stretch that a free worker should take up now; None to wait, or for no more."""
        if self.held:
            return None
        while (chosen := self._affordable()) is not None and chosen[0].plan.open:
            self._configure(chosen[0])
        if chosen is None:
            return None
        trial, until = chosen
        attempt = trial.attempt + 1
        flops = self._reserve(trial, attempt, until)
        granted = replace(trial, status=Status.RUNNING, attempt=attempt, granted=until, reason="")
        self._record(
            {
                "event": "start",
                "trial_id": trial.plan.trial_id,
                "attempt": attempt,
                "reached": trial.reached,
                "granted": until,
                "flops": str(flops),
            }
        )
        self.trials.put(granted)
        return Grant(granted.plan, attempt, granted.reached, until, flops, granted.paused_at)

    # What a driver tells.

    def hear(self, measurement: Measurement) -> Decision:
        """Takes in a measurement, pays for it, and says what the trial does next.

        A measurement heard before, or of an attempt that is over, changes nothing.
        """
        trial = self.trials[measurement.trial_id]
        if trial.status is not Status.RUNNING or measurement.attempt != trial.attempt:
            return Decision(
                Action.STOP, f"attempt {measurement.attempt} is over: the trial is {trial.status}"
            )
        if measurement.milestone <= trial.reached:
            return Decision(Action.CONTINUE, "heard before")
        self._record({"event": "measurement", "measurement": measurement.to_json()})
        heard = replace(trial, curve=(*trial.curve, measurement))
        self.trials.put(heard)
        self._pay(trial, measurement)
        del self._breakdowns[measurement.trial_id]  # of a Counter, one that is not there too
        decision = self._policy.judge(heard, self.trials)
        if decision.action is Action.CONTINUE and self.held:
            decision = Decision(Action.PAUSE, f"{decision.reason}, but {self._held}")
        if decision.action is Action.CONTINUE and heard.reached == heard.granted:
            decision = self._prolong(heard, decision)
        self._conclude(self.trials[measurement.trial_id], decision)
        return decision

    def hold(self, reason: str) -> None:
        """Grants nothing more: trials pause at the next milestone that they report, whatever the policy says.

        The next driver goes on as if nothing had been.
        """
        self._held = reason

    def pause(self, pause: Pause) -> None:
        """Notes that an attempt ended between two milestones because it was asked to: no step is lost, or paid for twice.

        One heard before, or of an attempt that is over, changes nothing.
        """
        trial = self.trials[pause.trial_id]
        if trial.status is not Status.RUNNING or pause.attempt != trial.attempt:
            return
        self._record({"event": "pause", "pause": pause.to_json()})
        paused = replace(trial, pauses=(*trial.pauses, pause))
        self.trials.put(paused)
        self._pay(trial, pause)
        self._put_down(paused)

    def fail(
        self, trial_id: str, reason: str, *, blame: Blame = Blame.UNKNOWN, unused: bool = False
    ) -> None:
        """Notes that an attempt broke; the trial waits for another attempt, or fails.

        Where the machine is to blame a trial never fails: when it broke too often in a row, the session ends (`breakdown`).

        Args:
            trial_id: the trial.
            reason: what broke it, in words.
            blame: whose doing it was.
            unused: whether it broke before it had used any FLOPs. Then what it held goes back; else it is lost.
        """
        trial = self.trials[trial_id]
        if trial.status is not Status.RUNNING:
            return
        if unused:
            self._return_unused(trial)
        else:
            self._lose(trial)
        failed = replace(trial, failures=trial.failures + (blame is not Blame.MACHINE))
        again = blame is Blame.MACHINE or (
            blame is Blame.UNKNOWN and failed.failures <= self._most_failures
        )
        self._settle_status(
            failed,
            status=_interrupted(trial) if again else Status.FAILED,
            event={
                "event": "failure",
                "attempt": trial.attempt,
                "blame": blame.value,
                "reason": reason,
            },
            reason=reason,
        )
        self._make_good()
        if blame is Blame.MACHINE:
            self._count_breakdown(trial_id, reason)

    def interrupt(self, reason: str) -> None:
        """Notes that the driver stops here: every open reservation is lost, the trials wait to be resumed."""
        for trial in tuple(self.trials.values()):
            self._lose(trial)
            if trial.status is Status.RUNNING:
                self._settle_status(
                    trial,
                    status=_interrupted(trial),
                    event={"event": "interruption", "attempt": trial.attempt, "reason": reason},
                    reason=reason,
                )
        self._make_good()

    def recover(self) -> None:
        """Puts a stage in order that another driver left behind at any moment.

        What was heard is paid for (again, harmlessly), a decision that was not written down is taken
        again (it comes out the same), and whatever is still reserved is lost: nobody heard of it.
        """
        for trial in tuple(self.trials.values()):
            for index, measurement in enumerate(trial.curve):
                self._pay(replace(trial, curve=trial.curve[:index]), measurement)
            for pause in trial.pauses:
                self._pay(trial, pause)
            if trial.status is Status.RUNNING and _has_paused(trial):
                self._put_down(trial)
            elif trial.status is Status.RUNNING and trial.curve:
                decision = self._policy.judge(trial, self.trials)
                if decision.action is Action.STOP:
                    self._conclude(trial, decision)
        self.interrupt("the driver ended before this stretch was heard of")

    def close(self) -> Winner | None:
        """Ends the stage: parts with whoever is left, returns what is left, and names the winner."""
        assert self.running == 0, "a stage was closed while a trial holds a grant"
        left = [trial for trial in self.trials.values() if not trial.status.final]
        payable = set(self._policy.candidates(self.trials))
        reasons = [
            self._unpaid(trial)
            if trial.plan.trial_id in payable
            else self._policy.parting(trial, self.trials)
            for trial in left
        ]
        for trial, reason in zip(left, reasons, strict=True):
            status = Status.REFUSED if trial.status is Status.PLANNED else Status.STOPPED
            self._settle_status(
                trial, status=status, event={"event": "close", "reason": reason}, reason=reason
            )
        winner = self._policy.winner(self.trials)
        returned = self._books.give_back(self.stage.name)
        self._record(
            {
                "event": "stage_end",
                "name": self.stage.name,
                "best": winner.trial_id if winner else None,
                "reason": winner.reason if winner else "no trial has a finite loss",
                "returned": str(returned),
            }
        )
        return winner

    # The books.

    def _affordable(self) -> tuple[Trial, int] | None:
        """The first candidate whose next stretch the stage's account can pay for, and how far that goes."""
        available = self._books.available(self.stage.name)
        for name in self._policy.candidates(self.trials):
            trial = self._fitted(self.trials[name], available)
            if trial is not None:
                until = self._policy.reserve_until(trial)
                if trial.flops_until(until) <= available:
                    return trial, until
        return None

    def _fitted(self, trial: Trial, available: int) -> Trial | None:
        """A trial that fills its stage is laid out anew when a loss has left less than its plan asks for."""
        plan = trial.plan
        if not plan.fills or plan.price - trial.flops_done <= available:
            return trial
        behind = plan.milestones[: trial.reached + 1]
        ahead = len(plan.milestones) - len(behind)
        milestones = fill(
            plan.prices,
            available,
            evaluations=ahead,
            forecast=plan.milestones[-1].forecast,
            behind=behind,
            paused_at=trial.paused_at,
        )
        return (
            None
            if milestones is None
            else replace(trial, plan=replace(plan, milestones=milestones))
        )

    def _configure(self, trial: Trial) -> None:
        """Gives an open trial its config, or refuses it where every config has been tried."""
        assert self._choose is not None, f"{trial.plan.trial_id} is open and nobody chooses"
        plan = self._choose(trial, self.trials)
        if plan is None:
            reason = "every config of the space has been tried"
            self._settle_status(
                trial,
                status=Status.REFUSED,
                event={"event": "close", "reason": reason},
                reason=reason,
            )
            return
        assert not plan.open, f"{plan.trial_id} is still open"
        assert plan.price <= trial.plan.price, f"{plan.trial_id} became dearer"
        self._record({"event": "replan", "trial": plan.to_json()})
        self.trials.put(replace(trial, plan=plan))

    def _reserve(self, trial: Trial, attempt: int, until: int) -> int:
        """Reserves the stretch from the last milestone that is paid for to `until`, in the ledger."""
        name = trial.plan.trial_id
        if trial.plan != self.trials[name].plan:
            self._record({"event": "replan", "trial": trial.plan.to_json()})
        flops = trial.flops_until(until)
        self._books.reserve(
            self.stage.name, name, flops, key=f"{self._session}/{name}/{until}/{attempt}"
        )
        return flops

    def _prolong(self, trial: Trial, decision: Decision) -> Decision:
        """Grants the next stretch to a trial that goes on, or pauses it where the FLOPs end."""
        until = self._policy.reserve_until(trial)
        try:
            self._reserve(trial, trial.attempt, until)
        except Overdraft:
            return Decision(Action.PAUSE, f"{decision.reason}, but {self._unpaid(trial)}")
        self.trials.put(replace(trial, granted=until))
        return decision

    def _unpaid(self, trial: Trial) -> str:
        """Why a trial that should go on does not, in words."""
        need = trial.flops_until(self._policy.reserve_until(trial))
        left = self._books.available(self.stage.name)
        return f"its next stretch costs {format_flops(need)} FLOPs and the stage has {format_flops(left)}"

    def _pay(self, before: Trial, heard: Measurement | Pause) -> None:
        """Spends what the attempt used since it was last heard of."""
        known = [told.flops for told in before.curve if told.attempt == heard.attempt]
        used = heard.flops - max(known, default=0)
        name = before.plan.trial_id
        place = f"step-{heard.step}" if isinstance(heard, Pause) else f"{heard.milestone}"
        if used:  # one that paused where it had just been heard used nothing more
            self._books.spend(name, used, key=f"{name}/{place}/{heard.attempt}")

    def _return_unused(self, trial: Trial) -> None:
        """Gives what a trial still holds back to its stage."""
        name = trial.plan.trial_id
        held = self._books.held(name)
        if held:
            key = f"{self._session}/{name}/{trial.granted}/{trial.attempt}"
            self._books.release(name, self.stage.name, held, key=key)

    def _put_down(self, trial: Trial) -> None:
        """Lets a trial wait that has paused between two milestones."""
        self._return_unused(trial)
        reason = f"asked to pause, stands at step {trial.pauses[-1].step}"
        self._settle_status(
            trial,
            status=_interrupted(trial),
            event={"event": "interruption", "attempt": trial.attempt, "reason": reason},
            reason=reason,
        )

    def _lose(self, trial: Trial) -> None:
        name = trial.plan.trial_id
        held = self._books.held(name)
        if held:
            self._books.lose(
                name, held, key=f"{self._session}/{name}/{trial.granted}/{trial.attempt}"
            )

    def _count_breakdown(self, trial_id: str, reason: str) -> None:
        """Ends the session where the machine has failed a trial too often in a row."""
        self._breakdowns[trial_id] += 1
        count = self._breakdowns[trial_id]
        if count > self._most_failures and not self._breakdown:
            times = "once" if count == 1 else f"{count} times in a row"
            self._breakdown = (
                f"{trial_id} failed {times} for the machine's sake, so the session ends here. The last time: "
                f"{reason.rstrip('.')}. No trial is given up: mend that, or leave the node out, and the same command goes on "
                "from here"
            )
            self.hold("the machine fails its trials")

    def _make_good(self) -> None:
        """Draws on what the sweep has to spare, where losses leave the planned trials short of FLOPs."""
        books, stage = self._books, self.stage
        if not stage.spare:
            return
        lacking = self.trials.ahead - books.available(stage.name)
        drawn = books.allowed(stage.name) - stage.allowance
        more = min(lacking, stage.spare - drawn, books.free)
        if more > 0:
            key = f"{self._session}/{books.ledger.count}/made-good"
            books.allow(stage.name, more, key=key)

    def _conclude(self, trial: Trial, decision: Decision) -> None:
        """Gives back what a trial that does not go on still holds, and journals the decision."""
        if decision.action is not Action.CONTINUE:
            self._return_unused(trial)
        status = {
            Action.CONTINUE: Status.RUNNING,
            Action.PAUSE: Status.PAUSED,
            Action.STOP: Status.COMPLETED if _at_end(trial) else Status.STOPPED,
        }[decision.action]
        self._settle_status(
            trial,
            status=status,
            event={
                "event": "decision",
                "milestone": trial.reached,
                "action": decision.action.value,
                "reason": decision.reason,
            },
            reason=decision.reason,
        )

    def _settle_status(
        self, trial: Trial, *, status: Status, event: Mapping[str, Any], reason: str
    ) -> None:
        """Journals what became of a trial, then believes it. Only a running trial keeps a grant."""
        granted = trial.granted if status is Status.RUNNING else trial.reached
        name = trial.plan.trial_id
        self._record({**event, "trial_id": name, "status": status.value, "granted": granted})
        self.trials.put(replace(trial, status=status, granted=granted, reason=reason))


def _interrupted(trial: Trial) -> Status:
    return Status.PAUSED if trial.curve else Status.PLANNED


def _has_paused(trial: Trial) -> bool:
    """Whether the trial's last attempt was heard to pause."""
    return bool(trial.pauses) and trial.pauses[-1].attempt == trial.attempt


def _at_end(trial: Trial) -> bool:
    return trial.reached == len(trial.plan.milestones) - 1 and finite_loss(trial) is not None
