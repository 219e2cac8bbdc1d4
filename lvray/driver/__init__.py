"""Floor 4: carries a sweep from its first stage to its last, and knows nothing of how trials are run.

- `walk`    opens a run folder, plans, pays, runs and judges stage after stage
- `best`    the winner's adapter and its card
- `inline`  carries trials out one after the other in this process, without Ray
"""
