"""Make the prompt tokens of one view from a conversation and a preference, with the model's chat template."""

from __future__ import annotations

import json
import logging
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from ..engine.model import Model
from ..errors import RefusedError
from ..settings import Prompting
from .answer_tokens import AnswerTokens
from .jinja import Refusal, TemplateProcess
from .pieces import Placeholders, tokens_after, tokens_of
from .rendering import DIALOGUE_SPACE, PROBE, Role, TemplateMessage, attempt, behind_name, dialogue, jinja, reaches
from .thinking import END_OF_PROMPT, HARMONY, MARKS, Marks, Thinking, answer_start, opened_by
from .tools import CallSupport, Control, Spelled, Tools, describe_tools, find_support, map_texts

log = logging.getLogger("pjlocal")


@dataclass(frozen=True)
class Message:
    """A message of a conversation.

    tokens: the tokens with which the model wrote an answer.  Later prompts contain them unchanged, so that the KV cache
        can be reused: tokenizing the text again may give other tokens.
    others: other fields of OpenAI's messages: ``tool_calls`` of an answer; ``tool_call_id`` and ``name`` of a
        function's result, whose role is ``tool``.
    thinking: the thinking before an answer, if a client sends it separately.
    """

    role: Role
    content: str
    tokens: tuple[int, ...] = ()
    others: Mapping[str, Any] = field(default_factory=dict, hash=False)
    thinking: str = ""


def last_question(conversation: Sequence[Message]) -> str:
    """The text of the user's last message; empty without one."""
    return next((message.content for message in reversed(conversation) if message.role == "user"), "")


#: The names of the switch for thinking in templates: the first in Qwen3, SmolLM3 and others, the second in Granite and
#: DeepSeek V3.1.
_THINK_NAMES = ("enable_thinking", "thinking")


NO_THINK_SWITCH = "this model's chat template has no switch for thinking"


class ChatTemplate:
    """The model's chat template, with replacements for features that it lacks.

    Text that spells a control token stays text.  BOS occurs once.  If the template has no system role, the system text
    is put at the start of the first user message.  A model without a template gets a plain dialogue.  Empty answers are
    left out of the prompt.

    Args:
        process: the process that runs the template, closed with this object; by default a new one.
    """

    def __init__(self, model: Model, process: TemplateProcess | None = None) -> None:
        self.model = model
        self._answers = AnswerTokens(model)
        self._process = process or TemplateProcess()
        self._render = jinja(model, self._process) or dialogue
        #: Whether the prompts are plain dialogues, because there is no usable template.
        self.is_dialogue = self._render is dialogue
        #: The warnings shown so far; each is shown once.
        self.warned: set[str] = set()
        #: Receives every warning, instead of the log; a server sends them to the client.
        self.listener: Callable[[str], None] | None = None

    def close(self) -> None:
        """End the process."""
        self._process.end()

    @cached_property
    def has_think_switch(self) -> bool:
        """True if the template has a switch for thinking."""
        on, off = ([attempt(self._render, each, _think(think)) for each in _GREETINGS] for think in (True, False))
        return on != off

    @cached_property
    def has_system_role(self) -> bool:
        """True if a system message reaches the prompt."""
        return reaches(self._render, "system")

    @cached_property
    def takes_empty_answers(self) -> bool:
        """True if an assistant's message may be empty."""
        return self._takes_answer("")

    @cached_property
    def _takes_white_answers(self) -> bool:
        return self._takes_answer(" ")

    @cached_property
    def call_support(self) -> CallSupport:
        """The template's support for functions and calls."""
        return CallSupport() if self.is_dialogue else find_support(self._render, self._spelled)

    def _spelled(self, text: str) -> Spelled:
        controls = {
            each: self.model.tokenize(each, special=True)[0] for each in self._control_spellings if each in text
        }
        cuts = "|".join(map(re.escape, controls))
        pieces = re.split(f"({cuts})", text) if cuts else [text]
        return Spelled(tuple(Control(controls[p], p) if p in controls else p for p in pieces if p))

    def _takes_answer(self, answer: str) -> bool:
        messages: list[tuple[Role, str]] = [("user", "hello"), ("assistant", answer), ("user", "hello")]
        return attempt(self._render, messages) is not None

    def messages(self, conversation: Sequence[Message], preference: str, prompting: Prompting) -> list[Message]:
        """The messages of one view: system text, preference prefix and conversation.

        The placement of the preference is

        - ``system``: after the shared system text.
        - ``user-turn``: a user turn of its own with an empty answer, as in the program of the paper's authors.  If the
          template refuses empty answers, the start of the first user message, with a warning.
        - ``question``: after the last question and an empty line.  The last words have the most effect, and all text
          before them is the same for every view.

        A question without an answer is put before the next question, in the same message.  So the model sees it, the
        roles alternate, as some templates require, and there is no empty answer that the model could imitate.
        """
        turns = self._answered(conversation)
        system = prompting.system
        if preference and prompting.placement == "user-turn":
            if self.takes_empty_answers:
                turns = [Message("user", preference), Message("assistant", ""), *turns]
            else:
                self.warn_once(
                    "the model's chat template refuses empty answers: --placement user-turn puts the preference at the "
                    "start of the first message instead"
                )
                turns = _headed(turns, preference)
        elif preference and prompting.placement == "question":
            last = max((n for n, turn in enumerate(turns) if turn.role == "user"), default=0)  # results may follow it
            turns[last] = replace(turns[last], content=f"{turns[last].content}\n\n{preference}")
        elif preference:
            system = f"{system}\n\n{preference}" if system else preference
        if not system:
            return turns
        return [Message("system", system), *turns] if self.has_system_role else _headed(turns, system)

    def _answered(self, conversation: Sequence[Message]) -> list[Message]:
        """Remove empty answers, and join questions without an answer to the next question."""
        turns: list[Message] = []
        unanswered = False
        for message in map(self._without_refused_thoughts, map(self._with_thinking, conversation)):
            message = self._with_space(message)
            if self._says_nothing(message):
                unanswered = bool(turns) and turns[-1].role == "user"
            elif unanswered and message.role == "user":
                turns[-1] = replace(message, content=f"{turns[-1].content}\n\n{message.content}")
                unanswered = False
            else:
                turns.append(message)
                unanswered = False
        return turns

    def _with_thinking(self, message: Message) -> Message:
        """Put a message's thinking into its content, as the model writes it, if the template has marks for it.

        The template keeps it or leaves it out.
        """
        marks = self._thinking_marks
        says_something = message.role == "assistant" and (message.content.strip() or message.others)
        if not message.thinking or marks is None or not says_something:
            return message
        content = f"{marks.opening}{message.thinking}{marks.ending}{message.content}"
        return replace(message, content=content, thinking="")

    @cached_property
    def _thinking_marks(self) -> Marks | None:
        """The marks of thinking in the template; None for gpt-oss, whose template leaves the thinking out."""
        template = self.model.chat_template or ""
        return next((marks for marks in MARKS if marks.open in template and marks is not HARMONY), None)

    def _with_space(self, message: Message) -> Message:
        """Put back the space at the beginning of an answer in a plain dialogue, if its first token has it."""
        if not self.is_dialogue:
            return message
        texts = message.content, f"{DIALOGUE_SPACE}{message.content}"
        return replace(message, content=max(texts, key=lambda text: len(self._answers.ends(text, message.tokens))))

    def _without_refused_thoughts(self, message: Message) -> Message:
        """Remove an answer's thinking if the template refuses it, as that of gpt-oss does."""
        start = answer_start(message.content) if message.role == "assistant" else 0
        if not start or self._takes_answer(message.content):
            return message
        ends = self._answers.ends(message.content, message.tokens)
        n_left_out = bisect_left(ends, start)
        tokens = message.tokens[n_left_out:] if ends[n_left_out : n_left_out + 1] == [start] else ()
        return replace(message, content=message.content[start:], tokens=tokens)

    def _says_nothing(self, message: Message) -> bool:
        """True for an empty answer, and for white space if the template refuses it as empty."""
        if message.role != "assistant" or message.content.strip() or message.others:
            return False
        return not message.content or not self._takes_white_answers

    def tokens(
        self, conversation: Sequence[Message], preference: str, prompting: Prompting, tools: Tools = Tools()
    ) -> list[int]:
        """The prompt tokens of one view, up to the beginning of the answer.

        If the conversation ends with a message of the assistant, its tokens follow the prompt: it begins the answer.
        It does not pass through the template, because templates strip, close or refuse such a message, and the KV
        caches contain it unchanged.

        Raises:
            RefusedError: the template refuses the conversation, or leaves out the question.
        """
        *before, last = conversation
        if last.role == "assistant":
            prompt = self.tokens(before, preference, prompting, tools)
            return [*prompt, *self._beginning(prompt, last, prompting)]
        if tools.offered and not self.call_support.shows_tools:
            system = "\n\n".join(filter(None, (prompting.system, describe_tools(tools.offered))))
            prompting, tools = prompting.replace(system=system), replace(tools, offered=())
        if prompting.think != "auto" and not self.has_think_switch:
            self.warn_once(NO_THINK_SWITCH, f"think {prompting.think}: ")
        if prompting.reasoning_effort and "reasoning_effort" not in (self.model.chat_template or ""):
            effort = f"reasoning effort {prompting.reasoning_effort}: "
            self.warn_once("this model has no setting for the reasoning effort", effort)
        if not self.model.chat_template:
            self.warn_once("the model has no chat template: a plain dialogue is used instead")
        messages = self.messages(conversation, preference, prompting)
        try:
            harmless = self._render_probes(messages, prompting, tools)
        except RefusedError:
            messages = self.messages(_in_turns(conversation), preference, prompting)
            harmless = self._render_probes(messages, prompting, tools)
        contents = [[message.content, message.others] for message in messages]
        placeholders = Placeholders(json.dumps([contents, tools.offered], ensure_ascii=False))
        try:
            written = self._render_messages(messages, prompting, tools)
        except RefusedError:  # the text of an answer is the cause, because plain words were accepted above
            messages = [self._hidden(message, placeholders) for message in messages]
            written = placeholders.reveal(self._render_messages(messages, prompting, tools))
        keep, keep_trimmed = partial(self._keep_tokens, trimmed=False), partial(self._keep_tokens, trimmed=True)
        protect_text = partial(self._harmless, placeholders=placeholders)
        harmless_tools = replace(tools, offered=map_texts(tools.offered, protect_text))
        for hide in (keep, keep_trimmed, self._protect):
            hidden = [hide(message, placeholders) for message in messages]
            text = self._render_messages(hidden, prompting, harmless_tools)
            if placeholders.reveal(text) == written:  # the template treats the placeholders like the text
                break
        else:
            if self._controls(written) == self._controls(harmless):  # the template escapes spelled control tokens
                text = written
        return self.model.with_bos(tokens_of(self.model, placeholders.split(f"{text}{self._opening(text, tools)}")))

    def n_beginning(self, conversation: Sequence[Message], prompting: Prompting) -> int:
        """The number of tokens at the end of each view's prompt that begin the answer."""
        *before, last = conversation
        if last.role != "assistant":
            return 0
        return len(self._beginning(self.tokens(before, "", prompting), last, prompting))

    def _beginning(self, prompt: Sequence[int], message: Message, prompting: Prompting) -> list[int]:
        """The tokens of the message that begins an answer, after a prompt.  Tokens that the model wrote stay unchanged.

        A text begins the answer, not the thinking, unless it has an opening mark, or the message has a thinking of its
        own.  If the prompt opens the thinking, it is closed first.  The template's text between prompt and answer, such
        as the final channel of gpt-oss, is added.
        """
        message = self._with_space(message)
        model, text, tokens = self.model, message.content, list[int]()
        ends = self._answers.ends(message.content, message.tokens)
        if ends[-1]:
            tokens += message.tokens[: bisect_left(ends, ends[-1])]  # without an incomplete character at the end
            return tokens + tokens_after(model, [*prompt, *tokens], text[ends[-1] :])
        tail = model.text(prompt[-END_OF_PROMPT:])
        opened = opened_by(tail)
        marks = opened or self._thinking_marks
        if message.thinking and marks:
            tokens += self._marked("" if opened else marks.opening)
            tokens += tokens_after(model, [*prompt, *tokens], message.thinking)
            if text.strip():
                tokens += self._marked(marks.ending)
        elif opened and text.lstrip().startswith(opened.open):
            text = text.lstrip().removeprefix(opened.open)
            text = text.lstrip() if tail[-1].isspace() else text
        elif text and not answer_start(text):
            head = Thinking(opened).ending if opened else self._answer_head(prompting)
            if opened and opened.close in text:
                head = ""
            if text[0].isspace():
                head = head.rstrip(" ")
            tokens += self._marked(head)
            text = text if head.strip() else f"{head}{text}"
        return tokens + tokens_after(model, [*prompt, *tokens], text)

    def answer_tokens(self, prompt: Sequence[int], text: str) -> list[int]:
        """The tokens of a whole answer after its prompt, to score it."""
        return tokens_after(self.model, prompt, behind_name(text) if self.is_dialogue else text)

    def _marked(self, text: str) -> list[int]:
        """The tokens of a text of the format within a prompt; none of white space, which joins the next text."""
        return self.model.tokenize(text, special=True, continues=True) if text.strip() else []

    def _answer_head(self, prompting: Prompting) -> str:
        """The text of the template between a prompt and its answer."""
        messages = [Message("user", "hello"), Message("assistant", PROBE)]
        try:
            question, whole = (self._render_messages(messages[:n], prompting, Tools()) for n in (1, 2))
        except RefusedError:
            return ""
        end = whole.find(PROBE)
        return whole[len(question) : end] if end >= 0 and whole.startswith(question) else ""

    def _opening(self, prompt: str, tools: Tools) -> str:
        """The text that begins a call after a prompt.  It closes the thinking first if the prompt opens it."""
        thought = opened_by(prompt) if tools.opening else None
        return f"{thought.ending}{tools.opening}" if thought else tools.opening

    def _render_probes(self, messages: Sequence[Message], prompting: Prompting, tools: Tools) -> str:
        """Render the messages with probe words instead of their texts, and check that the prompt contains all of them.

        The texts themselves cannot be searched for, because a template may escape them or leave out earlier thinking.

        Raises:
            RefusedError: the template leaves out a question.
        """
        words = [f"{PROBE}{number}x" for number, _ in enumerate(messages)]
        plain = [_in_plain_words(message, word) for message, word in zip(messages, words, strict=True)]
        text = self._render_messages(plain, prompting, tools)
        missing = [m for m, word in zip(messages, words, strict=True) if word not in text.casefold()]
        if any(message is messages[-1] for message in missing):
            raise RefusedError("the model's chat template leaves out the question: use a model made for text chat")
        if any(message.role != "assistant" or message.others for message in missing):
            raise RefusedError(
                "the model's chat template leaves out earlier questions: begin a new chat, or use another model"
            )
        if missing:
            self.warn_once("the model's chat template leaves out earlier answers: the model does not see them")
        return text

    def _render_messages(self, messages: Sequence[Message], prompting: Prompting, tools: Tools) -> str:
        variables: dict[str, Any] = {} if prompting.think == "auto" else _think(prompting.think == "on")
        if prompting.reasoning_effort:
            variables["reasoning_effort"] = prompting.reasoning_effort
        if tools.offered:
            variables["tools"] = tools.offered
        try:
            return self._render([*map(self._for_template, messages)], variables)
        except Refusal as error:
            raise RefusedError(f"the model's chat template refuses the conversation: {error}") from None

    def _for_template(self, message: Message) -> TemplateMessage:
        if not message.others:
            return message.role, message.content
        others = dict(message.others)
        if self.call_support.in_text and "tool_calls" in others:
            others["tool_calls"] = [_with_arguments_in_text(call) for call in others["tool_calls"]]
        return message.role, message.content, others

    def _controls(self, text: str) -> list[int]:
        return [token for token in self.model.tokenize(text, special=True) if self.model.is_control(token)]

    def warn_once(self, what: str, before: str = "") -> None:
        """Log a warning about this model once, or send it to the listener each time."""
        if self.listener:
            self.listener(f"{before}{what}")
        elif what not in self.warned:
            self.warned.add(what)
            log.warning("%s%s", before, what)

    def _protect(self, message: Message, placeholders: Placeholders) -> Message:
        """Replace the control tokens that a message spells by placeholders."""
        harmless = partial(self._harmless, placeholders=placeholders)
        others = map_texts(message.others, harmless) if message.others else message.others
        return replace(message, content=harmless(message.content), others=others)

    def _harmless(self, text: str, placeholders: Placeholders) -> str:
        if self._controls(text):
            for spelling in self._control_spellings:
                if spelling in text:
                    text = text.replace(spelling, placeholders.hide(spelling))
        return text

    def _hidden(self, message: Message, placeholders: Placeholders) -> Message:
        if message.role != "assistant" or not message.content:
            return message
        return replace(message, content=placeholders.hide(message.content), tokens=())

    def _keep_tokens(self, message: Message, placeholders: Placeholders, trimmed: bool) -> Message:
        """Replace the part of an answer that its tokens spell by a placeholder.  For the arguments, see
        `AnswerTokens.spelled`."""
        content = message.content
        spelled = self._answers.spelled(content, message.tokens, trimmed)
        if spelled is None:
            return self._protect(message, placeholders)
        tokens, part = spelled
        hidden = placeholders.hide(content[part], message.tokens[tokens])
        rest = self._protect(replace(message, content=content[part.stop :]), placeholders).content
        return replace(message, content=f"{content[: part.start]}{hidden}{rest}")

    @cached_property
    def _control_spellings(self) -> list[str]:
        """The texts of all control tokens, longest first."""
        model = self.model
        spellings = {model.special_text(token) for token in range(model.n_vocab) if model.is_control(token)}
        return sorted(spellings - {""}, key=lambda text: (-len(text), text))


def _in_plain_words(message: Message, word: str) -> Message:
    """Replace the text of a message, or the names of its calls, by a word."""
    if "tool_calls" not in message.others:
        return replace(message, content=word, tokens=())
    calls = [{**call, "function": {**call["function"], "name": word}} for call in message.others["tool_calls"]]
    return replace(message, content="", tokens=(), others={"tool_calls": calls})


def _with_arguments_in_text(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function, arguments = call["function"], call["function"]["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}


def _describe_calls(calls: Sequence[Mapping[str, Any]]) -> str:
    """Calls as a readable text."""
    functions = [_with_arguments_in_text(call)["function"] for call in calls]
    return "\n".join(f"Call of {function['name']}: {function['arguments']}" for function in functions)


#: The question before an answer that begins the conversation, for templates that require one.
_GREETING = Message("user", "Hello.")


def _in_turns(conversation: Sequence[Message]) -> list[Message]:
    """The conversation for templates that require alternating roles, the user's first, and refuse calls.

    Calls become text, and their results user messages."""
    turns = [_GREETING] if conversation[0].role == "assistant" else []
    for message in conversation:
        if "tool_calls" in message.others:
            text = "\n\n".join(filter(None, (message.content, _describe_calls(message.others["tool_calls"]))))
            message = replace(message, content=text, others={})
        elif message.role == "tool":
            name = message.others.get("name")
            message = Message("user", f"Result of {name}: {message.content}" if name else f"Result: {message.content}")
        if turns and turns[-1].role == message.role:
            message = Message(message.role, f"{turns.pop().content}\n\n{message.content}")
        turns.append(message)
    return turns


_GREETINGS: list[list[tuple[Role, str]]] = [[("user", "hello")], [("system", "hello"), ("user", "hello")]]


def _think(is_on: bool) -> dict[str, bool]:
    return dict.fromkeys(_THINK_NAMES, is_on)


def _headed(turns: Sequence[Message], text: str) -> list[Message]:
    first = next((n for n, turn in enumerate(turns) if turn.role == "user"), 0)
    headed = replace(turns[first], content=f"{text}\n\n{turns[first].content}")
    return [*turns[:first], headed, *turns[first + 1 :]]
