"""Repair: the remaining projections compensate for the cut as far as least squares can."""

import copy
import gc
import math
import tempfile
from contextlib import contextmanager

import pytest
import torch
from tiny import HEADS, HIDDEN, LAYERS, NEURONS, largest_difference, logits, random_plan, split, tiny_batch, tiny_model

import prunelora as pl
from prunelora.errors import PlanError, ScoreError, UnsupportedModelError
from prunelora.models.anatomy import dissect
from prunelora.planning.plan import Plan
from prunelora.pruning import hidden_states, repair
from prunelora.pruning.layer_inputs import InputRecorder
from prunelora.pruning.layers import layers_of
from prunelora.pruning.layerwise import run_layer, run_to_projection, run_with_activations
from prunelora.pruning.least_squares import DAMPINGS
from prunelora.pruning.repair import HELD_OUT_EVERY, repair_, repaired_weights
from prunelora.pruning.token_weights import FLOOR, token_weights

ENCODER_DECODERS = ("bart", "mbart", "t5")
FAMILIES = ("bert", "roberta", "distilbert", "electra")
BATCH = tiny_batch(40, 12)


def layer_inputs(anatomy, batch):
    """Inputs of every layer for one batch."""
    return InputRecorder(anatomy, [batch], most_bytes=0).of(0)


def cut(model, **kept):
    """The model and a copy of it without some heads or neurons, unrepaired."""
    lineage = dissect(model).lineage
    plan = Plan(base=lineage.base, heads=kept.get("heads", lineage.heads), neurons=kept.get("neurons", lineage.neurons))
    return pl.prune_(copy.deepcopy(model), plan)


def without_neurons(gone: int):
    return tuple(tuple(range(NEURONS - gone)) for _ in range(LAYERS))


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_run_one_by_one_give_the_models_output(family):
    model = tiny_model(family)
    anatomy = dissect(model)
    model_inputs = {name: value for name, value in BATCH.items() if name != "labels"}
    with torch.no_grad():
        inputs_of_layers = layer_inputs(anatomy, BATCH)
        hidden = inputs_of_layers[0].hidden
        for layer, inputs in zip(layers_of(anatomy), inputs_of_layers, strict=True):
            hidden = run_layer(layer, inputs, hidden)
        assert largest_difference(hidden, anatomy.base(**model_inputs).last_hidden_state) < 1e-12


@pytest.mark.parametrize("family", FAMILIES)
def test_copies_of_pruned_neurons_replace_them(family):
    """The last neurons are copies of the first ones, which can replace them exactly."""
    model = tiny_model(family)
    for block in dissect(model).blocks:
        up = block.part("up")
        with torch.no_grad():
            up.weight[-6:] = up.weight[:6]
            up.bias[-6:] = up.bias[:6]
    whole, pruned = logits(model, BATCH), cut(model, neurons=without_neurons(6))
    before = largest_difference(logits(pruned, BATCH), whole)
    done = repair_(pruned, model, [BATCH])
    after = largest_difference(logits(pruned, BATCH), whole)
    assert before > 0.1
    assert after < 0.01 * before
    assert all(one.error_after < 1e-4 for one in done.projections)


def weights_by_the_loss(model, name):
    """By the module's full name, row by row: from gradients that autograd keeps, an example's loss at a time."""
    found = torch.zeros(BATCH["input_ids"].shape, dtype=torch.float64)
    for row in range(len(found)):
        kept = []

        def keep(_, __, output, kept=kept):
            output.retain_grad()
            kept.append(output)

        handle = model.get_submodule(name).register_forward_hook(keep)
        model(**{key: value[row : row + 1] for key, value in BATCH.items()}).loss.backward()
        handle.remove()
        squares = kept[0].grad[0].square().sum(-1) * BATCH["attention_mask"][row]
        found[row] = FLOOR + (1 - FLOOR) * BATCH["attention_mask"][row].sum() * squares / squares.sum()
    model.zero_grad()
    return found


@pytest.mark.parametrize("weights", ["equal", "loss"])
@pytest.mark.parametrize("name", ["output", "down"])
def test_the_solution_is_that_of_a_least_squares_solver(name, weights):
    """An independent reference for the first block: the damping as extra rows of an ordinary problem."""
    model = tiny_model()
    heads = tuple(tuple(range(HEADS - 1)) for _ in range(LAYERS))
    pruned = cut(model, heads=heads, neurons=without_neurons(3))
    block, (inputs, *_) = dissect(pruned).blocks[0], layer_inputs(dissect(model), BATCH)
    number = ("output", "down").index(name)
    old = block.part(name).weight.detach().clone()
    done = repair_(pruned, model, [BATCH], weights=weights)
    damping = {found.name: found.damping for found in done.projections}[block.full_name(name)]
    with torch.no_grad():
        # What comes before a projection is repaired when it is solved.
        part = run_to_projection(layers_of(dissect(pruned))[0], number, inputs, inputs.hidden)
        wanted = run_to_projection(layers_of(dissect(model))[0], number, inputs, inputs.hidden)
        x, y = part.inputs[inputs.real], (wanted.residual + wanted.output - part.residual)[inputs.real]
    counts = torch.ones(len(x), dtype=torch.float64)
    if weights == "loss":
        counts = weights_by_the_loss(model, block.full_name(name))[inputs.real]
        assert counts.max() > 1.5 * counts.min()
    assert damping in DAMPINGS
    assert not math.isinf(damping)
    mean_x, mean_y = counts @ x / counts.sum(), counts @ y / counts.sum()
    centred, target = x - mean_x, y - mean_y
    scale = float((counts @ centred.square()).mean() / counts.sum())
    extra = math.sqrt(damping * scale * counts.sum()) * torch.eye(x.shape[1], dtype=torch.float64)
    roots = counts.sqrt()[:, None]
    rows, values = torch.cat([roots * centred, extra]), torch.cat([roots * target, extra @ old.T])
    reference = torch.linalg.lstsq(rows, values).solution.T
    assert largest_difference(block.part(name).weight, reference) < 1e-8
    assert largest_difference(block.part(name).bias, mean_y - reference @ mean_x) < 1e-8


def test_the_target_of_repair_is_the_residual_stream_after_the_projection(family):
    """The sum, normalised in a post-norm layer, is the input of the next projection and the output of the layer."""
    anatomy = dissect(tiny_model(family))
    batch = tiny_batch(40, 12, family=family)
    if anatomy.family.repeated:
        with pytest.raises(UnsupportedModelError, match=r"6 times.*repair=False"):
            layer_inputs(anatomy, batch)
        return
    parts_in_all, behind = 0, None
    with torch.no_grad():
        inputs_of_layers = layer_inputs(anatomy, batch)
        for layer, inputs in zip(layers_of(anatomy), inputs_of_layers, strict=True):
            hidden = behind if inputs.hidden is None else inputs.hidden
            behind, parts = run_with_activations(layer, inputs, hidden)
            # One for each projection comes first; Qwen3's further ones are of queries and keys.
            norms = [n for block in layer.blocks for n in block.family.norms[: 1 + block.family.feed_forward]]
            next_reads = [*(part.residual for part in parts[1:]), behind]
            for part, norm, read in zip(parts, norms, next_reads, strict=True):
                found = part.total if anatomy.family.prenorm else layer.module.get_submodule(norm)(part.total)
                assert largest_difference(found, read) < 1e-12
            for number, part in enumerate(parts):
                alone = run_to_projection(layer, number, inputs, hidden)
                assert largest_difference(alone.total, part.total) == 0
                assert largest_difference(alone.inputs, part.inputs) == 0
            parts_in_all += len(parts)
    assert parts_in_all == sum(2 if block.family.feed_forward else 1 for block in anatomy.blocks)


# Those whose layout is another: fused, gated and transposed layers, grouped queries.
OTHER_LAYOUTS = ("modernbert", "gpt2", "llama", "phi3", "vit", "dinov2", "bart", "mbart", "t5")


@pytest.mark.parametrize("weights", ["equal", "loss"])
@pytest.mark.parametrize("family", FAMILIES + OTHER_LAYOUTS)
def test_no_projection_gets_worse_on_rows_it_has_not_seen(family, weights):
    model = tiny_model(family)
    pruned = pl.prune_(copy.deepcopy(model), random_plan(model, empty=False, seed=3))
    before = copy.deepcopy(pruned.state_dict())
    done = repair_(pruned, model, [tiny_batch(160, 12, family=family)], weights=weights)
    assert len(done.projections) == sum(2 if block.family.feed_forward else 1 for block in dissect(model).blocks)
    after = pruned.state_dict()
    for one in done.projections:
        if one.error_before > 1e-9:  # What is no better on the rows held out is not written.
            own = [name for name in before if name.startswith(f"{one.name}.")]
            changed = any(not torch.equal(after[name], before[name]) for name in own)
            assert changed == (one.error_after < one.error_before), one.name
    # By the loss a few tokens may count for most of it, and so few say little about others.
    least = {"equal": 0.9, "loss": 1.0}[weights]
    # Where nothing is lost, before and after are both rounding.
    lost = [one for one in done.projections if one.error_before > 1e-9]
    assert any(one.error_after < least * one.error_before for one in lost)


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_a_decoders_layers_attend_to_what_the_cut_encoder_gives(family):
    model, batch = tiny_model(family), tiny_batch(12, family=family)
    pruned = pl.prune_(copy.deepcopy(model), random_plan(model))
    ours, inputs_of_layers = dissect(pruned), layer_inputs(dissect(model), batch)
    with torch.no_grad(), last_layer_heard(pruned) as expected:
        pruned(**batch)
        memory = pruned.base_model.encoder(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        hidden = theirs = None
        for layer, inputs in zip(layers_of(ours)[LAYERS:], inputs_of_layers[LAYERS:], strict=True):
            hidden = run_layer(layer, inputs, inputs.hidden if hidden is None else hidden, memory)
            theirs = run_layer(layer, inputs, inputs.hidden if theirs is None else theirs)
    assert largest_difference(hidden, expected[0]) < 1e-12
    assert largest_difference(theirs, expected[0]) > 1e-3


@pytest.mark.parametrize("family", ["bart", "mbart"])
def test_a_bias_that_was_solved_leaves_no_mean_error_in_the_whole_model(family):
    """Nothing damps the bias: behind the last projection the repaired model, run as it is, errs by 0 on the mean."""
    model, batch = tiny_model(family), tiny_batch(60, 12, family=family)
    pruned = pl.prune_(copy.deepcopy(model), random_plan(model, empty=False, seed=3))
    before = mean_error(pruned, model, batch)
    last = repair_(pruned, model, [batch]).projections[-1]
    assert last.error_after < last.error_before
    assert before > 0.01
    assert mean_error(pruned, model, batch) < 1e-10


def mean_error(model, dense, batch) -> float:
    """Of what the last down projection's output makes with the residual stream, over all real tokens."""
    found = []
    for one in (model, dense):
        layer = layers_of(dissect(one))[-1]
        down, entry = layer.projections[-1].module, layer.projections[-1].entry
        heard = []
        handles = [
            layer.module.final_layer_norm.register_forward_pre_hook(lambda _, args, to=heard: to.append(args[0])),
            entry.register_forward_pre_hook(lambda _, args, to=heard: to.append(args[0])),
            down.register_forward_hook(lambda _, __, output, to=heard: to.append(output)),
        ]
        with torch.no_grad():
            one(**batch)
        for handle in handles:
            handle.remove()
        # Before: the residual stream is what the norm reads. Behind: the norm reads the sum itself.
        found.append(heard[0] + heard[2] if dissect(one).family.prenorm else heard[2])
    return float((found[0] - found[1])[batch["attention_mask"].bool()].mean(0).abs().max())


@contextmanager
def last_layer_heard(model):
    """What the last layer gives."""
    heard = []
    module = layers_of(dissect(model))[-1].module
    hook = lambda _, __, output: heard.append(output[0] if isinstance(output, tuple) else output)  # noqa: E731
    handle = module.register_forward_hook(hook)
    yield heard
    handle.remove()


@pytest.mark.parametrize("mean", [0.0, 30.0, 1000.0])
def test_inputs_that_are_far_from_nothing_in_all_tokens_are_repaired_as_well(mean):
    """In float32 as in float64, where no rounding drowns what differs between tokens."""
    errors = {}
    for dtype in (torch.float32, torch.float64):
        model = tiny_model(dtype=dtype)
        with torch.no_grad():
            for layer in model.bert.encoder.layer:
                layer.intermediate.dense.bias += mean
                layer.output.dense.bias -= layer.output.dense.weight @ torch.full((NEURONS,), mean, dtype=dtype)
        pruned = cut(model, neurons=without_neurons(3))
        done = repair_(pruned, model, [tiny_batch(64, seed=number) for number in range(4)])
        errors[dtype] = [one.error_after for one in done.projections if one.name.endswith("layer.1.output.dense")]
        assert len(errors[dtype]) == 1
        assert all(bool(parameter.isfinite().all()) for parameter in pruned.parameters())
    assert errors[torch.float32] == pytest.approx(errors[torch.float64], rel=0.1)


def test_a_layer_with_nothing_left_gives_the_mean():
    model = tiny_model()
    lineage = dissect(model).lineage
    pruned = cut(model, heads=((), *lineage.heads[1:]))
    (inputs, *_), layer = layer_inputs(dissect(model), BATCH), layers_of(dissect(model))[0]
    with torch.no_grad():
        outputs = run_to_projection(layer, 0, inputs, inputs.hidden).output[inputs.real]
    repair_(pruned, model, [BATCH])
    assert largest_difference(dissect(pruned).blocks[0].part("output").bias, outputs.mean(0)) < 1e-10


@pytest.mark.parametrize("weights", ["equal", "loss", "features"])
def test_batch_size_and_padding_change_nothing(weights):
    model, plan = tiny_model(), random_plan(tiny_model(), empty=False)
    whole = pl.prune_(copy.deepcopy(model), plan)
    repair_(whole, model, [BATCH], weights=weights)
    parts = pl.prune_(copy.deepcopy(model), plan)
    wider = {
        name: value if name == "labels" else torch.nn.functional.pad(value, (0, 5), value=name == "input_ids")
        for name, value in BATCH.items()
    }
    batches = split(wider, 7)
    if weights != "loss":  # Labels change nothing either.
        batches = [{name: value for name, value in one.items() if name != "labels"} for one in batches]
    repair_(parts, model, batches, weights=weights)
    assert largest_difference(logits(whole, BATCH), logits(parts, BATCH)) < 1e-8


@pytest.mark.parametrize("family", ["bert", "llama", "bart", "t5"])
@pytest.mark.parametrize("most_bytes", [0, 20_000])
def test_what_does_not_fit_into_memory_changes_nothing(family, most_bytes, monkeypatch, tmp_path):
    """No state in memory, or some of them; files are gone afterwards."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model, batches = tiny_model(family), split(tiny_batch(40, 12, family=family), 8)
    pruned = pl.prune_(copy.deepcopy(model), random_plan(model, empty=False))
    in_memory, in_files = copy.deepcopy(pruned), copy.deepcopy(pruned)
    written = []
    save = hidden_states.save_file
    monkeypatch.setattr(hidden_states, "save_file", lambda tensors, path: (written.append(path), save(tensors, path)))
    done = repair_(in_memory, model, batches)
    assert not written
    monkeypatch.setattr(repair, "MOST_BYTES", most_bytes)
    assert repair_(in_files, model, batches) == done
    assert written
    assert all(path.is_relative_to(tmp_path) for path in written)
    assert not list(tmp_path.iterdir())
    for one, other in zip(in_memory.parameters(), in_files.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.fixture
def earlier_objects_ignored():
    """`gc` neither collects nor lists objects from before the test, which would take seconds at every count."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("earlier_objects_ignored")
def test_memory_of_repair_does_not_grow_with_the_rows(monkeypatch):
    """Tensors that live between two batches, at every run of a layer: twice the rows, no more bytes."""
    monkeypatch.setattr(repair, "MOST_BYTES", 30_000)
    model = tiny_model()
    pruned = pl.prune_(copy.deepcopy(model), random_plan(model, empty=False))
    most = {}
    for batches in (8, 16):
        counts = []
        monkeypatch.setattr(
            repair, "run_layer", lambda *args, to=counts: (to.append(living_bytes()), run_layer(*args))[1]
        )
        repair_(copy.deepcopy(pruned), model, [tiny_batch(8, 20, seed=seed) for seed in range(batches)])
        most[batches] = max(counts)
    tokens = 8 * 8 * 20  # Of the 8 more batches.
    assert most[16] - most[8] < 0.25 * tokens * HIDDEN * 8  # A quarter of one of their hidden states.


def living_bytes() -> int:
    """Bytes of all floating-point tensors that are referred to anywhere."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor and thing.is_floating_point():
            storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(storages.values())


def test_a_folder_that_cannot_be_written_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    monkeypatch.setattr(repair, "MOST_BYTES", 0)
    model = tiny_model()
    pruned = pl.prune_(copy.deepcopy(model), random_plan(model))
    with pytest.raises(PlanError, match="TMPDIR"):
        repair_(pruned, model, [BATCH])


@pytest.mark.parametrize("objective", ["loss", "features"])
def test_by_an_objective_the_tokens_that_it_depends_on_are_fitted_better(objective):
    """The head reads the first token of the last layer alone: no other has a gradient there."""
    model = tiny_model()
    pruned = cut(model, neurons=without_neurons(NEURONS // 2))
    errors = {}
    for weights in ("equal", objective):
        repaired = copy.deepcopy(pruned)
        repair_(repaired, model, [BATCH], weights=weights)
        inputs = {name: value for name, value in BATCH.items() if name != "labels"}
        with torch.no_grad():
            wanted, found = (one.base_model(**inputs).last_hidden_state for one in (model, repaired))
        error = (found - wanted).square().sum(-1)
        rest = error[:, 1:][inputs["attention_mask"][:, 1:].bool()]
        errors[weights] = float(error[:, 0].mean()), float(rest.mean())
    assert errors[objective][0] < errors["equal"][0]
    assert errors[objective][1] > errors["equal"][1]


def test_tokens_of_a_row_that_nothing_hangs_on_count_alike():
    real = torch.tensor([[True, True, False], [True, True, True]])
    squares = torch.tensor([[0.0, 0.0, 5.0], [3.0, 1.0, 0.0]])
    counts = token_weights(squares, real)
    assert counts[0].tolist() == [1.0, 1.0, 0.0]
    expected = [FLOOR + (1 - FLOOR) * one for one in (2.25, 0.75, 0.0)]
    assert counts[1].tolist() == pytest.approx(expected)


def test_counting_by_the_loss_needs_labels_and_a_known_word():
    model = tiny_model()
    pruned = pl.prune_(copy.deepcopy(model), random_plan(model))
    unlabelled = {name: value for name, value in BATCH.items() if name != "labels"}
    with pytest.raises(ScoreError, match="Batch 0"):
        repair_(pruned, model, [unlabelled], weights="loss")
    with pytest.raises(PlanError, match=r"repair_weights='losses'.*equal, loss, features"):
        repair_(pruned, model, [BATCH], weights="losses")


def test_nothing_cut_is_nothing_changed():
    model = tiny_model()
    same = copy.deepcopy(model)
    repair_(same, model, [BATCH])
    assert largest_difference(logits(same, BATCH), logits(model, BATCH)) < 1e-10


def test_both_models_are_left_as_they_were_found():
    model = tiny_model().train()
    pruned = pl.prune_(copy.deepcopy(model), random_plan(model, empty=False))
    pruned.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    repair_(pruned, model, [BATCH])
    assert model.training
    assert pruned.training
    assert not any(parameter.requires_grad for parameter in pruned.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_only_what_repair_can_change_is_kept_for_resuming():
    model = tiny_model()
    pruned = pl.prune_(copy.deepcopy(model), random_plan(model))
    before = copy.deepcopy(pruned.state_dict())
    repair_(pruned, model, [BATCH])
    changed = {name for name, value in pruned.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert changed <= repaired_weights(pruned).keys()
    kept = {name.rpartition(".")[0] for name in repaired_weights(pruned)}
    assert kept <= {block.full_name(part) for block in dissect(pruned).blocks for part in ("output", "down")}


def test_pruning_with_calibration_rows_is_pruning_and_repair():
    model, plan = tiny_model(), random_plan(tiny_model())
    apart = pl.prune_(copy.deepcopy(model), plan)
    repair_(apart, model, [BATCH])
    at_once = pl.prune_(copy.deepcopy(model), plan, repair_with=[BATCH])
    assert largest_difference(logits(at_once, BATCH), logits(apart, BATCH)) == 0.0
    weighed = pl.prune_(copy.deepcopy(model), plan, repair_with=[BATCH], repair_weights="loss")
    assert largest_difference(logits(weighed, BATCH), logits(apart, BATCH)) > 1e-6


def test_a_word_that_is_not_known_leaves_the_model_whole():
    model = tiny_model()
    with pytest.raises(PlanError, match="repair_weights='los'"):
        pl.prune_(model, random_plan(model), repair_with=[BATCH], repair_weights="los")
    assert dissect(model).architecture == dissect(tiny_model()).architecture


def test_a_model_that_computes_something_between_its_blocks_is_not_repaired():
    model = tiny_model("deberta-v2", conv_kernel_size=3, conv_act="gelu")
    plan = random_plan(model)
    with pytest.raises(UnsupportedModelError, match="repair=False"):
        repair_(pl.prune_(copy.deepcopy(model), plan), model, [BATCH])


def test_too_few_rows_and_another_model_are_errors():
    model = tiny_model()
    pruned = pl.prune_(copy.deepcopy(model), random_plan(model))
    with pytest.raises(PlanError, match=f"{HELD_OUT_EVERY} calibration rows.*{HELD_OUT_EVERY - 1}"):
        repair_(pruned, model, [tiny_batch(HELD_OUT_EVERY - 1)])
    shallow = tiny_model()
    shallow.bert.encoder.layer = shallow.bert.encoder.layer[:2]
    with pytest.raises(PlanError, match=r"3 blocks.*2"):
        repair_(pruned, shallow, [BATCH])
