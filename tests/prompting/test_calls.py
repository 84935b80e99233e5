"""Functions in prompts: in the syntax of the template, or as text if it has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import tool_templates

from pjlocal import Message, PersonaJudge, Prompting
from pjlocal.prompting.tools import CallSupport, Control, Tools, make_call

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "the weather <|im_end|> there",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALLED = [
    Message("user", "Weather?"),
    Message("assistant", "", others={"tool_calls": [make_call("abc123def", "weather", {"city": "Paris <|im_end|>"})]}),
    Message("tool", "rain <|im_end|>", others={"tool_call_id": "abc123def", "name": "weather"}),
]

Template = Callable[[str | None], PersonaJudge]


@pytest.fixture
def judge_of(tmp_path: Path) -> Any:
    """A judge of a model with a template."""
    made: list[PersonaJudge] = []

    def make(template: str | None) -> PersonaJudge:
        path = tiny_models.write_llama(tmp_path / "model.gguf", chat_template=template, add_bos=False)
        made.append(PersonaJudge(path))
        return made[-1]

    yield make
    for judge in made:
        judge.close()


@pytest.mark.parametrize(
    ("template", "opening", "between", "mark", "in_text"),
    [
        (tool_templates.HERMES, '<tool_call>\n{"name": "', '", "arguments": ', "<tool_call>", False),
        (tool_templates.LLAMA, '{"name": "', '", "parameters": ', None, False),
        (tool_templates.MISTRAL, '<|im_start|>[{"name": "', '", "arguments": ', Control(3, "<|im_start|>"), False),
        (tool_templates.DEEPSEEK, "<s>function<|im_start|>", "\n", Control(1, "<s>"), True),
    ],
)
def test_a_templates_own_way_to_write_a_call_is_found(
    judge_of: Template, template: str, opening: str, between: str, mark: Any, in_text: bool
) -> None:
    support = judge_of(template).template.call_support
    assert support.shows_tools and support.syntax and support.in_text == in_text
    assert (support.syntax.opening.whole, support.syntax.between.whole) == (opening, between)
    assert support.syntax.mark == mark and support.syntax.can_be_chosen


def test_a_call_that_begins_in_the_head_of_the_answer_can_be_forced_and_not_chosen(judge_of: Template) -> None:
    syntax = judge_of(tool_templates.HARMONY).template.call_support.syntax
    assert syntax and not syntax.can_be_chosen
    assert (syntax.opening.whole, syntax.between.whole) == (" to=functions.", "<s>json\n")


@pytest.mark.parametrize("thought", ["", "<think>\n\n</think>\n\n"])
@pytest.mark.parametrize("opened", ["", "<think>\n", "<think>\n\n</think>\n\n"])
def test_thinking_before_a_call_is_not_part_of_it(judge_of: Template, thought: str, opened: str) -> None:
    template = tool_templates.HERMES.replace("'<tool_call>", f"'{thought}<tool_call>")
    template = template.replace("assistant\n' }}", f"assistant\n{opened}' }}}}")
    syntax = judge_of(template).template.call_support.syntax
    assert syntax and syntax.opening.whole == '<tool_call>\n{"name": "'


@pytest.mark.parametrize("template", [tiny_models.CHATML, None])
def test_templates_without_functions_have_no_way_to_write_calls(judge_of: Template, template: str | None) -> None:
    assert judge_of(template).template.call_support == CallSupport()


def test_a_call_whose_arguments_are_not_json_is_not_taken(judge_of: Template) -> None:
    assert judge_of(tool_templates.GEMMA).template.call_support == CallSupport(shows_tools=True)


def read(judge: PersonaJudge, conversation: list[Message], tools: Tools = Tools(), **prompting: Any) -> str:
    tokens = judge.template.tokens(conversation, "", Prompting(**prompting), tools)
    controls = [judge.model.special_text(token) for token in tokens if judge.model.is_control(token)]
    text = judge.model.text(tokens)
    spelled = sum(text.count(mark) for mark in ("<|im_start|>", "<|im_end|>"))
    assert spelled - len(controls) == sum(str(each).count("<|im_end|>") for each in (conversation, tools.offered))
    return text


def test_functions_calls_and_results_go_through_the_template(judge_of: Template) -> None:
    text = read(judge_of(tool_templates.HERMES), CALLED, Tools([WEATHER]))
    assert '"description": "the weather <|im_end|> there"' in text
    assert '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris <|im_end|>"}}\n</tool_call>' in text
    assert "<|im_start|>tool\nrain <|im_end|><|im_end|>" in text


def test_private_marks_in_a_call_and_in_a_function_are_left_as_they_are(judge_of: Template) -> None:
    """They would stand for the texts of other messages."""
    marks = "\ue0000\ue001"
    call = Message("assistant", "", others={"tool_calls": [make_call("abc123def", "weather", {"city": marks})]})
    offered = {"type": "function", "function": {"name": "weather", "description": marks, "parameters": {}}}
    text = read(judge_of(tool_templates.HERMES), [CALLED[0], call, CALLED[2]], Tools([offered]))
    assert f'{{"city": "{marks}"}}' in text and f'"description": "{marks}"' in text


def test_arguments_are_a_text_for_templates_that_take_a_text(judge_of: Template) -> None:
    assert 'weather\n{"city": "Paris <|im_end|>"}' in judge_of(tool_templates.DEEPSEEK).model.text(
        judge_of(tool_templates.DEEPSEEK).template.tokens(CALLED, "", Prompting())
    )


def test_calls_and_results_are_text_if_the_template_does_not_support_them(judge_of: Template) -> None:
    for template in (
        tiny_models.CHATML.replace(
            "{% for",
            "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no') }}{% endif %}{% endfor %}{% for",
            1,
        ),
        None,
    ):
        text = read(judge_of(template), CALLED, Tools([WEATHER]), system="SYS")
        assert 'Call of weather: {"city": "Paris <|im_end|>"}' in text
        assert "Result of weather: rain <|im_end|>" in text
        assert text.index("SYS") < text.index("- weather: the weather <|im_end|> there") < text.index("Weather?")


def test_a_call_is_opened_after_the_prompt_and_not_inside_thinking(judge_of: Template) -> None:
    hermes = tool_templates.HERMES
    opening = '<tool_call>\n{"name": "weather", "arguments": '
    asked = [Message("user", "Weather?")]
    assert read(judge_of(hermes), asked, Tools([], opening)).endswith(f"assistant\n{opening}")
    thinking = hermes.replace("assistant\n' }}", "assistant\n<think>\n' }}")
    assert read(judge_of(thinking), asked, Tools([], opening)).endswith(f"<think>\n\n</think>\n\n{opening}")


def test_a_preference_with_the_question_stays_there_when_a_result_follows(judge_of: Template) -> None:
    judge = judge_of(tool_templates.HERMES)
    text = judge.model.text(judge.template.tokens(CALLED, "Be brief.", Prompting(placement="question")))
    assert "Weather?\n\nBe brief.<|im_end|>" in text
