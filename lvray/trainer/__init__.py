"""Floor 3: the only room with Torch. It needs no Ray and no sweep file, so it runs alone on any machine.

- `tokenizer`   one token a character
- `model`       base models loaded, adapters put on and taken off
- `batches`     texts, windows, and which batch comes when
- `loop`        one trial, from where it stands to its last milestone
- `evaluate`    validation loss on fixed windows
- `prompts`     what a model reads before it forecasts
- `generate`    forecasts that cannot be malformed
- `checkpoint`  all that a trial needs to go on, written whole or not at all
- `tiny/`       the base model inside the package, and how it was made
"""
