"""A hostile chat template gives an error message, and cannot exhaust memory or time, open files, or end the process."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import IO

import pytest
import tiny_models
import waiting
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from pjlocal import PersonaJudge
from pjlocal.engine.interrupt import Interrupt, Interrupted, on_sigint
from pjlocal.errors import ModelError
from pjlocal.gguf.header import read_header
from pjlocal.prompting.jinja import Refusal, TemplateProcess

SAID = [{"role": "user", "content": "Hello"}]

#: Each of these begins a computation without an end, as far as anyone will live to see.
ENDLESS = {
    "nested loops": "{% for a in range(99999) %}" * 4 + "{% endfor %}" * 4,
    "a loop in a macro": "{% macro m(n) %}{% for i in range(99999) %}{% if n %}{{ m(n - 1) }}{% endif %}{% endfor %}"
    "{% endmacro %}{{ m(20) }}",
    "a power": "{{ 10 ** (10 ** 9) }}",
    "powers of powers": "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}"
    "{% endfor %}{{ ns.x == 1 }}",
    "digits": "{{ (7 ** 5000000) | string | length }}",
    "comparing lists": "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}"
    "{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
    "joining nothing": "{% for a in range(99999) %}{{ (range(99999) | list) | join('') | length }}{% endfor %}",
    "calls of calls": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "sorting": "{% for a in range(99999) %}{{ range(99999) | sort | sum }}{% endfor %}",
    "loop recursion": "{% for x in range(9) recursive %}{% if loop.depth < 20 %}{{ loop(range(9)) }}{% endif %}"
    "{% endfor %}",
}

#: And each of these wants more memory than any prompt.
HUGE = {
    "a product": "{{ 'a' * 10 ** 10 }}",
    "a product of lists": "{{ ([0] * 10 ** 10) | length }}",
    "doubling": "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}"
    "{{ ns.s }}",
    "concatenation": "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}"
    "{% endfor %}{{ ns.s }}",
    "blocks": "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set s %}{{ ns.s }}{{ ns.s }}"
    "{% endset %}{% set ns.s = s %}{% endfor %}{{ ns.s }}",
    "lists of lists": "{% set ns = namespace(l=['lol']) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}"
    "{% endfor %}{{ ns.l }}",
    "their JSON": "{% set ns = namespace(l=['lol']) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}"
    "{% endfor %}{{ ns.l | tojson }}",
    "centre": "{{ 'a' | center(10 ** 10) }}",
    "ljust": "{{ 'a'.ljust(10 ** 10) }}",
    "zfill": "{{ '1'.zfill(10 ** 10) }}",
    "expandtabs": "{{ '\t'.expandtabs(2000000000) }}",
    "format": "{{ '{:>10000000000}'.format(1) }}",
    "a format string": "{{ '%10000000000d' | format(1) }}",
    "a percentage": "{{ '%10000000000d' % 1 }}",
    "indent": "{{ [[[[1]]]] | tojson(indent=2000000000) }}",
    "indented lines": "{{ ('a\n' * 99999) | indent(99999) }}",
    "replace": "{% set s = 'a' * 99999 %}{{ s | replace('a', s) }}",
    "a method": "{% set s = 'a' * 99999 %}{{ s.replace('a', s) }}",
    "join": "{% set s = 'a' * 99999 %}{{ range(99999) | join(s) }}",
    "batch": "{{ [1] | batch(1000000000, 0) | list }}",
    "slice": "{{ [1] | slice(1000000000) | list }}",
    "output": "{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}",
}

#: Out of the sandbox, or to something outside of it.
ESCAPES = {
    "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attr": "{{ ('' | attr('__class__')).__mro__ }}",
    "globals": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "of a macro": "{% macro m() %}{% endmacro %}{{ m.__globals__ }}{{ m._func.__globals__['os'] }}",
    "format": "{{ '{0.__class__.__mro__}'.format(1) }}",
    "format_map": "{{ '{a.__class__.__init__.__globals__}'.format_map({'a': cycler}) }}",
    "format through map": "{{ ['{0.__class__.__mro__}'] | map('format', 1) | list }}{{ ''.format.__self__ }}",
    "the environment": "{{ self._TemplateReference__context.environment.globals }}",
    "of an error": "{{ raise_exception.__globals__['sys'].modules }}",
    "of the clock": "{{ strftime_now.__globals__['sys'].modules }}",
    "generator": "{{ (messages | map('upper')).gi_frame.f_globals }}",
    "changing messages": "{{ messages.append(1) }}",
    "changing a dictionary": "{{ messages[0].update({'role': 'system'}) }}",
    "files": "{% include '/etc/passwd' %}",
    "imports": "{% import '/etc/passwd' as p %}",
    "debug": "{% debug %}",
}


def rendered(template: str, seconds: float = 0.3) -> str:
    with closing(TemplateProcess(seconds)) as process:
        process.compile(template)
        return process.render(SAID, {})


@pytest.mark.slow
@pytest.mark.parametrize("what", ENDLESS)
def test_a_template_has_a_time_limit(what: str) -> None:
    with pytest.raises(ModelError, match=r"chat template takes longer than 0.3 s: use another model"):
        rendered(ENDLESS[what])


@pytest.mark.slow
@pytest.mark.parametrize("what", HUGE)
def test_a_template_has_a_memory_limit(what: str) -> None:
    with pytest.raises(ModelError, match=r"needs more than 256 MiB of memory|takes longer than 1 s"):
        rendered(HUGE[what], seconds=1)


@pytest.mark.parametrize("what", ESCAPES)
def test_a_template_cannot_leave_the_sandbox(what: str) -> None:
    with pytest.raises(Refusal, match=r"is unsafe|unknown tag|no loader|not all arguments|undefined"):
        rendered(ESCAPES[what], seconds=20)


@pytest.mark.skipif(sys.platform != "linux", reason="only the time is bounded everywhere")
def test_outside_the_sandbox_no_file_can_be_opened() -> None:
    code = (
        "import socket, sys\n"
        "from pjlocal.prompting import jinja_process\n"
        "jinja_process._limit()\n"
        "for what in (lambda: open('/etc/hostname'), lambda: open('new', 'w'), lambda: socket.socket()):\n"
        "    try: print('opened', what())\n"
        "    except OSError: pass\n"
        "try: print('had', len(bytes(300 << 20)))\n"
        "except MemoryError: pass\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("", "")


def test_a_hostile_model_file_gives_an_error(tmp_path: Path, pjlocal) -> None:
    path = tiny_models.write_llama(tmp_path / "model.gguf", chat_template=HUGE["a product"])
    result = pjlocal("run", "-m", path, "Hello")
    assert (result.returncode, result.stdout) == (1, "") and result.stderr.count("\n") == 1
    assert "the model's chat template needs more than 256 MiB of memory" in result.stderr


def test_a_template_that_turns_hostile_later_ends_nothing_else(tmp_path: Path) -> None:
    later = "{% if messages[-1]['content'] == 'Now' %}{{ 'a' * 10 ** 10 }}{% endif %}" + tiny_models.CHATML
    path = tiny_models.write_llama(tmp_path / "model.gguf", chat_template=later)
    with PersonaJudge(path) as judge:
        assert judge("Hello", max_tokens=2).text
        for _ in range(2):
            with pytest.raises(ModelError, match="256 MiB"):
                judge("Now", max_tokens=2)
    assert judge.template._process._process.returncode is not None, "nothing of it is left"


def test_the_error_of_a_template_is_one_line() -> None:
    with pytest.raises(Refusal) as caught:
        rendered("{{ raise_exception('\x1b[31mred\n' * 9999) }}", seconds=20)
    assert len(str(caught.value)) <= 300 and "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


# Those of real models.

MORE = {
    "chatml": tiny_models.CHATML,
    "with tools": (
        "{%- if tools %}{{- '<|im_start|>system\n' }}{%- for tool in tools %}{{ tool | tojson }}{% endfor %}{% else %}"
        "{%- set ns = namespace(last=0, seen=false) -%}{%- for m in messages[::-1] %}{% if not ns.seen and m.role =="
        "'user' %}{% set ns.last = loop.index0 %}{% set ns.seen = true %}{% endif %}{%- endfor %}"
        "{{ ns.last }}{% endif %}"
        "{%- macro say(m) %}{{- '<|' ~ m.role ~ '|>' + m.content | trim }}{%- endmacro %}"
        "{% for m in messages %}{{ say(m) }}{% if loop.last %}{% break %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{% generation %}{{ '<|assistant|>' }}{% endgeneration %}{% endif %}"
        "{{ bos_token }}"
    ),
    "json": "{{ messages | tojson(indent=2) }}{{ {'é': [1, none]} | tojson }}{{ eos_token }}",
    "refuses": "{% if messages | length > 1 %}{{ raise_exception('only one') }}{% endif %}{{ messages[0].content }}",
    "undefined": "{{ messages[7].content.x }}",
    "broken": "{% for m in messages %}{{ m",
    "clock": "{{ strftime_now('%Y') }}",
    "thinking": "{{ enable_thinking is defined and enable_thinking }}{{ messages[0].content.split('l')[-1] | upper }}",
}
CONVERSATIONS = [
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": "Sei kurz.\n"}, {"role": "user", "content": "日本 \ue000 🎂 \x00 <|im_end|>"}],
    [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": ""}, *SAID],
]


def outcome(render: Callable[[], str]) -> str:
    try:
        return render()
    except Exception as error:
        return f"refused: {error}"


@pytest.mark.parametrize("what", [*MORE, "SmolLM2's"])
def test_templates_of_models_give_what_they_give_in_llama_cpp_python(what: str, smollm2: Path) -> None:
    template = MORE.get(what) or read_header(smollm2).metadata.text("tokenizer.chat_template")
    tokens = {"eos_token": "</s>", "bos_token": "<s>"}
    with closing(TemplateProcess()) as process:
        formatter: list[Jinja2ChatFormatter] = []
        ours = outcome(lambda: process.compile(template, **tokens) or "")
        theirs = outcome(lambda: formatter.append(Jinja2ChatFormatter(template, **tokens)) or "")
        assert ours == theirs
        for said in CONVERSATIONS if formatter else []:
            for variables in ({}, {"enable_thinking": True}):
                ours = outcome(lambda: process.render(said, variables))
                assert ours == outcome(lambda: formatter[0](messages=said, **variables).prompt)


def test_prompts_are_written_for_several_threads_at_once() -> None:
    with closing(TemplateProcess()) as process:
        process.compile(tiny_models.CHATML)
        with ThreadPoolExecutor(4) as pool:
            said = [[{"role": "user", "content": f"number {i}"}] for i in range(100)]
            texts = list(pool.map(lambda one: process.render(one, {}), said))
        assert all(f"number {i}<" in text for i, text in enumerate(texts))


def test_a_restart_that_ctrl_c_interrupted_is_made_up_for() -> None:
    with closing(TemplateProcess()) as process:
        process.compile("{{ messages[0].content }}")
        process.close()  # as a restart does first
        assert process.render(SAID, {}) == "Hello"


class Interrupting:
    """A pipe at which Ctrl-C is pressed before something is read of it."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self.pipe = pipe

    def readline(self, size: int) -> bytes:
        raise KeyboardInterrupt

    def close(self) -> None:
        self.pipe.close()


def test_after_ctrl_c_the_next_prompt_is_its_own() -> None:
    with closing(TemplateProcess()) as process:
        process.compile("{{ messages[0].content }}")
        pipe = process._process.stdout
        assert pipe and process.render([{"role": "user", "content": "one"}], {}) == "one"
        process._process.stdout = Interrupting(pipe)  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            process.render([{"role": "user", "content": "two"}], {})
        waiting.when(lambda: not any(isinstance(thread, threading.Timer) for thread in threading.enumerate()))
        for said in ("three", "four"):
            assert process.render([{"role": "user", "content": said}], {}) == said


def test_ctrl_c_is_an_interruption_where_it_was_taken_over_and_itself_elsewhere() -> None:
    interrupt = Interrupt()
    with pytest.raises(KeyboardInterrupt), interrupt.at_once():
        raise KeyboardInterrupt
    with on_sigint(interrupt), pytest.raises(Interrupted), interrupt.at_once():
        signal.raise_signal(signal.SIGINT)
    assert interrupt.is_set()
    interrupt.clear()
    with pytest.raises(KeyboardInterrupt), interrupt.at_once():
        raise KeyboardInterrupt
