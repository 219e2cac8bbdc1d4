"""lvray spends a fixed number of FLOPs on LoRA fine-tunings of language models that forecast time series.

Files in this folder are verbs, a command each (`python -m lvray.sweep`); folders are the rooms that
the commands use. Imports only go down; one room speaks Ray, one room speaks Torch.
"""

__version__ = "0.1.0"
