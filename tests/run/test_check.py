"""What check refuses is what a run refuses before its first stage; and what it foresees of a run."""

import pytest
from small_run import make_data, make_model

from prunelora.data import tokens
from prunelora.data.embedded import embedded_model_path
from prunelora.errors import MissingExtraError, PruneLoraError
from prunelora.evaluation.extrapolation import Pieces
from prunelora.evaluation.timing import Timing
from prunelora.run.check import check_run, notes, read_task
from prunelora.run.execute import execute
from prunelora.run.recipe import load_recipe
from prunelora.stages.measure import MeasureStage


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, minilm_path):
    folder = tmp_path_factory.mktemp("inputs")
    return {"model": str(make_model(folder / "model", minilm_path)), "data": str(make_data(folder / "reviews.csv"))}


def long_texts(folder):
    path = folder / "long.csv"
    path.write_text("text,label\n" + "".join(f"{'word ' * 90}{i},{i % 2}\n" for i in range(40)))
    return str(path)


def no_weights(folder):
    path = make_model(folder / "empty", str(embedded_model_path()))
    (path / "model.safetensors").unlink()
    return str(path)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda folder: {"data": str(folder / "nowhere.csv")},
        lambda folder: {"data": long_texts(folder)},
        lambda folder: {"label": "verdict"},
        lambda folder: {"model": no_weights(folder)},
        lambda folder: {"keep_params": 0.01, "count": "all"},
        lambda folder: {"speedup": 1.5, "tokens": 128},
        lambda folder: {"keep_heads": 13},
    ],
)
def test_check_refuses_what_a_run_refuses_before_its_first_stage_and_says_the_same(inputs, tmp_path, wrong):
    recipe = load_recipe("cut-first").without_export().with_options(inputs | wrong(tmp_path))
    with pytest.raises(PruneLoraError) as of_check:
        check_run(recipe, latency=False, training=False)
    with pytest.raises(PruneLoraError) as of_run:
        execute(recipe, tmp_path / "run", until="plan", progress=False)
    assert type(of_check.value) is type(of_run.value)
    assert str(of_check.value) == str(of_run.value)


def test_check_says_before_any_work_that_a_package_is_missing(inputs, monkeypatch):
    def missing(*_):
        raise MissingExtraError("ONNX export", "onnx")

    monkeypatch.setattr("prunelora.delivery.onnx_packages.require_packages", missing)
    monkeypatch.setattr("prunelora.data.load.load_task", lambda _: pytest.fail("the data was read"))
    with pytest.raises(MissingExtraError, match="onnx"):
        check_run(load_recipe("tune-first").with_options(inputs))


def test_check_says_the_notes_that_a_run_says(inputs, tmp_path):
    recipe = load_recipe("cut-first").without_export().with_options(inputs)
    of_check, of_run = [], []
    check_run(recipe, latency=False, training=False, tell=of_check.append)
    execute(recipe.with_options({"rows": 8}), tmp_path / "run", until="score", tell=of_run.append)
    told = list(notes(recipe, read_task(recipe)))
    assert told
    assert of_check[: len(told)] == of_run[: len(told)] == told


def test_every_split_is_tokenised_once(inputs, monkeypatch):
    recipe = load_recipe("cut-first").without_export().with_options(inputs)
    tokenised = []
    encode = tokens.encode_rows
    monkeypatch.setattr(tokens, "encode_rows", lambda rows, *how: tokenised.append(len(rows)) or encode(rows, *how))
    found = check_run(recipe, latency=False, training=False)
    assert tokenised == [96, 12, 12]
    assert found.data["median_tokens"] > 0


def test_ten_times_the_epochs_take_ten_times_the_steps_and_evaluations(inputs, monkeypatch):
    second = Timing((1000.0,) * 3)
    monkeypatch.setattr(Pieces, "measure", lambda self, *_: self.timings.update(dict.fromkeys(self.calls, second)))
    recipe = load_recipe("cut-first").without_export().with_options(inputs)
    short, long = (
        {stage.stage: stage.seconds for stage in check_run(one, latency=False).run.stages}
        for one in (recipe.with_options({"epochs": epochs}) for epochs in (3, 30))
    )
    assert list(short) == list(long) == recipe.names
    # A second a step of 32 of the 96 rows, and a second for the 12 validation rows of 32, once an epoch.
    assert short["finetune"] == pytest.approx(3 * (3 + 12 / 32), rel=0.1)
    assert long["finetune"] == pytest.approx(30 * (3 + 12 / 32), rel=0.1)


def test_a_size_is_timed_for_its_rounds_or_its_seconds():
    stage = MeasureStage(repeats=15, warmup=3)
    assert stage.timed_rounds(0.01) == pytest.approx(18 * 0.01)
    assert stage.timed_rounds(0.5) == pytest.approx((2 + 8) * 0.5)
    assert stage.timed_rounds(10.0) == pytest.approx((1 + 5) * 10.0)
