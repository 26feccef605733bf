"""Selective recomputation: what is cheap to compute again is not kept from the forward for the backward pass.

What goes into a linear layer that is trained, or has LoRA, is kept for the backward pass. Often an activation function,
a norm or a product of two tensors gave it, and what that was computed from is kept anyway: so it is computed a second
time instead. Nothing that costs a matrix product is. The idea is that of Korthikanti et al. 2022 ("Reducing Activation
Recomputation in Large Transformer Models"), for other operations: theirs are those of attention, which PyTorch's fused
attention does not keep either.
"""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

# A node of autograd's graph, of an operation that can be done again.
_Node = Any


def recomputing(keeps: Callable[[torch.Tensor], None] | None = None) -> saved_tensors_hooks:
    """A context: what runs forward in it keeps less for its backward pass, which may come later, or more than once.

    Gradients are the same, up to how a device rounds the same operation done twice. Not for models with gradient
    checkpointing: what their layers keep can be had once only.

    Args:
        keeps: Called with every tensor that is kept, without its history; it lives for as long as it is kept.

    Raises:
        RuntimeError: In the backward pass, if a tensor that is needed was changed in place since, as without it.
    """
    outputs: weakref.WeakValueDictionary[int, _Output] = weakref.WeakValueDictionary()

    def pack(tensor: torch.Tensor) -> "_Kept | _Again":
        node = _made_by(tensor)
        if node is None:
            kept = _Kept(tensor)
            if keeps is not None:
                keeps(kept.tensor)
            return kept
        output = outputs.get(id(node))
        if output is None:
            outputs[id(node)] = output = _Output(node)
        return _Again(output, tensor)

    return saved_tensors_hooks(pack, lambda packed: packed.get())


class _Kept:
    """A tensor as it is."""

    def __init__(self, tensor: torch.Tensor) -> None:
        # An output that is kept with its own history would keep itself, and the whole graph, for good.
        self.tensor = tensor.detach()
        self.version = tensor._version

    def get(self) -> torch.Tensor:
        # Autograd leaves this to the hooks, where there are some.
        if self.tensor._version != self.version:
            raise RuntimeError(
                "A tensor that the backward pass needs was changed in place after the forward pass: shape "
                f"{tuple(self.tensor.shape)}, version {self.tensor._version}, expected {self.version}."
            )
        return self.tensor


class _Again:
    """A tensor that is an operation's output, seen in some shape and type."""

    def __init__(self, output: "_Output", tensor: torch.Tensor) -> None:
        self.output = output
        self.shape, self.dtype, self.device = tensor.shape, tensor.dtype, tensor.device
        output.awaited += 1

    def get(self) -> torch.Tensor:
        return self.output.get().to(self.device, self.dtype).reshape(self.shape)


class _Output:
    """An operation's output, computed when the first asks for it and let go when the last has.

    Attributes:
        awaited: How many will ask for it, in one backward pass.
    """

    def __init__(self, node: _Node) -> None:
        self.node = node
        self.awaited = 0
        self._asked = 0
        self._value: torch.Tensor | None = None

    def get(self) -> torch.Tensor:
        if self._value is None:
            with torch.no_grad():
                self._value = _OPERATIONS[self.node.name()](self.node)
        value = self._value
        self._asked += 1
        if self._asked % self.awaited == 0:
            self._value = None
        return value


def _layer_norm(node: _Node) -> torch.Tensor:
    found = node._saved_input
    # Mean and standard deviation have a precision of their own where the inputs have little.
    normed: torch.Tensor = (found - node._saved_result1).mul_(node._saved_result2)
    if node._saved_weight is not None:
        normed = normed * node._saved_weight
    if node._saved_bias is not None:
        normed = normed + node._saved_bias
    return normed.to(found.dtype)


def _gelu(node: _Node) -> torch.Tensor:
    return functional.gelu(node._saved_self, approximate=node._saved_approximate)


# By the name of the node; what a node has saved, it keeps until its own backward, which comes after all who ask.
_OPERATIONS: Mapping[str, Callable[[_Node], torch.Tensor]] = {
    "GeluBackward0": _gelu,
    "SiluBackward0": lambda node: functional.silu(node._saved_self),
    "MulBackward0": lambda node: node._saved_self * node._saved_other,
    "NativeLayerNormBackward0": _layer_norm,
}
_VIEWS = frozenset({"ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0"})
_CAST = "ToCopyBackward0"


def _made_by(tensor: torch.Tensor) -> _Node | None:
    """The node of the operation that gave this tensor, in another shape or type maybe; None if it cannot be redone."""
    node, casts = tensor.grad_fn, 0
    while node is not None and (node.name() in _VIEWS or node.name() == _CAST):
        casts += node.name() == _CAST
        node = node.next_functions[0][0]
    # Of two casts the first may have rounded.
    if node is None or casts > 1 or node.name() not in _OPERATIONS:
        return None
    # A product's factors are kept for each other: neither is, for one that needs no gradient.
    if node.name() == "MulBackward0" and any(before is None for before, _ in node.next_functions):
        return None
    return node
