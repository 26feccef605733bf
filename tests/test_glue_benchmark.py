"""The GLUE benchmark: the order of its work, and its page on made-up results."""

import pytest
from comparison.made_up_comparison import make_comparison

from benchmarks.glue import benchmark as runner
from benchmarks.glue import page


def results_of(task):
    """Made-up results of the methods that the benchmark runs, trained for as long as it trains."""
    made_up = make_comparison(runner.METHODS)
    recipe = {"stages": [{"stage": "finetune", "epochs": runner.TASKS[task].epochs}]}
    cells = tuple(cell.model_copy(update={"recipe": recipe}) for cell in made_up.trials)
    methods = tuple(
        one.model_copy(update={"tried": dict(list(one.tried.items())[: len(runner.FACTORS)])})
        for one in made_up.methods
    )
    return made_up.model_copy(update={"trials": cells, "methods": methods})


GLUE_SIX = {"mnli", "mrpc", "qnli", "rte", "sst2", "wnli"}


def test_the_papers_six_tasks_are_run():
    assert set(runner.TASKS) == GLUE_SIX


def test_one_seed_of_every_task_comes_before_the_next_seed_of_any():
    order = [(name, len(seeds)) for name, seeds, _ in runner.schedule(["rte", "mnli"], [0, 1, 2])]
    assert order == [("rte", 1), ("mnli", 1), ("rte", 2), ("rte", 3), ("mnli", 1)]


def test_every_task_is_timed_once_and_last():
    timed = [name for name, _, timing in runner.schedule(list(runner.TASKS), [0, 1, 2]) if timing]
    assert sorted(timed) == sorted(GLUE_SIX)


def test_seeds_that_are_not_asked_for_are_not_run():
    assert list(runner.schedule(["rte", "mnli"], [1])) == [("rte", (1,), True)]


def test_complete_results_are_not_run_again(tmp_path):
    assert not runner.is_complete(tmp_path, "rte", (0, 1, 2))
    complete = results_of("rte")
    (tmp_path / "rte").mkdir()
    complete.save(tmp_path / "rte" / "comparison.json")
    assert runner.is_complete(tmp_path, "rte", (0, 1, 2))
    assert not runner.is_complete(tmp_path, "rte", (0, 1, 2, 3))
    fewer = complete.methods[0].model_copy(update={"tried": {"0.001": 0.8}})
    complete.model_copy(update={"methods": (fewer, *complete.methods[1:])}).save(tmp_path / "rte" / "comparison.json")
    assert not runner.is_complete(tmp_path, "rte", (0, 1, 2))
    complete.model_copy(update={"timing": None}).save(tmp_path / "rte" / "comparison.json")
    assert not runner.is_complete(tmp_path, "rte", (0, 1, 2))


@pytest.fixture
def done():
    return {"rte": results_of("rte"), "sst2": results_of("sst2")}


def judged(done):
    return {what: (found, met) for what, _, found, met in page.aims(done)}


def changed_pairs(done, change):
    """The results with changed pairs."""
    return {task: one.model_copy(update={"pairs": tuple(map(change, one.pairs))}) for task, one in done.items()}


def test_aims_are_judged_by_the_results(done):
    found = judged(done)
    assert len(found) == 8
    text, met = found["accuracy, mean over 2 tasks, against lora"]
    assert "\N{MINUS SIGN}0.3 points" in text
    assert met == "yes"
    assert found["accuracy, mean over 2 tasks, against random-prune-lora"][1] == "yes"
    assert found["time of a training step, of full fine-tuning's"][0].startswith("0.570 (median of 2 tasks")
    assert found["trained parameters, of the model's"][1] == "no"  # 268,418 of 20,935,682 is 1.28 %


def test_an_aim_that_is_missed_is_not_met(done):
    worse = changed_pairs(done, lambda pair: pair.model_copy(update={"difference": pair.difference - 0.02}))
    assert judged(worse)["accuracy, mean over 2 tasks, against lora"][1] == "no"


@pytest.mark.parametrize(("by_seed", "met"), [((0.031, 0.032, 0.034), "yes"), ((0.001, 0.032, 0.064), "no")])
def test_a_difference_to_random_cuts_is_judged_by_the_seeds_which_draw_them(done, by_seed, met):
    """By seed 3.1, 3.2 and 3.4 points are clear; 0.1, 3.2 and 6.4 are not, however many rows there are."""

    def change(pair):
        if {pair.first, pair.second} != {"prune-lora", "random-prune-lora"}:
            return pair
        return pair.model_copy(
            update={"by_seed": tuple((1 if pair.first == "prune-lora" else -1) * value for value in by_seed)}
        )

    found = judged(changed_pairs(done, change))["accuracy, mean over 2 tasks, against random-prune-lora"]
    assert found[1] == met
    assert all(f"+{100 * value:.1f}" in found[0] for value in by_seed)


def test_what_was_not_timed_is_neither_met_nor_missed(done):
    untimed = {
        task: one.model_copy(
            update={
                "methods": tuple(
                    method.model_copy(update={"step_to_full": None, "step_ms": None, "latencies": ()})
                    for method in one.methods
                )
            }
        )
        for task, one in done.items()
    }
    assert [met for _, _, _, met in page.aims(untimed)].count("not measured") == 3


def test_the_committed_page_is_written_from_the_results(monkeypatch):
    monkeypatch.setattr(page, "write_page", lambda name, texts: texts)
    monkeypatch.setattr(page, "write_reproduction", lambda *_: [])
    texts, *_ = page.write_glue()
    text = (page.RESULTS.parent / "RESULTS.md").read_text(encoding="utf-8")
    for name in ("aims", "measured", "pairs", "rates"):
        assert texts[name] in text, name


def test_tasks_that_were_not_run_and_missing_seeds_are_named(done):
    missing = page.texts(done)["missing"]
    assert all(f"{task} was not run" in missing for task in GLUE_SIX - {"rte", "sst2"})
    assert "rte" not in missing
    fewer = {"rte": done["rte"].model_copy(update={"seeds": (0,)})}
    assert "rte has 1 seed" in page.texts(done | fewer)["missing"]


def test_every_task_has_epochs_and_the_first_seed():
    for task in runner.TASKS.values():
        assert task.epochs > 0
        assert 0 in task.seeds


def test_learning_rates_are_compared_on_the_mean_over_tasks(done):
    rows = [line.strip("| ").split(" | ") for line in page.rates(done).splitlines()]
    found = {(row[0], row[1]): row[2:] for row in rows[2:]}
    assert len(found) == len(runner.METHODS) * 2
    assert found["lora", "0.001"] == ["88.1 \\*", "88.1 \\*", "88.1", "2 of 2 tasks", "the end of the range"]
    assert found["lora", "0.0005"][:4] == ["86.9", "86.9", "86.9", "0 of 2 tasks"]
