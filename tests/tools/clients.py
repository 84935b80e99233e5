"""Print a table of clients by feature, from runs with a server of a tiny model:

python tests/tools/clients.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny_models
from commandline import environment_in
from real_clients import CLIENTS, FEATURES, Client, is_installed
from served import serving


def cell(client: Client, feature: str, url: str) -> str:
    """``yes``, ``-`` where the client does not offer it, or ``no`` with the reason on standard error."""
    if feature not in client:
        return "-"
    try:
        client[feature](url)
    except Exception as error:
        print(f"{feature}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr)
        return "no"
    return "yes"


def main() -> None:
    print(f"| client | {' | '.join(FEATURES)} |\n|---|{'---|' * len(FEATURES)}")
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_models.write_llama(Path(folder) / "llama.gguf")
        with serving(model, environment_in(Path(folder))) as served:
            for name in filter(is_installed, CLIENTS):
                print(f"-- {name}", file=sys.stderr)
                client = CLIENTS[name]()
                cells = [cell(client, feature, f"{served.url}/v1") for feature in FEATURES]
                print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
