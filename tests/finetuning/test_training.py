"""Fine-tuning learns, keeps its best checkpoint, follows the seed, and resumes to the same weights."""

import copy
import math
import shutil

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tiny import END, largest_difference, logits, random_plan, tiny_batch, tiny_model
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

import prunelora as pl
from prunelora import progress
from prunelora.errors import DataError, RecipeError, UnsupportedModelError
from prunelora.finetuning import callbacks, contexts, training
from prunelora.finetuning.recomputation import recomputing
from prunelora.models.anatomy import dissect
from prunelora.planning.plan import Plan

ROWS = 96


@pytest.fixture(scope="module")
def tokenizer():
    vocabulary = {"[UNK]": 0, "[PAD]": 1} | {f"w{i}": i for i in range(2, 50)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")),
        pad_token="[PAD]",
        unk_token="[UNK]",
    )


def rows(count: int, seed: int) -> Dataset:
    """The label is whether token 7 stands at the front: something a tiny model can learn."""
    generator = torch.Generator().manual_seed(seed)
    ids, labels = [], []
    for number in range(count):
        length = int(torch.randint(4, 9, (1,), generator=generator))
        row = torch.randint(10, 50, (length,), generator=generator).tolist()
        row[0] = 7 if number % 2 else 8
        ids.append(row)
        labels.append(number % 2)
    return Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids], "labels": labels})


def peft_model():
    model = tiny_model(dtype=torch.float32, num_labels=2)
    plan = Plan.whole(dissect(model).lineage, rank=4)
    return pl.add_adapter(pl.prune_(model, plan), plan)


def tune(model, tokenizer, **options):
    return pl.finetune(
        model,
        rows(ROWS, 0),
        rows(32, 1),
        tokenizer=tokenizer,
        **({"batch_size": 16, "epochs": 2, "progress": False} | options),
    )


def test_an_encoder_decoder_learns_and_only_its_logits_are_kept(tokenizer, monkeypatch):
    model = tiny_model("bart", dtype=torch.float32, num_labels=2)
    plan = Plan.whole(dissect(model).lineage, rank=4)
    judged = []
    known = training.metrics
    monkeypatch.setattr(training, "metrics", lambda found, *others: judged.append(found) or known(found, *others))
    train, validation = (
        part.map(lambda row: {"input_ids": [*row["input_ids"][:-1], END]}) for part in (rows(32, 0), rows(8, 1))
    )
    adapted = pl.add_adapter(pl.prune_(model, plan), plan)
    pl.finetune(adapted, train, validation, tokenizer=tokenizer, progress=False, batch_size=8, epochs=1)
    assert judged
    assert {found.shape for found in judged} == {(8, 2)}


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def test_it_learns_and_leaves_frozen_weights_alone(tokenizer):
    model = peft_model()
    frozen = {name: value.clone() for name, value in model.named_parameters() if not value.requires_grad}
    result = tune(model, tokenizer, epochs=8, learning_rate=5e-3)
    assert result.best["validation_accuracy"] > 0.9
    assert result.steps == 8 * ROWS // 16
    losses = [entry["loss"] for entry in result.history if "loss" in entry]
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, frozen[name]) for name, value in model.named_parameters() if name in frozen)
    assert set(result.trainable) == {"lora", "norms", "head", "other"}
    assert sum(result.trainable.values()) == sum(value.numel() for value in weights(model).values())
    assert not model.training


def test_the_model_has_the_weights_of_the_best_checkpoint(tokenizer, monkeypatch):
    model = peft_model()
    accuracies, snapshots = iter([0.2, 0.9, 0.5]), []

    def judge(*_):
        snapshots.append(weights(model))
        return {"accuracy": next(accuracies)}

    monkeypatch.setattr(training, "metrics", judge)
    result = tune(model, tokenizer, epochs=3, learning_rate=1e-2)
    assert result.best["validation_accuracy"] == 0.9
    assert result.best_step == 2 * ROWS // 16
    left = weights(model)
    assert all(torch.equal(value, left[name]) for name, value in snapshots[1].items())
    assert any(not torch.equal(value, left[name]) for name, value in snapshots[2].items())


def test_the_same_seed_gives_the_same_weights(tokenizer):
    first, second, other = peft_model(), peft_model(), peft_model()
    for model, seed in ((first, 3), (second, 3), (other, 4)):
        tune(model, tokenizer, seed=seed)
    same, different = weights(second), weights(other)
    assert all(torch.equal(value, same[name]) for name, value in weights(first).items())
    assert any(not torch.equal(value, different[name]) for name, value in weights(first).items())


@pytest.mark.parametrize(("evaluations", "kill_at", "goes_on_at"), [(1, 14, 13), (2, 11, 10), (2, 13, 13)])
def test_a_killed_training_resumes_to_the_same_weights(
    evaluations, kill_at, goes_on_at, tokenizer, tmp_path, monkeypatch
):
    """Between two epochs, and within one; with dropout, so that the state of the generator matters in every step."""

    def train(model, name):
        return tune(
            model, tokenizer, epochs=3, evaluations_per_epoch=evaluations, dropout=0.1, checkpoints=tmp_path / name
        )

    whole = peft_model()
    expected = train(whole, "whole")
    clock = callbacks.StepClock

    class Killing(clock):
        def on_step_end(self, args, state, control, **kwargs):
            super().on_step_end(args, state, control, **kwargs)
            if state.global_step == kill_at:  # Steps since the last checkpoint are lost.
                raise KeyboardInterrupt

    monkeypatch.setattr(training, "StepClock", Killing)
    with pytest.raises(KeyboardInterrupt):
        train(peft_model(), "killed")
    steps = []

    class Counting(clock):
        def on_step_end(self, args, state, control, **kwargs):
            super().on_step_end(args, state, control, **kwargs)
            steps.append(state.global_step)

    monkeypatch.setattr(training, "StepClock", Counting)
    again = peft_model()
    result = train(again, "killed")
    assert steps == list(range(goes_on_at, 19))  # Not from the beginning.
    assert result.steps == expected.steps
    reference = weights(whole)
    assert all(torch.allclose(value, reference[name], atol=1e-6) for name, value in weights(again).items())
    every = 6 // evaluations
    assert [e["step"] for e in result.history if "validation_loss" in e] == list(range(every, 19, every))


@pytest.fixture(scope="module")
def killed_and_whole(tokenizer, tmp_path_factory):
    """The folder of a training that was killed in its third epoch; steps and weights of the same one left alone."""
    folder = tmp_path_factory.mktemp("killed")

    class Killing(callbacks.StepClock):
        def on_step_end(self, args, state, control, **kwargs):
            super().on_step_end(args, state, control, **kwargs)
            if state.global_step == 13:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "StepClock", Killing)
        with pytest.raises(KeyboardInterrupt):
            tune(peft_model(), tokenizer, epochs=3, checkpoints=folder)
    whole = peft_model()
    return folder, tune(whole, tokenizer, epochs=3).steps, weights(whole)


@pytest.mark.parametrize("broken", ["", '{"epoch": 1.0, "glob', None])
@pytest.mark.parametrize("checkpoints", [("checkpoint-12",), ("checkpoint-6", "checkpoint-12")])
def test_an_incomplete_checkpoint_is_not_resumed(checkpoints, broken, killed_and_whole, tokenizer, tmp_path):
    killed, steps, reference = killed_and_whole
    folder = shutil.copytree(killed, tmp_path / "killed")
    for name in checkpoints:
        state = folder / name / "trainer_state.json"
        if broken is None:
            state.unlink()
        else:
            state.write_text(broken)
    again = peft_model()
    assert tune(again, tokenizer, epochs=3, checkpoints=folder).steps == steps
    assert all(torch.allclose(value, reference[name], atol=1e-6) for name, value in weights(again).items())


def test_patience_is_restored_after_a_kill(tokenizer, tmp_path, monkeypatch):
    found = [0.9, 0.5, 0.5, 0.95, 0.96, 0.97]

    def train(name, values, *, kill_at=None):
        accuracies = iter(values)
        monkeypatch.setattr(training, "metrics", lambda *_: {"accuracy": next(accuracies)})

        class Killing(callbacks.StepClock):
            def on_step_end(self, args, state, control, **kwargs):
                super().on_step_end(args, state, control, **kwargs)
                if state.global_step == kill_at:
                    raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(training, "StepClock", Killing)
            return tune(peft_model(), tokenizer, epochs=6, patience=2, checkpoints=tmp_path / name)

    expected = train("whole", found)
    assert (expected.steps, expected.best_step) == (18, 6)
    with pytest.raises(KeyboardInterrupt):
        train("killed", found, kill_at=15)  # One of two is spent.
    result = train("killed", found[2:])
    assert (result.steps, result.best_step) == (18, 6)
    assert result.best["validation_accuracy"] == 0.9


@pytest.mark.parametrize("keep_start", [False, True])
def test_the_models_forward_is_restored_after_a_training_in_bfloat16(keep_start, tokenizer):
    model = tiny_model("bert", dtype=torch.float32, num_labels=2)
    tune(model, tokenizer, precision="bfloat16", keep_start=keep_start)
    assert "forward" not in vars(model)
    fresh = tiny_model("bert", dtype=torch.float32, num_labels=2)
    fresh.load_state_dict(model.state_dict())
    ids = torch.arange(8)[None]
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, fresh.eval()(input_ids=ids).logits)


def test_gradient_checkpointing_ends_with_the_training(tokenizer):
    model = peft_model()
    tune(model, tokenizer, gradient_checkpointing=True)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    tune(model, tokenizer)  # Its selective recomputation fails if gradient checkpointing is still on.


def test_early_stopping_stops(tokenizer):
    result = tune(peft_model(), tokenizer, epochs=30, learning_rate=1e-9, patience=2)
    assert result.steps < 30 * ROWS // 16


def test_an_incomplete_update_is_a_step_and_the_epoch_is_evaluated_once(tokenizer):
    result = tune(peft_model(), tokenizer, batch_size=math.ceil(ROWS / 3), accumulation_steps=2, epochs=1)
    assert result.steps == 2
    assert [entry["step"] for entry in result.history if "validation_loss" in entry] == [2]


def test_gradient_accumulation_and_checkpointing_train_too(tokenizer):
    model = peft_model()
    before = weights(model)
    passes = []
    act = model.get_base_model().bert.encoder.layer[0].intermediate.intermediate_act_fn
    act.register_forward_pre_hook(lambda module, _: passes.append(module.training))
    result = tune(model, tokenizer, accumulation_steps=2, gradient_checkpointing=True)
    assert result.steps == 2 * ROWS // 16 // 2
    assert any(not torch.equal(value, before[name]) for name, value in weights(model).items())
    assert sum(passes) == 2 * (2 * ROWS // 16)  # Every batch forward, and again in the backward pass.


def test_gradient_checkpointing_without_support_is_an_error_before_training(tokenizer):
    with pytest.raises(UnsupportedModelError, match="AlbertForSequenceClassification"):
        tune(tiny_model("albert", dtype=torch.float32, num_labels=2), tokenizer, gradient_checkpointing=True)


def test_selective_recomputation_is_on_and_trains_the_same(tokenizer, monkeypatch):
    entered = []

    def counting():
        entered.append(True)
        return recomputing()

    monkeypatch.setattr(contexts, "recomputing", counting)
    models = {on: peft_model() for on in (True, False)}
    losses = {on: tune(model, tokenizer, selective_recomputation=on).best for on, model in models.items()}
    assert entered == [True]
    tune(peft_model(), tokenizer, epochs=1)
    assert entered == [True, True]
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)
    other = weights(models[False])
    assert all(largest_difference(value, other[name]) < 1e-5 for name, value in weights(models[True]).items())


def test_the_start_is_kept_if_no_checkpoint_is_better(tokenizer):
    model = peft_model()
    tune(model, tokenizer, epochs=6, learning_rate=1e-2)
    learnt, judged = weights(model), tune(copy.deepcopy(model), tokenizer, epochs=1, learning_rate=1e-9).best
    # Steps so large that they undo what was learnt.
    result = tune(model, tokenizer, epochs=1, learning_rate=10.0, keep_start=True)
    assert result.best_step == 0
    assert result.best == pytest.approx(judged)
    assert [entry["step"] for entry in result.history if "validation_loss" in entry] == [0.0, result.steps]
    assert all(torch.equal(value, learnt[name]) for name, value in weights(model).items())


def test_the_start_gives_way_to_what_was_learnt(tokenizer):
    model, results = peft_model(), []
    models = [model, copy.deepcopy(model)]
    for keep, model in zip((True, False), models, strict=True):
        results.append(tune(model, tokenizer, epochs=4, learning_rate=1e-2, keep_start=keep))
    assert results[0].best == results[1].best
    assert results[0].best_step == results[1].best_step > 0
    assert all(torch.equal(value, weights(models[1])[name]) for name, value in weights(models[0]).items())


def test_two_half_batches_give_the_update_of_the_whole_batch(tokenizer):
    """The same rows an update, in half of the memory. Clipping shows a sum that should have been a mean."""
    found = []
    for options in ({"batch_size": 32}, {"batch_size": 16, "accumulation_steps": 2}):
        model = peft_model()
        result = tune(model, tokenizer, dropout=0.0, group_by_length=False, max_grad_norm=0.5, **options)
        norms = [entry["grad_norm"] for entry in result.history if "grad_norm" in entry]
        found.append((result.steps, torch.tensor(norms), weights(model)))
    (steps, norms, whole), (same_steps, same_norms, halves) = found
    assert steps == same_steps == 2 * ROWS // 32
    assert torch.allclose(norms, same_norms, rtol=1e-3)
    assert all(torch.allclose(value, halves[name], atol=1e-5) for name, value in whole.items())


def test_all_weights_can_be_trained_without_an_adapter(tokenizer):
    model = tiny_model(dtype=torch.float32, num_labels=2)
    batch = tiny_batch(num_labels=2)
    before = logits(model, batch)
    result = tune(model, tokenizer)
    assert result.trainable["other"] == sum(parameter.numel() for parameter in model.parameters())
    assert largest_difference(logits(model, batch), before) > 1e-4


def test_no_rows_is_an_error(tokenizer):
    with pytest.raises(DataError, match="train: no rows"):
        pl.finetune(peft_model(), rows(0, 0), rows(4, 0), tokenizer=tokenizer)


def test_tensorboard_logs_are_written_where_asked(tokenizer, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    tune(
        peft_model(),
        tokenizer,
        epochs=1,
        tensorboard=True,
        logs=tmp_path / "logs",
        checkpoints=tmp_path / "checkpoints",
    )
    assert [path.name for path in (tmp_path / "logs").iterdir() if "tfevents" in path.name]


def test_nothing_is_printed_without_progress(tokenizer, capsys):
    tune(peft_model(), tokenizer, epochs=1)
    assert capsys.readouterr() == ("", "")


def test_progress_goes_to_a_log_file_as_plain_lines_of_steps_and_of_evaluations(tokenizer, capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY_SECONDS", 1e-9)
    monkeypatch.setattr(progress, "LOG_SECONDS", 0)
    done = tune(peft_model(), tokenizer, epochs=2, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\r" not in err
    steps = [line for line in err.splitlines() if line.startswith("fine-tuning: ")]
    assert len(steps) == done.steps
    assert steps[-1].startswith(f"fine-tuning: {done.steps} of {done.steps}, ")
    assert ", loss=" in steps[-1]
    assert "judging: 1 of 1, " in err


def test_several_processes_need_a_folder_in_common(tokenizer, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DataError, match="2 processes needs checkpoints="):
        tune(peft_model(), tokenizer)


def test_an_unknown_setting_is_an_error(tokenizer):
    with pytest.raises(RecipeError, match=r"'lr'.*epochs, learning_rate"):
        tune(peft_model(), tokenizer, lr=1e-3)


def test_dropout_can_be_set_for_a_training_and_is_as_before_after_it(tokenizer):
    def dropouts(model) -> set[float]:
        return {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}

    seen = []
    model = peft_model()
    before = dropouts(model)
    assert max(before) > 0
    model.register_forward_hook(lambda module, *_: seen.append((module.training, dropouts(module))))
    tune(model, tokenizer, dropout=0.0, epochs=1)
    assert {tuple(found) for training_now, found in seen if training_now} == {(0.0,)}
    assert dropouts(model) == before


def test_loras_own_dropout_is_not_the_models(tokenizer):
    model = tiny_model(dtype=torch.float32, num_labels=2)
    plan = Plan.whole(dissect(model).lineage, rank=4)
    model = pl.add_adapter(pl.prune_(model, plan), plan, dropout=0.25)
    with contexts.dropout_of(model, 0.0):
        kept = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert kept == {0.0, 0.25}


def test_a_dropout_of_none_is_none_in_every_family(family):
    model = tiny_model(family, dtype=torch.float32)
    batch = {name: one.float() if one.is_floating_point() else one for name, one in tiny_batch(family=family).items()}
    settings = copy.deepcopy([vars(module) for module in model.modules()])
    model.train()

    def differs() -> bool:
        return not torch.equal(model(**batch).logits, model(**batch).logits)

    with contexts.dropout_of(model, 0.5):
        assert differs()
    with contexts.dropout_of(model, 0.0):
        assert not differs()
    plain = (float, int, str, bool)
    for module, before in zip(model.eval().modules(), settings, strict=True):
        for name, value in before.items():
            assert not isinstance(value, plain) or vars(module)[name] == value, (type(module).__name__, name)


def test_checkpoints_of_every_family_are_found_again_whole(family, tmp_path):
    model = tiny_model(family, dtype=torch.float32)
    pl.prune_(model, random_plan(model))
    with contexts.saving_current_names(model):
        model.save_pretrained(tmp_path)
    assert "save_pretrained" not in vars(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(math.nan)
    # As the Trainer reads its best checkpoint back.
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)
    left = dict(model.named_parameters())
    assert all(torch.equal(value, left[name]) for name, value in other.named_parameters())


@pytest.mark.parametrize("name", ["bert", "nomic_bert"])
def test_every_weight_is_that_of_the_best_checkpoint(tokenizer, monkeypatch, name):
    model = tiny_model(name, dtype=torch.float32, num_labels=2).requires_grad_(True)
    accuracies, snapshots = iter([0.2, 0.9, 0.5]), []

    def judge(*_):
        snapshots.append(copy.deepcopy(dict(model.named_parameters())))
        return {"accuracy": next(accuracies)}

    monkeypatch.setattr(training, "metrics", judge)
    tune(model, tokenizer, epochs=3, learning_rate=1e-2)
    moved = [key for key, value in snapshots[2].items() if not torch.equal(value, snapshots[1][key])]
    assert len(moved) > len(snapshots[1]) / 2
    assert all(torch.equal(value, snapshots[1][key]) for key, value in model.named_parameters())
