"""The page: the paper's values beside ours, the model's name, nothing made up, nothing outside itself."""

import json
import re

import pytest
from reproduction.made_up_reproduction import NOTES, write_all, write_task

from prunelora.reproduction import paper
from prunelora.reproduction.figure import importance_maps
from prunelora.reproduction.page import numbers, page, tables, write_reproduction
from prunelora.reproduction.results import read
from prunelora.reproduction.tables import accuracy_of, counts_table, paper_table, tasks_table

LABEL = "MiniLM, embedded"
MINUS = "\N{MINUS SIGN}"


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


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def row(reproduction, quantity, source="ours"):
    """Texts of a row by method; the quantity may lack its majority rate."""
    table = paper_table(reproduction)
    found = next(r for r in table.rows if r[0].partition(" (")[0] == quantity and r[1] == source)
    return dict(zip(table.columns[2:], found[2:], strict=True))


# The paper ------------------------------------------------------------------------------------------------------------


def test_only_what_is_known_of_the_paper_has_a_value():
    assert tuple(paper.ACCURACY) == paper.TASKS
    known = {(method, task): value.value for task, row in paper.ACCURACY.items() for method, value in row.items()}
    assert known == {("prune-lora", "mrpc"): 0.6838, ("prune-lora", "wnli"): 0.5634}
    assert {paper.printed(paper.INFERENCE_MEMORY, method) for method in paper.METHODS} == {"not at hand"}
    assert paper.printed(paper.TRAINED, "full") == "not at hand"
    assert paper.time_to_full("prune-lora") == 32 / 49


def test_the_papers_known_accuracies_are_the_majority_class_to_the_last_digit():
    for task, (correct, rows) in {"mrpc": (279, 408), "wnli": (40, 71)}.items():
        assert paper.ACCURACY[task]["prune-lora"].printed == f"{100 * correct / rows:.2f} %"


# Tables ---------------------------------------------------------------------------------------------------------------


def test_unknown_values_of_the_paper_are_shown_as_not_at_hand(whole):
    shown = [row(whole, f"accuracy, %, {task}", "paper") for task in paper.TASKS]
    assert sum(text == "not at hand" for texts in shown for text in texts.values()) == 16
    assert {texts["random-prune-lora"] for texts in shown} == {"not in the paper"}
    assert row(whole, "inference memory", "paper")["full"] == "not at hand"


def test_a_known_value_is_beside_ours_with_its_difference_and_the_majority_rate(whole):
    assert row(whole, "accuracy, %, mrpc", "paper")["prune-lora"] == "68.38 %"
    assert row(whole, "accuracy, %, mrpc")["prune-lora"] == "88.2 ± 0.3 (+19.8)"
    assert row(whole, "accuracy, %, mrpc")["lora"] == "88.5 ± 0.3"
    assert any(r[0] == "accuracy, %, mrpc (majority 68.4)" for r in paper_table(whole).rows)


def test_both_splits_of_mnli_are_shown_and_the_first_stands_for_it(whole):
    assert row(whole, "accuracy, %, mnli, mismatched") != row(whole, "accuracy, %, mnli, matched")
    accuracies = [accuracy_of(comparison, "full") for comparison in whole.comparisons.values()]
    assert row(whole, "accuracy, %, mean of 6 tasks")["full"] == f"{100 * sum(accuracies) / 6:.1f}"


def test_the_loss_to_full_is_over_the_papers_five_tasks(whole):
    tasks = [comparison for task, comparison in whole.comparisons.items() if task != "wnli"]
    five = sum(accuracy_of(task, "prune-lora") - accuracy_of(task, "full") for task in tasks) / 5
    title = "accuracy minus full's, points, mean of"
    assert row(whole, f"{title} mnli, mrpc, qnli, rte, sst2", "paper")["prune-lora"] == f"{MINUS}5.3"
    assert row(whole, f"{title} mnli, mrpc, qnli, rte, sst2")["prune-lora"] == f"{MINUS}{-100 * five:.1f} (5 tasks)"
    assert row(whole, f"{title} all tasks")["prune-lora"] == f"{MINUS}0.6 (6 tasks)"


def test_tasks_with_a_significant_difference_are_named_with_it(whole):
    named = row(whole, "significant differences of prune-lora")
    assert (named["full"], named["lora"]) == ("none", "none")
    assert "mnli (+3.7)" in named["random-prune-lora"]
    assert "wnli" not in named["random-prune-lora"]


def test_counts_are_shown_to_the_last_digit(whole):
    assert row(whole, "trained parameters", "paper")["prune-lora"] == "308.7 K"
    ways = ("the paper's way", "our LoRA", "our LoRA and task head")
    counted = {way: row(whole, f"trained parameters, {way}", "counted") for way in ways}
    assert [counted[way]["prune-lora"] for way in ways] == ["308,736", "374,272", "966,402"]
    assert counted["the paper's way"]["lora"] == "259,584"
    assert row(whole, "parameters", "paper")["prune-lora"] == "101.29 M"
    assert row(whole, "parameters", "counted") == {
        "full": "109,482,240", "lora": "109,703,424", "prune-lora": "101,290,176", "random-prune-lora": "\N{EN DASH}",
    }  # fmt: skip
    assert row(whole, "trained parameters")["lora"] == "319,106 (1.4 %)"
    assert {"109,482,240", "109,703,424", "101,290,176", "101,093,376"} <= {r[-1] for r in counts_table(whole).rows}


def test_training_time_is_beside_the_papers_ratio(whole):
    assert row(whole, "training time, of full's", "paper")["prune-lora"] == "65 % (32)"
    assert row(whole, "training step, of full's")["prune-lora"] == f"57 %, {MINUS}8 points"
    assert row(whole, "training step, of full's")["full"] == "100 %"
    assert row(whole, "training step")["full"] == "1,890 ms"
    assert row(whole, "forward pass, of the dense model's")["prune-lora"] == "82 %"


def test_tasks_and_times_that_are_missing_are_shown_as_such(partial):
    assert set(row(partial, "accuracy, %, wnli").values()) == {"not run"}
    assert row(partial, "accuracy, %, wnli", "paper")["prune-lora"] == "56.34 %"
    assert row(partial, "training step, of full's")["lora"] == "not timed"
    assert row(partial, "training step")["lora"] == "not timed"
    assert row(partial, "forward pass, of the dense model's")["lora"] == "not timed"
    assert row(partial, "accuracy minus full's, points, mean of all tasks")["lora"].endswith("(3 tasks)")
    assert [r[1] for r in tasks_table(partial).rows] == [
        "not run", "best", "not run", "own settings", "best", "not run",
    ]  # fmt: skip
    assert any("mnli, qnli, wnli" in warning for warning in page(partial).warnings)


def test_every_row_is_as_wide_as_its_headings(whole, partial):
    for reproduction in (whole, partial):
        for table in tables(reproduction):
            assert {len(r) for r in table.rows} == {len(table.columns)}


# Labels ---------------------------------------------------------------------------------------------------------------


def test_title_table_and_figure_name_the_model_that_was_trained(whole):
    content = page(whole)
    assert LABEL in content.title
    assert LABEL in content.sections[0].heading
    assert any(LABEL in warning and paper.MODEL in warning for warning in content.warnings)
    assert LABEL in importance_maps(whole).get_suptitle()
    assert LABEL in next(section.title for section in content.sections if section.figure)


def test_with_the_papers_model_there_is_no_warning_of_another(tmp_path):
    reproduction = read(write_all(tmp_path, model="/models/bert-base-uncased", tasks=("rte",), notes={}))
    assert reproduction.label == paper.MODEL
    assert not any("minilm" in line.lower() for line in (*page(reproduction).warnings, page(reproduction).title))


def test_notes_on_a_tasks_files_are_in_the_warnings_and_the_table_of_tasks(whole):
    assert {r[0]: r[-1] for r in tasks_table(whole).rows if r[-1]} == NOTES
    assert all(any(note in warning for warning in page(whole).warnings) for note in NOTES.values())


def test_tasks_that_were_run_with_other_presets_are_told_apart(tmp_path, whole):
    write_all(tmp_path, tasks=("rte", "sst2"), notes={})
    write_all(tmp_path, tasks=("wnli",), notes={}, preset="paper", train_head=False)
    mixed = read(tmp_path)
    presets = {r[0]: r[1] for r in tasks_table(mixed).rows}
    assert (presets["rte"], presets["wnli"]) == ("best", "paper, task head not trained")
    assert any("different presets" in warning for warning in page(mixed).warnings)
    assert not any("different presets" in warning for warning in page(whole).warnings)
    assert [numbers(mixed)["tasks"][task]["preset"] for task in ("rte", "wnli")] == ["best", "paper"]


def test_a_comparison_that_is_not_complete_is_among_the_warnings(tmp_path):
    missing = ("lora, learning rate 0.001, seed 1", "lora, learning rate 0.001, seed 2")
    write_all(tmp_path, tasks=("rte",), notes={}, seeds=(0,), missing=missing)
    reproduction = read(tmp_path)
    assert any("rte" in warning and missing[1] in warning for warning in page(reproduction).warnings)
    assert next(r for r in tasks_table(reproduction).rows if r[0] == "rte")[5] == "2 missing"


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
    for axes, (_, plan) in zip(panels(importance_maps(whole)), whole.scores.values(), strict=True):
        crosses = {(int(y), int(x)) for line in axes.lines for x, y in line.get_xydata()}
        assert crosses == {(layer, head) for layer, kept in enumerate(plan.heads) for head in set(range(12)) - {*kept}}


def test_the_names_returned_are_those_of_the_files(written):
    folder, names = written
    assert sorted(names) == sorted(files(folder))
    assert set(names) == {
        "reproduction.html", "reproduction.md", "reproduction.json", "figures/figure-1.svg", "figures/figure-1.png",
    }  # fmt: skip


def test_the_page_refers_to_nothing_outside_itself(written):
    html = (written[0] / "reproduction.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|<script", html)
    assert all(reference.startswith("#") for reference in re.findall(r'(?:src|href)="([^"]*)"', html))
    assert html.count("<svg") == 1


def test_every_table_is_on_both_pages(written, whole):
    html, text = ((written[0] / f"reproduction.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    assert "](figures/figure-1.png)" in text
    for table in tables(whole):
        assert f"## {table.title}" in text
        assert table.title.partition("'")[0] in html


def test_the_same_results_give_the_same_bytes(written, whole, tmp_path):
    write_reproduction(whole, tmp_path)
    assert files(tmp_path) == files(written[0])


def test_numbers_hold_the_paper_the_counts_and_every_task(whole, partial):
    content = json.loads(json.dumps(numbers(whole)))
    assert content["paper"]["accuracy"]["prune-lora"] == dict.fromkeys(paper.TASKS) | {"mrpc": 0.6838, "wnli": 0.5634}
    assert 101_290_176 in [count["total"] for count in content["counts"]["rows"]]
    assert set(content["tasks"]) == set(paper.TASKS)
    assert content["tasks"]["rte"]["methods"]["lora"]["trained"] == 319_106
    assert content["tasks"]["qnli"]["note"] == NOTES["qnli"]
    assert numbers(partial)["missing"] == ["mnli", "qnli", "wnli"]
    assert numbers(partial)["tasks"]["wnli"] == {"preset": "", "train_head": True, "note": "", "run": False}
