"""The process of a probe, which loads a model, makes a context and decodes a token.  Its output is ignored."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from ..errors import PjlocalError
from ..settings import Engine
from .context import Context
from .interrupt import Interrupt
from .model import Model


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    interrupt = Interrupt()
    engine = Engine(n_gpu_layers="0", n_ctx=64)
    try:
        model = Model(Path(sys.argv[1]), engine, interrupt, trusted=True)
        context = Context(model, engine, 64, 1, 1, interrupt)
        context.decode([0], [0], [0], 1)
        context.close()
        model.close()
    except (PjlocalError, MemoryError):
        pass  # reported when the model is really loaded
