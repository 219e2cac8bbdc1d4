"""Floor 1: what work costs, in whole FLOPs, before it is done. Standard library only.

- `shape`        the dimensions of a base model: built in for Qwen2.5 and ``tiny``, else from a config.json
- `primitives`   the price of a sum, an exponential, a matrix product, and of what is made of them
- `conventions`  the two ways of counting a pass: ``coursework`` and ``palm-lora``
- `price`        the price of a forward pass, a training step, a generation

docs/flops.md derives every formula and works one example through.
"""
