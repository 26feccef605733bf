import pytest
import torch
from torch import nn

from prunelora.evaluation.memory import saved_for_backward_bytes, training_memory


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


@pytest.mark.parametrize("optimizer_states", [0, 2])
def test_gradients_and_optimiser_are_those_of_the_trainable_weights(optimizer_states):
    model = TwoLinears()
    model.first.requires_grad_(False)
    found = training_memory(model, {"inputs": torch.zeros(5, 6)}, optimizer_states=optimizer_states)
    assert found.weights_bytes == (6 * 4 + 4 + 4 * 3 + 3) * 4
    assert found.gradients_bytes == (4 * 3 + 3) * 4
    assert found.optimizer_bytes == optimizer_states * (4 * 3 + 3) * 4
    assert found.saved_bytes == 5 * 4 * 4
    assert found.total == 172 + 60 + optimizer_states * 60 + 80
