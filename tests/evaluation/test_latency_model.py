import copy
import dataclasses
import datetime
import json
from itertools import cycle

import numpy as np
import pytest
import torch
from tiny import HEADS, LAYERS, NEURONS, random_plan, tiny_model
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig

from prunelora.errors import PlanError, UnsupportedModelError
from prunelora.evaluation import latency_cache, latency_sweep
from prunelora.evaluation.feasibility import _random_model
from prunelora.evaluation.latency_cache import cache_folder, cache_key, latency_model_for
from prunelora.evaluation.latency_cuts import Cut, cut_copy, cuts, plan_of
from prunelora.evaluation.latency_sweep import measure_latency_model
from prunelora.models.anatomy import dissect
from prunelora.models.architecture import Architecture
from prunelora.models.families import FAMILIES
from prunelora.models.loading import load_pretrained, task_class
from prunelora.planning.latency_model import LatencyModel, LatencyPoint, LatencySettings
from prunelora.pruning.surgery import prune_

ARCHITECTURE = Architecture("bert", hidden_size=24, head_dim=6, num_heads=(4,) * 3, num_neurons=(64,) * 3)
SETTINGS = LatencySettings(tokens=8, threads=1)
NOW = datetime.datetime(2026, 11, 30, tzinfo=datetime.UTC)


# Made-up points -------------------------------------------------------------------------------------------------------


def of_layer(heads, neurons):
    """Milliseconds of a layer; the first head and the first neurons cost more than those after them."""
    return (heads and 0.5 + 0.25 * heads) + (neurons and 0.25 + neurons / 32)


def made_up(time=lambda heads, neurons: 2 + 3 * of_layer(heads, neurons), shapes=None):
    points = tuple(
        LatencyPoint(heads=heads, neurons=neurons, ms=time(heads, neurons), q25_ms=1, q75_ms=9)
        for heads, neurons in (shapes or cuts(ARCHITECTURE))
    )
    return LatencyModel(architecture=ARCHITECTURE, settings=SETTINGS, points=points, measured_at=NOW)


def left(heads, neurons):
    return dataclasses.replace(ARCHITECTURE, num_heads=tuple(heads), num_neurons=tuple(neurons))


def test_points_hold_nothing_the_least_and_all_of_heads_and_of_neurons():
    shapes = cuts(ARCHITECTURE)
    assert shapes[0] == (4, 64)
    assert len(set(shapes)) == len(shapes)
    assert {(0, 64), (1, 64), (4, 0), (4, 8), (0, 0)} <= set(shapes)
    assert [neurons for _, neurons in shapes if neurons % 8] == []
    assert set(cuts(ARCHITECTURE, "onnxruntime")) < set(shapes)
    for engine in ("torch", "onnxruntime"):
        base = dataclasses.replace(ARCHITECTURE, num_heads=(12,) * 3, num_neurons=(3072,) * 3)
        assert {(12, 3072), (0, 3072), (1, 3072), (6, 3072), (12, 0), (12, 8), (0, 0)} <= set(cuts(base, engine))


def test_layers_of_attention_alone_cost_no_neurons():
    """An encoder-decoder's two kinds of blocks: three with 64 neurons, two with none to keep."""
    base = dataclasses.replace(ARCHITECTURE, family="bart", num_heads=(4,) * 5, num_neurons=(64, 64, 0, 64, 0))
    points = tuple(
        LatencyPoint(heads=heads, neurons=neurons, ms=2 + 5 * heads + 3 * neurons / 32, q25_ms=1, q75_ms=99)
        for heads, neurons in cuts(base)
    )
    model = LatencyModel(architecture=base, settings=SETTINGS, points=points, measured_at=NOW)
    table = model.table()
    assert [len(one) for one in table.neurons] == [65, 65, 1, 65, 1]
    assert table.whole == pytest.approx(2 + 5 * 4 + 3 * 2)
    half = dataclasses.replace(base, num_heads=(2,) * 5, num_neurons=(32, 32, 0, 32, 0))
    assert model.predict(half) == pytest.approx(2 + 5 * 2 + 3)
    assert plan_of(base, Cut(2, 32)).architecture == half
    with pytest.raises(PlanError, match="whose layers are alike"):
        cuts(dataclasses.replace(base, num_neurons=(64, 64, 0, 32, 0)))
    with pytest.raises(PlanError, match="whose layers are alike"):
        cuts(dataclasses.replace(base, family="bert"))


def test_the_table_reproduces_the_points():
    model = made_up()
    table = model.table()
    assert table.architecture == ARCHITECTURE
    assert table.unit == "ms"
    assert [table.cost([p.heads] * 3, [p.neurons] * 3) for p in model.points] == pytest.approx(
        [p.ms for p in model.points]
    )
    assert table.fixed == pytest.approx(2)
    assert table.whole == pytest.approx(model.dense_ms)


def test_between_points_costs_are_linear_and_the_step_from_nothing_is_kept():
    table = made_up().table()
    assert table.heads[0] == pytest.approx([0, 0.75, 1, 1.25, 1.5])
    assert table.neurons[2] == pytest.approx([0, *(n / 8 * 0.5 for n in range(1, 8)), *(0.25 + np.arange(8, 65) / 32)])


@pytest.mark.parametrize("seed", range(5))
def test_more_never_costs_less_however_noisy_the_points_are(seed):
    noise = np.random.default_rng(seed)
    model = made_up(lambda heads, neurons: (1 + 3 * of_layer(heads, neurons)) * noise.uniform(0.3, 1.7))
    table = model.table()
    assert table.fixed >= 0
    for costs in (*table.heads, *table.neurons):
        assert costs[0] == 0
        assert (np.diff(costs) >= 0).all()
    assert table.whole == pytest.approx(model.dense_ms, rel=1e-4)


def test_the_prediction_of_uneven_layers_is_the_sum_over_them():
    heads, neurons = (4, 0, 1), (0, 64, 8)
    found = made_up().predict(left(heads, neurons))
    assert found == pytest.approx(2 + sum(map(of_layer, heads, neurons)))


@pytest.mark.parametrize(
    "other",
    [
        left((5, 4, 4), (64,) * 3),
        left((4,) * 3, (64, 72, 64)),
        left((4,) * 2, (64,) * 2),
        dataclasses.replace(ARCHITECTURE, hidden_size=48),
        dataclasses.replace(ARCHITECTURE, queries_per_head=2),
        dataclasses.replace(ARCHITECTURE, gated=True),
        dataclasses.replace(ARCHITECTURE, position_projections=2),
        dataclasses.replace(ARCHITECTURE, repeats=2),
    ],
)
def test_what_cannot_be_cut_from_the_measured_model_is_not_predicted(other):
    with pytest.raises(PlanError, match="cannot be cut from it"):
        made_up().predict(other)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(4, 64), (0, 64)], "neurons are measured at"),
        ([(4, 64), (4, 0)], "heads are measured at"),
        ([(0, 64), (4, 0)], "expected the dense model"),
        ([(4, 64), (0, 0), (0, 0)], "no shape twice"),
        ([(4, 64), (0, 0), (5, 64)], "none above"),
    ],
)
def test_points_that_make_no_table_are_refused(shapes, message):
    with pytest.raises(PlanError, match=message):
        made_up(shapes=shapes)


def test_json_gives_the_same_model_again(tmp_path):
    model = made_up()
    model.save(tmp_path / "latency.json")
    assert LatencyModel.load(tmp_path / "latency.json") == model
    assert json.loads((tmp_path / "latency.json").read_text())["format"] == "prunelora-latency-1"


@pytest.mark.parametrize("change", [{"format": "prunelora-latency-0"}, {"speed": 1}, {"points": []}])
def test_a_file_of_another_layout_is_an_error_that_names_it(tmp_path, change):
    path = tmp_path / "latency.json"
    path.write_text(json.dumps(made_up().model_dump(mode="json") | change))
    with pytest.raises(PlanError, match=rf"latency\.json: .*{next(iter(change))}"):
        LatencyModel.load(path)
    with pytest.raises(PlanError, match=r"none\.json: cannot be read"):
        LatencyModel.load(tmp_path / "none.json")


# Measuring, by a clock that only forward passes move ------------------------------------------------------------------


class Clock:
    """A forward pass takes what its layers hold, and the more the later it is."""

    def __init__(self):
        self.now = 0.0
        self.passes = 0

    def __call__(self):
        return self.now

    def watch(self, model):
        def passing(module, *_):
            self.passes += 1
            self.now += self.of(dissect(module).architecture) / 1000

        model.register_forward_pre_hook(passing)
        return model

    @staticmethod
    def of(architecture):
        return 2 + sum(map(of_layer, architecture.num_heads, architecture.num_neurons))


def measured(model, clock, settings=SETTINGS, **options):
    return measure_latency_model(model, settings, **{"repeats": 3, "warmup": 1, "clock": clock} | options)


def test_uneven_cuts_of_every_family_take_what_was_predicted(family):
    clock = Clock()
    model = clock.watch(tiny_model(family))
    found = measured(model, clock)
    assert found.rounds == 3
    assert clock.passes == 4 * (len(found.points) + 2)  # the dense model three times a round
    neurons = found.architecture.num_neurons[0]
    assert {(0, neurons), (HEADS, 0), (0, 0)} <= {(point.heads, point.neurons) for point in found.points}
    assert found.of_model == latency_sweep.describe_model(model)
    for heads, neurons in [((4, 1, 0), (20, 0, 8)), ((2, 3, 4), (16, 8, 12))]:
        # Over and over, where there are more layers; some of an encoder-decoder's have no neurons to begin with.
        of_heads = tuple(count for count, _ in zip(cycle(heads), found.architecture.num_heads, strict=False))
        of_neurons = tuple(map(min, cycle(neurons), found.architecture.num_neurons))
        architecture = dataclasses.replace(found.architecture, num_heads=of_heads, num_neurons=of_neurons)
        assert found.predict(architecture) == pytest.approx(Clock.of(architecture))


def test_drift_of_the_machine_cancels_against_the_dense_model():
    clock = Clock()
    model = tiny_model()
    of_round = len(cuts(dissect(model).architecture)) + 2

    def passing(module, *_):
        slower = 1 + clock.passes // of_round
        clock.passes += 1
        clock.now += slower * clock.of(dissect(module).architecture) / 1000

    model.register_forward_pre_hook(passing)
    found = measured(model, clock, warmup=0, repeats=5)
    assert found.dense_ms == pytest.approx(3 * Clock.of(found.architecture))
    for point in found.points[1:]:
        alike = 3 * (2 + LAYERS * of_layer(point.heads, point.neurons))
        assert (point.q25_ms, point.ms, point.q75_ms) == pytest.approx((alike,) * 3)


def test_copies_that_do_not_fit_at_once_are_timed_in_several_runs(monkeypatch):
    held = []
    real = latency_sweep.interleaved

    def spy(calls, **options):
        held.append(list(calls))
        return real(calls, **options)

    monkeypatch.setattr(latency_sweep, "interleaved", spy)
    clock = Clock()
    model = clock.watch(tiny_model())
    at_once = measured(model, clock)
    assert len(held) == 1
    monkeypatch.setattr(latency_sweep, "MOST_BYTES", 100_000)
    held.clear()
    in_runs = measured(model, clock)
    assert len(held) > 2
    assert {names[0] for names in held} == {"dense 0"}
    assert sum(not name.startswith("dense") for names in held for name in names) == len(in_runs.points) - 1
    for first, second in zip(at_once.points, in_runs.points, strict=True):
        assert first.model_dump() == pytest.approx(second.model_dump())


def test_copies_share_what_is_outside_the_blocks_and_nothing_within(family):
    model = tiny_model(family)
    copied = cut_copy(model, plan_of(dissect(model).architecture, Cut(1, NEURONS)))
    blocks = {name for block in dissect(model).blocks for name, _ in block.module.named_parameters(block.prefix)}
    before, after = dict(model.named_parameters()), dict(copied.named_parameters())
    assert len(before) > len(blocks) > 0
    assert before.keys() == after.keys()
    for name in before:
        assert (before[name] is after[name]) == (name not in blocks)
        assert (before[name].data_ptr() == after[name].data_ptr()) == (name not in blocks)


def test_the_model_is_left_as_it_was_found():
    clock = Clock()
    model = tiny_model().train()
    weights = copy.deepcopy(model.state_dict())
    clock.watch(model)
    modes = set()
    model.register_forward_pre_hook(lambda module, _: modes.add((module.training, torch.get_num_threads())))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        measured(model, clock, LatencySettings(tokens=8, threads=1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert modes == {(False, 1)}
    assert model.training
    assert dissect(model).architecture.num_heads == (HEADS,) * LAYERS
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, weights[name])


def test_a_cut_model_is_refused():
    model = tiny_model()
    prune_(model, random_plan(model))
    with pytest.raises(PlanError, match="Load the base model"):
        measure_latency_model(model, SETTINGS)


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(UnsupportedModelError, match=r"tokens=41.*positions for 40"):
        measure_latency_model(tiny_model(), LatencySettings(tokens=41))


def test_onnxruntime_times_what_was_exported(monkeypatch):
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    # Every one is an export, and takes seconds.
    monkeypatch.setattr(latency_sweep, "cuts", lambda _, engine: [Cut(1, 8), Cut(0, 0)])
    torch.manual_seed(0)
    config = BertConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=1, intermediate_size=8, vocab_size=20)
    model = AutoModelForSequenceClassification.from_config(config)
    run = []
    real = latency_sweep.onnx_delivery.run

    def spy(opened, inputs):
        run.append((opened, tuple(inputs["input_ids"].shape)))
        return real(opened, inputs)

    monkeypatch.setattr(latency_sweep.onnx_delivery, "run", spy)
    told = []
    settings = LatencySettings(engine="onnxruntime", batch_size=2, tokens=8, threads=1)
    found = measure_latency_model(model, settings, repeats=2, warmup=1, tell=told.append)
    timed = [opened for opened, shape in run if shape == (2, 8)]
    assert len(timed) == 2 * 3, run
    assert {opened.get_session_options().intra_op_num_threads for opened in timed} == {1}
    assert [(point.heads, point.neurons) for point in found.points] == [(1, 8), (0, 0)]
    assert told[1:] == [
        "exporting it with 1 heads and 8 neurons a layer ...",
        "exporting it with 0 heads and 0 neurons a layer ...",
    ]
    assert found.settings == settings
    assert found.machine["device"] == "cpu"


# The cache ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def measurings(monkeypatch, tmp_path):
    """Every measuring that was asked for; nothing is timed, and a forward pass takes 4 ms."""
    monkeypatch.setenv("PRUNELORA_CACHE", str(tmp_path))
    asked = []

    def measure(model, settings, **_):
        asked.append(settings)
        now = datetime.datetime.now(datetime.UTC)
        return made_up().model_copy(update={"settings": settings, "measured_at": now})

    monkeypatch.setattr(latency_cache, "measure_latency_model", measure)
    monkeypatch.setattr(latency_cache, "reference_ms", lambda *_: 4.0)
    return asked


def test_what_is_in_the_cache_is_not_measured_again(tmp_path, measurings):
    model = tiny_model()
    first = latency_model_for(model, SETTINGS)
    assert latency_model_for(model, SETTINGS) == first
    assert len(measurings) == 1
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path / "latency"]


@pytest.mark.parametrize(("now", "again"), [(4.0, False), (5.0, False), (3.2, False), (6.0, True), (2.5, True)])
def test_times_are_measured_again_where_the_machines_speed_has_changed(measurings, monkeypatch, now, again):
    model, told = tiny_model(), []
    latency_model_for(model, SETTINGS)
    monkeypatch.setattr(latency_cache, "reference_ms", lambda *_: now)
    latency_model_for(model, SETTINGS, tell=told.append)
    assert len(measurings) == 1 + again
    assert told[0].startswith(
        f"A forward pass of the dense model takes {now:g} ms and took 4 ms" if again else "latency of torch: measured"
    )


def test_how_old_times_are_is_told_and_they_are_measured_again_when_asked(tmp_path, measurings):
    model, told = tiny_model(), []
    found = latency_model_for(model, SETTINGS)
    old = found.model_copy(update={"measured_at": found.measured_at - datetime.timedelta(days=3, hours=2)})
    old.save(next(tmp_path.rglob("*.json")))
    assert latency_model_for(model, SETTINGS, tell=told.append) == old
    assert "measured 3 days ago" in told[0]
    again = latency_model_for(model, SETTINGS, remeasure=True)
    assert len(measurings) == 2
    assert again.measured_at > old.measured_at
    assert latency_model_for(model, SETTINGS) == again


def test_times_of_an_unknown_age_are_measured_again(tmp_path, measurings):
    model = tiny_model()
    content = latency_model_for(model, SETTINGS).model_dump(mode="json")
    next(tmp_path.rglob("*.json")).write_text(json.dumps(content | {"measured_at": None}))
    latency_model_for(model, SETTINGS)
    assert len(measurings) == 2


def test_a_measurement_says_when_it_was(make_tiny):
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=1)
    found = measure_latency_model(make_tiny(), SETTINGS, repeats=2, warmup=1)
    assert before <= found.measured_at <= datetime.datetime.now(datetime.UTC)
    assert LatencyModel.model_validate_json(found.model_dump_json()) == found
    assert latency_sweep.reference_ms(make_tiny(), SETTINGS) > 0


def test_without_a_number_of_threads_torchs_own_is_in_the_key(measurings):
    model = tiny_model()
    latency_model_for(model, LatencySettings(tokens=8))
    found = latency_model_for(model, LatencySettings(tokens=8, threads=torch.get_num_threads()))
    assert found.settings.threads == torch.get_num_threads()
    assert len(measurings) == 1


@pytest.mark.parametrize("change", [{"engine": "onnxruntime"}, {"batch_size": 2}, {"tokens": 9}, {"threads": 2}])
def test_other_settings_are_measured_on_their_own(measurings, change):
    model = tiny_model()
    latency_model_for(model, SETTINGS)
    found = latency_model_for(model, SETTINGS.model_copy(update=change))
    assert len(measurings) == 2
    assert found.settings == SETTINGS.model_copy(update=change)


def test_another_model_or_machine_has_another_key(monkeypatch):
    model = tiny_model()
    keys = [cache_key(one, SETTINGS) for one in (model, tiny_model(seed=1), tiny_model(num_labels=2))]
    assert len(set(keys)) == 1
    keys += [
        cache_key(one, SETTINGS)
        for one in (tiny_model(dtype=torch.float32), tiny_model(attention="eager"), tiny_model("roberta"))
    ]
    for change in ({"cpu": "another"}, {"cores": 99}, {"device": "cuda"}, {"versions": {"torch": "9"}}):
        with monkeypatch.context() as patch:
            real = latency_cache.describe_machine
            patch.setattr(latency_cache, "describe_machine", lambda *a, c=change, real=real: real(*a) | c)
            keys.append(cache_key(model, SETTINGS))
    assert len(set(keys)) == len(keys) - 2


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("bert", {"hidden_act": "relu"}),
        ("bert", {"chunk_size_feed_forward": 4}),
        ("gpt2", {"activation_function": "relu"}),
        ("gpt2", {"vocab_size": 60}),
        ("modernbert", {"hidden_activation": "relu"}),
        ("modernbert", {"local_attention": 8}),
        ("mistral", {"sliding_window": 4}),
        ("t5", {"feed_forward_proj": "gated-silu"}),
        # As many patches, of another size.
        ("vit", {"image_size": 24, "patch_size": 8}),
    ],
)
def test_a_setting_that_time_depends_on_makes_another_key(name, change):
    model, other = tiny_model(name), tiny_model(name, **change)
    assert dissect(model).architecture == dissect(other).architecture
    assert cache_key(model, SETTINGS) != cache_key(other, SETTINGS)


def test_what_no_time_depends_on_is_not_in_the_key():
    other = tiny_model(
        hidden_dropout_prob=0.3,
        attention_probs_dropout_prob=0.3,
        classifier_dropout=0.5,
        initializer_range=0.5,
        pad_token_id=7,
        num_labels=2,
        problem_type="multi_label_classification",
    )
    other.config.architectures = ["Another"]
    other.config.name_or_path = "another"
    assert cache_key(other, SETTINGS) == cache_key(tiny_model(), SETTINGS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_check_finds_what_a_run_measured(tmp_path, family, dtype):
    """Of the same folder: a model of its configuration alone, and the one that is loaded for a task."""
    bare = {"pad_token_id": None} if FAMILIES[family].generates else {}
    tiny_model(family, dtype=dtype, **bare).save_pretrained(tmp_path)
    kind = "single_label_classification"
    loaded = load_pretrained(tmp_path, label_names=("a", "b", "c", "d"), problem_type=kind)
    loaded.config.name_or_path = "as a recipe calls it"
    config = AutoConfig.from_pretrained(tmp_path)
    random = _random_model(task_class(config, kind, tmp_path), config)
    assert cache_key(loaded, SETTINGS) == cache_key(random, SETTINGS)


def test_an_image_makes_as_many_tokens_as_the_model_has_it(measurings):
    model, tokens = tiny_model("vit"), 1 + 9
    for asked in (8, 128, tokens):
        found = latency_model_for(model, LatencySettings(tokens=asked, threads=1))
        assert found.settings.tokens == tokens
    assert len(measurings) == 1
    clock = Clock()
    assert measured(clock.watch(model), clock, LatencySettings(tokens=128)).settings.tokens == tokens


@pytest.mark.parametrize("text", ["", "{", '{"format": "prunelora-latency-0"}'])
def test_a_broken_file_in_the_cache_is_measured_again_and_replaced(tmp_path, measurings, text):
    model = tiny_model()
    first = latency_model_for(model, SETTINGS)
    next(tmp_path.rglob("*.json")).write_text(text)
    told = []
    assert latency_model_for(model, SETTINGS, tell=told.append).points == first.points
    assert len(measurings) == 2
    assert "Measuring again" in told[0]
    latency_model_for(model, SETTINGS)
    assert len(measurings) == 2


def test_a_cache_that_cannot_be_written_is_said_and_does_no_harm(tmp_path, measurings, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PRUNELORA_CACHE", str(tmp_path / "file"))
    told = []
    found = latency_model_for(tiny_model(), SETTINGS, tell=told.append)
    assert found.points
    assert "cannot be saved" in told[-1]


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    for name in ("PRUNELORA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "prunelora"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "prunelora"
    monkeypatch.setenv("PRUNELORA_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
