"""Floor 3: a sweep in virtual time. The same scheduler, policies and ledger; only the training is made up.

- `world`       workers of different speeds, stragglers, crashes, and drivers that are killed
- `landscapes`  what a trial's loss is after so many steps: read from a table of curves, or invented
"""
