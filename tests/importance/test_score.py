"""Scores equal their definition and do not depend on batching, and scoring restores the model."""

import math

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from tiny import HIDDEN, largest_difference, logits, random_plan, split, tiny_batch, tiny_config, tiny_model
from transformers import (
    AutoModelForTokenClassification,
    BertForMultipleChoice,
    BertModel,
    ConvBertConfig,
    ConvBertForSequenceClassification,
)

import prunelora as pl
from prunelora.errors import ScoreError, UnsupportedModelError
from prunelora.importance import curvature, features, linear_probe, objectives
from prunelora.importance.elimination import elimination_costs
from prunelora.models.anatomy import dissect
from prunelora.models.families import FAMILIES
from prunelora.models.gates import multiplied

# Criteria that read rows.
CRITERIA = ["gradient", "fisher", "obs", "features"]
PROBLEMS = ["single_label_classification", "multi_label_classification", "regression"]


def flat(importance: pl.Importance) -> np.ndarray:
    return np.concatenate([*importance.heads, *importance.neurons])


def ones(model) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    blocks = dissect(model).blocks
    return (
        [torch.ones(block.num_heads, dtype=torch.float64) for block in blocks],
        [torch.ones(block.num_neurons, dtype=torch.float64) for block in blocks],
    )


def loss_with(model, batch, heads, neurons) -> float:
    with torch.no_grad(), multiplied(dissect(model), heads, neurons):
        return float(model(**batch).loss)


IN_FLOAT32 = ("modernbert", "llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "t5")
SOFTMAX_IN_FLOAT32 = ("vit", "deit")  # In eager attention only.


def length_of(model, batch):
    """Number of vectors per image: patches and added tokens."""
    return model.base_model(pixel_values=batch["pixel_values"]).last_hidden_state.shape[1]


@pytest.mark.parametrize(
    ("attention", "problem_type"), [("eager", PROBLEMS[0]), *(("sdpa", problem) for problem in PROBLEMS)]
)
def test_scores_equal_finite_differences(family, attention, problem_type):
    num_labels = 1 if problem_type == "regression" else 3
    model = tiny_model(family, attention=attention, problem_type=problem_type, num_labels=num_labels)
    batch = tiny_batch(2, problem_type=problem_type, num_labels=num_labels, family=family)
    importance = pl.score(model, [batch])
    # Families that compute norms, rotations or softmax in float32 need larger steps.
    exact = family not in IN_FLOAT32 and not (attention == "eager" and family in SOFTMAX_IN_FLOAT32)
    step, relative = (1e-6, 1e-5) if exact else (2e-3, 2e-2)
    tokens = int(batch["attention_mask"].sum()) if "attention_mask" in batch else 2 * length_of(model, batch)
    # Layers 3 and 4 exist in encoder-decoders only; layer 3 has no feed-forward layer.
    for layer, unit in [(0, 0), (1, 3), (2, 1), (3, 2), (4, 0)][: len(importance.heads)]:
        for kind, scores in ((0, importance.heads), (1, importance.neurons)):
            if not len(scores[layer]):
                continue
            total = 0.0
            for example in split(batch, 1):
                up, down = ones(model), ones(model)
                up[kind][layer][unit] += step
                down[kind][layer][unit] -= step
                total += abs(loss_with(model, example, *up) - loss_with(model, example, *down)) / (2 * step)
            assert scores[layer][unit] == pytest.approx(total / tokens, rel=relative, abs=1e-9 if exact else 1e-4)


def padded(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        "input_ids": torch.nn.functional.pad(batch["input_ids"], (0, 6), value=1),
        "attention_mask": torch.nn.functional.pad(batch["attention_mask"], (0, 6)),
        "labels": batch["labels"],
    }


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_do_not_depend_on_batch_size(family, criterion):
    model, batch = tiny_model(family), tiny_batch(7, family=family)
    whole = flat(pl.score(model, [batch], criterion=criterion))
    assert whole.min() > 0
    for size in (1, 2, 3):
        np.testing.assert_allclose(flat(pl.score(model, split(batch, size), criterion=criterion)), whole, rtol=1e-9)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_do_not_depend_on_padding(family, criterion):
    if FAMILIES[family].images:
        pytest.skip("images are of one size")
    model, batch = tiny_model(family), tiny_batch(4, family=family)
    longer, whole = (flat(pl.score(model, [rows], criterion=criterion)) for rows in (padded(batch), batch))
    np.testing.assert_allclose(longer, whole, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_do_not_depend_on_order(family, criterion, dtype):
    model, batch = tiny_model(family, dtype=dtype), tiny_batch(16, family=family)
    batch = {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch.items()}
    rows = split(batch, 2)
    forward, backward = (flat(pl.score(model, batches, criterion=criterion)) for batches in (rows, rows[::-1]))
    np.testing.assert_allclose(forward, backward, rtol=1e-9)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_in_float32_batch_size_changes_rounding_alone_and_no_plan(criterion):
    model, batch = tiny_model(dtype=torch.float32), tiny_batch(24)
    many, single = (pl.score(model, split(batch, size), criterion=criterion) for size in (8, 1))
    np.testing.assert_allclose(flat(single), flat(many), rtol=1e-4)
    plans = [
        pl.make_plan(scores, keep_macs=0.5, normalise="none", balance="none", round_to=1) for scores in (many, single)
    ]
    assert plans[0].id == plans[1].id


@pytest.mark.parametrize("criterion", CRITERIA)
def test_permuting_heads_permutes_scores(criterion):
    model, batch = tiny_model(), tiny_batch()
    plain = pl.score(model, [batch], criterion=criterion)
    order = [2, 0, 3, 1]
    rows = torch.cat([torch.arange(6) + 6 * head for head in order])
    block = dissect(model).blocks[1]
    with torch.no_grad():
        for name in ("query", "key", "value"):
            part = block.part(name)
            part.weight.copy_(part.weight[rows])
            part.bias.copy_(part.bias[rows])
        block.part("output").weight.copy_(block.part("output").weight[:, rows])
    permuted = pl.score(model, [batch], criterion=criterion)
    np.testing.assert_allclose(permuted.heads[1], plain.heads[1][order], rtol=1e-9)
    np.testing.assert_allclose(permuted.heads[0], plain.heads[0], rtol=1e-9)


def test_summing_gradients_without_zeroing_them_gives_other_scores():
    """The well-known mistake: |g1|, |g1 + g2|, ... in place of |g1|, |g2|, ..."""
    model, rows = tiny_model(), split(tiny_batch(5), 1)
    model.requires_grad_(False)
    gates = [torch.ones(1, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    neurons = [torch.ones(20, dtype=torch.float64) for _ in range(3)]
    never_zeroed, zeroed = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    previous = torch.zeros(1, 4, dtype=torch.float64)
    for row in rows:
        with multiplied(dissect(model), gates, neurons):
            model(**row).loss.backward()
        never_zeroed += gates[0].grad[0].abs()
        zeroed += (gates[0].grad - previous)[0].abs()
        previous = gates[0].grad.clone()
    tokens = sum(int(row["attention_mask"].sum()) for row in rows)
    ours = pl.score(model, rows).heads[0]
    np.testing.assert_allclose(ours, (zeroed / tokens).numpy(), rtol=1e-9)
    assert np.abs(ours / (never_zeroed / tokens).numpy() - 1).max() > 0.1


def test_fisher_is_the_mean_of_squares():
    model, rows = tiny_model(), split(tiny_batch(4), 1)
    tokens = sum(int(row["attention_mask"].sum()) for row in rows)
    squares = sum((flat(pl.score(model, [row])) * int(row["attention_mask"].sum())) ** 2 for row in rows)
    np.testing.assert_allclose(flat(pl.score(model, rows, criterion="fisher")), squares / tokens, rtol=1e-9)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_obs_scores_are_costs_by_moments_of_inputs_and_gradients(family, monkeypatch):
    """About the mean where there is a bias that makes up for it, else about 0."""
    monkeypatch.setattr(curvature, "NEGLIGIBLE", 0.0)
    model, rows = tiny_model(family), split(tiny_batch(4), 1)
    block = dissect(model).blocks[1]
    for kind, name in (("heads", "output"), ("neurons", "down")):
        projection, inputs, gradients = block.part(name), [], []
        for row in rows:
            seen = {}

            def keep(_, args, output, seen=seen):
                seen["inputs"], seen["output"] = args[0][0], output
                output.retain_grad()

            handle = projection.register_forward_hook(keep)
            model(**row).loss.backward()
            handle.remove()
            inputs.append(seen["inputs"].detach())
            gradients.append(seen["output"].grad[0])
        x, g = torch.cat(inputs), torch.cat(gradients)
        weights = (g**2).sum(1) / (g**2).sum()
        centred = x - (weights[:, None] * x).sum(0) if family == "bert" else x
        moments = (weights[:, None] * centred).T @ centred
        units = x.shape[1] // (block.num_heads if kind == "heads" else block.num_neurons)
        wanted = elimination_costs(projection.weight.detach(), moments, g.T @ g, width=units) / (2 * len(rows))
        scores = getattr(pl.score(model, rows, criterion="obs"), kind)[1]
        np.testing.assert_allclose(scores, wanted, rtol=1e-6 if family == "bert" else 1e-4)


@pytest.mark.parametrize("kind", ["bert", "deit", "gpt2", "modernbert", "tokens", "base"])
def test_random_projections_estimate_the_gauss_newton_matrix_of_what_the_head_reads(kind):
    """The mean of g g^T over many signs is J^T J, with J the Jacobian of the features at a projection's output."""
    family = kind if kind in FAMILIES else "bert"
    batch = tiny_batch(2, family=family)
    del batch["labels"]
    model = tiny_model(family)
    if kind == "tokens":
        model = AutoModelForTokenClassification.from_config(tiny_config("bert"), dtype=torch.float64).eval()
    if kind == "base":
        model = model.base_model
    if kind == "modernbert":
        model.config.classifier_pooling = "mean"
    anatomy = dissect(model.requires_grad_(False))
    projection = anatomy.blocks[0].part("down")
    shift = torch.zeros(HIDDEN, dtype=torch.float64)  # Of the outputs for all tokens: their gradients add up.

    def features_with(shift: torch.Tensor) -> torch.Tensor:
        """Every vector that the head reads, real tokens alone, by the model's own forward pass."""
        handle = projection.register_forward_hook(lambda _, __, output: output + shift)
        hidden = model.base_model(**batch).last_hidden_state if kind != "base" else model(**batch).last_hidden_state
        handle.remove()
        mask = batch.get("attention_mask", torch.ones(hidden.shape[:2]))
        last = mask.cumsum(1).argmax(1)
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        read = {
            "bert": hidden[:, 0],
            "deit": hidden[:, 0],
            "gpt2": hidden[torch.arange(2), last],
            "modernbert": mean,
            "base": mean,
            "tokens": hidden[mask.bool()],
        }[kind]
        return read.flatten()

    jacobian = torch.autograd.functional.jacobian(features_with, shift)
    with torch.random.fork_rng():
        gradients = torch.stack([_projected(anatomy, batch, draw, projection, shift) for draw in range(400)])
    wanted, estimate = jacobian.T @ jacobian, gradients.T @ gradients / len(gradients)
    assert float((estimate - wanted).norm() / wanted.norm()) < 0.25
    assert float(estimate.trace() / wanted.trace()) == pytest.approx(1, abs=0.15)


def _projected(anatomy, batch, draw, projection, shift) -> torch.Tensor:
    """Gradient of one random projection of the features by a shift of a projection's outputs, with the draw's signs."""
    keys = objectives._row_keys
    shift = shift.clone().requires_grad_(True)
    handle = projection.register_forward_hook(lambda _, __, output: output + shift)
    objectives._row_keys = lambda inputs, rows: keys(inputs, rows) // 2 + draw
    try:
        (gradient,) = torch.autograd.grad(objectives.projected_features(anatomy, batch, 0), shift)
    finally:
        objectives._row_keys = keys
        handle.remove()
    return gradient


def test_features_need_neither_labels_nor_a_task_head(family):
    model, batch = tiny_model(family), tiny_batch(4, family=family)
    labelled = flat(pl.score(model, [batch], criterion="features"))
    with torch.no_grad():
        for name in dissect(model).task_head_names():
            for parameter in model.get_submodule(name).parameters():
                parameter.fill_(float("nan"))
    batch["labels"] = torch.full_like(batch["labels"], -100)
    np.testing.assert_array_equal(flat(pl.score(model, [batch], criterion="features")), labelled)
    del batch["labels"]
    np.testing.assert_array_equal(flat(pl.score(model, [batch], criterion="features")), labelled)


def test_signs_differ_between_rows_and_between_orders_of_the_same_tokens():
    rows = {"input_ids": torch.tensor([[5, 6, 7], [6, 5, 7], [5, 6, 1], [5, 6, 7]])}
    rows["attention_mask"] = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1]])
    keys = objectives._row_keys(rows, 4)
    assert keys[0] == keys[3]
    assert len(set(keys.tolist())) == 3
    images = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert len(set(objectives._row_keys({"pixel_values": images}, 5).tolist())) == 5
    padded = {"input_ids": torch.tensor([[5, 6, 1, 1]]), "attention_mask": torch.tensor([[1, 1, 0, 0]])}
    assert objectives._row_keys(padded, 1) == keys[2]


def test_features_that_are_not_finite_are_an_error():
    model = tiny_model()
    with torch.no_grad():
        dissect(model).blocks[-1].part("down").bias.fill_(float("nan"))
    with pytest.raises(ScoreError, match="outputs of the encoder for batch 0 are not finite"):
        pl.score(model, [tiny_batch()], criterion="features")


def test_scores_of_multiple_choice_are_of_examples_and_not_of_choices():
    model = BertForMultipleChoice(tiny_config("bert")).double().eval()
    ids = torch.randint(10, 50, (4, 3, 7), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor([0, 2, 1, 1])}
    scores = pl.score(model, [batch])
    for kind, of_kind in ((0, scores.heads), (1, scores.neurons)):
        total = 0.0
        for example in split(batch, 1):
            up, down = ones(model), ones(model)
            up[kind][1][2] += 1e-6
            down[kind][1][2] -= 1e-6
            total += abs(loss_with(model, example, *up) - loss_with(model, example, *down)) / 2e-6
        assert of_kind[1][2] == pytest.approx(total / batch["attention_mask"].numel(), rel=1e-3)


def test_the_lightest_tokens_of_every_example_are_left_out_of_the_moments_of_obs():
    weights = torch.tensor([[1.0, 60.0, 0.0, 39.0], [0.0, 0.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0], [5.1, 1.0, 95.0, 0.0]])
    stay = [[False, True, False, True], [False] * 4, [True] * 4, [True, False, True, False]]
    assert curvature._heaviest(weights).tolist() == stay
    assert curvature._heaviest(torch.tensor([[1.0, math.inf], [1.0, math.nan]])).tolist() == [[False, True], [True] * 2]


def test_obs_knows_that_one_of_two_neurons_can_stand_in_for_the_other():
    model, rows = tiny_model(), split(tiny_batch(16), 4)
    block = dissect(model).blocks[1]
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(block.part("up"), name)[1] = getattr(block.part("up"), name)[0]
        block.part("down").weight[:, 1] = block.part("down").weight[:, 0]
    alone, together = (pl.score(model, rows, criterion=name).neurons[1] for name in ("gradient", "obs"))
    assert alone[0] == pytest.approx(alone[1])
    assert together[:2].min() < 0.1 * together[:2].max()


def test_obs_leaves_out_projections_that_have_nothing_to_cut():
    model = tiny_model()
    plan = random_plan(model)
    pl.prune_(model, plan)
    importance = pl.score(model, [tiny_batch()], criterion="obs")
    assert [len(scores) for scores in importance.heads] == [len(ids) for ids in plan.heads]
    assert [len(scores) for scores in importance.neurons] == [len(ids) for ids in plan.neurons]
    assert 0 in [len(scores) for scores in importance.heads] + [len(scores) for scores in importance.neurons]


def test_magnitude_is_the_norm_of_what_surgery_removes():
    model = tiny_model()
    importance = pl.score(model, criterion="magnitude")
    block = dissect(model.requires_grad_(False)).blocks[1]
    head = slice(6, 12)
    weights = [block.part(name).weight[head] for name in ("query", "key", "value")]
    weights.append(block.part("output").weight[:, head])
    assert importance.heads[1][1] == pytest.approx(float(sum((w**2).sum() for w in weights)) ** 0.5)
    pair = [block.part("up").weight[7], block.part("down").weight[:, 7]]
    assert importance.neurons[1][7] == pytest.approx(float(sum((w**2).sum() for w in pair)) ** 0.5)


def test_random_scores_follow_the_seed():
    model = tiny_model()
    first, same, other = (flat(pl.score(model, criterion="random", seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_models_give_float64_scores_close_to_the_exact_ones(dtype):
    batch = tiny_batch()
    exact = flat(pl.score(tiny_model(), [batch]))
    scores = flat(pl.score(tiny_model(dtype=dtype), [batch]))
    assert scores.dtype == np.float64
    assert np.corrcoef(scores, exact)[0, 1] > (0.9999 if dtype == torch.float32 else 0.95)


@pytest.mark.parametrize("probe_steps", [0, 3])
def test_the_model_is_left_as_it_was_found(family, probe_steps):
    model, batches = tiny_model(family), split(tiny_batch(family=family), 3)
    model.train()
    first, second = list(model.parameters())[:2]
    first.requires_grad_(False)
    model.base_model.eval()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    rng = torch.get_rng_state()
    pl.score(model, batches, probe_steps=probe_steps)
    assert torch.equal(torch.get_rng_state(), rng)
    assert [module.training for module in model.modules()] == modes
    assert (first.requires_grad, second.requires_grad) == (False, True)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_no_weight_gradient_is_ever_allocated():
    model, batch = tiny_model(), tiny_batch()
    seen = []
    for parameter in model.parameters():
        parameter.register_hook(seen.append)
    pl.score(model, [batch])
    assert seen == []
    model(**batch).loss.backward()
    assert seen  # The hooks do see gradients where there are some.


def test_scoring_a_pruned_model_names_the_heads_of_its_base(family):
    model = tiny_model(family)
    plan = random_plan(model)
    importance = pl.score(pl.prune_(model, plan), [tiny_batch(family=family)])
    assert [len(scores) for scores in importance.heads] == [len(ids) for ids in plan.heads]
    assert importance.lineage == plan.lineage


def test_linear_probe_changes_the_scores_and_learns_the_head(family):
    model, batches = tiny_model(family), split(tiny_batch(12, family=family), 4)
    with torch.no_grad():
        loss = sum(float(model(**batch).loss) for batch in batches)
    from prunelora.importance.linear_probe import train_linear_probe_

    plain, probed = flat(pl.score(model, batches)), flat(pl.score(model, batches, probe_steps=30))
    assert np.abs(probed / plain - 1).max() > 0.05
    encoder = {name: value.clone() for name, value in model.base_model.state_dict().items() if "pooler" not in name}
    train_linear_probe_(model, batches, steps=60, learning_rate=1e-2)
    with torch.no_grad():
        assert sum(float(model(**batch).loss) for batch in batches) < loss
    after = model.base_model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in encoder.items())


def test_linear_probe_trains_on_what_the_whole_model_would_see(family):
    """One step on cached features moves the head as one step through the whole frozen model does."""
    from prunelora.importance.linear_probe import LEARNING_RATE, WEIGHT_DECAY, train_linear_probe_

    batch = tiny_batch(family=family)
    cached, whole = tiny_model(family), tiny_model(family)
    train_linear_probe_(cached, [batch], steps=1)
    names = dissect(whole).task_head_names()
    whole.requires_grad_(False)
    head = [parameter.requires_grad_(True) for name in names for parameter in whole.get_submodule(name).parameters()]
    optimiser = torch.optim.AdamW(head, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    whole(**batch).loss.backward()
    optimiser.step()
    assert largest_difference(logits(cached, batch), logits(whole, batch)) < 1e-12
    assert largest_difference(logits(cached, batch), logits(tiny_model(family), batch)) > 1e-6


@pytest.mark.parametrize("kind", ["bert", "gpt2", "modernbert"])
def test_linear_probe_of_a_head_that_labels_tokens_keeps_features_up_to_a_limit_and_computes_the_others_again(
    kind, monkeypatch
):
    batches = split(tiny_batch(6, family=kind), 2)
    for batch in batches:
        batch["labels"] = torch.where(batch["attention_mask"] > 0, batch["input_ids"] % 3, -100)
    heads, kept = [], []
    limit_of_one = batches[0]["input_ids"].numel() * HIDDEN * 8
    for limit in (features.MAX_BYTES, limit_of_one, 0):
        monkeypatch.setattr(features, "MAX_BYTES", limit)
        model = AutoModelForTokenClassification.from_config(tiny_config(kind), dtype=torch.float64)
        model.load_state_dict(heads[0][1] if heads else model.state_dict())
        kept.append(len(features.Features(dissect(model), batches).cached))
        before = {name: one.clone() for name, one in model.state_dict().items()}
        linear_probe.train_linear_probe_(model, batches, steps=7)
        heads.append((model.state_dict(), before))
    assert kept == [3, 1, 0]
    for after, before in heads[1:]:
        assert all(torch.equal(one, heads[0][1][name]) for name, one in before.items())
        assert all(torch.equal(one, heads[0][0][name]) for name, one in after.items())
    assert not torch.equal(heads[0][0]["classifier.weight"], heads[0][1]["classifier.weight"])


def test_importance_survives_saving(tmp_path):
    model = tiny_model()
    importance = pl.score(pl.prune_(model, random_plan(model)), [tiny_batch()])
    importance.save(tmp_path / "importance.safetensors")
    again = pl.Importance.load(tmp_path / "importance.safetensors")
    np.testing.assert_array_equal(flat(again), flat(importance))
    assert (again.lineage, again.provenance) == (importance.lineage, importance.provenance)


def test_scores_written_by_version_0_2_are_read(tmp_path):
    importance = pl.score(tiny_model(), [tiny_batch()])
    importance.save(tmp_path / "new.safetensors")
    with safe_open(tmp_path / "new.safetensors", framework="numpy") as file:
        tensors = {name.replace("neurons.", "ffn."): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    assert "ffn.0" in tensors
    save_file(tensors, tmp_path / "old.safetensors", metadata=metadata)
    np.testing.assert_array_equal(flat(pl.Importance.load(tmp_path / "old.safetensors")), flat(importance))


# Errors ---------------------------------------------------------------------------------------------------------------


def test_a_batch_without_labels_is_an_error():
    batch = tiny_batch()
    del batch["labels"]
    with pytest.raises(ScoreError, match=r"Batch 0 has no labels: its keys are \['attention_mask', 'input_ids'\]"):
        pl.score(tiny_model(), [batch])


def test_no_batches_is_an_error():
    with pytest.raises(ScoreError, match="No batch to score with"):
        pl.score(tiny_model(), iter([]))


def test_a_loss_that_is_nan_is_an_error():
    model = tiny_model()
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    with pytest.raises(ScoreError, match="loss of batch 0 is nan"):
        pl.score(model, [tiny_batch()])


@pytest.mark.parametrize("criterion", ["gradient", "obs"])
def test_projections_that_never_ran_are_an_error(criterion):
    model = tiny_model()
    model.bert.encoder.layer[1].forward = lambda hidden_states, *args, **kwargs: hidden_states
    with pytest.raises(ScoreError, match=r"without passing through bert\.encoder\.layer\.1\.attention\.output\.dense"):
        pl.score(model, [tiny_batch()], criterion=criterion)


def test_a_model_without_a_loss_is_an_error():
    base = BertModel(tiny_model().config)
    batch = tiny_batch()
    with pytest.raises(ScoreError, match="returned no loss"):
        pl.score(base, [batch])


def test_an_unknown_criterion_lists_the_known_ones():
    with pytest.raises(
        ScoreError,
        match=r"criterion='taylor' is unknown\. Use one of: gradient, fisher, obs, features, magnitude, random",
    ):
        pl.score(tiny_model(), [tiny_batch()], criterion="taylor")


def test_linear_probe_needs_batches_it_can_go_over_twice():
    with pytest.raises(ScoreError, match=r"Pass list\(batches\)"):
        pl.score(tiny_model(), iter([tiny_batch()]), probe_steps=2)


def test_an_unsupported_family_is_named_with_the_supported_ones():
    sizes = {"hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 20, "vocab_size": 50}
    model = ConvBertForSequenceClassification(ConvBertConfig(**sizes, embedding_size=16))
    with pytest.raises(UnsupportedModelError, match=r"family 'convbert'.*BERT \(bert\), RoBERTa \(roberta\)"):
        pl.score(model, [tiny_batch()])


def test_a_damaged_file_of_scores_is_an_error(tmp_path):
    path = tmp_path / "importance.safetensors"
    pl.score(tiny_model(), criterion="magnitude").save(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ScoreError, match="cannot be read as importance scores"):
        pl.Importance.load(path)
