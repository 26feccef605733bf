"""Selective recomputation: outputs of cheap operations are recomputed in the backward pass instead of kept.

A linear layer that is trained, or has LoRA, keeps its input for the backward pass. That input is often the output of an
activation function, a norm or an elementwise product, whose own inputs are kept anyway: the output is then computed
again. Matrix products are not. The idea is that of Korthikanti et al. 2022 ("Reducing Activation Recomputation in Large
Transformer Models"), who recompute operations of attention, which PyTorch's fused attention does not keep either.

The operation's inputs are read from private fields of autograd's nodes (`_saved_self`). PyTorch's public alternative,
`torch.utils.checkpoint.create_selective_checkpoint_contexts`, keeps more and is slower: it can keep or drop outputs of
operations, not share inputs that autograd keeps, and dispatches every operation through Python twice. Six layers of
MiniLM's size with LoRA of rank 8 on every linear layer, 32 rows of 64 tokens without dropout, on one core
(`pytest -m slow -k selective_contexts -s tests/finetuning/test_recomputation.py`)::

                                                        kept per layer    time of a step
    nothing recomputed                                         51.9 MB              1.00
    this module                                                33.0 MB              1.03
    selective contexts, all matrix products kept               65.0 MB              1.18
    selective contexts, LoRA's matrix products recomputed      36.3 MB              1.27

With dropout in attention, which rules out the fused kernel on a CPU, the last way keeps less (43 MB against 59 MB) at
1.4 times the time. This module also works for families without gradient checkpointing in transformers.
"""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

# A node of autograd's graph.
_Node = Any


def recomputing(keeps: Callable[[torch.Tensor], None] | None = None) -> saved_tensors_hooks:
    """Context for a forward pass that keeps less for its backward pass, which may run later and more than once.

    Gradients are the same, up to the device's rounding of a repeated operation. It cannot be combined with gradient
    checkpointing, whose saved tensors can be read only once.

    Args:
        keeps: Called with every tensor that is kept, detached; the tensor lives as long as it is kept.

    Raises:
        RuntimeError: In the backward pass, if a kept tensor was changed in place; autograd raises it otherwise.
    """
    outputs: weakref.WeakValueDictionary[int, _Output] = weakref.WeakValueDictionary()

    def pack(tensor: torch.Tensor) -> "_Kept | _Recomputed":
        node = _recomputable(tensor)
        if node is None:
            kept = _Kept(tensor)
            if keeps is not None:
                keeps(kept.tensor)
            return kept
        output = outputs.get(id(node))
        if output is None:
            outputs[id(node)] = output = _Output(node)
        return _Recomputed(output, tensor)

    return saved_tensors_hooks(pack, lambda packed: packed.get())


class _Kept:
    """A tensor that is kept."""

    def __init__(self, tensor: torch.Tensor) -> None:
        # With its history an output would keep a reference cycle, and with it the whole graph.
        self.tensor = tensor.detach()
        self.version = tensor._version

    def get(self) -> torch.Tensor:
        # With hooks autograd does not check the version itself.
        if self.tensor._version != self.version:
            raise RuntimeError(
                "A tensor that the backward pass needs was changed in place after the forward pass: shape "
                f"{tuple(self.tensor.shape)}, version {self.tensor._version}, expected {self.version}."
            )
        return self.tensor


class _Recomputed:
    """An operation's output in some shape and dtype, which is not kept."""

    def __init__(self, output: "_Output", tensor: torch.Tensor) -> None:
        self.output = output
        self.shape, self.dtype, self.device = tensor.shape, tensor.dtype, tensor.device
        output.awaited += 1

    def get(self) -> torch.Tensor:
        return self.output.get().to(self.device, self.dtype).reshape(self.shape)


class _Output:
    """An operation's output: recomputed at the first use in a backward pass and released after the last.

    Attributes:
        awaited: Number of uses in one backward pass.
    """

    def __init__(self, node: _Node) -> None:
        self.node = node
        self.awaited = 0
        self._uses = 0
        self._value: torch.Tensor | None = None

    def get(self) -> torch.Tensor:
        if self._value is None:
            with torch.no_grad():
                self._value = _OPERATIONS[self.node.name()](self.node)
        value = self._value
        self._uses += 1
        if self._uses % self.awaited == 0:
            self._value = None
        return value


def _layer_norm(node: _Node) -> torch.Tensor:
    inputs = node._saved_input
    # Mean and reciprocal standard deviation are float32 if the inputs have a smaller dtype.
    normed: torch.Tensor = (inputs - node._saved_result1).mul_(node._saved_result2)
    if node._saved_weight is not None:
        normed = normed * node._saved_weight
    if node._saved_bias is not None:
        normed = normed + node._saved_bias
    return normed.to(inputs.dtype)


def _gelu(node: _Node) -> torch.Tensor:
    return functional.gelu(node._saved_self, approximate=node._saved_approximate)


# By the node's name. A node keeps its saved tensors until its own backward step, which runs after all uses.
_OPERATIONS: Mapping[str, Callable[[_Node], torch.Tensor]] = {
    "GeluBackward0": _gelu,
    "SiluBackward0": lambda node: functional.silu(node._saved_self),
    "MulBackward0": lambda node: node._saved_self * node._saved_other,
    "NativeLayerNormBackward0": _layer_norm,
}
_VIEWS = frozenset({"ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0"})
_CAST = "ToCopyBackward0"


def _recomputable(tensor: torch.Tensor) -> _Node | None:
    """The node whose output this tensor is, up to shape and dtype; None if the output cannot be recomputed."""
    node, casts = tensor.grad_fn, 0
    while node is not None and (node.name() in _VIEWS or node.name() == _CAST):
        casts += node.name() == _CAST
        node = node.next_functions[0][0]
    # After two casts the value may have been rounded to the first one's dtype.
    if node is None or casts > 1 or node.name() not in _OPERATIONS:
        return None
    # Autograd saves a factor of a product only if the other factor requires a gradient.
    if node.name() == "MulBackward0" and any(parent is None for parent, _ in node.next_functions):
        return None
    return node
