"""The runner of the benchmarks, their measurements and pages, and their figures in the documentation."""

import json
import os
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as runner
from benchmarks import harness as shared
from benchmarks.forecast.benchmark import predicted, ratios
from benchmarks.forecast.benchmark import table as forecast_table
from benchmarks.harness import FOLDER, ROOT, Benchmark, Option, Piece, megabytes, read_results
from benchmarks.latency.benchmark import ENGINES, MOST_ERROR_PERCENT, SIZES
from benchmarks.startup.benchmark import ERRORS, commands, files
from benchmarks.training_step.benchmark import ALLOCATORS, HALF, REFERENCE, SELECTIVE, VARIANTS
from benchmarks.training_time.benchmark import METHODS, recipe_of, shares
from prunelora.errors import PlanError

NAMES = sorted(path.parent.name for path in FOLDER.glob("*/benchmark.py"))
MICRO = ("forecast", "importance", "latency", "repair_memory", "training_step", "training_time")


def text_of(*names):
    return " ".join((ROOT.joinpath(*names)).read_text(encoding="utf-8").split())


# The runner -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def made_up(monkeypatch):
    """A benchmark of two pieces, the first of which fails; the list holds what was done."""
    done = []

    def fail():
        raise PlanError("keep_macs=0.5 cannot be met")

    benchmark = Benchmark(
        measures="Nothing.",
        work=lambda settings: iter(
            [Piece("first", fail), Piece("second", lambda: done.append((settings.tasks, settings.rows)))]
        ),
        pages=lambda: done.append("pages") or [],
        options={"tasks": Option(("sst2", "rte"), "tasks", ("sst2", "rte")), "rows": Option(8, "rows")},
        alone=lambda settings, what: {"what": what, "rows": settings.rows},
    )
    monkeypatch.setattr(runner.importlib, "import_module", lambda _: SimpleNamespace(BENCHMARK=benchmark))
    return done


def test_a_piece_that_fails_does_not_stop_the_others(made_up, capsys):
    assert runner.main(["latency", "--tasks", "rte", "--rows", "4"]) == 1
    assert made_up == [(("rte",), 4), "pages"]
    assert "keep_macs=0.5" in capsys.readouterr().err


def test_work_is_only_listed_and_pages_only_written_if_asked_for(made_up, capsys):
    assert runner.main(["latency", "--list"]) == 0
    assert capsys.readouterr().out.split() == ["first", "second"]
    assert not made_up
    assert runner.main(["latency", "--page-only"]) == 0
    assert made_up == ["pages"]


def test_one_measurement_is_printed_as_json(made_up, capsys):
    assert runner.main(["latency", "--alone", "score", "--rows", "3"]) == 0
    assert json.loads(capsys.readouterr().out) == {"what": "score", "rows": 3}


def test_values_that_are_not_choices_and_unknown_names_are_refused(made_up, capsys):
    with pytest.raises(SystemExit):
        runner.main(["latency", "--tasks", "rte,sst3"])
    assert "sst3" in capsys.readouterr().err
    assert runner.main(["latenci"]) == runner.main([]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_has_a_description_and_a_line_in_the_readme(name):
    benchmark = runner.importlib.import_module(f"benchmarks.{name}.benchmark").BENCHMARK
    assert benchmark.measures
    assert f"`python -m benchmarks {name}`" in (FOLDER / "README.md").read_text(encoding="utf-8")
    runner.parse(name, benchmark, [])


@pytest.mark.parametrize("name", MICRO)
def test_micro_benchmarks_have_no_work_left_and_committed_pages(name, monkeypatch):
    benchmark = runner.importlib.import_module(f"benchmarks.{name}.benchmark").BENCHMARK
    assert list(benchmark.work(runner.parse(name, benchmark, []))) == []
    written = {}
    monkeypatch.setattr("prunelora.storage.write_text", lambda path, text: written.update({path: text}))
    (page,) = benchmark.pages()
    assert written[page] == page.read_text(encoding="utf-8")


def test_a_result_has_its_settings_and_the_machine_and_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "FOLDER", tmp_path)
    settings = Namespace(rows=8, again=False, list=False, page_only=False, alone=None)
    (piece,) = shared.measurement("importance", "importance", settings, lambda: {"found": 1})
    piece.run()
    result = read_results("importance")["importance"]
    assert (result["settings"], result["found"]) == ({"rows": 8}, 1)
    assert result["machine"]["cpu"]
    assert list(shared.measurement("importance", "importance", settings, dict)) == []
    settings.again = True
    assert len(list(shared.measurement("importance", "importance", settings, dict))) == 1


def test_variants_are_measured_in_fresh_processes_and_timed_in_turn(monkeypatch, tmp_path):
    asked = []

    def alone(name, settings, what, environment):
        asked.append((name, what, environment))
        return 100 * len(asked)

    monkeypatch.setattr(shared, "FOLDER", tmp_path)
    monkeypatch.setattr(shared, "in_fresh_process", alone)
    benchmark = shared.variants_benchmark(
        "x", "It.", lambda _, names: {name: lambda: None for name in names}, lambda _: {"a": "a", "b": "a"}, {},
        warmup=0, environments={"": {}, "other": {"X": "1"}}, facts=lambda settings, calls: {"names": list(calls)},
    )  # fmt: skip
    settings = Namespace(repeats=3, again=False)
    (piece,) = benchmark.work(settings)
    piece.run()
    result = read_results("x")["x"]
    assert asked == [("x", "a", {}), ("x", "a", {"X": "1"}), ("x", "b", {}), ("x", "b", {"X": "1"})]
    assert result["names"] == ["a", "b"]
    assert result["variants"]["b"]["peak_bytes_above_loaded_model"] == {"": 300, "other": 400}
    assert result["variants"]["a"]["time_to_reference"]["median"] == 1.0
    assert result["variants"]["b"]["time"]["repeats"] == 3
    assert benchmark.alone(settings, "a") >= 0


def test_a_fresh_process_gets_the_settings(monkeypatch):
    def run(command, env, **_):
        assert command[2:] == ["benchmarks", "latency", "--alone", "it", "--keep", "0.5,0.2", "--max-seconds", "3"]
        assert env == os.environ | {"X": "1"}
        return SimpleNamespace(stdout='noise\n{"a": 1}\n')

    monkeypatch.setattr(shared.subprocess, "run", run)
    settings = Namespace(keep=(0.5, 0.2), max_seconds=3, again=True, alone=None)
    assert shared.in_fresh_process("latency", settings, "it", {"X": "1"}) == {"a": 1}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's counters")
def test_peak_memory_is_above_what_was_held_before():
    size = 64 * 2**20
    assert size * 0.9 < shared.peak_memory(lambda: bytearray(os.urandom(1024)) * (size // 1024)) < 2 * size


# Measurements ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("size", SIZES)
def test_the_latency_model_predicts_models_that_were_cut(engine, size):
    result = read_results("latency")[f"{engine}-{size}"]
    assert (result["engine"], f"{result['batch_size']}x{result['tokens']}") == (engine, size)
    assert len(result["rows"]) == 12
    errors = [100 * (row["predicted_ratio"] / row["measured_ratio"]["median"] - 1) for row in result["rows"]]
    assert [row["error_percent"] for row in result["rows"]] == pytest.approx(errors)
    assert max(map(abs, errors)) == pytest.approx(result["worst_error_percent"])
    assert result["worst_error_percent"] <= MOST_ERROR_PERCENT


def test_predictions_are_averaged_and_compared_where_a_stage_is_large():
    def result(seconds, real):
        predictions = [
            {"seconds_of_check": 9, "stages": [{"stage": name, "seconds": value} for name, value in one.items()]}
            for one in seconds
        ]
        return {"recipe": "cut-first", "predictions": predictions, "real": real}

    one = result([{"score": 8, "plan": 9}, {"score": 12, "plan": 9}], {"score": 20, "plan": 1})
    assert predicted(one) == {"score": 10, "plan": 9}
    assert ratios(one) == {"all": pytest.approx(19 / 21), "score": 0.5}
    rounds = [result([{"score": n}, {"score": n}], {"score": 10}) for n in (8, 10, 14)]
    assert "| cut-first | score | 10.0 s | 1.00 (0.80 to 1.40) |" in forecast_table(rounds)


def made_up_round(task, lora, cut_early):
    seconds = {method: {"finetune": 50.0, "merge": 0.0} for method in METHODS}
    seconds |= {
        "lora": {"finetune": lora, "merge": 1.0},
        "cut-early": {"finetune-1": 20.0, "finetune": cut_early - 20.0},
    }
    return {"task": task, "seed": 0, "seconds": seconds}


def test_all_stages_count_and_ratios_are_taken_within_a_round():
    rounds = [made_up_round("sst2", 99.0, 80.0), made_up_round("mrpc", 199.0, 100.0), made_up_round("rte", 49.0, 60.0)]
    assert shares(rounds, "cut-early") == pytest.approx([0.8, 0.5, 1.2])


@pytest.mark.parametrize("method", METHODS)
def test_all_methods_train_for_as_many_epochs(method):
    recipe = recipe_of(method, "mrpc", 1)
    assert sum(tuning.epochs for tuning in recipe.tunings.values()) == pytest.approx(2)
    assert (recipe.seed, recipe.task.task) == (1, "mrpc")


def test_every_error_of_the_startup_benchmark_is_about_the_last_word():
    assert set(ERRORS) < set(commands())
    for name, arguments in ERRORS.items():
        *others, last = arguments.split()
        assert all(word in files() for word in others if word.endswith(".csv")), name
        assert (last in files()) == (name in ("wrong suffix", "bad recipe")), name


def test_the_committed_errors_took_at_most_twice_the_time_of_help():
    result = read_results("startup")["startup"]["commands"]
    assert set(result) == set(commands())
    assert [name for name in ERRORS if result[name]["time_to_help"]["median"] > 2] == []


# Documentation --------------------------------------------------------------------------------------------------------


def test_the_page_on_fine_tuning_has_the_figures_of_a_training_step():
    result = read_results("training_step")["training_step"]
    variants = result["variants"]
    assert list(variants) == list(VARIANTS)
    lines = (ROOT / "docs" / "finetuning.md").read_text(encoding="utf-8").splitlines()
    for name, one in variants.items():
        label = name.replace("half of the rows", "16 rows")
        (line,) = (line for line in lines if line.startswith(f"| {label} |"))
        peaks = [one["peak_bytes_above_loaded_model"][allocator] for allocator in ALLOCATORS]
        for count in (*filter(None, [result["counted_bytes"][name]]), *peaks):
            assert megabytes(count) in line
        assert f"{one['time_to_reference']['median']:.2f}" in line


def test_the_results_page_and_the_readme_have_the_memory_of_a_training_step():
    result = read_results("training_step")["training_step"]
    for name in (REFERENCE, HALF, f"cut, {SELECTIVE}"):
        counted, peak = result["counted_bytes"][name], result["variants"][name]["peak_bytes_above_loaded_model"]
        assert megabytes(counted) in text_of("README.md")
        assert megabytes(counted) in text_of("docs", "results.md")
        assert megabytes(peak[next(iter(ALLOCATORS))]) in text_of("docs", "results.md")


def test_the_results_page_has_the_time_of_a_training():
    rounds = list(read_results("training_time").values())
    for method in ("tune-first", "cut-early"):
        ratios = shares(rounds, method)
        assert f"{min(ratios):.1f} to {max(ratios):.1f} times" in text_of("docs", "results.md")


def test_no_result_names_a_folder_of_the_machine():
    for path in FOLDER.glob("*/results/**/*.json"):
        content = path.read_text(encoding="utf-8")
        assert "/work/" not in content, path
        assert '"/tmp/' not in content, path
