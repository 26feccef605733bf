"""The page: the paper's values beside ours, the model's name everywhere, nothing made up, nothing outside itself."""

import json
import re

import pytest
from report.test_writing import Page, files
from reproduction.made_up_reproduction import NOTES, write_all, write_task

from prunelora.reproduction import paper
from prunelora.reproduction.figure import importance_maps
from prunelora.reproduction.findings import findings, summary
from prunelora.reproduction.results import read
from prunelora.reproduction.tables import (
    accuracy_table,
    all_tables,
    beside_paper_table,
    counts_table,
    inference_table,
    loss_table,
    time_table,
    trained_table,
)
from prunelora.reproduction.writing import lines, numbers, page, write_reproduction

LABEL = "MiniLM, embedded"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return read(write_all(tmp_path_factory.mktemp("whole")))


@pytest.fixture(scope="module")
def partial(tmp_path_factory):
    """Three tasks, one seed, not timed, the scores of one of them lost."""
    out = write_all(tmp_path_factory.mktemp("partial"), tasks=("mrpc", "sst2"), seeds=(0,), timed=False, notes={})
    write_task(out, "rte", seeds=(0,), timed=False, scores=False)
    return read(out)


@pytest.fixture(scope="module")
def written(whole, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    return folder, write_reproduction(whole, folder)


def row_of(table, *names):
    return next(row for row in table.rows if row[: len(names)] == names)


def text_of(reproduction, title):
    return next((one.text for one in findings(reproduction) if one.title == title), None)


# The paper ------------------------------------------------------------------------------------------------------------


def test_only_what_is_known_of_the_paper_has_a_value():
    known = {
        (method, task): cell.value
        for method, cells in paper.ACCURACY.items()
        for task, cell in cells.items()
        if cell.value is not None
    }
    assert known == {("prune-lora", "mrpc"): 0.6838, ("prune-lora", "wnli"): 0.5634}
    assert {cell.text for cell in paper.INFERENCE_MEMORY.values()} == {"not at hand"}
    assert paper.TRAINED["full"].text == "not at hand"
    assert paper.time_to_full("prune-lora") == 32 / 49
    assert all(cell.source == "table 1" for cells in paper.ACCURACY.values() for cell in cells.values())


def test_the_papers_known_cells_are_the_majority_class_to_its_last_digit():
    for task, (correct, rows) in paper.MAJORITY_ROWS.items():
        assert paper.ACCURACY["prune-lora"][task].printed == f"{100 * correct / rows:.2f} %"


# Tables ---------------------------------------------------------------------------------------------------------------


def test_unknown_values_of_the_paper_are_shown_as_not_at_hand(whole):
    table = beside_paper_table(whole)
    assert row_of(table, "rte", "full")[2] == "not at hand"
    assert row_of(table, "rte", "full")[4] == "\N{EN DASH}"
    assert sum(row[2] == "not at hand" for row in table.rows) == 16
    assert row_of(inference_table(whole), "full")[1] == "not at hand"
    assert row_of(inference_table(whole), "random-prune-lora")[1] == "not in the paper"


def test_a_known_value_stands_beside_ours_with_difference_seeds_rows_and_majority_rate(whole):
    row = row_of(beside_paper_table(whole), "mrpc", "prune-lora")
    assert row == ("mrpc", "prune-lora", "68.38 %", "88.2 ± 0.3", "+19.8", "68.4", "3", "3,000, 408")


def test_both_splits_of_mnli_are_shown_and_the_first_stands_for_it(whole):
    rows = [row[0] for row in accuracy_table(whole).rows]
    assert rows[:2] == ["mnli (note), matched", "mnli (note), mismatched"]
    own = [one.accuracy("full") for one in whole.tasks]
    assert row_of(accuracy_table(whole), "mean of 6 tasks")[1] == f"{100 * sum(own) / 6:.1f}"


def test_the_loss_to_full_is_over_the_papers_five_tasks(whole):
    row = row_of(loss_table(whole), "prune-lora")
    five = sum(one.accuracy("prune-lora") - one.accuracy("full") for one in whole.tasks if one.task != "wnli") / 5
    assert row[1:3] == ("\N{MINUS SIGN}5.3", f"\N{MINUS SIGN}{-100 * five:.1f} (5 tasks)")


def test_counts_are_shown_to_the_last_digit(whole):
    assert row_of(trained_table(whole), "prune-lora")[1:5] == ("308.7 K", "308,736", "374,272", "966,402")
    assert row_of(trained_table(whole), "lora")[1:3] == ("259.6 K", "259,584")
    assert row_of(inference_table(whole), "prune-lora")[3:5] == ("101.29 M", "101,290,176")
    assert row_of(inference_table(whole), "lora")[4] == "109,703,424"
    shown = {row[-1] for row in counts_table(whole.papers_counts).rows}
    assert {"109,482,240", "109,703,424", "101,290,176", "101,093,376"} <= shown


def test_training_time_is_beside_the_papers_ratio(whole):
    assert row_of(time_table(whole), "prune-lora")[1:4] == ("65 % (32)", "57 %", "\N{MINUS SIGN}8 points")
    assert row_of(time_table(whole), "full")[1:3] == ("100 % (49)", "100 %")


def test_what_was_not_run_or_timed_says_so(partial):
    assert row_of(accuracy_table(partial), "wnli")[1:5] == ("not run",) * 4
    assert row_of(beside_paper_table(partial), "wnli", "prune-lora")[2:4] == ("56.34 %", "not run")
    assert row_of(time_table(partial), "lora")[2] == "not timed"
    assert row_of(inference_table(partial), "lora")[-1] == "not timed"
    assert row_of(loss_table(partial), "lora")[2].endswith("(3 tasks)")
    assert "not run: mnli, qnli, wnli" in page(partial).warnings
    assert "(not timed)" in " ".join(next(one.text for one in all_tables(partial) if one.title.startswith("Table 2")))
    for one in all_tables(partial)[:6]:
        assert "Not run: mnli, qnli, wnli." in one.text


# Labels ---------------------------------------------------------------------------------------------------------------


def test_title_tables_and_figure_name_the_model_that_was_trained(whole):
    content = page(whole)
    assert LABEL in content.title
    ours = [one for one in all_tables(whole) if one.title.startswith("Table")]
    assert len(ours) == 6
    assert all(LABEL in one.title for one in ours)
    assert any(LABEL in warning and "bert-base-uncased" in warning for warning in content.warnings)
    figure = importance_maps(whole)
    assert LABEL in figure.get_suptitle()
    assert LABEL in next(section.title for section in content.sections if section.figure)
    assert LABEL in text_of(whole, "Another model")


def test_with_the_papers_model_nothing_is_called_another(tmp_path):
    reproduction = read(write_all(tmp_path, model="/models/bert-base-uncased", tasks=("rte",), notes={}))
    assert reproduction.label == "bert-base-uncased"
    assert text_of(reproduction, "Another model") is None
    assert not any("minilm" in line.lower() for line in (*page(reproduction).warnings, page(reproduction).title))


def test_notes_on_a_tasks_files_are_at_every_table(whole):
    for one in all_tables(whole):
        if one.title.startswith("Table"):
            assert all(note in " ".join(one.text) for note in NOTES.values()), one.title
    assert row_of(beside_paper_table(whole), "qnli (note)", "full")
    assert all(note in text_of(whole, "Other rows") for note in NOTES.values())


def test_tasks_that_were_run_under_other_settings_are_told_apart(tmp_path):
    write_all(tmp_path, tasks=("rte", "sst2"), notes={}, command="one command")
    write_all(tmp_path, tasks=("wnli",), notes={}, preset="paper", train_head=False, command="another command")
    mixed = read(tmp_path)
    content = page(mixed)
    assert "settings that differ between tasks" in content.subtitle
    told = "preset best for rte, sst2; preset paper, task head not trained for wnli; means over tasks mix them"
    assert any(told in warning for warning in content.warnings)
    made = next(section for section in content.sections if section.title == "How to make this page")
    assert made.code == "one command\nanother command"
    assert made.text[1].startswith("wnli (preset paper, task head not trained): The paper's settings")
    assert "trained too, but not on wnli" in text_of(mixed, "Cells of the paper that equal the majority class")
    found = numbers(mixed)
    assert (found["preset"], found["tasks"]["rte"]["preset"], found["tasks"]["wnli"]["preset"]) == (
        None, "best", "paper",
    )  # fmt: skip


def test_tasks_under_the_same_settings_are_not_told_apart(whole):
    assert "preset best, seeds 0, 1, 2" in page(whole).subtitle
    assert not any("same settings" in warning for warning in page(whole).warnings)
    assert numbers(whole)["preset"] == "best"


def test_a_comparison_that_is_not_complete_is_among_the_warnings(tmp_path, whole):
    missing = ("lora, learning rate 0.001, seed 1", "lora, learning rate 0.001, seed 2")
    write_all(tmp_path, tasks=("rte",), notes={}, seeds=(0,), missing=missing)
    told = f"rte is not complete: 2 of the trainings asked for are not done: {'; '.join(missing)}"
    assert told in page(read(tmp_path)).warnings
    assert not any("not complete" in warning for warning in page(whole).warnings)


# What does not reproduce ----------------------------------------------------------------------------------------------


def test_the_majority_cells_and_the_43_heads_are_listed(whole):
    text = text_of(whole, "Cells of the paper that equal the majority class")
    assert "mrpc: the paper's prune-lora has 68.38 %, which is 279 of 408" in text
    assert "ours reaches 88.2 %, 19.8 points above" in text
    assert "wnli: the paper's prune-lora has 56.34 %, which is 40 of 71" in text
    assert "ours reaches 56.3 %, which is no more than the majority class" in text
    heads = text_of(whole, "43 heads, not 44")
    assert "101,290,176" in heads
    assert "101,093,376" in heads


def test_findings_follow_the_numbers(whole, partial):
    slower = "The paper's pruned model is slower at inference"
    assert "82 % of the dense model's time, so it is faster" in text_of(whole, slower)
    assert "not timed" in text_of(partial, slower)
    assert text_of(whole, "Training is less fast than the paper's") is None
    assert "not run here" in text_of(partial, "Cells of the paper that equal the majority class")


def test_slow_methods_are_not_called_fast(tmp_path):
    write_all(tmp_path, tasks=("rte",))
    path = tmp_path / "rte" / "comparison.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for method in content["methods"]:
        if method["name"] == "prune-lora":
            method["step_to_full"]["median"] = 0.9
            for one in method["latencies"]:
                one["to_dense"]["median"] = 1.2
            method["quality"]["test"]["accuracy"]["mean"] = 0.7
    path.write_text(json.dumps(content), encoding="utf-8")
    reproduction = read(tmp_path)
    assert "so it is not faster" in text_of(reproduction, "The paper's pruned model is slower at inference")
    assert "90 % of full fine-tuning's time" in text_of(reproduction, "Training is less fast than the paper's")
    assert text_of(reproduction, "The paper loses more to full fine-tuning") is None


def test_the_summary_is_over_all_tasks_and_names_where_it_is_more_than_noise(whole):
    full, lora, random = summary(whole)
    assert full.startswith("Prune-LoRA against full fine-tuning: \N{MINUS SIGN}0.6 points, mean of 6 tasks")
    assert "none of them" in lora
    assert "more than noise on mnli (+3.7)" in random
    assert "wnli" not in random


# Figure, page, files --------------------------------------------------------------------------------------------------


def panels(figure):
    return [axes for axes in figure.axes if axes.get_title("left")]


def test_the_figure_has_six_panels_in_the_papers_order(whole, partial):
    titles = [axes.get_title("left") for axes in panels(importance_maps(whole))]
    assert [title.split()[0].rstrip(":") for title in titles] == list(paper.TASKS)
    assert all(title.endswith("22 of 72 cut") for title in titles)
    empty = {
        axes.get_title("left"): [text.get_text() for text in axes.texts] for axes in panels(importance_maps(partial))
    }
    assert empty == {
        "mnli": ["not run"], "mrpc: 22 of 72 cut": [], "qnli": ["not run"], "rte": ["scores not kept"],
        "sst2: 22 of 72 cut": [], "wnli": ["not run"],
    }  # fmt: skip


def test_a_cross_is_on_every_head_that_was_cut(whole):
    for axes, one in zip(panels(importance_maps(whole)), whole.tasks, strict=True):
        crosses = {(int(y), int(x)) for line in axes.lines for x, y in line.get_xydata()}
        assert crosses == {
            (layer, head) for layer, kept in enumerate(one.plan.heads) for head in set(range(12)) - {*kept}
        }


def test_what_it_says_it_wrote_is_exactly_what_is_there(written):
    folder, names = written
    assert sorted(names) == sorted(files(folder))
    assert set(names) == {
        "reproduction.html", "reproduction.md", "reproduction.json", "figures/figure-1.svg", "figures/figure-1.png",
    }  # fmt: skip


def test_the_page_refers_to_nothing_outside_itself(written):
    html = (written[0] / "reproduction.html").read_text(encoding="utf-8")
    parsed = Page(html)
    assert parsed.references
    assert all(reference.startswith("#") for reference in parsed.references)
    assert not re.search(r"https?://|@import", html)
    assert "script" not in parsed.tags
    assert parsed.tags.count("svg") == 1
    assert "report.md" not in html


def test_every_section_is_on_both_pages(written, whole):
    html = Page((written[0] / "reproduction.html").read_text(encoding="utf-8")).text
    text = (written[0] / "reproduction.md").read_text(encoding="utf-8")
    assert "](figures/figure-1.png)" in text
    for section in page(whole).sections:
        assert section.title in html
    assert text.count("\n## ") == len(page(whole).sections) + 2
    assert "prunelora reproduce --data-dir glue --out runs/paper" in html


def test_the_same_results_give_the_same_bytes(written, whole, tmp_path):
    write_reproduction(whole, tmp_path)
    assert files(tmp_path) == files(written[0])


def test_numbers_hold_the_paper_the_counts_and_every_task(whole, partial):
    content = json.loads(json.dumps(numbers(whole)))
    assert content["paper"]["accuracy"]["prune-lora"] == dict.fromkeys(paper.TASKS) | {"mrpc": 0.6838, "wnli": 0.5634}
    assert 101_290_176 in [row["total"] for row in content["counts"]["rows"]]
    assert set(content["tasks"]) == set(paper.TASKS)
    assert content["tasks"]["rte"]["methods"]["lora"]["trained"] == 319_106
    assert content["tasks"]["qnli"]["note"] == NOTES["qnli"]
    assert numbers(partial)["missing"] == ["mnli", "qnli", "wnli"]
    assert numbers(partial)["tasks"]["wnli"] == {"note": "", "run": False}


def test_the_terminal_gets_every_table_with_rows_as_wide_as_its_columns(whole, partial):
    for shown in (lines(whole), lines(partial)):
        assert all(len(row) == len(columns) for _, columns, rows in shown for row in rows)
        assert "What does not reproduce, and why" in [title for title, _, _ in shown]
    assert lines(whole)[-1] == ("Notes", ("task", "note"), (("mnli", NOTES["mnli"]), ("qnli", NOTES["qnli"])))
