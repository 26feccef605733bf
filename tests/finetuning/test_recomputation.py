"""Selective recomputation: the same gradients from less that is kept."""

import collections
import contextlib

import pytest
import torch
from tiny import largest_difference, random_plan, stir, tiny_batch, tiny_model
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import prunelora as pl
from prunelora.evaluation.memory import saved_for_backward_bytes
from prunelora.finetuning.recomputation import recomputing
from prunelora.models.anatomy import dissect
from prunelora.planning.plan import Plan


def gradients(model, batch, context) -> dict[str, torch.Tensor]:
    model.zero_grad()
    with context:
        loss = model(**batch).loss
    loss.backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def bytes_kept(model, batch, *, recompute: bool) -> int:
    return saved_for_backward_bytes(model, batch, recompute=recompute)


def adapted(family: str, plan_of=random_plan):
    model = tiny_model(family)
    plan = plan_of(model)
    peft_model = pl.add_adapter(pl.prune_(model, plan), plan)
    stir(peft_model)
    return peft_model


def everywhere(model) -> Plan:
    return Plan.whole(dissect(model).lineage, rank=2, targets=("query", "key", "value", "output", "up", "down"))


@pytest.mark.parametrize("plan_of", [random_plan, everywhere])
def test_gradients_are_the_same_and_less_is_kept(family, plan_of):
    model = adapted(family, plan_of)
    batch = tiny_batch(family=family)
    expected = gradients(model, batch, contextlib.nullcontext())
    found = gradients(model, batch, recomputing())
    assert expected.keys() == found.keys()
    for name, one in expected.items():
        assert largest_difference(one, found[name]) <= 1e-12 * max(1.0, float(one.abs().max())), name
    # More than once: what is gone before the end must not count, however its memory is given out again.
    counts = [(bytes_kept(model, batch, recompute=True), bytes_kept(model, batch, recompute=False)) for _ in range(4)]
    assert counts[0][0] < counts[0][1]
    assert counts == counts[:1] * 4


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_gradients_of_all_weights_are_the_same(family):
    model, batch = tiny_model(family), tiny_batch(family=family)
    expected = gradients(model, batch, contextlib.nullcontext())
    found = gradients(model, batch, recomputing())
    assert all(largest_difference(one, found[name]) < 1e-12 for name, one in expected.items())
    assert bytes_kept(model, batch, recompute=True) < bytes_kept(model, batch, recompute=False)


class FeedForward(nn.Module):
    """D = 4, F = 6; the norm's input is (N, 4)."""

    def __init__(self, activation=functional.gelu, *, gated=False):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(4), nn.Linear(4, 6), nn.Linear(6, 4)
        self.gate = nn.Linear(4, 6) if gated else None
        self.activation = activation

    def forward(self, inputs):
        hidden = self.norm(inputs)
        found = self.activation(self.up(hidden))
        return self.down(found if self.gate is None else found * self.gate(hidden))


def kept_floats(module: nn.Module, rows: int = 5) -> int:
    """Numbers that are kept of a run over some rows, weights left out."""
    own = {one.data_ptr() for one in module.parameters()}
    kept: dict[int, int] = {}

    def keeps(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.element_size()

    inputs = torch.randn(rows, 4, requires_grad=True)
    with recomputing(keeps):
        output = module(inputs)
    output.sum().backward()
    return sum(kept.values())


@pytest.mark.parametrize(
    ("module", "kept"),
    [
        # The norm's input and its two statistics, and what goes into the activation; else 4 and 6 more.
        (FeedForward(), 4 + 2 + 6),
        (FeedForward(functional.silu), 4 + 2 + 6),
        (FeedForward(lambda found: functional.gelu(found, approximate="tanh")), 4 + 2 + 6),
        # ReLU keeps what it gave, which is what the next layer keeps.
        (FeedForward(functional.relu), 4 + 2 + 6),
        # With it both factors' origins: the activation's input, and the gates.
        (FeedForward(functional.silu, gated=True), 4 + 2 + 6 + 6),
    ],
    ids=["gelu", "silu", "gelu_tanh", "relu", "gated"],
)
def test_what_is_kept_is_what_cannot_be_had_again(module, kept):
    assert kept_floats(module, rows=5) == 5 * kept


def test_a_norm_without_weights_is_taken_again():
    module = nn.Sequential(nn.LayerNorm(4, elementwise_affine=False), nn.Linear(4, 3)).double()
    inputs = torch.randn(5, 4, dtype=torch.float64)
    module(inputs).square().sum().backward()
    expected = module[1].weight.grad.clone()
    module.zero_grad()
    inputs.requires_grad_(True)  # Else the norm has no history.
    with recomputing():
        loss = module(inputs).square().sum()
    loss.backward()
    assert largest_difference(expected, module[1].weight.grad) < 1e-12


def test_what_several_need_is_computed_once_in_a_backward_pass():
    class Counting(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.calls = collections.Counter()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.calls[function.overloadpacket._qualified_op_name] += 1
            return function(*args, **(kwargs or {}))

    up, layers = nn.Linear(4, 6), nn.ModuleList(nn.Linear(6, 3) for _ in range(3))
    with recomputing():
        found = functional.gelu(up(torch.randn(5, 4)))
        loss = sum(layer(found).square().sum() for layer in layers)
    for _ in range(2):
        with Counting() as counting:
            loss.backward(retain_graph=True)
        assert counting.calls["aten::gelu"] == 1


def test_a_second_backward_pass_gives_the_same():
    model, batch = adapted("bert"), tiny_batch()
    with recomputing():
        loss = model(**batch).loss
    loss.backward(retain_graph=True)
    first = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    model.zero_grad()
    loss.backward()
    assert all(torch.equal(first[name], model.get_parameter(name).grad) for name in first)


def test_bfloat16_gives_what_it_gives_without():
    model, batch = adapted("bert", everywhere).float(), tiny_batch()

    def found(context):
        with torch.autocast("cpu", torch.bfloat16):
            return gradients(model, batch, context)

    expected, again = found(contextlib.nullcontext()), found(recomputing())
    for name, one in expected.items():
        assert largest_difference(one, again[name]) <= 1e-5 * max(1e-3, float(one.abs().max())), name


@pytest.mark.parametrize("types", [(torch.float32,), (torch.float32, torch.float64), (torch.bfloat16, torch.float64)])
def test_a_cast_is_done_again_but_not_one_that_another_had_rounded(types):
    up, down = nn.Linear(4, 6), nn.Linear(6, 3).to(types[-1])
    up.double()
    inputs = torch.randn(5, 4, dtype=torch.float64)

    def gradient(context):
        down.zero_grad()
        with context:
            found = functional.gelu(up(inputs))
            for one in types:
                found = found.to(one)
            loss = down(found).square().sum()
        loss.backward()
        return down.weight.grad.clone()

    kept = []
    again = gradient(recomputing(lambda one: kept.append((one.dtype, tuple(one.shape)))))
    assert torch.equal(gradient(contextlib.nullcontext()), again)
    assert ((types[-1], (5, 6)) in kept) == (len(types) > 1)


def test_a_product_with_what_needs_no_gradient_is_kept():
    """Of its two factors autograd then keeps one alone."""
    layer, factor = nn.Linear(4, 4), torch.randn(5, 4)
    for first, second in (("other", "own"), ("own", "other")):
        layer.zero_grad()
        with recomputing():
            pair = {"own": layer(torch.ones(5, 4)), "other": factor}
            product = pair[first] * pair[second]
            loss = product.square().sum()
        loss.backward()
        assert layer.bias.grad is not None
        expected = (2 * (layer(torch.ones(5, 4)) * factor) * factor).sum(0)
        assert largest_difference(layer.bias.grad, expected.detach()) < 1e-5


def test_a_tensor_changed_in_place_is_an_error():
    layer = nn.Linear(4, 3)
    inputs = torch.randn(5, 4)
    with recomputing():
        loss = layer(inputs).sum()
    inputs.add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_what_an_activation_gave_may_be_changed_in_place():
    """Without it that is an error; what is computed again is what the layer was given."""
    up, down = nn.Linear(4, 6), nn.Linear(6, 3)
    inputs = torch.randn(5, 4)
    with recomputing():
        found = functional.gelu(up(inputs))
        loss = down(found).square().sum()
    found.detach().zero_()
    loss.backward()
    again = down.weight.grad.clone()
    down.zero_grad()
    down(functional.gelu(up(inputs))).square().sum().backward()
    assert torch.equal(again, down.weight.grad)
