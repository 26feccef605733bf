import dataclasses
import math
import re

import numpy as np
import pytest
from report.made_up_run import make_results, timing, training
from scipy.stats import t as student_t

from prunelora.evaluation.significance import wilson
from prunelora.report.judged import bits_of
from prunelora.report.numbers import milliseconds
from prunelora.report.reading import finetunings
from prunelora.report.run_page import sections
from prunelora.report.run_tables import facts, stage_times
from prunelora.report.summary import RANGES, shown, summarise, warnings

MINUS = "\N{MINUS SIGN}"


def text_of(results):
    return "\n".join(summarise(results))


def with_task(results, **changes):
    return dataclasses.replace(results, task=results.task | changes)


def with_facts(results, stage, **changes):
    changed = {"seconds": 1.0, "facts": {**results.facts(stage), **changes}}
    return dataclasses.replace(results, stages={**results.stages, stage: changed})


def fact(results, start):
    return next(row for row in facts(results) if row.what.startswith(start))


def test_the_majority_rate_rows_and_seed_stand_beside_the_accuracy():
    found = shown(make_results())[0]
    assert "seed 0" in found.title
    assert "853 test rows" in found.rows[0][0]
    assert found.rows[0][2].startswith("80.3 %")
    assert found.rows[1][2] == "50.1 %"


def test_every_accuracy_has_wilsons_interval():
    """80.3 % of 853 rows are 685 right ones, 82.6 % are 705."""
    row = fact(make_results(), "accuracy")
    for right, value, text in ((685, "80.3", row.pruned), (705, "82.6", row.dense)):
        low, high = (100 * end for end in wilson(right / 853, 853))
        assert text == f"{value} % ({low:.1f} to {high:.1f})"


def test_all_rows_right_is_no_certainty():
    """Of 8 rows, 8 right: the interval begins at 67.6 %."""
    results = make_results(accuracy=1.0, baseline=False)
    results = with_task(results, rows={"train": 8, "validation": 8, "test": 8})
    assert fact(results, "accuracy, 8 test rows").pruned == "100.0 % (67.6 to 100.0)"


def test_a_metric_that_is_no_share_of_rows_has_the_interval_of_its_samples():
    results = with_task(make_results(baseline=False), problem_type="regression", majority_rate=None,
                        metrics=["pearson"])  # fmt: skip
    draws = [0.6 + 0.001 * place for place in range(201)]
    measured = with_facts(results, "measure", test={"pearson": 0.71}, test_draws={"pearson": draws})
    assert fact(measured, "Pearson").pruned == "0.710 (0.605 to 0.795)"
    # Samples that all give the same say nothing.
    alike = with_facts(results, "measure", test={"pearson": 1.0}, test_draws={"pearson": [1.0] * 200})
    assert fact(alike, "Pearson").pruned == "1.000"


def test_without_a_baseline_it_says_so_and_how_to_train_one():
    assert "baseline=True" in " ".join(shown(make_results(baseline=False))[0].notes)
    assert shown(make_results())[0].notes == (RANGES,)


def test_what_training_took_stands_beside_the_dense_models():
    """6.2 + 11.4 + 0.02 + 3.1 + 187.5 + 4.4 seconds, and 290.1."""
    row = fact(make_results(), "time of training,")
    assert (row.dense, row.pruned) == ("4 min 50 s", "3 min 33 s")
    assert not any(row.what.startswith("time of training,") for row in facts(make_results(baseline=False)))


def answered(results, measure, baseline):
    """The same run with the rows that each model answered rightly."""
    right = {"measure": measure, "baseline": baseline}
    stages = {
        name: stage | {"facts": stage["facts"] | ({"test_right": bits_of(right[name])} if name in right else {})}
        for name, stage in results.stages.items()
    }
    return dataclasses.replace(results, stages=stages)


def test_a_difference_to_the_baseline_has_the_error_of_answers_to_the_same_rows():
    """Of 853 rows 20 go to the dense model and 10 to the pruned one: 10 / 853 and sqrt(30 - 100 / 853) / 853."""
    assert fact(make_results(accuracy=0.803), "accuracy").change == f"{MINUS}2.3 points"
    assert fact(make_results(accuracy=0.83), "accuracy").change == "+0.4 points"
    dense, pruned = np.ones(853, dtype=bool), np.ones(853, dtype=bool)
    dense[:10], pruned[10:30] = False, False
    reach = student_t.isf(0.025, 852) * 100 * math.sqrt((30 - 100 / 853) / 852 / 853)
    low, high = (f"{100 * -10 / 853 + sign * reach:+.1f}".replace("-", MINUS) for sign in (-1, 1))
    row = fact(answered(make_results(accuracy=0.826 - 10 / 853), pruned, dense), "accuracy")
    assert row.change == f"{MINUS}1.2 points ({low} to {high})"


def with_tuned_dense(results, accuracy, right):
    tuned = {"stage": "merge-1", "test": {"accuracy": accuracy, "f1_macro": accuracy}, "test_right": bits_of(right)}
    return with_facts(results, "measure", tuned_dense=tuned, test_right=bits_of(np.ones(853, dtype=bool)))


def test_the_model_before_the_cut_stands_beside_the_pruned_one_with_its_interval():
    results = with_tuned_dense(make_results(baseline=False), 0.833, np.arange(853) > 9)
    row = fact(results, "accuracy, 853 test rows")
    assert row.dense.startswith("83.3 % (")
    assert row.pruned.startswith("80.3 % (")
    assert row.change.startswith(f"{MINUS}3.0 points (")
    assert "before the cut" in row.what


def test_models_that_answer_alike_are_equal_and_other_rows_may_tell_them_apart():
    """Of 853 rows none was answered otherwise: at most 1 - 0.025^(1/853) = 0.43 % of all rows are."""
    results = with_tuned_dense(make_results(baseline=False), 0.803, np.ones(853, dtype=bool))
    assert fact(results, "accuracy").change == f"0.0 points ({MINUS}0.4 to +0.4)"


def test_a_metric_whose_samples_never_differ_has_no_interval_of_the_difference():
    results = with_task(make_results(), problem_type="regression", majority_rate=None, metrics=["pearson"])
    draws = {"pearson": [0.7, 0.72, 0.69]}
    for stage in ("measure", "baseline"):
        results = with_facts(results, stage, test={"pearson": 0.71}, test_draws=draws)
    assert fact(results, "Pearson").change == "0.000"


def test_language_models_are_compared_over_the_rows_that_both_were_judged_on():
    results = with_task(make_results(), problem_type="causal_lm", majority_rate=None, metrics=["log_likelihood"])
    for stage, value in (("measure", -3.0), ("baseline", -3.2)):
        draws = {"log_likelihood": [value + one for one in (-0.1, 0.0, 0.1 * value)]}
        test = {"log_likelihood": value, "perplexity": np.exp(-value)}
        results = with_facts(results, stage, test=test, test_draws=draws)
    row = fact(results, "log-likelihood")
    assert re.fullmatch(rf"{MINUS}3\.000 \({MINUS}3\.\d+ to {MINUS}\d\.\d+\), perplexity 20\.086", row.pruned)
    assert row.change.startswith("+0.200 (+0.1")


def test_with_a_baseline_both_dense_models_stand_beside_the_pruned_one():
    results = with_tuned_dense(make_results(), 0.833, np.arange(853) > 9)
    rows = {row.what: row.dense[:6] for row in facts(results) if row.what.startswith("accuracy, 853 test rows")}
    assert list(rows.values()) == ["83.3 %", "82.6 %"]
    assert ["before the cut" in what for what in rows] == [True, False]


def asked(results, *, pruned_ms, dense_ms=20.0, **budget):
    """A budget in time, and what was measured at its size."""
    facts = {"max_latency_ms": None, "speedup": None, "threads": 1} | budget
    facts |= {"engine": "onnxruntime", "batch_size": 4, "tokens": 77}
    facts |= {"model": timing(pruned_ms), "base": timing(dense_ms)}
    ratio = pruned_ms / dense_ms
    return with_facts(results, "measure", asked_latency=facts | {
        "ratio": {"median": ratio, "q25": 0.95 * ratio, "q75": 1.05 * ratio}
    })  # fmt: skip


@pytest.mark.parametrize(
    ("budget", "pruned_ms", "option", "verdict"),
    [
        ({"speedup": 2.0}, 9.0, "speedup=2", "met: 2.22 times"),
        ({"speedup": 2.0}, 11.0, "speedup=2", "missed: 1.82 times"),
        ({"max_latency_ms": 9.5}, 9.0, "max_latency_ms=9.5", "met: 2.22 times"),
        ({"max_latency_ms": 8.5}, 9.0, "max_latency_ms=8.5", "missed: 2.22 times"),
    ],
)
def test_a_latency_that_was_asked_for_is_said_to_be_met_or_missed(budget, pruned_ms, option, verdict):
    row = facts(asked(make_results(), pruned_ms=pruned_ms, **budget))[0]
    assert row.what == f"{option} at batch 4, 77 tokens, onnxruntime, 1 thread"
    assert row.change.startswith(verdict)
    assert row.pruned.startswith(f"{milliseconds(pruned_ms)} (")


@pytest.mark.parametrize(("accuracy", "learnt"), [(0.45, False), (0.501, False), (0.533, False), (0.537, True)])
def test_an_accuracy_whose_interval_has_the_majority_rate_is_nothing_learnt(accuracy, learnt):
    # On 853 rows the interval reaches 3.4 points down; always answering the most frequent class is right in 50.1 %.
    found = [line for line in warnings(make_results(accuracy=accuracy)) if "nothing was learnt" in line]
    assert (not found) == learnt
    assert all("(learning_rate)" in line for line in found)


def test_a_correlation_within_the_error_of_the_rows_is_nothing_learnt():
    results = make_results(baseline=False)
    results = with_task(results, problem_type="regression", majority_rate=None, metrics=["pearson"])
    assert any(
        "nothing was learnt" in line for line in warnings(with_facts(results, "measure", test={"pearson": 0.03}))
    )
    fine = with_facts(results, "measure", test={"pearson": 0.71})
    assert warnings(fine) == []


def test_several_labels_are_judged_by_f1_without_majority_rate_or_error():
    results = with_task(
        make_results(baseline=False), problem_type="multi_label_classification", majority_rate=None,
        metrics=["f1_micro", "f1_macro", "accuracy"],
    )  # fmt: skip
    results = with_facts(results, "measure", test={"f1_micro": 0.6, "f1_macro": 0.5, "accuracy": 0.3})
    assert fact(results, "F1, all labels together").pruned == "60.0 %"
    assert "most frequent class" not in text_of(results)


def test_tags_are_judged_by_entities_and_their_accuracy_has_no_error_of_rows():
    results = with_task(make_results(), problem_type="token_classification", metrics=["entity_f1", "accuracy"])
    results = with_facts(results, "measure", test={"entity_f1": 0.8, "accuracy": 0.95})
    results = with_facts(results, "baseline", test={"entity_f1": 0.83, "accuracy": 0.96})
    row = fact(results, "entity F1")
    assert (row.pruned, row.change) == ("80.0 %", f"{MINUS}3.0 points")
    accuracy = next(row for row in facts(results) if row.what.startswith("accuracy"))
    assert (accuracy.dense, accuracy.pruned) == ("96.0 %", "95.0 %")
    assert not any("nothing was learnt" in line for line in warnings(results))
    nothing = with_facts(results, "measure", test={"entity_f1": 0.0, "accuracy": 0.9})
    assert any("no entity is found" in line for line in warnings(nothing))


def test_slower_is_a_warning():
    text = text_of(make_results(speed=0.9))
    assert "not faster" in text
    assert "not faster" not in text_of(make_results())


def test_noisy_timings_are_a_warning():
    assert "vary much" in text_of(make_results(spread=0.2))
    assert "vary much" not in text_of(make_results(spread=0.05))


def test_a_best_last_evaluation_asks_for_more_training():
    assert "more training may help (epochs)" in text_of(make_results(accuracies=(0.7, 0.75, 0.8)))
    assert "more training may help" not in text_of(make_results(accuracies=(0.7, 0.8, 0.75)))


def test_only_the_longest_fine_tuning_asks_for_more_training():
    results = make_results(accuracies=(0.7, 0.8))
    for longest, asked in (((0.6, 0.7, 0.65), False), ((0.6, 0.65, 0.7), True)):
        stage = {"finetune-1": {"seconds": 1.0, "facts": training(longest, {}, 1.0)}}
        text = text_of(dataclasses.replace(results, stages={**stage, **results.stages}))
        assert ("more training may help" in text) == asked


def test_it_ends_with_where_the_files_are():
    text = text_of(make_results())
    for path in ("runs/first/report.html", 'prunelora.load("runs/first/model")', "runs/first/model.onnx"):
        assert path in text
    assert "model.onnx" not in text_of(make_results(without=("export",)))
    assert "runs/first/adapter" in text_of(make_results(without=("merge",)))


def test_numbers_in_the_table_are_those_in_the_facts():
    results = make_results()
    measured = results.facts("measure")["measurement"]
    rows = {row.what: row for row in facts(results)}
    for what, wanted in (
        ("parameters", ("22.7 M", "17.3 M", "76 %")),
        ("MACs of the blocks, 128 tokens", ("1.43 G", "0.68 G", "47 %")),
        ("memory of the weights", ("90.9 MB", "69.4 MB", "76 %")),
        ("saved for backward, batch 32, 128 tokens", ("765.4 MB", "412.3 MB", "54 %")),
    ):
        assert rows[what][1:] == wanted
    for one in measured["latencies"]:
        row = rows[f"time at batch {one['batch_size']}, {one['tokens']} tokens, {one['engine']}"]
        for text, which in ((row.dense, "base"), (row.pruned, "model")):
            assert text.startswith(f"{milliseconds(one[which]['median_ms'])} (")
        assert f"{1 / one['ratio']['median']:.1f} times as fast" in row.change
    accuracy = rows["accuracy, 853 test rows"]
    assert (accuracy.dense[:6], accuracy.pruned[:6], accuracy.change) == ("82.6 %", "80.3 %", f"{MINUS}2.3 points")
    assert rows["always the most frequent class"].pruned == "50.1 %"


def test_stage_times_add_up():
    results = make_results()
    rows = stage_times(results).rows
    assert [row[0] for row in rows] == [*results.stages, "all"]
    assert rows[4][1] == "3 min 08 s"  # finetune, 187.5 s
    total = sum(stage["seconds"] for stage in results.stages.values())
    assert rows[-1][1] == f"{int(total // 60)} min {round(total % 60):02} s"


def test_repeated_fine_tunings_are_one_curve_after_the_other():
    results = make_results(without=("finetune",))
    stages = {
        name: {"seconds": 1.0, "facts": training(accuracies, {}, 1.0)}
        for name, accuracies in (("finetune-1", (0.6, 0.7)), ("finetune", (0.75,)))
    }
    history, starts = finetunings(dataclasses.replace(results, stages={**results.stages, **stages}))
    assert starts == [2.0]
    assert [entry["epoch"] for entry in history if "validation_loss" in entry] == [1.0, 2.0, 3.0]


def test_a_language_model_is_judged_by_its_perplexity_too():
    results = make_results(baseline=False)
    results.task.update(metrics=["log_likelihood", "perplexity"], problem_type="causal_lm")
    results.facts("measure")["test"] = {"log_likelihood": -2.0, "perplexity": math.exp(2.0)}
    assert any("perplexity 7.389" in line for line in summarise(results))


def test_rows_that_were_cut_off_are_a_warning_and_in_the_report():
    results = make_results()
    assert not any("cut off" in line for line in warnings(results))
    found = {"max_length": 128, "rows": 100, "rows_cut": 80, "tokens": 42_400, "tokens_cut": 30_000,
             "median_tokens": 424.0, "keeps_most": 610}  # fmt: skip
    results.facts("finetune")["truncation"] = {"train": found, "test": found | {"rows_cut": 0}}
    warned = [line for line in warnings(results) if "cut off" in line]
    assert len(warned) == 1
    assert "80 of 100 train rows (80%)" in warned[0]
    assert "max_length=610" in warned[0]
    data = next(section for section in sections(results) if section.title == "Data")
    assert any("max_length=610" in line for line in data.text)
