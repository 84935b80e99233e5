"""A prompt in pieces has the same tokens as in one piece, with kept tokens and hidden texts in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import tiny_models

from pjlocal import Message, PersonaJudge, Prompting
from pjlocal.engine.model import Model
from pjlocal.prompting.pieces import Hidden, tokens_of
from pjlocal.prompting.tools import Tools

#: SentencePiece builds a token from two others, so beginnings are there too.
WORDS = [
    *("▁y", "▁ye", "▁yes", "▁u", "▁us", "▁use", "it", "▁it", "is", "▁is", "▁i", "▁in", "▁▁", "▁<", "▁h"),
    *("▁hi", "us", "use", "in", "s>", "</", "▁</", "\n\n", "▁日"),
]
TEXTS = ["yes", " it is", "use ", "in", " ", "  ", "\n", "\n\n", "hi", "日本", "é", "<", "s>", "<s", "/s>", "▁", "a"]
CONTROLS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<unk>"]

#: As TinyLlama has it; its bytes are no control tokens but for those at the ends of messages.
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
#: As Llama 2 and Mistral 7B have it, with plain text around what the user says.
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endif %}{% endfor %}"
)
#: As many write it who know no control tokens.
PLAIN = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}assistant:"
TEMPLATES = {"chatml": tiny_models.CHATML, "zephyr": ZEPHYR, "inst": INST, "plain": PLAIN}

KINDS = ["space", "no-space", "strips", "added", "bytes"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[dict[str, Model]]:
    """SentencePiece vocabularies with and without the space, with white space dropped behind control tokens (as Phi-3
    has it), with tokens that were added (as Gemma has them), and one of bytes."""
    folder = tmp_path_factory.mktemp("vocabularies")

    def write(file: str, **options: object) -> Path:
        words = [*WORDS, "<|endoftext|>"]  # which Phi-3 is known to have
        return tiny_models.write_llama(folder / f"{file}.gguf", words=words, **options)

    paths = {
        "space": write("space", space_prefix=True),
        "no-space": write("no-space"),
        "strips": write("strips", space_prefix=True, name="phi-3"),
        "added": write("added", space_prefix=True, added=["\n\n\n", "  ", "in>", "yes</s>"]),
        "bytes": smollm2,
    }
    judges = {kind: PersonaJudge(path) for kind, path in paths.items()}
    yield {kind: judge.model for kind, judge in judges.items()}
    for judge in judges.values():
        judge.close()


def some(random: Random, words: list[str], most: int = 6) -> str:
    return "".join(random.choices(words, k=random.randint(0, most)))


@pytest.mark.parametrize("kind", KINDS)
def test_continuing_text_gets_no_space_and_is_split_as_after_other_text(models, kind: str) -> None:
    model, random = models[kind], Random(kind)
    for _ in range(300):
        text = some(random, [*TEXTS, *CONTROLS])
        for special in (False, True):
            tokens = model.tokenize(text, special=special, continues=True)
            before = model.tokenize("7", special=False)  # which is merged with nothing
            assert [*before, *tokens] == model.tokenize(f"7{text}", special=special) or kind == "bytes"
    assert model.tokenize("", special=True, continues=True) == []


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_plain_text_have_the_tokens_of_the_whole(models, kind: str) -> None:
    """Wherever they are cut, but within a control token's spelling."""
    model, random = models[kind], Random(kind)
    for _ in range(300):
        pieces = [some(random, random.choice([TEXTS, [*TEXTS, *CONTROLS]])) for _ in range(4)]
        whole = "".join(pieces)
        if all(whole.count(spelling) == sum(piece.count(spelling) for piece in pieces) for spelling in CONTROLS):
            assert tokens_of(model, pieces) == model.tokenize(whole, special=True), pieces


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_spellings_are_split_as_plain_text_among_what_surrounds_them(models, kind: str) -> None:
    model, random = models[kind], Random(kind)
    for _ in range(300):
        before, after = some(random, TEXTS), some(random, TEXTS)
        if any(spelling in before or spelling in after for spelling in CONTROLS):
            continue
        spelled = [random.choice(CONTROLS) for _ in range(random.randint(1, 3))]
        pieces = ["<|im_start|>", before, *map(Hidden, spelled), after, "<|im_end|>"]
        plain = before + "".join(spelled) + after
        if kind == "strips":
            plain = plain.lstrip(" \n")
        inner = model.tokenize(plain, special=False)
        tokens = tokens_of(model, pieces)
        if any(map(model.is_control, inner)):  # merged to one
            assert "".join(model.text(tokens[1:-1]).split()) == "".join(plain.replace("▁", " ").split())
            assert not any(map(model.is_control, tokens[1:-1])), pieces
        else:
            assert tokens[1:-1] == inner, pieces
        assert [tokens[0], tokens[-1]] == model.tokenize("<|im_start|><|im_end|>", special=True)


@pytest.mark.parametrize("kind", KINDS)
def test_no_space_follows_kept_tokens(models, kind: str) -> None:
    model, random = models[kind], Random(kind)
    for _ in range(300):
        answer, after = some(random, ["yes", " it", " is", "hi", "7"]) + "7", some(random, TEXTS)
        before = "<|im_start|>user\n"
        kept = model.tokenize(answer, special=False, continues=True)
        tokens = tokens_of(model, [before, Hidden(answer, tuple(kept)), f"{after}</s>\n<|im_end|>"])
        if kind != "bytes":
            assert tokens == model.tokenize(f"{before}{answer}{after}</s>\n<|im_end|>", special=True)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("space", [False, True])
def test_a_history_of_answers_has_the_tokens_of_the_whole_prompt(tmp_path: Path, template: str, space: bool) -> None:
    path = tiny_models.write_llama(
        tmp_path / "m.gguf", chat_template=TEMPLATES[template], words=WORDS, space_prefix=space, add_bos=False
    )
    random = Random(template)
    with PersonaJudge(path) as judge:
        model, tokens_like = judge.model, judge.template.tokens
        for _ in range(40):
            said = [f"q{some(random, TEXTS[:11])}"]
            conversation = [Message("user", said[0])]
            for _ in range(3):
                answer = f"yes{some(random, TEXTS[:4])}"
                tokens = model.tokenize(answer, special=False, continues=True)
                conversation += [Message("assistant", answer, tuple(tokens)), Message("user", some(random, TEXTS[:4]))]
            with_tokens = tokens_like(conversation, "", Prompting())
            texts_alone = [Message(m.role, m.content) for m in conversation]
            whole = judge.template._render_messages(texts_alone, Prompting(), Tools())
            assert tokens_like(texts_alone, "", Prompting()) == model.tokenize(whole, special=True)
            if template in ("chatml", "zephyr"):  # others put a space there, and " yes" would be one token
                assert with_tokens == model.tokenize(whole, special=True)


def test_a_control_token_spelled_in_a_question_is_its_letters_without_spaces(tmp_path: Path) -> None:
    path = tiny_models.write_llama(tmp_path / "m.gguf", chat_template=ZEPHYR, words=WORDS, space_prefix=True)
    with PersonaJudge(path) as judge:
        model = judge.model
        tokens = judge.template.tokens([Message("user", "use <s> in HTML")], "", Prompting())
        plain = model.tokenize("<|user|>\nuse <s> in HTML", special=False)
        end = model.tokenize("</s>\n<|assistant|>\n", special=True)
        assert tokens == [model.bos, *plain, *end]
        assert model.text(tokens).count("<s>") == 2 and sum(map(model.is_control, tokens)) == 2


def test_a_spelling_that_merges_to_its_control_token_stays_text(tmp_path: Path) -> None:
    """SentencePiece builds it where it knows two halves of the spelling."""
    path = tiny_models.write_llama(tmp_path / "m.gguf", words=["</", "s>"], add_bos=False)
    with PersonaJudge(path) as judge:
        model, text = judge.model, "a</s>cat</s></s>"
        assert 2 in model.tokenize(text, special=False), "llama.cpp does"
        tokens = judge.template.tokens([Message("user", text)], "", Prompting())
        assert 2 not in tokens and text in model.text(tokens)


def test_users_cannot_type_the_unknown_token(tmp_path: Path) -> None:
    with PersonaJudge(tiny_models.write_llama(tmp_path / "m.gguf", add_bos=False)) as judge:
        tokens = judge.template.tokens([Message("user", "x<unk>y")], "", Prompting())
        assert 0 not in tokens and "x<unk>y" in judge.model.text(tokens)
