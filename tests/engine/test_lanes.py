"""The lanes of an engine: jobs side by side, whichever lane comes first."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from pjlocal import Engine as Settings
from pjlocal.engine.engine import Engine
from pjlocal.engine.interrupt import Interrupt
from pjlocal.engine.lanes import needs
from pjlocal.engine.model import Model


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_every_lane_runs_its_job_in_any_order(tiny: Callable[[str], Path], order: tuple[int, int]) -> None:
    model = Model(tiny("llama"), Settings(), Interrupt())
    with closing(model), closing(Engine(model, Settings(layout="contexts", n_threads=2), Interrupt())) as engine:
        lanes = engine.lanes.for_answer(needs(2, 256)).lanes
        ran: list[int] = []
        engine.lanes.start({lanes[number]: partial(ran.append, number) for number in order}, 1)
        engine.lanes.wait()
        assert sorted(ran) == [0, 1]
        assert not engine.lanes.are_busy
