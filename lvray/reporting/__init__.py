"""Floor 3: what a person sees. Everything is computed from the run folder.

- `facts`    journal, ledger and forecasts of a run, read once
- `tables`   rows of text, Markdown, CSV
- `figures`  drawings as SVG
- `page`     the report
- `live`     the view while a sweep runs
- `wandb_runs`  one Weights & Biases run a trial
"""
