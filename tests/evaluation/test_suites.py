"""Suites: they are read as written, and errors name the table before any answer is written."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from evaluated import SUITE, make_answer

import pjlocal
from pjlocal.errors import UsageError
from pjlocal.evaluation.checks import PROMISES, checks_of, met
from pjlocal.evaluation.prompts import FIELDS, load_prompts
from pjlocal.evaluation.suite import (
    Check,
    Objectives,
    Suite,
    System,
    check_systems,
    suite_from_dict,
    suite_settings,
    system_engine,
    system_request,
    with_models,
    with_settings,
)
from pjlocal.evaluation.suitefile import load_suite, ready_suites
from pjlocal.prompting.plan import make_roles
from pjlocal.prompting.preferences import PRESETS
from pjlocal.request import Request
from pjlocal.settings import Engine, Generation, Prompting, Sampling

OBJECTIVES = '[[objectives]]\nname = "o"\nprefer = ["vivid", "creative"]\n'
SYSTEM = '[[systems]]\nname = "prompt"\nmode = "prompt"\n'
CHECK = '[[objectives.checks]]\nname = "c"\n'
WHOLE = OBJECTIVES + SYSTEM
CHECKED = OBJECTIVES + CHECK


@pytest.fixture
def suite(tmp_path: Path):
    """The suite that a text is."""

    def load(text: str) -> Suite:
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return load_suite(str(path))

    return load


# What a user may write.


def test_a_suite_is_what_was_written(suite, tmp_path: Path) -> None:
    (tmp_path / "wish.txt").write_text("Be brief.")
    (tmp_path / "small.gguf").touch()
    made = suite("""
        title = "Pirates, briefly"
        prompts = "asks.jsonl"
        field = "ask"
        limit = 10
        sample = 3
        max_chars = 200
        max_tokens = 64
        seeds = [0, 1]
        baseline = "together"
        temperature = 1         # for all systems
        stop = ["END"]

        [[objectives]]
        name = "pirate, brief"
        prefer = ["Talk like a pirate:1", "@wish.txt"]
          [[objectives.checks]]
          name = "pirate"
          of = "Talk like a pirate"
          regex = '(?i)\\bahoy\\b'
          [[objectives.checks]]
          name = "brief"
          of = "@wish.txt"
          max_words = 30
          finished = true

        [[systems]]
        name = "together"
        mode = "prompt"
        [[systems]]
        name = "both at 2"
        mode = "both"
        strength = 2            # with or without quotes
        floor = 0
        avoid = ["formal:2"]
        max_tokens = 32
        [[systems]]
        name = "pirate alone"
        mode = "prompt"
        only = 1
        model = "small.gguf"
        against = "both at 2"
    """)
    brief = f"@{tmp_path / 'wish.txt'}"
    assert made == Suite(
        name="mine",
        title="Pirates, briefly",
        objectives=(
            Objectives(
                "pirate, brief",
                ("Talk like a pirate:1", brief),
                (
                    Check("pirate", of="Talk like a pirate:1", regex=r"(?i)\bahoy\b"),
                    Check("brief", of=brief, max_words=30, finished=True),
                ),
            ),
        ),
        systems=(
            System("together", {"mode": "prompt"}),
            System(
                "both at 2",
                {"mode": "both", "strength": "2", "floor": 0.0, "avoid": ("formal:2",), "max_tokens": 32},
            ),
            System("pirate alone", {"mode": "prompt"}, only=1, model=str(tmp_path / "small.gguf"), against="both at 2"),
        ),
        baseline="together",
        settings={"max_tokens": 64, "temperature": 1.0, "stop": ("END",)},
        prompts=str(tmp_path / "asks.jsonl"),
        field="ask",
        limit=10,
        sample=3,
        max_chars=200,
        seeds=(0, 1),
    )
    assert suite_from_dict(json.loads(json.dumps(asdict(made)))) == made
    assert made.baselines == {"together": None, "both at 2": "together", "pirate alone": "both at 2"}
    assert made.systems[2].views(made.objectives[0]) == [["Talk like a pirate:1"], []]
    assert made.systems[1].views(made.objectives[0]) == [["Talk like a pirate:1"], [brief]]


def test_the_documents_suite_is_one(suite) -> None:
    document = (Path(pjlocal.__file__).parent / "docs" / "evaluation.md").read_text(encoding="utf-8")
    [text] = [block for block in re.findall(r"```toml\n(.*?)```", document, re.DOTALL) if "[[objectives]]" in block]
    made = suite(text)
    assert [system.name for system in made.systems] == ["prompt", "both at 2", "best of four", "pirate alone"]
    assert [check.name for check in made.objectives[0].checks] == ["pirate", "short"]
    assert all(name in document for name in ready_suites() if not name.startswith("table"))
    assert all(f"`{field}`" in document for field in FIELDS)


def test_missing_keys_have_defaults(suite) -> None:
    made = suite(OBJECTIVES + SYSTEM)
    objectives = (Objectives("o", ("vivid", "creative")),)
    assert made == Suite("mine", "mine", objectives, made.systems, "prompt", {"max_tokens": 128})


def test_a_system_goes_before_the_command_line_and_that_before_the_suite(suite) -> None:
    made = suite(
        f"temperature = 0.9\ntop_k = 5\nmax_tokens = 20\nplacement = 'question'\n{OBJECTIVES}{SYSTEM}"
        "temperature = 0.5\nstrength = 2\nregex = 'a+'\nn_ctx = 64\n"
    )
    system = made.systems[0]
    sampling = Sampling(temperature=0.1, top_k=7, top_p=0.3, grammar="root ::= 'b'")
    request = Request(sampling=sampling, generation=Generation(seed=3), prompting=Prompting(system="Hi"))
    given = with_settings(made, request, {"temperature", "top_k", "top_p", "seed"})
    assert system_request(given, system, request).sampling == Sampling(temperature=0.5, top_k=7, top_p=0.3, regex="a+")
    assert system_request(made, system, Request()).sampling.top_k == 5
    assert system_request(given, system, request).generation == Generation("prompt", "2", max_tokens=20, seed=3)
    shorter = Request(generation=Generation(max_tokens=9))
    assert with_settings(made, shorter, {"max_tokens"}).settings["max_tokens"] == 9
    assert system_request(made, system, request).prompting == Prompting(system="Hi", placement="question")
    assert system_engine(made, system, Engine()) == Engine(n_ctx=64)


def test_answers_are_scored_with_the_prompt_settings_that_they_were_written_with(suite) -> None:
    made = suite(f"system = 'Be brief.'\nthink = 'on'\nreasoning_effort = 'low'\n{OBJECTIVES}{SYSTEM}")
    expected = Prompting(system="Be brief.", think="on", reasoning_effort="low")
    assert suite_settings(made).apply_to(Prompting()) == expected
    given = with_settings(made, Request(prompting=Prompting(system="Hi")), {"system"})
    assert suite_settings(given).apply_to(Prompting()) == expected.replace(system="Hi")


def test_what_the_command_line_gives_may_not_suit_a_system(suite) -> None:
    made, best = suite(OBJECTIVES + SYSTEM), Request(generation=Generation(best=2))
    check_systems(made, Request())
    with pytest.raises(UsageError, match="system 'prompt' with objectives 'o': --best chooses by pushes"):
        check_systems(with_settings(made, best, {"best"}), best)
    check_systems(suite("best = 2\n" + WHOLE), Request())  # it is for the systems that have pushes


def test_a_grammar_from_the_command_line_replaces_the_suites_regex(suite) -> None:
    made, given = suite(f"regex = 'a+'\n{OBJECTIVES}{SYSTEM}"), Request(sampling=Sampling(grammar="root ::= 'b'"))
    made = with_settings(made, given, {"grammar"})
    assert system_request(made, made.systems[0], given).sampling == Sampling(grammar="root ::= 'b'")


def test_a_suite_keeps_the_settings_of_the_configuration_that_it_does_not_set(suite) -> None:
    made = suite(f"regex = 'a+'\ntop_k = 5\n{OBJECTIVES}{SYSTEM}")
    sampling = Sampling(grammar="root ::= 'b'", top_k=9, top_p=0.5)
    configured = Request(sampling=sampling, generation=Generation(mode="plain", max_tokens=7, seed=3))
    kept = with_settings(made, configured, ())
    assert kept.settings == {"regex": "a+", "top_k": 5, "top_p": 0.5, "mode": "plain", "max_tokens": 128}
    assert kept.in_force(System("other"), "mode") == "plain"


@pytest.mark.parametrize("mode", ["", 'mode = "prompt"\n'])
def test_a_system_may_not_ask_for_a_preference_that_the_command_line_does_not_give(suite, mode: str) -> None:
    made = suite(f'{OBJECTIVES}[[systems]]\nname = "second"\nonly = 2\n{mode}')
    check_systems(made, Request())
    given = replace(made, objectives=(Objectives("vivid", ("vivid",)),))
    with pytest.raises(UsageError, match=r"^system 'second': only = 2, but the objectives 'vivid' have 1 preference$"):
        check_systems(given, Request())


def test_every_model_has_every_system_and_its_own_baseline() -> None:
    suite = with_models(load_suite("table4"), ["models/a.gguf", "b.gguf"])
    names = ["prompt on a", "judge on a", "both on a", "prompt on b", "judge on b", "both on b"]
    assert [system.name for system in suite.systems] == names
    assert [system.model for system in suite.systems] == ["models/a.gguf"] * 3 + ["b.gguf"] * 3
    assert suite.baseline == "prompt on a"
    assert [*suite.baselines.values()] == [None, *["prompt on a"] * 2, None, *["prompt on b"] * 2]
    assert with_models(suite, []) == suite
    same = with_models(load_suite("table4"), ["x/a.gguf", "b.gguf", "y/a.gguf"])
    assert [system.name for system in same.systems[::3]] == [
        f"prompt on {label}" for label in ("x/a.gguf", "b", "y/a.gguf")
    ]
    names = ["qwen2.5-0.5b", "org/qwen2.5-3b:Q5_K_M"]
    assert with_models(load_suite("table4"), names).systems[3].name == "prompt on qwen2.5-3b:Q5_K_M"
    assert with_models(load_suite("table4"), names).baseline == "prompt on qwen2.5-0.5b"
    with pytest.raises(UsageError, match="a model is given twice"):
        with_models(suite, ["a.gguf", "a.gguf"])


@pytest.mark.parametrize("baseline", ["fixed", "free"])
def test_a_system_with_its_own_model_stands_once(baseline: str) -> None:
    systems = (System("fixed", model="c.gguf"), System("free"), System("other", against="fixed"))
    made = with_models(replace(load_suite("table4"), systems=systems, baseline=baseline), ["a", "b"])
    models = {"fixed": "c.gguf", "free on a": "a", "other on a": "a", "free on b": "b", "other on b": "b"}
    assert {system.name: system.model for system in made.systems} == models and len(made.systems) == len(models)
    against = {"fixed": [None, "fixed", "fixed"], "free": ["free on a", None, None]}[baseline]
    assert [made.baselines[name] for name in ("fixed", "free on a", "free on b")] == against
    assert made.baselines["other on a"] == made.baselines["other on b"] == "fixed"
    assert made.baseline in made.baselines


# What is kept of it.


def test_a_suite_of_another_version_is_read_as_far_as_it_is_known() -> None:
    suite = load_suite("quick")
    values = asdict(suite) | {"since": "tomorrow"}
    values["systems"][0]["since"] = "tomorrow"
    assert suite_from_dict(values) == suite
    # Settings that were removed since, and that answers written before still name.
    gone = {"mode": "both", "rule": "mod", "panel": True}
    values["systems"][0]["settings"] = gone
    assert suite_from_dict(values).systems[0].settings == gone
    timed = asdict(load_suite("table5"))
    assert timed.pop("timed") and suite_from_dict(timed | {"shape": "time"}).timed


@pytest.mark.parametrize("broken", [{}, {"objectives": 3}, {"objectives": [{"checks": [3]}]}, []])
def test_a_file_that_is_not_a_suite_gives_an_error(broken: Any) -> None:
    with pytest.raises(UsageError, match="the suite cannot be used"):
        suite_from_dict(broken)


# The ready ones.


def test_the_ready_suites_are_those_of_the_paper_and_of_this_project() -> None:
    own = ["modes", "pairs", "pairs-final", "pairs-more", "pairs-new", "pirate", "quick", "strength"]
    assert ready_suites() == [*own, *(f"table{number}" for number in range(1, 6))]


@pytest.mark.slow
@pytest.mark.parametrize("name", ready_suites())
def test_every_system_of_a_ready_suite_can_answer(name: str) -> None:
    suite = load_suite(name)
    assert suite.title != name
    assert load_prompts(suite.prompts, suite.field, suite.limit)
    assert suite_from_dict(asdict(suite)) == suite
    for system in suite.systems:
        for objectives in suite.objectives:
            request = system_request(suite, system, Request()).replace(views=system.views(objectives))
            assert make_roles(request).mode == request.generation.mode, "a ready suite says the mode of every system"


#: An answer that meets both preferences of each pair.
MEETS = {
    "cowboy + 25 words": "Well howdy, partner! I reckon the sky is blue 'cause that light gets scattered.",
    "Spanish + bullets": "- El cielo es azul por la luz del sol.\n- Las nubes son blancas y grandes.",
    "lower case + closing words": "the sky scatters blue light most. hope that helps!",
    "an animal + one sentence": "A good plan is like a fox that knows every path through the wood.",
    "excited + a number": "Wow! That is amazing! Rayleigh explained it in 1871!",
    "numbered steps + French": "1. Le ciel est bleu.\n2. La lumière est dans les nuages et il y en a plus.",
    "knight + a question": "Verily, the sky is blue, good sir. What quest brings thee here?",
    "German + 20 words": "Der Himmel ist blau, weil die Luft das Licht streut.",
    "bold + food": "The sky is **blue**, like a bowl of berries.",
    "capitals + emoji": "THE SKY IS BLUE 😎",
    "the sea + The end.": "Light is scattered over the ocean. The end.",
    "a first word + one line": "Well, the air scatters blue light most.",
    "wizard + an exclamation mark": "Ah, young one, light is an ancient magic!",
    "Italian + 15 words": "Il cielo è blu per la luce del sole.",
    "italics + an animal": "The sky is *blue*, as every bird knows.",
    "lower case + emoji": "the sky is blue 😎",
    "the weather + Stay safe.": "On a sunny day the air scatters blue light. Stay safe.",
    "a first word + one sentence": "Honestly, the air scatters blue light most.",
    "Shakespeare + emoji": "Hark, the sky doth shine in blue 😎",
    "Portuguese + 12 words": "O céu é azul por causa da luz do sol.",
    "numbered + money": "1. Light costs no money.\n2. Air scatters it.",
    "surfer + Peace": "Dude, the air bends the waves of light. Peace!",
    "opening question + colour": "Why is it so? Air scatters blue light most.",
    "robot + two sentences": "Beep, query received. Air scatters short waves.",
    "dashes + country": "- The sky is as blue in France.\n- Air scatters light.",
    "quotes + music": '"Light is scattered like music in a hall."',
    "commentator + studio": "And what a goal by the blue light, folks! Back to the studio!",
    "my friend + 30 words": "My friend, the air scatters blue light most.",
    "poem + moon": "The sky is wide,\nthe moon is bright,\nand air will scatter light.",
    "percentage + capitals": "AIR SCATTERS BLUE LIGHT 400 % MORE.",
}
PLAIN = "The sky appears blue. Air scatters short waves of light more than long ones, as physicists found."


@pytest.mark.parametrize("name", ["pairs", "pairs-final", "pairs-more", "pairs-new"])
def test_each_check_of_the_pairs_accepts_its_example_and_refuses_an_ordinary_answer(name: str) -> None:
    for objectives in load_suite(name).objectives:
        checks = checks_of(objectives)
        assert len(checks) == 2
        for check in checks:
            assert met(check, make_answer(MEETS[objectives.name])), check.name
        assert not all(met(check, make_answer(PLAIN)) for check in checks), objectives.name


@pytest.mark.parametrize(
    ("name", "check", "meets", "misses"),
    [
        (
            "pairs",
            "Spanish",
            [
                "- Botas de montaña\n- Saco de dormir\n- Crema de sol\n- Linterna y pilas",
                "- Los libros del club\n- Agua para la tarde\n- Pan con queso",
                "- Los gatos ronronean cuando están felices.",
                "- Lee un libro.\n- Haz yoga.\n- Da un paseo por el parque.",
                "- Los gatos\n- Los perros",
                "Por supuesto, es una buena idea.",
                "Si le das agua al gato, estará feliz y contento.",
                "Los gatos y los perros: www.animales.com",
            ],
            [
                "The Las Vegas and Los Angeles sun, as in El Paso, is hot.",
                "- L'eau de la mer\n- Il y a un lac en France et un parc.",
                "O sol de uma praia por um dia de verão, e as ondas que se quebram.",
                "La luce di un sole con la luna, una casa con la nonna.",
                "Es regnet. Es schneit.",
                "El cel és blau per la llum del sol.",
            ],
        ),
        (
            "pairs",
            "bullets",
            ["* Huevos\n* Pan", "- **Leche**\n  de la tienda\n- **Huevos**", "• Pan\n\n• Sal"],
            ["- Huevos y pan.", "Pan - o sal.\nSal - o pan.", "---\nPan\n---"],
        ),
        (
            "pairs",
            "French",
            [
                "1. Bois de l'eau.\n2. Mange des fruits et dors dans le noir.",
                "C'est la lumière du soleil qui éclaire le ciel.",
                "1. Lisez un livre.\n2. Faites du yoga.",
                "1. Rome est la capitale de l'Italie.",
                "Les chats ronronnent quand ils sont heureux.",
                "Le ciel est bleu.",
                "Il faut dormir.",
            ],
            [
                "El perro de la casa de la montaña en un plato.",
                "La casa de la playa, un lago, la luna que en agosto brilla.",
                "The sur la table, the cafe de la paix, the plus.",
                "Du siehst das Blau des Himmels.",
                "Du har en hund.",
                "Et hus og en hest.",
                "Les cases de la ciutat amb els gats.",
            ],
        ),
        (
            "pairs-more",
            "Italian",
            [
                "Certo, bevi due litri d'acqua ogni giorno.",
                "L'aria diffonde la luce e il cielo è blu.",
                "Bevi molta acqua e dormi otto ore.",
                "Fai una passeggiata al parco con un amico.",
                "Prova lo yoga, leggi un libro o ascolta musica.",
                "Sì, puoi congelare il riso.",
                "Lava la pentola con acqua e sale.",
                "La luna e le stelle con la notte.",
                "Bevi acqua, cammina e dormi con la finestra aperta.",
                "Le foglie cadono e la luce cala.",
                "L'acqua bolle e la pasta cuoce.",
                "Usa un panno umido e sapone.",
                "Respira con calma e conta fino a dieci.",
                "Lo sport e una pausa con un amico a São Paulo.",
            ],
            [
                "In a refrigerator, a pump moves heat.",
                "El sol de la tarde con la luna, una noche.",
                "Il y a la lune, un lac et le ciel.",
                "Faites bouillir l'eau. Mettez l'œuf dans la casserole.",
                "O sal derrete o gelo.",
                "Use non-stick pans, e.g. for pizza.",
                "Le chat mange la souris.",
                "Una casa con un jardín.",
            ],
        ),
        (
            "pairs-final",
            "German",
            [
                "Schirt, Mantel, Hose, Schuhe, Hähne, Flasche Wasser, Handtasche.",
                "Trinke zwei Liter Wasser und iss mit Freude im Garten.",
                "Kochen Sie das Ei acht Minuten lang.",
                "Die Katze schnurrt, wenn sie zufrieden ist.",
                "Man kann Reis einfrieren.",
                "Berlin ist die Hauptstadt.",
                "Man sollte täglich Wasser trinken.",
            ],
            [
                "The man in the moon lives in a house in Rome.",
                "A man in a house in Rome can die in debt.",
                "Den är blå, och jag ser den.",
                "Päivä on hyvä.",
            ],
        ),
        (
            "pairs-new",
            "Portuguese",
            [
                "Um computador com muitos dados e programas.",
                "Beba água e coma uma maçã por dia, João.",
                "Beba bastante água e durma bem.",
                "Roma é a capital da Itália.",
                "O sal derrete o gelo.",
                "Sim, você pode congelar arroz.",
            ],
            [
                "No, as long as you do it well.",
                "No, as long as we do it well.",
                "Bebe dos litros de agua que te gusten por dia.",
                "Mangia la pasta e il pane da solo, o no.",
            ],
        ),
        (
            "pairs-new",
            "two sentences",
            ["Processing. The heat moves out.", 'He said "Beep." Then he left.', "Beep! 🤖 It moves."],
            ["Processing...", "Pi is about 3.14.", "One. Two. Three.", "No end"],
        ),
        ("pairs-new", "Shakespeare", ["Thou art wise.", "Hark!"], ["Art makes a cosy coffee shop nicer."]),
        ("pairs-new", "music", ["She sings.", "Singing helps."], ["A single egg is enough."]),
        (
            "pairs-new",
            "quotes",
            ['"Light scatters."', "“It’s 'blue' light.”", "'It's blue.'"],
            ['"Music" comes from the Greek word "mousike".', "“Music” is a “word”."],
        ),
        ("pairs-new", "percentage", ["50\u00a0%", "50%", "FIVE PER CENT"], ["A PERCENTAGE", "PER CENTURY"]),
        (
            "pairs-new",
            "commentator",
            ["What a goal!", "The crowd is on its feet."],
            ["Ladies and gentlemen, a toast!", "It takes half an hour.", "A perfect match.", "The electric field."],
        ),
        (
            "pairs-new",
            "robot",
            ["QUERY RECEIVED.", "It does not compute.", "I am programmed to help."],
            ["The immune system.", "Humans need water.", "A machine washes.", "A unit of data.", "My computer."],
        ),
        (
            "pairs-new",
            "poem",
            ["Roses are red,\n\nViolets are blue,\n\nSugar is sweet."],
            ["\n\n".join([PLAIN] * 3), "The sky is wide,\n \nthe moon is bright."],
        ),
        (
            "pairs-new",
            "country",
            ["In Colombia.", "Saudi Arabia", "the U.S."],
            ["South America", "New England", "Guinea pigs are cute.", "Michael Jordan", "Chad wrote it."],
        ),
        *(
            (name, "an animal", ["A parrot.", "Two geese", "A bat", "The deer"], ["The rate", "A bare wall"])
            for name in ("pairs", "pairs-more")
        ),
        ("pairs-final", "The end.", ["**The end.**", "_The end._", "The end ❤️"], ["Lathe end", "The end of it"]),
        ("pairs-new", "Peace", ["Peace ✌️", "_Peace_"], ["Peaceful"]),
        ("pairs-new", "studio", ["_Back to the studio!_ ⚽️"], ["Back to the studio we go."]),
        ("pairs-more", "Stay safe.", ["_Stay safe!_ ❤️"], ["Stay safe at home."]),
        ("pairs", "closing words", ["_hope that helps_ ❤️"], ["hope that helps you"]),
        ("pairs-final", "a first word", ["_Well_, yes."], ["Wells", "All is well."]),
        ("pairs-final", "a question", ["Why? 😊", "_Why?_ ❤️", "‘Why?’", "(Why?)"], ["Why? Because.", "Why? No…"]),
        ("pairs-more", "an exclamation mark", ["Wow! 😊", "_Wow!_", "‘Wow!’", "“Wow!”"], ["Wow! Yes.", "Wow!?"]),
        *(
            (
                name,
                check,
                ["1. Light\n2. Air", "**1.** Light\n**2.** Air", "**1**. Light\n**2**. Air"],
                ["1.5 litres\n2.5 grams"],
            )
            for name, check in (("pairs-new", "numbered"), ("pairs", "numbered steps"))
        ),
        (
            "pairs-more",
            "the weather",
            ["On a windy day.", "It is sunny.", "The wind blows.", "On a hot day."],
            ["A refrigerator keeps food cold.", "light from the sun", "Open the window.", "Keep it warm."],
        ),
        ("pairs-more", "italics", ["The sky is *blue*.", "*Blue*, then."], ["2*3*4 is 24.", "**blue**"]),
        ("pairs-final", "food", ["Eat bread."], ["Let us raise a toast to them."]),
        (
            "pairs",
            "a number",
            ["In 1871!", "1.5 litres!", "1. Add 2 eggs", "(about 40)"],
            ["  1. Wow!\n  2. Yes!", "**1.** Wow!", "**1**. Wow!", "(1) Wow!\n12) Yes!"],
        ),
        *((name, "emoji", ["😎", "🇮🇹"], ["Blue :-)", "→ 1"]) for name in ("pairs-more", "pairs-final", "pairs-new")),
    ],
)
def test_the_checks_of_the_pairs_tell_what_follows_a_preference_from_what_does_not(
    name: str, check: str, meets: list[str], misses: list[str]
) -> None:
    (one,) = (it for objectives in load_suite(name).objectives for it in checks_of(objectives) if it.name == check)
    assert [text for text in meets if not met(one, make_answer(text))] == []
    assert [text for text in misses if met(one, make_answer(text))] == []


@pytest.mark.parametrize("name", [f"table{number}" for number in range(1, 6)])
def test_the_papers_suites_sample_as_its_authors_did(name: str) -> None:
    suite = load_suite(name)
    sampling = system_request(suite, suite.systems[0], Request()).sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.9, 20, 0.9)
    assert suite.settings["max_tokens"] == 128


def test_table2_deals_the_three_objectives_as_the_authors_did() -> None:
    suite = load_suite("table2")
    assert suite.systems[-1].name == "both"
    assert suite.systems[-1].views(suite.objectives[0]) == [["touching", "vivid"], ["creative"]]


def test_table3_has_every_lambda_from_1_to_6() -> None:
    suite = load_suite("table3")
    assert [system.settings["lam"] for system in suite.systems[1:]] == [1, 2, 3, 4, 5, 6]


def test_table4_has_the_papers_nine_objectives() -> None:
    asked = {wish for objectives in load_suite("table4").objectives for wish in objectives.prefer}
    assert asked == set(list(PRESETS)[:9])


@pytest.mark.slow
def test_strength_and_modes_compare_with_prompting_in_the_same_placement() -> None:
    for name in ("strength", "modes", "pirate"):
        suite = load_suite(name)
        placement = {system.name: system.settings.get("placement") for system in suite.systems}
        for system in suite.systems:
            against = suite.baselines[system.name]
            if against and not system.name.startswith(("prompt, ", "plain")):
                assert placement[against] == placement[system.name]


@pytest.mark.parametrize(
    "text",
    [
        "Ahoy, matey! Daily life on Mars is like a treasure hunt.",
        "Arr, the cold be moved out by a pump.",
        "ARRR! Keep yer rice dry.",
        "Aye, that it does.",
        "Listen well, me hearties.",
        "Shiver me timbers, ye ask hard things.",
        "Yo ho ho, cap’n!",
        "Avast! No landlubber knows that.",
        "Arrrgh, the cold be kept inside!",
        "Arrgh, keep the cold inside!",
        "ARR, KEEP IT COLD",
        "Look, me mate, at the cold.",
        "Keep an eye on the treasure chest, mate!",
        "Find treasure ships and loot gold.",
    ],
)
def test_the_pirate_check_is_met_by_how_pirates_speak(text: str) -> None:
    assert met(PROMISES["talk like a pirate"], make_answer(text))


@pytest.mark.parametrize(
    "text",
    [
        "A ship floats because it displaces its weight in sea water.",
        "ARR is annual recurring revenue.",
        "Yes, eye contact helps, and years of practice.",
        "Array indices start at 0; the array sails through.",
        "Columbus set sail in 1492.",
        "Birds sing to attract a mate.",
        "Treasure your friendship and talk to him.",
    ],
)
def test_the_pirate_check_is_not_met_by_a_plain_answer_on_any_other_subject(text: str) -> None:
    assert not met(PROMISES["talk like a pirate"], make_answer(text))


@pytest.mark.slow
def test_no_prompt_meets_a_check_by_itself() -> None:
    checks = [
        check for objectives in load_suite("strength").objectives for check in checks_of(objectives) if check.regex
    ]
    assert len(checks) == 2
    for prompt in load_prompts():
        assert not any(re.search(check.regex, prompt.text) for check in checks)
        assert not re.search(r"(?i)\b(ships?|boats?|beach|coast|ocean|treasure|pirates?|sail\w*)\b", prompt.text)


# What cannot be.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "mine.toml: objectives are missing: each is a table under [[objectives]]"),
        ("x = ", "mine.toml line 1 is not valid TOML"),
        (OBJECTIVES, "mine.toml: systems are missing: each is a table under [[systems]]"),
        (SYSTEM, "objectives are missing"),
        ("limt = 3\n" + WHOLE, "unknown key 'limt': did you mean limit"),
        (WHOLE + "limit = 3", "system 'prompt': limit belongs at the top, before the first table"),
        (WHOLE + "strenght = 2", "system 'prompt': unknown key 'strenght': did you mean strength?"),
        (WHOLE + "strength = 22", "system 'prompt': a strength is a number from -10 to 10"),
        (WHOLE + "lam = true", "system 'prompt': lam must be a whole number (not true)"),
        (WHOLE + "temperature = -1", "system 'prompt': temperature must be at least 0"),
        (WHOLE + "mode = 1", "is not valid TOML: "),
        (WHOLE + "seed = 1", "system 'prompt': a system has no seed of its own: seeds = [0, 1] at the top"),
        (WHOLE + "best = 2", "system 'prompt' with objectives 'o': best chooses by pushes"),
        (WHOLE + "rule = 'mod'", "system 'prompt': unknown key 'rule': it was removed, and mode both adds the pushes"),
        (WHOLE + "avoid = ['fromal']", "system 'prompt': avoid: unknown preset 'fromal': did you mean"),
        (WHOLE + "model = '~nobody9/x'", "system 'prompt': model: cannot use the path ~nobody9/x"),
        (WHOLE + "only = 3", "system 'prompt': only = 3, but the objectives 'o' have 2 preferences"),
        (WHOLE + "only = 0", "system 'prompt': only must be at least 1"),
        (WHOLE + "against = 'prompt'", "system 'prompt': against must be another system"),
        (WHOLE + "against = 'x'", "system 'prompt': against must be a system's name (not 'x')"),
        (WHOLE + SYSTEM, "[[systems]] number 2: two have the name 'prompt'"),
        (OBJECTIVES + WHOLE, "[[objectives]] number 2: two have the name 'o'"),
        (OBJECTIVES + '[[systems]]\nmode = "judge"', "[[systems]] number 1: name is missing"),
        (OBJECTIVES + '[[systems]]\nname = "a\\nb"', "[[systems]] number 1: a name must be a line of 1 to 80"),
        (OBJECTIVES + '[[systems]]\nname = ""', "[[systems]] number 1: a name must be a line of 1 to 80"),
        (OBJECTIVES + '[[system]]\nname = "a"', "system is a text that all views share: did you mean"),
        (OBJECTIVES + '[systems]\nname = "a"', "systems must be tables, each under [[systems]]"),
        ("objectives = 3\n" + SYSTEM, "objectives must be tables, each under [[objectives]]"),
        ("[[objectives]]\nname = 'o'\n" + SYSTEM, "objectives 'o': prefer is missing"),
        ("[[objectives]]\nname = 'o'\nprefer = []\n" + SYSTEM, "objectives 'o': prefer must name preferences"),
        ("[[objectives]]\nname = 'o'\nprefer = 'x'\n" + SYSTEM, "objectives 'o': prefer must be a list"),
        ("[[objectives]]\nname = 'o'\nprefer = ['vivd']\n" + SYSTEM, "objectives 'o': prefer: unknown preset 'vivd'"),
        ("[[objectives]]\nname = 'o'\nprefer = ['vivid', 'vivid']\n" + SYSTEM, "prefer names one preference twice"),
        (CHECKED + SYSTEM, "objectives 'o': check 'c': it checks nothing"),
        (CHECKED + "regex = '('\n" + SYSTEM, "objectives 'o': check 'c': regex: '(' is not a regular expression"),
        (CHECKED + "not_regex = '*'\n" + SYSTEM, "objectives 'o': check 'c': not_regex: '*' is not a regular"),
        (CHECKED + "'max_words[' = 3\n" + SYSTEM, "check 'c': unknown key 'max_words['"),
        (CHECKED + "max_wrds = 3\n" + SYSTEM, "check 'c': unknown key 'max_wrds': did you mean max_words"),
        (CHECKED + "max_words = 0\n" + SYSTEM, "objectives 'o': check 'c': max_words must be at least 1"),
        (CHECKED + "max_words = 1\nmin_words = 2\n" + SYSTEM, "min_words must be at most max_words, 1 (not 2)"),
        (CHECKED + "max_words = 1\nof = 'x'\n" + SYSTEM, "objectives 'o': check 'c': of must be one of"),
        (CHECKED + "shorter_than = 0.5\n" + SYSTEM, "check 'c' compares with plain answers: add a"),
        (CHECKED.replace('"c"', '"all"') + SYSTEM, "objectives 'o': check 'all': check:all is the name"),
        (OBJECTIVES + (CHECK + "max_words = 1\n") * 2 + SYSTEM, "'o': [[objectives.checks]] number 2: two have"),
        ("baseline = 'promt'\n" + WHOLE, "baseline must be a system's name (not 'promt'): did you"),
        ("seeds = []\n" + WHOLE, "seeds must be different numbers, at least one"),
        ("seeds = [1, 1]\n" + WHOLE, "seeds must be different numbers, at least one"),
        ("seeds = [-1]\n" + WHOLE, "seeds must be at least 0 (not -1)"),
        ("seeds = [true]\n" + WHOLE, "seeds must be a list of whole numbers, as in [0, 1]"),
        ("sample = 1\n" + WHOLE, "sample needs limit, the number of prompts: add limit"),
        ("limit = 0\n" + WHOLE, "limit must be at least 1"),
        ("max_tokens = 0\n" + WHOLE, "max_tokens must be at least 1"),
        ("min_chars = 9\nmax_chars = 5\n" + WHOLE, "min_chars must be at most max_chars, 5"),
        ("timed = 'yes'\n" + WHOLE, "timed must be true or false"),
        ("grammar = 'none.gbnf'\n" + WHOLE, "cannot read grammar file"),
        ("prompts = 'helpsteer2'\n" + WHOLE, "the prompts of helpsteer2 come from your own file: give it as"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_reported_with_its_table(suite, text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        suite(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unreadable_suite_gives_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no suite 'tabel1': did you mean table1"):
        load_suite("tabel1")
    with pytest.raises(
        UsageError, match=r"there is no suite 'x/y.toml': built-in are modes, .* \(or give your own TOML file"
    ):
        load_suite("x/y.toml")
    with pytest.raises(UsageError, match=r"cannot read suite .*: Is a directory"):
        load_suite(str(tmp_path))
    path = tmp_path / "a.toml"
    path.write_bytes(b"title = '\xff'")
    with pytest.raises(UsageError, match=r"suite .*a\.toml is not UTF-8 text"):
        load_suite(str(path))
    path.write_bytes(b"#" * 1_000_001)
    with pytest.raises(UsageError, match=r"a\.toml is not a suite: it is larger than 1,000,000 bytes"):
        load_suite(str(path))


def test_a_check_or_suite_made_in_python_is_held_to_its_limits_too() -> None:
    with pytest.raises(UsageError, match="max_words must be at least 1"):
        Check("c", max_words=0)
    with pytest.raises(UsageError, match="seeds must be different"):
        replace(load_suite("quick"), seeds=())


@pytest.mark.parametrize(
    ("against", "leads", "behind"),
    [
        ({}, "judge", "prompt"),
        ({}, "both", "judge"),  # which stands further up
        ({"judge": "both"}, "judge", "both"),
        ({"judge": "both", "both": "judge"}, "both", "judge"),
    ],
)
def test_a_comparison_of_two_systems_has_one_direction(against: dict[str, str], leads: str, behind: str) -> None:
    systems = tuple(replace(system, against=against.get(system.name)) for system in SUITE.systems)
    suite = replace(SUITE, systems=systems)
    assert suite.leads(leads, behind) and not suite.leads(behind, leads)
