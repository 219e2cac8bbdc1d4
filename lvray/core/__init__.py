"""Floor 0: the words that every other room speaks. Standard library only.

- `units`       FLOPs and seconds, read, written and shown
- `errors`      what can go wrong that a person can mend
- `trial`       trials, their plans, measurements and decisions
- `task`        what a worker needs to run one trial
- `run_folder`  the files of one run
- `arguments`   whole numbers of a command line, read
"""
