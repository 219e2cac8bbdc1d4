"""Floor 3: what a person sees. Everything is computed from the run folder.

- `live`  the view while a sweep runs
"""
