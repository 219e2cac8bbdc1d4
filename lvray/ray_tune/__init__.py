"""Floor 4: the only room with Ray. It carries out what `scheduler.Scheduler` says, and decides nothing.

One Tune trial is one *attempt* at one of our trials: a pause ends it, a promotion or a retry is a new
one that starts from our own checkpoint. So nothing depends on how Tune pauses, restores or retries.

- `session`    starting and ending Ray; which nodes there are
- `capacity`   what a trial gets of a node, and how many fit
- `searcher`   admission: a Tune trial exists once its stretch is paid for
- `scheduler`  what Tune hears of a trial goes to our scheduler, and its answer back
- `lost`       what ended an attempt
- `trainable`  what runs in a worker
- `backend`    one stage, from its first grant to its last measurement
- `gauges`     what Prometheus sees of it
"""

import os

ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # 15 unless told otherwise: any other busy process would starve the trials
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "600",  # 2 unless told otherwise, then a trial is given up
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",
    "TUNE_MAX_PENDING_TRIALS_PG": "2",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""Ray reads some of these when it is imported, so they are set before any file of this room does.

In workers too, which import `trainable` before they take up an attempt. They leave only our own output on the
terminal, our own journal as the only state, our own hands on Ctrl-C, and a token on every connection. A value
that is set already stays.
"""

for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
