"""The committed results of the latency benchmark: what they must hold, and what is said of them."""

import itertools
import json

import pytest

from benchmarks import latency

FOLDER = latency.ROOT / "benchmarks" / "results" / "latency"
CASES = list(itertools.product(latency.ENGINES, latency.SIZES))


def result(engine, size):
    return json.loads((FOLDER / f"{engine}-{size}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("engine", "size"), CASES)
def test_every_engine_and_size_predicts_models_that_were_cut(engine, size):
    found = result(engine, size)
    assert (found["engine"], (found["batch_size"], found["tokens"])) == (engine, latency.size(size))
    assert {row["name"] for row in found["rows"]} == {
        f"keep {keep:g}, seed {seed}" for keep in latency.KEEP for seed in range(3)
    }
    errors = [100 * (row["predicted_ratio"] / row["measured_ratio"]["median"] - 1) for row in found["rows"]]
    assert [row["error_percent"] for row in found["rows"]] == pytest.approx(errors)
    assert max(map(abs, errors)) == pytest.approx(found["worst_error_percent"])
    assert found["worst_error_percent"] <= latency.MOST_ERROR_PERCENT


def test_the_readme_of_the_benchmarks_says_the_worst():
    worst = max(result(*case)["worst_error_percent"] for case in CASES)
    readme = (latency.ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert f"at most {worst:.1f} % off" in readme
