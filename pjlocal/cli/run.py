"""``pjlocal run``: one prompt, one answer."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ..attachments import Attachment, read_attachment, with_attachments
from ..client import RemoteAnswer, Server, ServerBusy, ServerError, WarningLog, find_server
from ..engine.interrupt import INTERRUPTED, Interrupt, Interrupted, on_sigint
from ..errors import ModelError, OutputError, PjlocalError, UsageError, join_names
from ..request import Request
from ..screen.choose import make_display
from ..screen.console import Spinner, say
from ..screen.display import Display, cut_off, in_columns, statistics_line, when_ready
from ..settings import Engine, Generation
from .options import OFF, OUTPUT, ModelOption, ServerOption, ThoughtsOption, ViewOption, server_at, takes_settings
from .prompt_input import read_prompt
from .trace import Trace

if TYPE_CHECKING:
    from ..answer import Answer
    from ..events import Result, TokenEvent
    from ..persona import PersonaJudge


_BATCH = "Many prompts"
#: The parameters of `run` that --batch excludes, as a message names them.
_OF_ONE = {"prompt": "the prompt"} | {name: f"--{name}" for name in ("file", "view", "thoughts", "stats", "trace")}


@takes_settings()
def run(
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="The prompt. Standard input is put before it: piped text, or a file that nothing else is reading. In "
            "a shell loop that reads from a pipe, give </dev/null. - means standard input alone."
        ),
    ] = None,
    model: ModelOption = None,
    file: Annotated[
        list[str],
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="A text file before the prompt, with its name (repeatable).",
        ),
    ] = [],
    view: ViewOption = "text",
    thoughts: ThoughtsOption = "hide",
    stats: Annotated[
        bool, typer.Option("--stats", help="Print counts and speeds to standard error.", rich_help_panel=OUTPUT)
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object at the end instead of the text.", rich_help_panel=OUTPUT),
    ] = False,
    trace: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write one JSON line per token to FILE (- for standard output, instead of the text).",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch",
            metavar="FILE",
            help="Answer every row of a file instead: text (one prompt per line), JSON lines, JSON, CSV or TSV; - is "
            "standard input. A row may set its own persona, preferences and settings, by name.",
            rich_help_panel=_BATCH,
        ),
    ] = None,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="File for the answers of --batch, as JSON lines; - is standard output. Rows that it contains are not "
            "answered again.",
            rich_help_panel=_BATCH,
        ),
    ] = "-",
    parallel: Annotated[
        int, typer.Option(min=1, max=64, help="Number of --batch answers written at once.", rich_help_panel=_BATCH)
    ] = 8,
    server: ServerOption = None,
    *,
    given: frozenset[str],
    request: Request,
    engine: Engine,
) -> int:
    if batch is not None:
        if unused := [shown for name, shown in _OF_ONE.items() if name in given]:
            raise UsageError(f"--batch has its own prompts and output: leave out {join_names(unused)}")
        return _run_batch(batch, out, parallel, Job(model, request, "", engine, Interrupt()), server, given)
    if not {"out", "parallel"}.isdisjoint(given):
        raise UsageError("--out and --parallel belong to --batch FILE: add it, or leave them out")
    quiet = as_json or trace == "-"
    if as_json and trace == "-":
        raise UsageError("--json and --trace - both write to standard output: give --trace a file")
    interrupt = Interrupt()
    named = server_at(server, interrupt, given)
    attachments = [*map(read_attachment, file)]
    job = Job(model, request, with_attachments(attachments, read_prompt(prompt)), engine, interrupt, attachments)
    with on_sigint(interrupt):  # its end raises, after a signal that ends the command
        with Trace(trace) as tracer:
            shown = _answer(
                job,
                named,
                lambda answer: Display(io.StringIO()) if quiet else make_display(view, sys.stdout, answer, thoughts),
                tracer,
                finds=server != OFF,
            )
        result = shown.result
        if shown.is_uncorrected and not quiet:
            say("stopped before the correction: this is the uncorrected first answer")
        if ending := _ending(result, request.generation):
            say(ending)
        if as_json:
            print(json.dumps(result.as_dict(), ensure_ascii=False))
        if stats:
            print(in_columns("", _statistics(shown), sys.stderr), file=sys.stderr)
        if sys.stdout.isatty() and sys.stderr.isatty() and not quiet and not named:
            _print_model_notice(result.model)
        if tracer.error:
            raise OutputError(f"the trace {trace} is incomplete: {tracer.error.strerror or tracer.error}")
        if shown.error:
            raise shown.error
        return INTERRUPTED if result.finish_reason == "interrupted" else 0


@dataclass(frozen=True)
class ShownAnswer:
    """An answer that was shown.

    is_uncorrected: Ctrl-C came before the correction in mode rewrite, and the first answer was shown.
    error: the error that ended the answer early.
    """

    result: Result
    written: WrittenAnswer
    is_uncorrected: bool
    error: PjlocalError | None


def _answer(
    job: Job,
    named: Server | None,
    display_of: Callable[[Answer | RemoteAnswer], Display],
    tracer: Trace,
    *,
    finds: bool,
) -> ShownAnswer:
    """Write an answer, and show and trace its tokens.  For the arguments, see `Job.by_server`."""
    with Spinner() as spinner:
        if not job.attachments:  # attachments print their own lines
            spinner.say("Reading the prompt")
        by_server = job.by_server(named, spinner.say, finds=finds)
        with _written(by_server) if by_server else job.loaded(spinner) as written:
            answer = written.answer
            events = when_ready(answer)
            spinner.stop()
            for event in answer.drafted:
                tracer.write(event, first_answer=True)
            with display_of(answer) as display:
                error = _show(events, display, tracer)  # raised after the tokens before it are printed
                result = answer.result
                uncorrected = _uncorrected(answer.drafted, result)
                for event in uncorrected:
                    display.show(event)
    return ShownAnswer(result, written, bool(uncorrected), error)


def _statistics(shown: ShownAnswer) -> str:
    """The line that ``--stats`` prints."""
    result, written = shown.result, shown.written
    first = result.draft.statistics if result.draft else None
    n = len(result.candidates)
    best = f"best of {n} answers with {result.n_written} tokens" if n else ""
    return statistics_line(result.statistics, first, written.followed_sampling, written.placed, result.layout, best)


def _print_model_notice(model: str) -> None:
    from ..screen.first_answer import small_model_notice

    if notice := small_model_notice(model):
        print(in_columns("", f"pjlocal: {notice}", sys.stderr), file=sys.stderr)


def _show(events: Iterable[TokenEvent], display: Display, tracer: Trace) -> PjlocalError | None:
    """Show and trace the tokens of an answer.  Returns the error that ended it early."""
    try:
        for event in events:
            tracer.write(event)
            display.show(event)
    except PjlocalError as error:
        return error
    return None


def _run_batch(source: str, out: str, parallel: int, job: Job, url: str | None, given: Collection[str]) -> int:
    from .batch import Row, answer_locally, answer_on_server, run_batch

    named = server_at(url, job.interrupt, given)

    def write_all(rows: Sequence[Row], write: Callable[[Row, str], None]) -> None:
        server = named or (job.resident() if rows and url != OFF else None)
        if server and (named or _writes(server, [row.request for row in rows])):
            answer_on_server(server, rows, parallel, write)
        elif rows:
            with job.loaded_judge() as judge:
                answer_locally(judge, rows, parallel, write)

    return run_batch(source, out, job.request, job.interrupt, write_all)


def _writes(server: Server, requests: Sequence[Request]) -> bool:
    """True if a resident server can write the answers to all requests, now or later."""
    from ..prompting.plan import make_roles

    by_size = {}
    try:
        for request in requests:
            server.check_can_write(request)
            with suppress(UsageError):  # its row reports it
                roles = make_roles(request)
                by_size[roles.n_answers, len(roles.prefixes)] = request
        for request in by_size.values():
            with suppress(UsageError, ServerBusy):  # its row reports it, or waits
                server.check(request)
    except ServerError:
        return False
    return True


def _uncorrected(drafted: list[TokenEvent], result: Result) -> list[TokenEvent]:
    """The first answer of mode rewrite, if Ctrl-C came before the correction; else empty."""
    stopped = result.finish_reason == "interrupted" and not result.statistics.completion_tokens
    return drafted if stopped else []


def _ending(result: Result, generation: Generation) -> str:
    """A notice about an incomplete answer and how to get a longer one; empty for a complete one."""
    is_thought_alone = bool(result.thinking and not result.text)
    while_thinking = " while thinking, without an answer" if is_thought_alone else ""
    if result.finish_reason == "stop" and is_thought_alone:
        return f"the model ended{while_thinking}"
    if result.finish_reason == "interrupted" and is_thought_alone:
        return f"stopped{while_thinking}"
    if result.finish_reason != "length":
        return ""
    n = result.statistics.completion_tokens
    n_limited = n if generation.think_tokens is None else result.statistics.answer_tokens
    instead = ", --think-tokens limits the thinking, and --think off turns it off" if is_thought_alone else ""
    allows = f"a larger --max-tokens (-n) allows more{instead}"
    written = "the model" if is_thought_alone else "the answer"
    return f"{written} was {cut_off(n, n_limited, generation.max_tokens, allows, while_thinking)}"


@dataclass(frozen=True)
class WrittenAnswer:
    """An answer being written, with facts about the model for `statistics_line`."""

    answer: Answer | RemoteAnswer
    followed_sampling: str
    placed: str


@dataclass(frozen=True)
class Job:
    """A prompt for a model, and the two ways to answer it."""

    model: str | None
    request: Request
    prompt: str
    engine: Engine
    interrupt: Interrupt
    attachments: Sequence[Attachment] = ()

    def by_server(self, named: Server | None, say: Callable[[str], None], *, finds: bool) -> RemoteAnswer | None:
        """The answer of the named or a resident server, after its first token; None if there is no such server, or the
        model can be loaded here instead.

        Args:
            say: shows the progress before the first token.
            finds: allow a resident server.

        Raises:
            Interrupted: on request.
            PjlocalError: the server cannot write the answer, and loading the model here would not help or is excluded.
        """
        server = named or (self.resident() if finds else None)
        if server is None:
            return None
        self._show_sizes(lambda text: None)
        try:
            return self._started(server, say)
        except ServerError:
            if named:
                raise
            return None

    def resident(self) -> Server | None:
        """The resident server with the model; None without one."""
        from ..gguf.locate import find_model

        try:
            return find_server(find_model(self.model), self.engine, self.interrupt)
        except ModelError:  # loading the model reports it, after other errors
            return None

    def _started(self, server: Server, say: Callable[[str], None]) -> RemoteAnswer:
        answer = server.answer(self.request, messages=[{"role": "user", "content": self.prompt}])
        answer.on_progress = say
        answer.on_started = WarningLog()
        answer.wait()
        if answer.started is None and answer.finish_reason == "interrupted":
            raise Interrupted
        return answer

    def _show_sizes(self, n_tokens: Callable[[str], int | None]) -> None:
        """Print the lengths of the attached files, on a terminal."""
        if sys.stderr.isatty():
            for attachment in self.attachments:
                say(attachment.size(n_tokens(attachment.text)))

    @contextmanager
    def loaded(self, spinner: Spinner) -> Iterator[WrittenAnswer]:
        """The answer of the model, loaded in this process."""
        spinner.say("Loading the model")
        with self.loaded_judge() as one:
            if self.attachments:
                spinner.stop()
                self._show_sizes(lambda text: len(one.model.tokenize(text, special=False)))
            spinner.say("Reading the prompt")
            answer = one.stream(self.prompt)
            answer.on_progress = spinner.say
            if answer.mode == "rewrite":
                spinner.say("Writing a first answer")
            yield WrittenAnswer(answer, one.followed_sampling, one.placed)

    def loaded_judge(self) -> PersonaJudge:
        """The model, loaded in this process."""
        from ..persona import PersonaJudge

        return PersonaJudge(self.model, request=self.request, engine=self.engine, interrupt=self.interrupt)


@contextmanager
def _written(answer: RemoteAnswer) -> Iterator[WrittenAnswer]:
    started = answer.started
    with closing(answer):
        yield WrittenAnswer(answer, started.followed_sampling if started else "", started.placed if started else "")
