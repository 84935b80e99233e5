"""The entry point; also ``python -m pjlocal``."""

from __future__ import annotations

import sys


def main() -> None:
    try:
        from .cli import main as command_line
    except KeyboardInterrupt:  # Ctrl-C while Python is still importing
        sys.exit(130)
    command_line()


if __name__ == "__main__":
    main()
