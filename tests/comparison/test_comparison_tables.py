import csv
import io
import statistics

import pytest
from comparison.made_up_comparison import MAJORITY, METHODS, make_comparison

from prunelora.comparison.collecting import pairs_of
from prunelora.comparison.results import Estimate
from prunelora.comparison.table_file import to_csv
from prunelora.comparison.tables import (
    CONSTANT,
    beside_table,
    latency_table,
    main_table,
    memory_table,
    methods_table,
    pair_of,
    pairs_table,
    quality_table,
    training_table,
    trials_table,
)
from prunelora.evaluation.significance import Difference
from prunelora.evaluation.timing import Spread
from prunelora.report.numbers import NONE

BY_METHOD = [main_table, training_table, memory_table, latency_table, methods_table]


def column(table, heading):
    place = table.columns.index(heading)
    return {row[0]: row[place] for row in table.rows}


def with_metrics(results, metrics, quality):
    """The same with other metrics; `quality` is one for all methods."""
    methods = tuple(one.model_copy(update={"quality": {"test": quality}}) for one in results.methods)
    return results.model_copy(update={"task": {**results.task, "metrics": metrics}, "methods": methods})


def test_quality_is_mean_and_sample_deviation_in_per_cent():
    shown = column(main_table(make_comparison(accuracies={"lora": (0.8, 0.85, 0.9)})), "accuracy, %")
    assert shown["lora"] == "85.0 ± 5.0"
    assert shown["full"] == f"{100 * statistics.fmean((0.8922, 0.8865, 0.8899)):.1f} ± 0.3"


def test_the_majority_rate_stands_beside_the_accuracy_of_every_split():
    results = make_comparison(splits=("matched", "mismatched"))
    for table in (main_table(results), trials_table(results)):
        for split, rate in (("matched", MAJORITY), ("mismatched", MAJORITY - 0.1)):
            assert column(table, f"accuracy, %, {split}")[CONSTANT] == f"{100 * rate:.1f}"
        assert table.rows[0][0] == CONSTANT


def test_a_method_with_one_seed_among_others_says_so_itself():
    results = make_comparison()
    lone = results.methods[1].model_copy(update={"seeds": (0,), "quality": {"test": {"accuracy": Estimate.of([0.88])}}})
    shown = column(main_table(results.model_copy(update={"methods": (results.methods[0], lone)})), "accuracy, %")
    assert shown["lora"] == "88.0 (1 seed)"
    assert "\N{PLUS-MINUS SIGN}" in shown["full"]


@pytest.mark.parametrize("table", BY_METHOD)
def test_methods_come_in_the_order_given(table):
    names = ("mine", *reversed(METHODS))
    shown = [row[0] for row in table(make_comparison(names)).rows]
    assert [name for name in shown if name != CONSTANT] == list(names)


@pytest.mark.parametrize("table", [*BY_METHOD, pairs_table, trials_table])
def test_every_row_is_as_wide_as_its_headings(table):
    for results in (make_comparison(device_peak=10**9), make_comparison(timed=False, splits=("a", "b"), seeds=(1,))):
        made = table(results)
        assert {len(row) for row in made.rows} <= {len(made.columns)}


def test_a_constant_answer_has_a_correlation_of_0():
    quality = {"matthews": Estimate.of((0.41, 0.43)), "accuracy": Estimate.of((0.8, 0.8))}
    results = with_metrics(make_comparison(), ["matthews", "accuracy"], quality)
    matthews = column(main_table(results), "Matthews correlation")
    assert matthews[CONSTANT] == "0.000"
    assert matthews["lora"] == "0.420 ± 0.014"
    assert column(quality_table(results), "accuracy, %")[CONSTANT] == "50.9"


def test_the_majority_rate_is_not_taken_for_a_constant_answers_f1():
    quality = {"accuracy": Estimate.of((0.8, 0.8)), "f1": Estimate.of((0.85, 0.87))}
    table = quality_table(with_metrics(make_comparison(), ["accuracy", "f1"], quality))
    assert column(table, "accuracy, %")[CONSTANT] == "50.9"
    assert column(table, "F1, %") == {CONSTANT: NONE, **dict.fromkeys(METHODS, "86.0 ± 1.4")}


def test_one_metric_needs_no_second_table():
    assert quality_table(make_comparison()).rows == ()


def test_costs_are_those_of_the_method():
    table = methods_table(make_comparison())
    assert column(table, "parameters") == {name: "20.9 M" if "prune" in name else "22.7 M" for name in METHODS}
    assert column(table, "trained")["prune-lora"] == "268.4 k (1.3 %)"
    assert column(table, "trained")["full"] == "22.7 M (100 %)"
    assert column(table, "MACs, 128 tokens")["prune-lora"] == "1.18 G"
    assert column(table, "on disk")["full"] == "90.9 MB"


def test_times_stand_over_full_fine_tuning_with_their_quartiles():
    results = make_comparison()
    changed = results.methods[2].model_copy(update={"step_to_full": Spread(median=0.5, q25=0.48, q75=0.53)})
    results = results.model_copy(update={"methods": (*results.methods[:2], changed)})
    assert column(training_table(results), "of full's")["prune-lora"] == "50 % (48\N{EN DASH}53)"
    assert column(main_table(results), "training step, of full")["prune-lora"] == "50 %"


def test_inference_in_the_main_table_is_at_the_largest_size():
    results = make_comparison()
    assert column(main_table(results), "inference, of dense, batch 32, 128 tokens")["prune-lora"] == "82 %"
    assert column(latency_table(results), "batch 1, 32 tokens")["prune-lora"].startswith("5.67 ms, 93 % (")
    assert column(latency_table(results), "batch 32, 128 tokens")["prune-lora"].startswith("424 ms, 82 % (")


def test_what_was_not_timed_is_a_dash():
    results = make_comparison(timed=False)
    assert set(column(main_table(results), "training step, of full").values()) == {NONE}
    assert not any("inference" in heading for heading in main_table(results).columns)
    assert set(column(training_table(results), "time of a step").values()) == {NONE}
    assert latency_table(results).rows == ()


def test_memory_of_a_step_is_the_sum_of_its_parts_and_the_device_has_its_own_column():
    own = make_comparison().methods[0].memory
    table = memory_table(make_comparison(device_peak=1_234_000_000))
    total = own.weights + own.gradients + own.optimizer + own.saved
    assert column(table, "training step")["full"] == f"{total / 1e9:.2f} GB"
    assert column(table, "gradients and optimiser")["full"] == "272.6 MB"
    assert column(table, "inference")["full"] == f"{own.inference / 1e9:.2f} GB"
    assert column(table, "device's own peak")["lora"] == "1.23 GB"
    assert "device's own peak" not in memory_table(make_comparison()).columns


def test_pairs_show_the_difference_with_its_test():
    results = make_comparison()
    table = pairs_table(results)
    assert len(table.rows) == 10
    significant = column(table, "significant")
    assert significant["prune-lora against lora"] == "no"
    assert significant["random-prune-lora against prune-lora"] == "yes"
    assert column(table, "difference")["prune-lora against lora"] == "\N{MINUS SIGN}0.3"
    assert column(table, "95 % interval")["prune-lora against lora"] == "\N{MINUS SIGN}1.5 to +0.8"
    assert column(table, "by seed")["lora against full"].split() == [
        f"\N{MINUS SIGN}{one}" for one in ("0.7", "0.5", "0.2")
    ]


def test_pairs_say_on_which_rows_where_there_are_several_kinds():
    first = [row[0] for row in pairs_table(make_comparison(METHODS[:2], splits=("matched", "mismatched"))).rows]
    assert first == ["lora against full, matched", "lora against full, mismatched"]


def test_a_pair_turned_round_is_the_same_test_seen_from_the_other_side():
    results = make_comparison()
    found, turned = (pair_of(results, *names, "test") for names in (("lora", "full"), ("full", "lora")))
    assert (turned.first, turned.second) == ("full", "lora")
    assert turned.difference == -found.difference
    assert (turned.low, turned.high) == (-found.high, -found.low)
    assert turned.by_seed == tuple(-one for one in found.by_seed)
    assert turned.p_value == found.p_value
    assert pair_of(results, "full", "nobody", "test") is None


def test_every_learning_rate_is_shown_with_its_metric_beside_the_chosen_one():
    results = make_comparison()
    diverged = results.methods[0].model_copy(update={"tried": {**results.methods[0].tried, "0.1": None}})
    table = training_table(results.model_copy(update={"methods": (diverged, *results.methods[1:])}))
    assert column(table, "learning rate") == {"full": "5e-5", **dict.fromkeys(METHODS[1:], "0.001")}
    tried = column(table, "tried: accuracy, %, validation rows")
    assert tried["full"] == "2.5e-5: 87.1; 5e-5: 88.4; 0.0001: 88.0; 0.1: diverged"
    assert tried["lora"] == "0.0005: 86.9; 0.001: 88.1; 0.002: 87.2"


def test_every_training_has_its_row():
    results = make_comparison()
    rows = trials_table(results).rows[1:]
    assert len(rows) == len(results.trials) == 25
    assert [row[0] for row in rows] == [trial.method for trial in results.trials]
    assert rows[1][:5] == ("full", "5e-5", "0", "88.4", "89.2")


def test_csv_holds_every_number_unrounded():
    results = make_comparison(device_peak=1_500_000_000)
    rows = list(csv.DictReader(io.StringIO(to_csv(results))))
    assert [row["method"] for row in rows] == list(METHODS)
    for row, method in zip(rows, results.methods, strict=True):
        quality = method.quality["test"]["accuracy"]
        latency = method.latencies[-1]
        for name, value in {
            "test_accuracy_mean": quality.mean, "test_accuracy_sd": quality.sd, "test_majority_rate": MAJORITY,
            "learning_rate": method.learning_rate, "seeds": 3, "parameters": method.parameters,
            "trained_parameters": method.trained, "disk_bytes": method.disk_bytes, "macs": method.macs,
            "heads": method.heads[0], "heads_of": method.heads[1], "step_ms": method.step_ms,
            "step_to_full_median": method.step_to_full.median, "step_to_full_q75": method.step_to_full.q75,
            "step_to_lora_median": method.step_to_lora.median,
            "training_memory_bytes": method.memory.training, "saved_memory_bytes": method.memory.saved,
            "device_peak_memory_bytes": method.memory.device_peak, "train_seconds": method.train_seconds,
            "inference_memory_bytes": method.memory.inference, "memory_step_rows": 32, "memory_tokens": 128,
            "latency_batch32_tokens128_ms": latency.milliseconds,
            "latency_batch32_tokens128_to_dense_median": latency.to_dense.median,
            "latency_batch32_tokens128_to_dense_q25": latency.to_dense.q25,
        }.items():  # fmt: skip
            assert float(row[name]) == value, name


def test_csv_leaves_empty_what_is_not_known():
    rows = list(csv.DictReader(io.StringIO(to_csv(make_comparison(timed=False, seeds=(0,))))))
    assert {row[name] for row in rows for name in ("step_ms", "step_to_full_median", "test_accuracy_sd")} == {""}
    assert {row["device_peak_memory_bytes"] for row in rows} == {""}


def test_csv_keeps_a_name_with_commas_and_quotes():
    results = make_comparison(('mine, "best"', "full"))
    assert next(csv.DictReader(io.StringIO(to_csv(results))))["method"] == 'mine, "best"'


def test_costs_beside_full_and_lora_are_ratios_of_the_methods_numbers():
    results = make_comparison()
    own, full, lora = (results.method(name) for name in ("prune-lora", "full", "lora"))
    table = beside_table(results)
    assert len(table.rows) == 2 * 3
    for other in (full, lora):
        row = f"prune-lora, of {other.name}"
        assert column(table, "training memory")[row] == f"{100 * own.memory.training / other.memory.training:.0f} %"
        assert column(table, "all stages")[row] == f"{100 * own.train_seconds / other.train_seconds:.0f} %"
    assert column(table, "training step")["prune-lora, of lora"] == "86 %"
    assert beside_table(make_comparison(("prune-lora",))).rows == ()


def test_the_time_beside_lora_is_the_ratio_taken_within_rounds_or_is_not_shown():
    results = make_comparison(("lora", "prune-lora"))
    lora, own = results.methods
    for ratio, shown in ((Spread(0.7, 0.6, 0.8), "70 %"), (None, NONE)):
        changed = results.model_copy(update={"methods": (lora, own.model_copy(update={"step_to_lora": ratio}))})
        assert column(beside_table(changed), "training step")["prune-lora, of lora"] == shown


def test_rows_and_tokens_that_results_do_not_record_are_not_shown():
    results = make_comparison()
    memory = results.methods[0].memory.model_copy(update={"step_rows": None, "tokens": None})
    methods = tuple(method.model_copy(update={"memory": memory}) for method in results.methods)
    assert "rows a step" not in memory_table(results.model_copy(update={"methods": methods})).columns
    assert column(memory_table(results), "rows a step")["full"] == "32"


def test_p_values_are_adjusted_for_the_number_of_pairs():
    differences = {("a", "b", "0"): Difference((0.02, 0.021, 0.019), 0.0005, 900)}
    (alone,) = pairs_of(differences, "accuracy")
    differences |= {("a", "b", str(split)): Difference((0.001, -0.001, 0.0), 0.01, 900) for split in range(1, 10)}
    among = pairs_of(differences, "accuracy")
    assert alone.p_holm == alone.p_value == among[0].p_value
    assert among[0].p_holm == pytest.approx(10 * alone.p_value)
    assert alone.told_apart
    assert not any(pair.told_apart for pair in among[1:])


def test_of_one_seed_a_difference_is_of_the_rows_alone():
    (pair,) = pairs_of({("lora", "full", "test"): Difference((0.05,), 0.01, 900)}, "accuracy")
    assert pair.told_apart
    assert pair.rows_alone
    results = make_comparison(("full", "lora"), seeds=(0,), pairs=(pair,))
    assert column(pairs_table(results), "significant") == {"lora against full": "of rows alone"}
