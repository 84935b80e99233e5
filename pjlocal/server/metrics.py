"""The server's metrics in the format of Prometheus."""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ..events import Result

_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)


class Metrics:
    """The metrics of one server, separate from those of other servers in the process."""

    def __init__(self) -> None:
        self._registry = of = CollectorRegistry()
        self.requests = Counter("pjlocal_requests", "Requests by route and status.", ["route", "status"], registry=of)
        self._jobs = Gauge("pjlocal_answers_now", "Answers being written or waiting.", registry=of)
        self._loaded = Gauge("pjlocal_model_loaded", "1 if the model is in memory.", registry=of)
        self._decodes = Counter("pjlocal_decodes", "Batches decoded.", registry=of)
        self._fed = Counter("pjlocal_tokens_fed", "Tokens decoded, over all views.", registry=of)
        self._first_token = Histogram(
            "pjlocal_first_token_seconds", "Seconds from a request to its first token.", registry=of, buckets=_SECONDS
        )
        self._errors = Counter("pjlocal_errors", "Errors that the server has logged.", registry=of)
        self._answers = Counter("pjlocal_answers", "Answers by finish reason.", ["finish_reason"], registry=of)
        self._completion = Counter("pjlocal_completion_tokens", "Tokens written.", registry=of)
        self._prompt = Counter("pjlocal_prompt_tokens", "Tokens of all views' prompts.", registry=of)
        self._held = Counter("pjlocal_prompt_tokens_held", "Prompt tokens that were in memory already.", registry=of)
        self._accepted = Counter("pjlocal_accepted_tokens", "Drafted tokens that were accepted.", registry=of)
        self._resampled = Counter("pjlocal_resampled_tokens", "Drafted tokens that were rejected.", registry=of)

    def count_errors(self, logger: logging.Logger) -> None:
        """Count the errors of a logger from now on."""

        def count(record: logging.LogRecord) -> bool:
            if record.levelno >= logging.ERROR:
                self._errors.inc()
            return True

        logger.addFilter(count)

    def jobs(self, n: int) -> None:
        self._jobs.set(n)

    def loaded(self, is_loaded: bool) -> None:
        self._loaded.set(is_loaded)

    def decoded(self, n_tokens: int, n_decodes: int) -> None:
        self._fed.inc(n_tokens)
        self._decodes.inc(n_decodes)

    def started(self, seconds: float) -> None:
        self._first_token.observe(seconds)

    def ended(self, how: str) -> None:
        self._answers.labels(how).inc()

    def wrote(self, result: Result, n_held: int) -> None:
        self._held.inc(n_held)
        for statistics in result.all_statistics:
            self._completion.inc(statistics.completion_tokens)
            self._prompt.inc(sum(statistics.prompt_tokens))
            self._accepted.inc(statistics.accepted)
            self._resampled.inc(statistics.resampled)

    def text(self) -> bytes:
        return generate_latest(self._registry)
