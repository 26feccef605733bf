"""What layers are called with: the same whether the layers before them were run or not."""

import pytest
import torch
from tiny import tiny_batch, tiny_model

from prunelora.models.anatomy import dissect
from prunelora.pruning.calls import LayerCalls
from prunelora.pruning.layers import layers_of

# T5's later layers are called with the position bias that the first one gives, a decoder with what its encoder gives.
DEPENDENT = ("bart", "mbart", "t5")


def flat(value):
    """Tensors and all else in a call, in order."""
    if isinstance(value, dict):
        return [one for key in sorted(value) for one in (key, *flat(value[key]))]
    if isinstance(value, tuple | list):
        return [one for part in value for one in flat(part)]
    return [value]


def same(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    return one is other or one == other


@pytest.mark.parametrize("most_bytes", [0, 10**9])
def test_later_batches_give_the_calls_they_give_alone(family, most_bytes):
    anatomy = dissect(tiny_model(family))
    if anatomy.family.repeated:
        pytest.skip("a layer that is run many times has no call of its own")
    batches = [tiny_batch(5, 12, family=family), tiny_batch(7, 12, family=family), tiny_batch(3, 9, family=family)]
    runs = [0]
    handle = (
        layers_of(anatomy)[0]
        .blocks[0]
        .part("output")
        .register_forward_hook(lambda *_: runs.__setitem__(0, runs[0] + 1))
    )
    with torch.no_grad():
        alone = [LayerCalls(anatomy, [batch], most_bytes=0).of(0) for batch in batches]
        runs[0] = 0
        calls = LayerCalls(anatomy, batches, most_bytes=most_bytes)
        together = [calls.of(number) for number in range(3)]
        again = [calls.of(number) for number in range(3)]
    handle.remove()
    for one, other in zip([*alone, *alone], [*together, *again], strict=True):
        for call, expected in zip(other, one, strict=True):
            found, wanted = flat(vars(call)), flat(vars(expected))
            assert len(found) == len(wanted)
            assert all(same(*pair) for pair in zip(found, wanted, strict=True))
    # Calls that depend on what layers compute are kept, or need the layers to run again.
    assert runs[0] == (1 if family not in DEPENDENT else 3 if most_bytes else 6)
    assert all("forward" not in vars(layer.module) for layer in layers_of(anatomy))
