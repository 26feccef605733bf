"""Recorded inputs of layers: the same whether the layers before them run or are skipped."""

import pytest
import torch
from tiny import tiny_batch, tiny_model

from prunelora.models.anatomy import dissect
from prunelora.pruning.layer_inputs import InputRecorder
from prunelora.pruning.layers import layers_of

# T5's later layers read the position bias that the first layer computes, a decoder reads its encoder's output.
DEPENDENT = ("bart", "mbart", "t5")


def flat(value):
    """All values in nested inputs, in order."""
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
def test_inputs_of_a_batch_do_not_depend_on_earlier_batches(family, most_bytes):
    anatomy = dissect(tiny_model(family))
    if anatomy.family.repeated:
        pytest.skip("a layer that runs several times has several inputs")
    batches = [tiny_batch(5, 12, family=family), tiny_batch(7, 12, family=family), tiny_batch(3, 9, family=family)]
    runs = [0]
    handle = (
        layers_of(anatomy)[0]
        .blocks[0]
        .part("output")
        .register_forward_hook(lambda *_: runs.__setitem__(0, runs[0] + 1))
    )
    with torch.no_grad():
        alone = [InputRecorder(anatomy, [batch], most_bytes=0).of(0) for batch in batches]
        runs[0] = 0
        recorder = InputRecorder(anatomy, batches, most_bytes=most_bytes)
        together = [recorder.of(batch) for batch in range(3)]
        again = [recorder.of(batch) for batch in range(3)]
    handle.remove()
    for one, other in zip([*alone, *alone], [*together, *again], strict=True):
        for inputs, expected in zip(other, one, strict=True):
            found, wanted = flat(inputs), flat(expected)
            assert len(found) == len(wanted)
            assert all(same(*pair) for pair in zip(found, wanted, strict=True))
    # Inputs that depend on the layers' outputs are kept, or the layers run again.
    assert runs[0] == (1 if family not in DEPENDENT else 3 if most_bytes else 6)
    assert all("forward" not in vars(layer.module) for layer in layers_of(anatomy))
