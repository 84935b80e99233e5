"""The program of the isolated process in which chat templates run.  It imports no other module of pjlocal.

A template is a program that came with a model file.  Jinja's sandbox protects Python's internals, but does not limit
time and memory: ``{{ 'a' * 10**10 }}`` is one expression, twenty nested loops are twenty lines, and a list that
contains another list twice, forty levels deep, is huge as text.  This process has little memory, no files and no
network.  The parent process limits its time (`jinja.py`).

The protocol is one line of JSON for each request and reply: first the template and its variables, then conversations.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from typing import Any, NoReturn, TextIO

from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_BYTES = 256 << 20  # in addition to the memory of Python and Jinja
MOST_ANSWER = 32 << 20  # characters


class _Generation(Extension):
    """Ignore ``{% generation %}``, which marks the model's output for training."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise ValueError(message)


def environment() -> ImmutableSandboxedEnvironment:
    """The Jinja environment of Hugging Face's transformers, for which chat templates are written."""
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    env.filters["tojson"] = _tojson
    env.globals["raise_exception"] = _raise
    env.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return env


def _limit() -> None:
    """Limit the memory, and forbid opening files and sockets and starting processes."""
    try:
        import resource
    except ImportError:
        return  # Windows has no such limits
    bounds = {"RLIMIT_AS": _address_space() + MOST_BYTES, "RLIMIT_NOFILE": 3, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}
    for name, most in bounds.items():
        try:
            resource.setrlimit(getattr(resource, name), (most, most))
        except (AttributeError, OSError, ValueError):
            pass  # not every system has every limit


def _address_space() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 1 << 30


def main(requests: TextIO, replies: TextIO) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    env = environment()
    try:
        env.from_string("{{ strftime_now('%d %b %Y') }}{{ raise_exception('') }}").render()
    except ValueError:
        pass  # loads modules that could not be loaded under the limits
    _limit()
    template: Any = None

    def reply(answer: dict[str, str | bool]) -> None:
        replies.write(json.dumps(answer) + "\n")
        replies.flush()

    reply({"text": "ready"})
    for line in requests:
        answer: dict[str, str | bool]
        try:
            request = json.loads(line)
            if template is None:
                env.globals.update(request["variables"])
                template = env.from_string(request["template"])
                answer = {"text": ""}
            else:
                text = template.render(**request)
                answer = {"text": text} if len(text) <= MOST_ANSWER else {"memory": True}
        except MemoryError:
            answer = {"memory": True}
        except Exception as error:  # a template may raise any error to refuse
            answer = {"refusal": str(error)[:1000]}
        reply(answer)


if __name__ == "__main__":
    main(sys.stdin, sys.stdout)
