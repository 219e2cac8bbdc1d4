"""Floor 2: who goes on. Pure: it hears measurements and answers decisions; Ray, files and clocks are elsewhere.

- `milestones`  where a trial stops to be measured, and what each stretch costs
- `policy`      what a policy is
- `fixed`       every trial to its end: what a grid is
- `halving`     planned asynchronous halving, with pause and promotion
- `registry`    which policies there are
- `scheduler`   one stage: grants, hears, judges, and keeps the books
- `replay`      a sweep as its journal tells it
"""
