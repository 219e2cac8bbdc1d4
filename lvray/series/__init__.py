"""Floor 1: time series as numbers and as text.

- `predator_prey`  the equations behind the generated data sets, integrated
- `dataset`        data sets: generated, cached, written
- `readers`        HDF5, NPZ and CSV files, read
- `split`          which systems train, validate and test
- `codec`          numbers as text and back (the LLMTIME way), with their scaling
- `grammar`        which characters may follow in such a text
- `windows`        long token sequences cut into windows of one length
- `metrics`        how far a forecast is from the truth, and whether it knows
- `baselines`      forecasts that cost nothing, to be honest against
- `equations`      the true equations, fitted to a history and integrated on

Arrays are [N, T, V]: systems, time steps, variables; a forecast is [N, H, V] with H steps of horizon.
"""
