"""The entry point; also ``python -m pjlocal``."""

from __future__ import annotations

import gc
import sys

#: New objects before a garbage collection.  Python's 700 causes a hundred collections during the imports.
_OBJECTS_UNTIL_COLLECTED = 50_000


def main() -> None:
    gc.set_threshold(_OBJECTS_UNTIL_COLLECTED)
    try:
        from .cli.main import main as command_line
    except KeyboardInterrupt:  # Ctrl-C while Python is still importing
        sys.exit(130)
    try:
        command_line()
    finally:
        gc.freeze()  # skips the last garbage collection, which takes 45 ms


if __name__ == "__main__":
    main()
