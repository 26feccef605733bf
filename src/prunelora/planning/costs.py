"""Parameters and multiply-accumulates (MACs) of a transformer's blocks, by arithmetic alone."""

from dataclasses import dataclass

from prunelora.models.architecture import Architecture


def head_parameters(architecture: Architecture) -> int:
    """Parameters that go with one head: its rows of q, k, v with their biases, its columns of the output projection.

    BERT-base: 4 * 64 * 768 + 3 * 64 = 196,800. With grouped-query attention a head of k and v goes with all g query
    heads that share it: (2 + 2 * g) * d_h * D, and (2 + g) * d_h for biases.
    """
    a, g = architecture, architecture.queries_per_head
    of_positions = a.position_projections * (a.head_dim * a.hidden_size + a.head_dim)
    return (2 + 2 * g) * a.head_dim * a.hidden_size + ((2 + g) * a.head_dim if a.attention_bias else 0) + of_positions


def neuron_parameters(architecture: Architecture) -> int:
    """Parameters that go with one neuron: its row of the up projection with its bias, its column of the down one.

    A gated neuron has a row of the gate projection as well.
    """
    into = 2 if architecture.gated else 1
    return (into + 1) * architecture.hidden_size + (into if architecture.ffn_bias else 0)


def block_parameters(architecture: Architecture) -> int:
    """Parameters of all heads and neurons: what pruning can take at most."""
    return architecture.total_heads * head_parameters(architecture) + architecture.total_neurons * neuron_parameters(
        architecture
    )


def lora_parameters(in_features: int, out_features: int, rank: int) -> int:
    """Parameters of LoRA's A (rank, in) and B (out, rank) on one matrix."""
    return rank * (in_features + out_features)


@dataclass(frozen=True)
class Macs:
    """MACs of one example of `tokens` tokens, in all blocks together.

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

    With g query heads on a key and value head: (2 + 2 * g) * T * D * d_h and 2 * g * T * T * d_h. A decoder's tokens
    see only those before them, and those of a layer of local attention only their neighbours; the products with what is
    masked are counted all the same. With R rows of tables of relative positions, R * d_h * (D + T) more: they are
    projected, and multiplied with queries or keys. A head of a layer that is run several times counts as often. An
    encoder-decoder's encoder and decoder are taken to read `tokens` each, so that a head of attention to the encoder's
    output costs what any other does.
    """
    a, g = architecture, architecture.queries_per_head
    once = (2 + 2 * g) * tokens * a.hidden_size * a.head_dim + 2 * g * tokens * tokens * a.head_dim
    once += a.relative_positions * a.head_dim * (a.hidden_size + tokens)
    return a.repeats * once


def neuron_macs(architecture: Architecture, *, tokens: int) -> int:
    """MACs of one neuron for one example: 2 * T * D, and T * D more for its gate; as often as its layer is run."""
    return (3 if architecture.gated else 2) * tokens * architecture.hidden_size * architecture.repeats


def block_macs(architecture: Architecture, *, tokens: int) -> Macs:
    """Count the MACs of the blocks for one example.

    Embeddings (look-ups), norms, softmax, activation and the task head are left out: of classifiers below one per cent
    together. A language model's head is more, since it gives logits of the whole vocabulary for every token: 44 % of
    what the blocks of GPT-2 take for 128 tokens. No cut makes it smaller.
    """
    a = architecture
    return Macs(
        attention=a.total_heads * head_macs(a, tokens=tokens), neurons=a.total_neurons * neuron_macs(a, tokens=tokens)
    )


@dataclass(frozen=True)
class Ceiling:
    """The most that cutting can give.

    Attributes:
        macs_left: Share of the blocks' MACs that stays, 0..1.
        speedup: 1 / macs_left, or infinity: the bound on the blocks' speed if time followed MACs.
    """

    macs_left: float

    @property
    def speedup(self) -> float:
        """Bound on the blocks' speed, if time followed MACs."""
        return float("inf") if self.macs_left == 0 else 1 / self.macs_left


def ceiling(architecture: Architecture, *, tokens: int, keep_heads: float, keep_ffn: float) -> Ceiling:
    """Bound on the speed when these fractions of heads and neurons stay.

    BERT-base, 128 tokens, 30 % of the heads cut: 10 % of the MACs, so never more than 1.12 times as fast.
    """
    macs = block_macs(architecture, tokens=tokens)
    return Ceiling((keep_heads * macs.attention + keep_ffn * macs.neurons) / macs.total)
