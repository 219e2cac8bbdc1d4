"""Floor 3: from what a person asked to what will be run, and what that costs. Runs nothing.

- `data`     the sweep's series: read, split, scaled, ready to be written as text
- `model`    whether the base model can be had at all
- `prices`   what one trial's steps, evaluations and forecasts cost
- `stages`   the trials of each stage, their milestones, and who may spend what
- `tasks`    what a worker is told of one attempt
- `environment`  versions, commit and machine
"""
