"""`lvray <verb> …` is `python -m lvray.<verb> …`; only that verb is imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

VERBS = tuple(sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py")))


def main(argv: Sequence[str] | None = None) -> int:
    """Hands the command line to a verb; 2 for one that does not exist."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in VERBS:
        return int(import_module(f"lvray.{words[0]}").main(words[1:]))
    usage = f"usage: lvray {{{','.join(VERBS)}}} …"
    if words and words[0] in {"-h", "--help"}:
        print(usage)
        return 0
    asked = f"lvray: no verb {words[0]!r}\n" if words else ""
    print(f"{asked}{usage}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
