"""The number of threads to decode with, adapted to other processes on the machine."""

from __future__ import annotations

import math

_WINDOW_S = 0.1  # least time for which one number of threads is measured
_WINDOW_STEPS = 4  # least number of steps, at their last measured duration
_LACKING = 0.3  # try fewer threads if they lacked this many cores
_WORTH = 0.2  # keep one more thread if it brings this share of the best possible gain
_PAUSE_S = 2.0  # between trials: a failed trial of one more thread takes two or three slow steps


class ThreadCount:
    """A number of threads that falls when the system does not run all of them, and is raised again after a while.

    llama.cpp's threads spin while they wait for each other, hundreds of times a token, so a thread that shares its
    core delays all others.  Beside one busy process on two cores, SmolLM2 wrote 18 to 23 tokens/s with two threads and
    43 with one (one batch of two views; 72 and 43 on the idle machine).  Letting waiting threads sleep does not help:
    with GOMP_SPINCOUNT=100, one prompt on an idle machine fell from 119 to 76 tokens/s.

    A trial of fewer threads begins when they get less processor time than a step lasts.  Only the duration of steps
    decides its result.

    Args:
        most: threads to start with.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.now = most  #: number of threads of the next step
        self._settled = most  # the number before a trial began
        self._settled_s = math.inf  # seconds a step
        self._window_s = _WINDOW_S
        self._next_trial_s = 0.0
        self._forget_window()

    def _forget_window(self) -> None:
        self._steps, self._wall_s, self._cpu_s = 0, 0.0, 0.0

    def learn(self, at_s: float, wall_s: float, cpu_s: float) -> None:
        """Count a step of one token per view.

        Args:
            at_s: time of its end.
            wall_s: its duration.
            cpu_s: processor time of all threads.
        """
        self._steps += 1
        self._wall_s += wall_s
        self._cpu_s += cpu_s
        if self._wall_s < self._window_s:
            return
        step_s = self._wall_s / self._steps
        lacking = self.now - self._cpu_s / self._wall_s
        self._forget_window()
        if self.now != self._settled:
            self._end_trial(at_s, step_s)
            return
        self._settled_s = step_s
        self._window_s = max(_WINDOW_S, _WINDOW_STEPS * step_s)
        if at_s < self._next_trial_s:
            return
        if lacking > _LACKING and self.now > 1:
            self.now = max(1, self.now - round(2 * lacking))  # a thread that shares its core still gets half of it
        elif self.now < self.most:
            self.now += 1

    def _end_trial(self, at_s: float, step_s: float) -> None:
        raised = self.now > self._settled
        fewer_s, more_s = (self._settled_s, step_s) if raised else (step_s, self._settled_s)
        more = max(self.now, self._settled)
        more_is_worth_it = more_s < (1 - _WORTH / more) * fewer_s
        if more_is_worth_it == raised:
            self._settled = self.now
        self.now = self._settled
        self._next_trial_s = at_s if raised and more_is_worth_it else at_s + _PAUSE_S
