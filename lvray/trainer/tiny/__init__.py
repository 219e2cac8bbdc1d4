"""The base model inside the package, and how it was made.

- `pretrain`            makes it: `python -m lvray.trainer.tiny.pretrain`
- `model.safetensors`   its weights; `config.json` its shape; `MODEL_CARD.md` what it is
- `pretraining.jsonl`   the log of the run that made it
"""
