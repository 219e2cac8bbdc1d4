"""Floor 3: from a cluster profile to a job. Knows nothing of Ray or Torch, and is quick on a login node.

- `profile`  what may stand in a cluster profile, and how one is found and read
- `request`  what is asked of a cluster for one sweep, and whether its profile allows it
- `fit`      whether a plan fits into the wall time, and what of it cannot be paused
- `sbatch`   options, environment and command line of a job: pure functions
- `job`      what is known of a job, told to people and programs
- `slurm`    the thin edge: sbatch and scontrol as subprocesses
- `follow`   what a job is seen to do, until it has ended
- `shipped`  where the files lie that come with the package
"""
