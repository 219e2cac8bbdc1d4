"""Where does a trial stop to be measured, and what does it cost to get there?

A trial's price is unrolled before it runs: `price(0 → s) = s · train_step + evaluations · evaluation`,
and once more `forecast` where forecasts are generated. A schedule that can be printed can be checked.
"""

from __future__ import annotations

from collections.abc import Sequence

from lvray.core.trial import Milestone, StepPrices


def price(prices: StepPrices, *, steps: int, evaluations: int, forecast: bool) -> int:
    """FLOPs of `steps` optimizer steps with `evaluations` evaluations and, at most, one round of forecasts."""
    work = steps * prices.train_step + evaluations * prices.evaluation
    return work + (prices.forecast if forecast else 0)


def steps_within(prices: StepPrices, flops: int, *, evaluations: int, forecast: bool) -> int:
    """The most whole steps that `flops` pay for, evaluations included; negative if not even those fit."""
    return (
        flops - price(prices, steps=0, evaluations=evaluations, forecast=forecast)
    ) // prices.train_step


def evenly(steps: int, evaluations: int) -> tuple[int, ...]:
    """At most `evaluations` different steps, evenly spaced, the last one `steps`: 100 and 4 give 25, 50, 75, 100."""
    # Whole numbers throughout: a budget of 1e26 buys more steps than a float can count.
    places = {
        (steps * (index + 1) + evaluations // 2) // evaluations for index in range(evaluations)
    }
    return tuple(sorted({max(1, place) for place in places}))


def unroll(
    prices: StepPrices,
    stops: Sequence[tuple[int, int | None]],
    *,
    forecast: bool,
    behind: Sequence[Milestone] = (),
) -> tuple[Milestone, ...]:
    """Milestones at `stops`, pairs of (step, rung or None) in order of steps.

    Args:
        prices: what the parts of the trial cost.
        stops: where to evaluate.
        forecast: whether forecasts are generated at the last of them.
        behind: milestones already reached, which the new ones follow.
    """
    milestones = list(behind)
    for index, (step, rung) in enumerate(stops):
        before = milestones[-1] if milestones else Milestone(step=0, flops=0)
        generates = forecast and index == len(stops) - 1
        stretch = price(prices, steps=step - before.step, evaluations=1, forecast=generates)
        milestones.append(Milestone(step, before.flops + stretch, rung, generates))
    return tuple(milestones)


def fill(
    prices: StepPrices,
    flops: int,
    *,
    evaluations: int,
    forecast: bool,
    behind: Sequence[Milestone] = (),
    paused_at: int | None = None,
) -> tuple[Milestone, ...] | None:
    """Milestones of a trial that takes as many whole steps as `flops` buy from where it stands.

    Gives None where `flops` do not even pay for one step and its evaluation.

    Args:
        prices: what the parts of the trial cost.
        flops: what may be spent from here on.
        evaluations: how many milestones there are to be, at most.
        forecast: whether forecasts are generated at the last of them.
        behind: milestones already reached.
        paused_at: steps done, where the trial stands beyond the last of them.
    """
    begun = paused_at or (behind[-1].step if behind else 0)
    for count in range(evaluations, 0, -1):
        steps = steps_within(prices, flops, evaluations=count, forecast=forecast)
        if steps >= count:
            stops = [(begun + step, None) for step in evenly(steps, count)]
            return unroll(prices, stops, forecast=forecast, behind=behind)
    return None
