"""Parameters and multiply-accumulates (MACs) of a transformer's blocks, from its sizes."""

from dataclasses import dataclass

from prunelora.models.architecture import Architecture


def head_parameters(architecture: Architecture) -> int:
    """Parameters of one head: its rows of q, k, v with their biases, and its columns of the output projection.

    BERT-base: 4 * 64 * 768 + 3 * 64 = 196,800. With grouped-query attention, a key and value head counts with the g
    query heads that share it: (2 + 2 * g) * d_h * D, and (2 + g) * d_h for biases.
    """
    a, g = architecture, architecture.queries_per_head
    of_positions = a.position_projections * (a.head_dim * a.hidden_size + a.head_dim)
    return (2 + 2 * g) * a.head_dim * a.hidden_size + ((2 + g) * a.head_dim if a.attention_bias else 0) + of_positions


def neuron_parameters(architecture: Architecture) -> int:
    """Parameters of one neuron: its row of the up projection with its bias, and its column of the down projection.

    A gated neuron also has a row of the gate projection.
    """
    into = 2 if architecture.gated else 1
    return (into + 1) * architecture.hidden_size + (into if architecture.ffn_bias else 0)


def block_parameters(architecture: Architecture) -> int:
    """Parameters of all heads and neurons: the parameters that pruning can remove."""
    return architecture.total_heads * head_parameters(architecture) + architecture.total_neurons * neuron_parameters(
        architecture
    )


def lora_parameters(in_features: int, out_features: int, rank: int) -> int:
    """Parameters of LoRA's A (rank, in) and B (out, rank) on one matrix."""
    return rank * (in_features + out_features)


@dataclass(frozen=True)
class Macs:
    """MACs of all blocks for one example.

    Attributes:
        attention: q, k, v, output projections and the two products with the attention probabilities.
        neurons: Up and down projections.
    """

    attention: int
    neurons: int

    @property
    def total(self) -> int:
        """Attention and feed-forward together."""
        return self.attention + self.neurons


def head_macs(architecture: Architecture, *, tokens: int) -> int:
    """MACs of one head for one example: 4 * T * D * d_h in its projections and 2 * T * T * d_h in attention.

    With g query heads per key and value head: (2 + 2 * g) * T * D * d_h and 2 * g * T * T * d_h. Masked products, of
    causal or local attention, count fully. R rows of relative position tables add R * d_h * (D + T) for their
    projections and their products with queries or keys. A head of a layer that runs several times counts each time. The
    encoder and decoder of an encoder-decoder read `tokens` tokens each, so a cross-attention head costs as much as any
    other.
    """
    a, g = architecture, architecture.queries_per_head
    once = (2 + 2 * g) * tokens * a.hidden_size * a.head_dim + 2 * g * tokens * tokens * a.head_dim
    once += a.relative_positions * a.head_dim * (a.hidden_size + tokens)
    return a.repeats * once


def neuron_macs(architecture: Architecture, *, tokens: int) -> int:
    """MACs of one neuron for one example: 2 * T * D, and T * D more for its gate, for each run of its layer."""
    return (3 if architecture.gated else 2) * tokens * architecture.hidden_size * architecture.repeats


def block_macs(architecture: Architecture, *, tokens: int) -> Macs:
    """MACs of the blocks for one example.

    Embeddings (look-ups), norms, softmax, activation and the task head are excluded: less than one per cent together in
    classifiers. The head of a language model, with logits of the whole vocabulary for every token, is more: 44 % of the
    blocks' MACs in GPT-2 for 128 tokens.
    """
    a = architecture
    return Macs(
        attention=a.total_heads * head_macs(a, tokens=tokens), neurons=a.total_neurons * neuron_macs(a, tokens=tokens)
    )


def speed_bound(architecture: Architecture, *, tokens: int, keep_heads: float, keep_ffn: float) -> float:
    """Upper bound on the speedup of the blocks if these fractions of heads and neurons are kept: 1 / share of MACs.

    BERT-base, 128 tokens, 30 % of the heads removed: 10 % fewer MACs, so at most 1.12 times as fast.
    """
    macs = block_macs(architecture, tokens=tokens)
    kept = keep_heads * macs.attention + keep_ffn * macs.neurons
    return macs.total / kept if kept else float("inf")
