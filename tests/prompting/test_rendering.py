"""Messages reach the prompt, or an error says that they do not, with templates of many kinds."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import tiny_models
from commandline import one_line

from pjlocal import Message, PersonaJudge, Prompting
from pjlocal.errors import ModelError

CHATML = tiny_models.CHATML
#: As SmolVLM and Idefics have it: content is a list of parts.
PARTS = CHATML.replace(
    "message['content']", "(message['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | join)"
)
PARTS_IN_A_LOOP = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for content in message['content'] %}{% if content['type'] == 'text' %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
#: As Idefics2 and its kin have it for the user alone.
MIXED = PARTS_IN_A_LOOP.replace(
    "{% for content in", "{% if message['role'] != 'user' %}{{ message['content'] + '' }}{% else %}{% for content in"
).replace("{% endfor %}{{ '<|im_end|>", "{% endfor %}{% endif %}{{ '<|im_end|>")
EITHER = PARTS_IN_A_LOOP.replace(
    "{% for content in", "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in"
).replace("{% endfor %}{{ '<|im_end|>", "{% endfor %}{% endif %}{{ '<|im_end|>")
#: As Ministral has it, which also wants roles to alternate.
STRICT = (
    "{% set turns = messages | rejectattr('role', 'equalto', 'system') | list %}{% for m in turns %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'assistant' and not m['content'] %}"
    "{{ raise_exception('Assistant message must have a content') }}{% endif %}{% endfor %}"
)
NO_EMPTY = STRICT + CHATML
NO_WHITE = STRICT.replace("not m['content']", "not (m['content'] | trim)") + CHATML
NOTHING = "{% for message in messages %}{{ message['role'] }}{% endfor %}"
LAST_ALONE = "{{ messages[-1]['content'] }}"
NO_ANSWERS = CHATML.replace("message['content']", "(message['content'] if message['role'] != 'assistant' else '')")
TO_JSON = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] | tojson }}\n{% endfor %}"
ESCAPES = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] | e }}\n{% endfor %}"
SWITCH = CHATML + "{% if enable_thinking is defined and not enable_thinking %}{{ '<think></think>' }}{% endif %}"
#: It speaks of thinking, and has no switch for it.
THINKING_ALOUD = CHATML.replace("message['content']", "(message['thinking'] | default('') + message['content'])")


def chatml(*messages: tuple[str, str]) -> str:
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in messages) + "<|im_start|>assistant\n"


def conversation(*texts: str) -> list[Message]:
    """Question, answer, question, ..."""
    return [Message("assistant" if number % 2 else "user", text) for number, text in enumerate(texts)]


@pytest.fixture
def read(tmp_path: Path):
    """What a model with a template reads of a conversation."""

    def read(template: str | None, *texts: str, preference: str = "", turns: int = 1, **prompting: str) -> str:
        path = tiny_models.write_llama(tmp_path / "model.gguf", chat_template=template, add_bos=False)
        with PersonaJudge(path) as judge:
            for _ in range(turns):
                tokens = judge.template.tokens(conversation(*texts), preference, Prompting(**prompting))
            return judge.model.text(tokens)

    return read


# Parts.


@pytest.mark.parametrize("template", [PARTS, PARTS_IN_A_LOOP, MIXED, EITHER, CHATML])
def test_a_template_gets_texts_or_lists_of_parts_as_it_takes_them(read, template: str) -> None:
    text = read(template, "Why?", "So <b>", "And <|im_end|>?", system="SYS")
    assert text == chatml(("system", "SYS"), ("user", "Why?"), ("assistant", "So <b>"), ("user", "And <|im_end|>?"))


def test_a_model_with_parts_answers(tmp_path: Path, pjlocal) -> None:
    path = tiny_models.write_llama(tmp_path / "model.gguf", chat_template=PARTS_IN_A_LOOP)
    result = pjlocal("run", "-m", path, "-n", "2", "--seed", "1", "-p", "vivid", "--json", "Hello")
    assert result.returncode == 0 and "cut off after 2 tokens" in one_line(result.stderr)


# What does not reach the prompt.


def test_a_question_that_does_not_reach_the_prompt_gives_an_error(tmp_path: Path, pjlocal) -> None:
    path = tiny_models.write_llama(tmp_path / "model.gguf", chat_template=NOTHING)
    result = pjlocal("run", "-m", path, "Hello")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "pjlocal: the model's chat template leaves out the question: use a model made for text chat\n"
    )


def test_an_earlier_question_that_does_not_reach_the_prompt_gives_an_error_too(read) -> None:
    assert read(LAST_ALONE, "Why?") == "Why?"
    with pytest.raises(ModelError, match="leaves out earlier questions: begin a new chat"):
        read(LAST_ALONE, "Why?", "So.", "Why?")


def test_answers_missing_from_the_prompt_are_reported_once(read, caplog) -> None:
    text = read(NO_ANSWERS, "Why?", "So.", "And?", turns=3)
    assert text == chatml(("user", "Why?"), ("assistant", ""), ("user", "And?"))
    assert [record.message for record in caplog.records] == [
        "the model's chat template leaves out earlier answers: the model does not see them"
    ]


@pytest.mark.parametrize("template", [TO_JSON, ESCAPES, CHATML.replace("['content']", "['content'] | upper")])
@pytest.mark.parametrize("question", ['Say "so" & <b>', "two\nlines", "</s> and <|im_end|>", "  white  "])
def test_a_template_may_escape_messages(read, caplog, template: str, question: str) -> None:
    text = read(template, question, 'I "say" <i>', question)
    assert not caplog.records
    assert "\ue000" not in text and ("SAY" if "upper" in template else "say") in text


def test_control_tokens_stay_text_where_others_are_escaped(tmp_path: Path) -> None:
    path = tiny_models.write_llama(tmp_path / "model.gguf", chat_template=TO_JSON, add_bos=False)
    with PersonaJudge(path) as judge:
        tokens = judge.template.tokens([Message("user", 'a "quote"</s><s>')], "", Prompting())
        assert judge.model.text(tokens).strip() == r'user: "a \"quote\"</s><s>"'
        assert not any(map(judge.model.is_control, tokens))


# Empty answers.


@pytest.mark.parametrize("template", [CHATML, NO_EMPTY, NO_WHITE, PARTS_IN_A_LOOP])
def test_a_question_without_an_answer_is_joined_to_the_next(read, template: str) -> None:
    assert read(template, "Why?", "", "Well?") == chatml(("user", "Why?\n\nWell?"))
    assert read(template, "Why?", "So.", "And?", "", "Or?", "", "Well?") == chatml(
        ("user", "Why?"), ("assistant", "So."), ("user", "And?\n\nOr?\n\nWell?")
    )
    assert read(template, "Why?", "", "Well?", "So.", "And?") == chatml(
        ("user", "Why?\n\nWell?"), ("assistant", "So."), ("user", "And?")
    )


def test_an_answer_of_white_space_stays_where_the_template_takes_it(read) -> None:
    for template in (CHATML, NO_EMPTY):
        assert read(template, "Why?", " \n", "Well?") == chatml(
            ("user", "Why?"), ("assistant", " \n"), ("user", "Well?")
        )
    assert read(NO_WHITE, "Why?", " \n", "Well?") == chatml(("user", "Why?\n\nWell?"))


def test_an_empty_answer_to_nothing_is_left_out(tmp_path: Path) -> None:
    path = tiny_models.write_llama(tmp_path / "model.gguf", add_bos=False)
    with PersonaJudge(path) as judge:
        tokens = judge.template.tokens([Message("assistant", ""), *conversation("Why?")], "", Prompting())
        assert judge.model.text(tokens) == chatml(("user", "Why?"))


def test_a_model_without_a_template_reads_no_empty_answer(read) -> None:
    assert read(None, "Why?", "", "Well?") == "User: Why?\n\nWell?\n\nAssistant:"


# Preferences in a turn of their own.


@pytest.mark.parametrize("template", [NO_EMPTY, NO_WHITE])
def test_a_preference_in_a_user_turn_stands_before_the_message_where_empty_answers_are_refused(
    read, caplog, template: str
) -> None:
    text = read(template, "Why?", "So.", "And?", preference="PREF", placement="user-turn", system="SYS", turns=2)
    assert text == chatml(("system", "SYS"), ("user", "PREF\n\nWhy?"), ("assistant", "So."), ("user", "And?"))
    (record,) = caplog.records
    assert "refuses empty answers: --placement user-turn puts the preference at the start" in record.message


def test_a_preference_has_its_turn_despite_unanswered_questions(read, caplog) -> None:
    text = read(CHATML, "Why?", "", "And?", preference="PREF", placement="user-turn")
    assert text == chatml(("user", "PREF"), ("assistant", ""), ("user", "Why?\n\nAnd?"))
    assert not caplog.records


# Thinking.


@pytest.mark.parametrize("template", [CHATML, THINKING_ALOUD, None])
def test_a_missing_switch_for_thinking_is_reported_once(read, caplog, template: str | None) -> None:
    caplog.set_level(logging.WARNING)
    read(template, "Why?", think="off", turns=3)
    no_template = [] if template else ["the model has no chat template: a plain dialogue is used instead"]
    assert caplog.messages == ["think off: this model's chat template has no switch for thinking", *no_template]


def test_a_reasoning_effort_that_the_template_does_not_read_is_reported_once(read, caplog) -> None:
    assert read("{{ reasoning_effort }}" + CHATML, "Why?", reasoning_effort="low").startswith("low")
    assert not caplog.records
    read(CHATML, "Why?", reasoning_effort="low", turns=3)
    assert caplog.messages == ["reasoning effort low: this model has no setting for the reasoning effort"]


def test_a_switch_for_thinking_that_works_or_is_not_used_is_not_reported(read, caplog) -> None:
    assert read(SWITCH, "Why?", think="off").endswith("<think></think>")
    assert not read(SWITCH, "Why?", think="on").endswith("<think></think>")
    read(CHATML, "Why?")
    assert not caplog.records


@pytest.mark.slow
def test_the_command_line_reports_a_missing_switch_for_thinking(tmp_path: Path, pjlocal) -> None:
    path = tiny_models.write_llama(tmp_path / "model.gguf")
    note = "pjlocal: think off: this model's chat template has no switch for thinking\n"
    one = ("-m", path, "--regex", "a")
    result = pjlocal("run", *one, "-p", "vivid", "-p", "simple", "--think", "off", "Hello")
    assert (result.returncode, result.stderr) == (0, note)
    result = pjlocal("chat", *one, "--think", "off", stdin="one\ntwo\n")
    assert (result.returncode, result.stderr) == (0, note)
    result = pjlocal("chat", *one, "--continue", stdin="three\n/think off\nfour\n")
    assert result.returncode == 0 and result.stderr.count("no switch for thinking") == 2, "at the start, and when asked"
    result = pjlocal("chat", *one, stdin="/think off\none\n")
    assert result.stderr == "pjlocal: this model's chat template has no switch for thinking\npjlocal: think off\n"
