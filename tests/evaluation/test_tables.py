"""The tables: best in bold, second underlined, differences within noise marked, and unfit judges named."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from evaluated import HOSTILE, SUITE, answers, printed, score, verdict

from pjlocal.errors import UsageError
from pjlocal.evaluation.compare import Comparison, Results, compare, compare_folders
from pjlocal.evaluation.report import as_json, as_markdown, as_page, folder_json, report_plots, write_report
from pjlocal.evaluation.suite import Objectives, System
from pjlocal.evaluation.table import Cell, Column, Table, markdown_tables, rank_cells
from pjlocal.evaluation.tables import folder_tables, power_note, report_tables

N = 30


def results(turns_over: float = 0.0) -> Results:
    """``both`` wins against direct prompting nine times of ten, ``judge`` every second time.

    Args:
        turns_over: the share of comparisons in which the judge names the first place, whoever stands there.
    """
    records = answers(N, objectives=("bright",))
    by = {(record.system, record.prompt_id): record for record in records}
    verdicts, scores = [], []
    for n in range(1, N + 1):
        base = by["prompt", f"p{n}"]
        for system, wins in (("both", n % 10 > 0), ("judge", n % 2 > 0)):
            mine = by[system, f"p{n}"]
            flips = n <= turns_over * N
            for aspect in ("vivid", "quality"):
                verdicts += [verdict(mine, base, 0.9 if wins or flips else 0.1, aspect=aspect),
                             verdict(base, mine, 0.9 if not wins or flips else 0.1, aspect=aspect)]  # fmt: skip
        for system, reward in (("prompt", 0.1), ("judge", 0.1), ("both", 0.4)):
            mine, luck = by[system, f"p{n}"], 0.01 * ((n * 7 + len(system)) % 5)
            scores += [score(mine, "reward:vivid", reward + luck), score(mine, "reward:creative", reward / 2 + luck),
                       score(mine, "fluency", -1.2 - reward), score(mine, "words", 40 + n, ""),
                       score(mine, "check:pirate", float(system == "both"), "")]  # fmt: skip
    return Results(SUITE, records, scores, verdicts)


@pytest.fixture(scope="module")
def compared() -> Comparison:
    return compare(results())


def interval(cell: Cell) -> list[int]:
    """The ends of a win rate's interval as its text has them, in percent."""
    return [int(end) for end in re.findall(r"(\d+)(?=[,\]])", cell.text)]


def cells(tables: list[Table], title: str, row: str) -> list[Cell]:
    (found,) = [some for table in tables if table.title.startswith(title) for name, some in table.rows if name == row]
    return found


def test_win_rates_stand_with_their_intervals_and_what_so_many_prompts_can_tell(compared: Comparison) -> None:
    tables = report_tables(SUITE, compared)
    both, judge = cells(tables, "Win rate against", "both")[0], cells(tables, "Win rate against", "judge")[0]
    assert both.value == pytest.approx(0.9) and interval(both)[0] < 90 < interval(both)[1]
    assert both.text.startswith("90% [") and not both.noise and both.rank == 1
    assert judge.text.startswith("50% [") and judge.noise and judge.rank == 2
    text = printed(*tables)
    assert "With 30 prompts, win rates from 70% on are significant" in " ".join(text.split())
    assert "m changes 0% of its 60" not in text and "of its 120 decisive verdicts" in text and "UNFIT" not in text


def test_win_rates_say_what_the_judged_prompts_can_tell_and_not_all_prompts() -> None:
    some = replace(results(), verdicts=[v for v in results().verdicts if int(v.first.split("-")[2]) <= 10])
    text = " ".join(printed(*report_tables(SUITE, compare(some))).split())
    assert "With 10 prompts, win rates from 90% on are significant" in text and "With 30 prompts" not in text


def test_a_judge_that_turns_over_is_called_unfit_by_name() -> None:
    comparison = compare(results(turns_over=1.0))
    text = " ".join(printed(*report_tables(SUITE, comparison)).split())
    assert "m changes 100% of its 120 decisive verdicts" in text and "UNFIT as a judge" in text
    assert "UNFIT" in as_page(results(turns_over=1.0), comparison, [])


def test_differences_that_may_be_chance_are_marked_except_the_baseline(compared: Comparison) -> None:
    tables = report_tables(SUITE, compared)
    title = "Scores by m, nats per token"
    (headings,) = [[column.heading for column in table.columns] for table in tables if table.title == title]
    assert headings == ["least served", "creative", "vivid", "fluency"]
    assert [cell.noise for cell in cells(tables, title, "judge")] == [True] * 4
    assert not any(cell.noise for cell in cells(tables, title, "both") + cells(tables, title, "prompt"))
    assert [cell.rank for cell in cells(tables, title, "both")] == [1, 1, 1, 0], "third in fluency, behind two equals"


def test_checks_texts_and_speed_have_tables_of_their_own(compared: Comparison) -> None:
    tables = report_tables(SUITE, compared)
    assert [cell.text for cell in cells(tables, "Checks", "both")] == ["100%", "100%"]
    assert cells(tables, "The texts", "prompt")[0].text == "55.5"
    assert cells(tables, "Speed", "both")[1].text == "17.00"


def test_speed_is_left_out_for_answers_written_several_at_once() -> None:
    for n_at_once, shown in ((1, True), (8, False)):
        made = Results(SUITE, answers(n_at_once=n_at_once))
        compared = compare(made)
        tables = report_tables(SUITE, compared)
        assert any("Speed" in table.title for table in tables) == shown
        headings = {column.heading for table in tables for column in table.columns}
        assert headings & {"tokens/s", "seconds an answer"} == ({"tokens/s", "seconds an answer"} if shown else set())
        systems = json.loads(as_json(made, compared, []))["systems"]
        assert all((system["tokens_per_s"]["value"] is not None) == shown for system in systems)


def test_a_preference_that_all_met_leaves_out_is_named(compared: Comparison) -> None:
    def notes(*prefer: str) -> list[str]:
        tables = report_tables(replace(SUITE, objectives=(Objectives("bright", prefer),)), compared)
        return [note for table in tables if table.title.startswith("Checks") for note in table.notes]

    assert notes("Talk like a sailor:2", "Concise")[0] == (
        '"all met" leaves out preferences without a check: Talk like a sailor.'
    )
    assert not any("leaves out" in note for wishes in (("concise",), ("vivid", "creative")) for note in notes(*wishes))


def test_all_objectives_together_come_first_each_counting_alike() -> None:
    of_one = results()
    sea = [replace(a, key=f"sea {a.key}", objectives="sea") for a in of_one.answers if a.prompt_id != "p1"]
    more = [score(a, "words", 10, "") for a in sea] + [score(a, "check:all", 1, "") for a in sea]
    tables = report_tables(
        SUITE, compare(replace(of_one, answers=[*of_one.answers, *sea], scores=[*of_one.scores, *more]))
    )
    assert tables[0].title == "All objectives together"
    row = dict(zip(tables[0].headings, cells(tables, "All objectives", "both"), strict=True))
    assert row["words"].value == pytest.approx((55.5 + 10) / 2) and row["all met"].text == "100%"
    assert row["fluency by m"].value == pytest.approx(-1.6)
    assert not any(table.title == "All objectives together" for table in report_tables(SUITE, compare(of_one)))


def test_best_is_bold_second_underlined_and_equals_share_a_rank() -> None:
    column = [Cell("0.5", 0.5), Cell("0.7", 0.7), Cell("0.5", 0.5), Cell(), Cell("0.1", 0.1)]
    assert [cell.rank for cell in rank_cells(column)] == [2, 1, 2, 0, 0]
    assert [cell.rank for cell in rank_cells(column, -1)] == [2, 0, 2, 0, 1]
    assert [cell.rank for cell in rank_cells([Cell("1", 1.0), Cell("1", 1.0)])] == [0, 0], "nobody is better"
    best = Cell("0.7", 0.7, rank=1)
    table = Table("T", "system", ("both", "judge"), (Column("x", (best, Cell("0.5", 0.5, rank=2, noise=True))),))
    text = printed(table, force_terminal=True, color_system="standard")
    assert "both      \x1b[1m0.7\x1b[0m\n" in text and "\x1b[2;4m≈ 0.5\x1b[0m" in text
    assert "| both | **0.7** |\n| judge | ≈ <u>0.5</u> |" in markdown_tables([table])


@pytest.mark.parametrize("width", [120, 60, 34])
def test_on_a_narrow_terminal_columns_come_below_and_no_value_is_folded(compared: Comparison, width: int) -> None:
    tables = report_tables(SUITE, compared)
    text = printed(*tables, width=width)
    assert max(map(len, text.splitlines())) <= width
    for table in tables:
        for column in table.columns:
            for cell in column.cells:
                assert cell.text in text


def test_a_table_that_is_just_too_wide_is_split_and_no_digit_is_lost() -> None:
    values = [f"0.12{n}" for n in range(5)]
    table = Table("T", "system", ("plain",), tuple(Column(f"m{n}", (Cell(value),)) for n, value in enumerate(values)))
    for width in range(20, 45):
        text = printed(table, width=width)
        assert [value for value in values if value not in text] == [], width
    assert len(printed(table, width=41).splitlines()) == 3, "and one that just fits is whole"


def test_words_of_headings_are_not_broken() -> None:
    headings = ["words", "tokens", "finished", "distinct words", "distinct pairs", "repetition", "readability"]
    table = Table("The texts", "system", ("prompt",), tuple(Column(each, (Cell("1.0", 1.0),)) for each in headings))
    for width in (78, 88, 200):
        text = printed(table, width=width)
        assert all(word in text.split() for heading in headings for word in heading.split()), text


def test_names_from_a_file_are_text_everywhere() -> None:
    for text in HOSTILE:
        table = Table(text, text, (text,), (Column(text, (Cell(text),), text),), (text,))
        for written in (printed(table), markdown_tables([table])):
            assert "\x1b" not in written and "\u202e" not in written
            written.encode()
        assert "<img" not in markdown_tables([table]).replace(r"\<img", "")
        assert markdown_tables([table]).count("\n|") == 3


def test_a_pipe_in_a_name_does_not_start_a_column() -> None:
    table = Table("T", "system", ("x|y",), (Column("a|b", (Cell("1"),)),))
    assert r"| x\|y | 1 |" in markdown_tables([table]) and r"| system | a\|b |" in markdown_tables([table])


def test_json_has_all_numbers_and_no_nan() -> None:
    some = results()
    whole = json.loads(as_json(some, compare(some), []), parse_constant=lambda name: pytest.fail(name))
    assert whole["prompts"] == N and whole["smallest_telling"] == pytest.approx(0.7)
    assert whole["judges"]["m"]["unfit"] is False
    (row,) = [w for w in whole["wins"] if (w["system"], w["aspect"]) == ("both", "vivid")]
    assert row["result"]["rate"]["value"] == pytest.approx(0.9) and row["within_noise"] is False
    assert {"metric": "fluency", "by": "m"}.items() <= next(
        d for d in whole["differences"] if d["metric"] == "fluency"
    ).items()


def test_too_few_prompts_are_reported() -> None:
    few = Results(SUITE, answers(3, objectives=("bright",)))
    assert power_note(compare(few).prompts).startswith("3 prompts are too few for any win rate")


def test_times_stand_by_the_number_of_objectives() -> None:
    suite = replace(
        SUITE, timed=True, objectives=(Objectives("one", ("vivid",)), Objectives("two", ("vivid", "creative")))
    )
    some = Results(suite, answers(4, objectives=("one", "two")))
    comparison = compare(some)
    (table, *_) = report_tables(suite, comparison)
    assert (table.title, table.head) == ("Seconds an answer", "objectives")
    assert table.names == ("1 (one)", "2 (two)") and table.headings == ["prompt", "judge", "both"]
    assert [plot.title for plot in report_plots(suite, comparison)] == ["Time against number of objectives"]


def test_lambda_is_drawn_against_score_and_speed() -> None:
    some = results()
    systems = (SUITE.systems[0], *(System(s.name, {**s.settings, "mode": "judge", "lam": n})
                                   for n, s in ((1, SUITE.systems[1]), (4, SUITE.systems[2]))))  # fmt: skip
    suite = replace(SUITE, systems=systems)
    plots = {plot.title: plot.svg for plot in report_plots(suite, compare(replace(some, suite=suite)))}
    svg = plots["λ against score and speed for bright"]
    assert "% won against prompt" in svg and "tokens/s" in svg and "vivid, m" in svg
    assert "Win rates for bright, by m, with 95 % intervals" in plots
    assert "Reward against fluency for bright, by m" in plots


def test_two_evaluations_are_labelled_by_their_differences() -> None:
    some = results()
    better = replace(some, scores=[replace(s, value=s.value + 1) if s.metric == "fluency" else s for s in some.scores])
    comparison = compare_folders(some, better)
    (table,) = folder_tables(comparison, "first", "second")
    assert table.title == "bright: second minus first"
    cell = table.columns[table.headings.index("fluency by m")].cells[0]
    assert cell.text.startswith("+1.000") and not cell.noise
    json.loads(folder_json(comparison), parse_constant=lambda name: pytest.fail(name))


def test_a_report_is_written_by_its_ending_and_replaces_nothing_unasked(tmp_path: Path) -> None:
    some = results()
    comparison = compare(some)
    for name, begins in (("r.md", "# A small one\n\n30 prompts\n"), ("r.json", "{"), ("r.html", "<!doctype html>")):
        write_report(some, comparison, ["30 prompts"], tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(begins)
    with pytest.raises(UsageError, match=r"r\.md exists already"):
        write_report(some, comparison, [], tmp_path / "r.md")
    with pytest.raises(UsageError, match=r"end the name in \.md, \.json or \.html"):
        write_report(some, comparison, [], tmp_path / "r.pdf")
    assert as_markdown(some, comparison, []).count("\n### ") == 6, "no lengths differ here"
