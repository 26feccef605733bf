import gc
import weakref

import torch
from torch import nn

from prunelora.evaluation.memory import inference_memory, saved_for_backward_bytes, training_memory


class OneLinear(nn.Module):
    """Takes a batch as transformers models do."""

    def __init__(self, *, bias=True):
        super().__init__()
        self.linear = nn.Linear(6, 3, bias=bias)

    def forward(self, inputs):
        return self.linear(inputs)


class TwoLinears(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 4)
        self.second = nn.Linear(4, 3)

    def forward(self, inputs):
        hidden = self.first(inputs)
        return self.second(hidden), self.second(hidden)


def test_a_linear_keeps_its_input_and_its_own_weight_does_not_count():
    assert saved_for_backward_bytes(OneLinear(), {"inputs": torch.zeros(5, 6)}) == 5 * 6 * 4
    assert saved_for_backward_bytes(OneLinear().double(), {"inputs": torch.zeros(5, 6).double()}) == 5 * 6 * 8


def test_nothing_stays_in_memory_when_it_is_counted():
    """Tanh keeps its own output for the backward pass, which has the whole graph behind it."""
    model, outputs = OneLinear(), []
    model.linear.register_forward_hook(lambda _, __, output: output.tanh())
    model.register_forward_hook(lambda _, __, output: outputs.append(weakref.ref(output)))
    assert saved_for_backward_bytes(model, {"inputs": torch.zeros(5, 6)}) == (5 * 6 + 5 * 3) * 4
    gc.collect()
    assert [found() for found in outputs] == [None]


def test_what_is_kept_twice_counts_once():
    assert saved_for_backward_bytes(TwoLinears(), {"inputs": torch.zeros(5, 6)}) == (5 * 6 + 5 * 4) * 4


def test_frozen_weights_keep_nothing_they_do_not_need():
    model = TwoLinears()
    model.first.requires_grad_(False)
    assert saved_for_backward_bytes(model, {"inputs": torch.zeros(5, 6)}) == 5 * 4 * 4
    model.requires_grad_(False)
    assert saved_for_backward_bytes(model, {"inputs": torch.zeros(5, 6)}) == 0


def test_dropout_counts_as_in_training_and_the_model_is_left_as_found():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3)).eval()
    model.forward = lambda inputs: nn.Sequential.forward(model, inputs)
    model[1].bias.requires_grad_(False)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    inputs = torch.zeros(5, 6, requires_grad=True)
    found = saved_for_backward_bytes(model, {"inputs": inputs})
    assert found > 5 * 6 * 4  # in eval mode dropout keeps nothing, and the input is all
    assert not model.training
    assert not model[1].bias.requires_grad
    assert model[1].weight.requires_grad
    assert model[1].weight.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_memory_grows_with_the_batch_and_the_configuration_stays(make_tiny):
    model = make_tiny()
    assert model.config.problem_type is None

    def saved(rows):
        batch = {"input_ids": torch.ones(rows, 7, dtype=torch.long), "labels": torch.zeros(rows, dtype=torch.long)}
        return saved_for_backward_bytes(model, batch)

    assert saved(8) - saved(4) == 2 * (saved(4) - saved(2)) > 0
    assert model.config.problem_type is None


def test_gradients_and_optimiser_are_those_of_the_trainable_weights():
    model = TwoLinears()
    model.first.requires_grad_(False)
    found = training_memory(model, {"inputs": torch.zeros(5, 6)})
    assert found.weights_bytes == (6 * 4 + 4 + 4 * 3 + 3) * 4
    assert found.gradients_bytes == (4 * 3 + 3) * 4
    assert found.optimizer_bytes == 2 * (4 * 3 + 3) * 4
    assert found.saved_bytes == 5 * 4 * 4
    assert found.total == 172 + 60 + 2 * 60 + 80


class Wide(nn.Module):
    """Activations of 4, 40, 40 and 3 numbers a row, one after the other."""

    def __init__(self, *, repeats=1):
        super().__init__()
        self.up, self.down, self.repeats = nn.Linear(4, 40), nn.Linear(40, 3), repeats

    def forward(self, inputs):
        for _ in range(self.repeats):
            found = self.down(torch.relu(self.up(inputs)).reshape(-1, 40))
        return found


def test_inference_holds_the_weights_and_what_is_alive_at_once():
    weights = (4 * 40 + 40 + 40 * 3 + 3) * 4
    inputs = {"inputs": torch.zeros(5, 4)}
    # Before and after the relu; a view of it costs nothing.
    assert inference_memory(Wide(), inputs) == weights + 2 * 5 * 40 * 4


def test_inference_memory_is_free_again_when_nothing_refers_to_it():
    once, often = (inference_memory(Wide(repeats=n), {"inputs": torch.zeros(5, 4)}) for n in (1, 6))
    # The result of the round before is still alive in the next round.
    assert often - once == 5 * 3 * 4


def test_inference_needs_less_memory_with_fewer_neurons_and_leaves_the_model_as_found(make_tiny):
    from tiny import random_plan

    from prunelora.pruning.surgery import prune_

    batch = {"input_ids": torch.ones(8, 7, dtype=torch.long), "labels": torch.zeros(8, dtype=torch.long)}
    model = make_tiny().train()
    dense = inference_memory(model, batch)
    assert model.training
    assert inference_memory(prune_(model, random_plan(model, empty=False, ranks=False)), batch) < dense
