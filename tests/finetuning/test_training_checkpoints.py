"""A folder of checkpoints is one training's: found again where it is moved to, and refused to every other training."""

import json
import shutil

import pytest
import torch
from datasets import Dataset, Features, Sequence, Value
from small_training import STEPS_AN_EPOCH, adapted, make_tokenizer, rows, tune, weights

from prunelora.errors import CheckpointError
from prunelora.finetuning import callbacks, training
from prunelora.finetuning.checkpoints import IDENTITY, hash_of_rows
from prunelora.finetuning.distillation import TEACHER


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def best_in_the_middle(monkeypatch):
    """The second of three evaluations is the best, whatever was learnt."""

    def begin(*accuracies: float):
        found = iter(accuracies or (0.2, 0.9, 0.5))
        monkeypatch.setattr(training, "metrics", lambda *_: {"accuracy": next(found)})

    return begin


def test_a_training_that_ended_is_found_again_after_its_folder_was_moved(tokenizer, tmp_path, best_in_the_middle):
    best_in_the_middle()
    model = adapted()
    whole = tune(model, tmp_path / "here", tokenizer)
    assert whole.best_step == 2 * STEPS_AN_EPOCH
    shutil.move(tmp_path / "here", tmp_path / "there")
    again = adapted()
    result = tune(again, tmp_path / "there", tokenizer)
    assert (result.best_step, result.best) == (whole.best_step, whole.best)
    assert torch.equal(weights(again), weights(model))


def test_a_training_that_was_stopped_goes_on_after_its_folder_was_moved(
    tokenizer, tmp_path, monkeypatch, best_in_the_middle
):
    best_in_the_middle()
    model = adapted()
    tune(model, tmp_path / "whole", tokenizer)
    clock = callbacks.StepClock

    class Killing(clock):
        def on_step_end(self, args, state, control, **kwargs):
            super().on_step_end(args, state, control, **kwargs)
            if state.global_step == 2 * STEPS_AN_EPOCH + 1:
                raise KeyboardInterrupt

    best_in_the_middle()
    with monkeypatch.context() as patch:
        patch.setattr(training, "StepClock", Killing)
        with pytest.raises(KeyboardInterrupt):
            tune(adapted(), tmp_path / "here", tokenizer)
    shutil.move(tmp_path / "here", tmp_path / "there")
    best_in_the_middle(0.5)  # Of the third alone.
    again = adapted()
    assert tune(again, tmp_path / "there", tokenizer).best_step == 2 * STEPS_AN_EPOCH
    assert torch.equal(weights(again), weights(model))


def test_a_missing_best_checkpoint_is_an_error(tokenizer, tmp_path, best_in_the_middle):
    best_in_the_middle()
    tune(adapted(), tmp_path, tokenizer)
    shutil.rmtree(tmp_path / f"checkpoint-{2 * STEPS_AN_EPOCH}")
    with pytest.raises(CheckpointError, match="checkpoint-6"):
        tune(adapted(), tmp_path, tokenizer)


@pytest.fixture(scope="module")
def finished(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    tune(adapted(), folder, tokenizer, epochs=1)
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rate": 1e-1}, "learning_rate=0.01 there, 0.1 here"),
        ({"epochs": 2}, "epochs=1.0 there, 2.0 here"),
        ({"seed": 1}, "seed=0 there, 1 here"),
        ({"main_metric": "f1_macro"}, "main_metric='accuracy' there, 'f1_macro' here"),
        ({"train": rows(seed=5)}, "other training rows"),
        ({"validation": rows(8, 5)}, "other validation rows"),
    ],
)
def test_checkpoints_of_another_training_are_refused(change, said, finished, tokenizer):
    with pytest.raises(CheckpointError, match=said):
        tune(adapted(), finished, tokenizer, **({"epochs": 1} | change))


def test_checkpoints_of_other_models_are_refused(finished, tokenizer):
    with pytest.raises(CheckpointError, match="other initial weights"):
        tune(adapted(seed=1), finished, tokenizer, epochs=1)
    with pytest.raises(CheckpointError, match="architecture"):
        tune(adapted(rank=2), finished, tokenizer, epochs=1)
    with pytest.raises(CheckpointError, match="other trainable weights"):
        tune(adapted().requires_grad_(True), finished, tokenizer, epochs=1)


def test_settings_without_effect_on_the_weights_are_no_other_training(finished, tokenizer):
    model = adapted()
    again = tune(model, finished, tokenizer, epochs=1, selective_recomputation=False, gradient_checkpointing=True)
    assert again.steps == STEPS_AN_EPOCH
    assert again.step_ms is None  # No step was taken.


def test_checkpoints_that_nothing_is_known_of_are_refused(finished, tokenizer, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    (tmp_path / "copy" / IDENTITY).unlink()
    with pytest.raises(CheckpointError, match=IDENTITY):
        tune(adapted(), tmp_path / "copy", tokenizer, epochs=1)


def test_a_folder_without_checkpoints_becomes_the_next_trainings(tokenizer, tmp_path):
    (tmp_path / IDENTITY).write_text(json.dumps({"settings": {"epochs": 9}}))  # Of one that was killed at once.
    assert tune(adapted(), tmp_path, tokenizer, epochs=1).steps == STEPS_AN_EPOCH


def test_a_teachers_answers_may_differ_by_rounding_and_no_more(tokenizer, tmp_path):
    answers = torch.randn(24, 2, generator=torch.Generator().manual_seed(0))

    def distil(answers):
        train = rows().add_column(TEACHER, answers.tolist())
        return tune(adapted(), tmp_path, tokenizer, train=train, epochs=1, distillation=0.5)

    first = distil(answers)
    assert distil(answers * (1 + 1e-6)).best == first.best
    with pytest.raises(CheckpointError, match="another teacher"):
        distil(answers + 1)


def test_the_hash_of_rows_is_of_what_they_hold_and_in_which_order():
    data = rows()
    same = Dataset.from_dict(data.to_dict())
    assert hash_of_rows(data) == hash_of_rows(same) == hash_of_rows(data.select(range(24)))
    narrow = Features({name: Sequence(Value("int32")) for name in data.column_names if name != "labels"})
    narrow["labels"] = data.features["labels"]
    assert hash_of_rows(data.cast(narrow)) == hash_of_rows(data)
    assert hash_of_rows(data.select([1, 0, *range(2, 24)])) != hash_of_rows(data)
    columns = data.to_dict()  # The same numbers, in rows of other lengths.
    columns["input_ids"][1].insert(0, columns["input_ids"][0].pop())
    assert hash_of_rows(Dataset.from_dict(columns)) != hash_of_rows(data)
