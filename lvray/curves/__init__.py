"""Floor 1: where a loss curve is going. NumPy only.

- `power_law`  a falling power law fitted to few points, and how far to trust it
"""
