"""Answers with a given beginning: the prompt ends with the open turn of the assistant, with all templates."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
from talking import model_with as model
from test_rendering import NO_ANSWERS, NO_WHITE

from pjlocal import Message, PersonaJudge, Prompting
from pjlocal.errors import UsageError
from pjlocal.prompting.plan import with_beginning

CHATML = tiny_models.CHATML
OPEN = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
#: As DeepSeek-R1 and its kin have it: the prompt itself opens the thinking, and earlier thoughts are left out.
OPENS_THINKING = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}").replace(
    "message['content']", "message['content'].split('</think>')[-1]"
)
TRIMS = CHATML.replace("message['content']", "(message['content'] | trim)")


def prompt(path: Path, answer: str, preference: str = "", thinking: str = "", **prompting: str) -> str:
    with PersonaJudge(path) as judge:
        said = [Message("user", "Hello"), Message("assistant", answer, thinking=thinking)]
        return judge.model.text(judge.template.tokens(said, preference, Prompting(**prompting)))


@pytest.mark.parametrize("template", [CHATML, TRIMS, NO_ANSWERS, NO_WHITE])
@pytest.mark.parametrize("answer", ["Ahoy", "Ahoy, ", " \n", "So:\n\n", "It ends <|im_end|>"])
def test_the_answer_follows_its_prompt_unchanged(tmp_path, template: str, answer: str) -> None:
    assert prompt(model(tmp_path, template), answer) == f"{OPEN}{answer}"


def test_the_text_of_a_control_token_stays_text(tmp_path: Path) -> None:
    with PersonaJudge(model(tmp_path, CHATML)) as judge:
        said = [Message("user", "Hello"), Message("assistant", "Ahoy<|im_end|>")]
        begun = judge.template.tokens(said, "", Prompting())[len(judge.template.tokens(said[:1], "", Prompting())) :]
        assert not any(map(judge.model.is_control, begun))


def test_half_a_character_in_a_beginning_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not valid UTF-8"):
        prompt(model(tmp_path, CHATML), "Ahoy \ud800")


def test_preferences_follow_the_question(tmp_path: Path) -> None:
    text = prompt(model(tmp_path, CHATML), "Ahoy", "PREF", system="SYS")
    assert text.endswith("<|im_start|>user\nHello\n\nPREF<|im_end|>\n<|im_start|>assistant\nAhoy")


def test_a_model_without_a_template_continues_after_the_colon(tmp_path: Path) -> None:
    assert prompt(model(tmp_path, None), "Ahoy") == "User: Hello\n\nAssistant: Ahoy"


def test_a_channel_is_not_part_of_the_prompt(tmp_path: Path) -> None:
    text = prompt(model(tmp_path, tiny_models.HARMONY), "<|channel|>final<|message|>Ahoy")
    assert text == "<|start|>user<|message|>Hello<|end|><|start|>assistant<|channel|>final<|message|>Ahoy"


def test_a_beginning_follows_the_templates_text_before_an_answer(tmp_path: Path) -> None:
    text = prompt(model(tmp_path, tiny_models.HARMONY), "Ahoy")
    assert text.endswith("<|start|>assistant<|channel|>final<|message|>Ahoy")
    thinks = "('<think>\n\n</think>\n\n' if m['role'] == 'assistant' and loop.last else '')"
    qwen3 = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + "
        + thinks
        + " + m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    assert prompt(model(tmp_path, qwen3), "Ahoy") == f"{OPEN}<think>\n\n</think>\n\nAhoy"


def test_a_beginning_is_thinking_only_if_it_continues_thinking(tmp_path: Path) -> None:
    with PersonaJudge(model(tmp_path, OPENS_THINKING), max_tokens=4, ignore_end=True, seed=1) as judge:
        answer = judge.stream("Hello", begin="Ahoy")
        given = [event for event in answer if event.kind == "given"]
        assert "".join(event.text for event in given if not event.thought) == "Ahoy"
        assert answer.result.text.startswith("Ahoy") and answer.result.thinking == ""
        tokens = tuple(judge.model.tokenize("the cat", special=False))
        cut = [Message("user", "Hello"), Message("assistant", "the cat", tokens)]
        assert all(event.thought for event in judge.stream(cut)), "it goes on thinking"
        closed = judge.model.tokenize("</think>\n\nthe", special=False)
        done = [cut[0], Message("assistant", "the cat</think>\n\nthe", (*tokens, *closed))]
        assert not any(event.thought for event in judge.stream(done))


def test_a_beginning_closes_thinking_that_the_prompt_opens(tmp_path: Path) -> None:
    path = model(tmp_path, OPENS_THINKING)
    assert prompt(path, "Ahoy") == f"{OPEN}<think>\n\n</think>\n\nAhoy"
    assert prompt(path, "So.\n</think>\n\nAhoy") == f"{OPEN}<think>\nSo.\n</think>\n\nAhoy", "with its own thoughts"


def test_a_beginning_with_an_opening_mark_continues_thinking_that_the_prompt_opens(tmp_path: Path) -> None:
    path = model(tmp_path, OPENS_THINKING)
    assert prompt(path, "<think>\nSo.\n</think>\n\nAhoy") == f"{OPEN}<think>\nSo.\n</think>\n\nAhoy"
    assert prompt(path, "<think>\nSo") == f"{OPEN}<think>\nSo"


#: Names the mark for earlier thoughts, and opens none.
MAY_THINK = CHATML + "{# <think> #}"


@pytest.mark.parametrize("template", [OPENS_THINKING, MAY_THINK])
def test_the_thinking_of_a_beginning_comes_before_it(tmp_path: Path, template: str) -> None:
    path = model(tmp_path, template)
    assert prompt(path, "Ahoy", thinking="So.") == f"{OPEN}<think>\nSo.\n</think>\n\nAhoy"
    assert prompt(path, "", thinking="So") == f"{OPEN}<think>\nSo", "the model goes on thinking"


def test_an_answer_cut_off_while_thinking_continues_there(tmp_path: Path) -> None:
    with PersonaJudge(model(tmp_path, OPENS_THINKING)) as judge:
        tokens = tuple(judge.model.tokenize("the cat", special=False))
        said = [Message("user", "Hello"), Message("assistant", judge.model.text(tokens), tokens)]
        prompt = judge.template.tokens(said, "", Prompting())
        assert prompt == judge.template.tokens(said[:1], "", Prompting()) + list(tokens)


def test_tokens_of_the_model_stay_and_half_a_character_is_left_out(tmp_path: Path) -> None:
    with PersonaJudge(model(tmp_path, CHATML)) as judge:
        letters = {judge.model.piece(token): token for token in range(judge.model.n_vocab)}
        tokens = (letters[b"t"], letters[b"h"], letters[b"e"], letters[b"\xf0"])  # not as "the" is split
        said = [Message("user", "Hello"), Message("assistant", "the", tokens)]
        prompt = judge.template.tokens(said, "", Prompting())
        assert prompt[-3:] == list(tokens[:3])
        assert judge.template.n_beginning(said, Prompting()) == 3


def test_the_settings_give_a_beginning_unless_the_conversation_has_one() -> None:
    said = [Message("user", "Hello")]
    assert with_beginning(said, Prompting()) == said
    assert with_beginning(said, Prompting(begin="Ahoy"))[1:] == [Message("assistant", "Ahoy")]
    said.append(Message("assistant", "Well"))
    assert with_beginning(said, Prompting(begin="Ahoy")) == said


def test_an_answer_without_a_question_is_refused(tmp_path: Path) -> None:
    with PersonaJudge(model(tmp_path, CHATML)) as judge, pytest.raises(UsageError, match="the prompt is empty"):
        judge([{"role": "assistant", "content": "Ahoy"}])


def test_only_the_given_tokens_begin_an_answer_whatever_the_template_writes_before_them(tmp_path: Path) -> None:
    """As DeepSeek-R1's: the thinking is opened unless the last message has another role."""
    opens = "{% if messages[-1]['role'] == 'user' %}{{ '<|im_start|>assistant\n<think>\n' }}{% else %}"
    template = CHATML.replace("{{ '<|im_start|>assistant\n' }}", opens + "{{ '<|im_start|>assistant\n' }}{% endif %}")
    assert template != CHATML
    with PersonaJudge(model(tmp_path, template)) as judge:
        said = [Message("user", "Hello"), Message("tool", "5 degrees"), Message("assistant", "It is cold")]
        plan = judge.plan_request(said, judge.request)
        assert judge.model.text(plan.beginning) == "It is cold"


def test_an_answer_in_a_plain_dialogue_begins_without_a_space_and_is_continued_by_its_tokens(tmp_path: Path) -> None:
    settings = {"grammar": 'root ::= " "? "Ahoy" " the cat"*', "max_tokens": 12, "seed": 1}
    with PersonaJudge(model(tmp_path, None), **settings) as judge:
        for begin in ("", "Ahoy", " Ahoy"):
            answer = judge.stream("Hello", begin=begin)
            tokens = tuple(event.id for event in answer if not judge.model.is_end(event.id))
            assert answer.result.text.startswith("Ahoy")
            said = [Message("user", "Hello"), Message("assistant", answer.result.text, tokens)]
            assert judge.template.tokens(said, "", Prompting())[-len(tokens) :] == list(tokens)
            again = judge.template.tokens([*said, said[0]], "", Prompting())
            assert f"Assistant: {answer.result.text}\n\nUser: Hello" in judge.model.text(again)
            assert list(tokens) in [again[n : n + len(tokens)] for n in range(len(again))]
            more = judge([Message("user", "Hello"), said[1]], grammar=None, regex=f"{answer.result.text}[a-z ]*")
            assert not more.text.startswith(answer.result.text), "a constraint sees the answer as it is shown"


def test_an_answer_whose_tokens_do_not_spell_it_is_continued_like_one_without_tokens(tmp_path: Path) -> None:
    with PersonaJudge(model(tmp_path, None)) as judge:
        said = [Message("user", "Hello"), Message("assistant", "Snow falls", (0, 343))]
        assert judge.model.text(judge.template.tokens(said, "", Prompting())).endswith("Assistant: Snow falls")


def test_a_continued_plain_dialogue_ends_at_a_role_mark_too(tmp_path: Path) -> None:
    with PersonaJudge(model(tmp_path, None), grammar='root ::= "It rains" "\\n" "\\n"? "User: And?"') as judge:
        for answer in ("It rains\n\n", "It rains\n"):
            said = [Message("user", "Hello"), Message("assistant", answer)]
            result = judge(said)
            assert (result.text, result.finish_reason) == ("", "stop")


def test_a_scored_answer_stands_in_its_plain_dialogue_as_it_was_written(tmp_path: Path) -> None:
    with PersonaJudge(model(tmp_path, None)) as judge:
        prompt = judge.template.tokens([Message("user", "Hello")], "", Prompting())
        assert judge.model.text([*prompt, *judge.template.answer_tokens(prompt, "It rains")]).endswith(": It rains")
