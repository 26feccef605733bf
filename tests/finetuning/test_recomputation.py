"""Selective recomputation: the same gradients with fewer bytes kept."""

import collections
import contextlib
import functools
import statistics
import time

import pytest
import torch
from tiny import largest_difference, random_plan, stir, tiny_batch, tiny_model
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import BertConfig, BertForSequenceClassification

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


TARGETS = ("query", "key", "value", "output", "up", "down")


def everywhere(model) -> Plan:
    return Plan.whole(dissect(model).lineage, rank=2, targets=TARGETS)


@pytest.mark.parametrize("plan_of", [random_plan, everywhere])
def test_gradients_are_the_same_and_less_is_kept(family, plan_of):
    model = adapted(family, plan_of)
    batch = tiny_batch(family=family)
    expected = gradients(model, batch, contextlib.nullcontext())
    found = gradients(model, batch, recomputing())
    assert expected.keys() == found.keys()
    for name, one in expected.items():
        assert largest_difference(one, found[name]) <= 1e-12 * max(1.0, float(one.abs().max())), name
    # Several times: a tensor that is freed must not count, whichever tensor reuses its memory.
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
def test_only_inputs_that_cannot_be_recomputed_are_kept(module, kept):
    assert kept_floats(module, rows=5) == 5 * kept


def test_a_norm_without_weights_is_recomputed():
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


def test_an_output_with_several_uses_is_recomputed_once_in_a_backward_pass():
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


def test_gradients_are_the_same_in_bfloat16():
    model, batch = adapted("bert", everywhere).float(), tiny_batch()

    def found(context):
        with torch.autocast("cpu", torch.bfloat16):
            return gradients(model, batch, context)

    expected, again = found(contextlib.nullcontext()), found(recomputing())
    for name, one in expected.items():
        assert largest_difference(one, again[name]) <= 1e-5 * max(1e-3, float(one.abs().max())), name


@pytest.mark.parametrize("types", [(torch.float32,), (torch.float32, torch.float64), (torch.bfloat16, torch.float64)])
def test_one_cast_is_repeated_but_not_two(types):
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


def test_a_product_with_a_factor_without_gradient_is_kept():
    """Autograd then saves only one of the factors."""
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


def test_an_activations_output_may_be_changed_in_place():
    """Without recomputation that is an error; the recomputed output is the original one."""
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


class LiveBytes(TorchDispatchMode):
    """Counts storages of operations' outputs that are still alive, those of `ignored` tensors left out."""

    def __init__(self, ignored):
        super().__init__()
        self.ignored = {tensor.untyped_storage().data_ptr() for tensor in ignored}
        self.storages = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, tuple | list) else (output,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.storages.append((StorageWeakRef(storage), storage.data_ptr(), storage.nbytes()))
        return output

    def count(self) -> int:
        alive = {address: size for storage, address, size in self.storages if not storage.expired()}
        return sum(size for address, size in alive.items() if address not in self.ignored)


@contextlib.contextmanager
def selective_contexts(model, *, lora_recomputed: bool):
    """Selective checkpointing of every layer: outputs of matrix products and of attention are kept."""
    aten = torch.ops.aten
    kept = {aten.addmm.default, aten._scaled_dot_product_flash_attention_for_cpu.default}
    if not lora_recomputed:
        kept.add(aten.mm.default)  # LoRA's layers have no bias.

    def policy(_, operation, *__, **___):
        return CheckpointPolicy.MUST_SAVE if operation in kept else CheckpointPolicy.PREFER_RECOMPUTE

    contexts = functools.partial(create_selective_checkpoint_contexts, policy)
    model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False, "context_fn": contexts})
    yield
    model.gradient_checkpointing_disable()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_selective_contexts_of_torch_keep_more():
    """Also prints the times of a step in turn, which the module's docstring compares."""
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    model = BertForSequenceClassification(
        BertConfig(**sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    )
    peft_model = pl.add_adapter(model, Plan.whole(dissect(model).lineage, rank=8, targets=TARGETS)).train()
    ids = torch.randint(0, 30_000, (32, 64), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(32) % 2}
    ways = {
        "nothing recomputed": (contextlib.nullcontext, contextlib.nullcontext),
        "recomputing()": (contextlib.nullcontext, recomputing),
        "selective contexts, all matrix products kept": (
            lambda: selective_contexts(model, lora_recomputed=False), contextlib.nullcontext
        ),
        "selective contexts, LoRA's recomputed": (
            lambda: selective_contexts(model, lora_recomputed=True), contextlib.nullcontext
        ),
    }  # fmt: skip

    def step(way: str, counter=None) -> tuple[float, int]:
        of_model, of_forward = ways[way]
        peft_model.zero_grad()
        with of_model():
            start = time.perf_counter()
            with of_forward(), counter or contextlib.nullcontext():
                loss = peft_model(**batch).loss
            kept = counter.count() if counter else 0
            loss.backward()
        return time.perf_counter() - start, kept

    kept = {way: step(way, LiveBytes(peft_model.parameters()))[1] for way in ways}
    times = {way: [] for way in ways}
    for _ in range(5):
        for way in ways:
            times[way].append(step(way)[0])
    for way in ways:
        print(f"{way:46}{kept[way] / 6e6:8.1f} MB a layer{1000 * statistics.median(times[way]):8.0f} ms a step")  # noqa: T201
    others = [way for way in ways if way != "recomputing()"]
    assert all(kept["recomputing()"] < 0.95 * kept[way] for way in others)
