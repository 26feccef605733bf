"""Making scores of different layers comparable (paper section 3.1, eq. 2)."""

from collections.abc import Callable, Sequence

import numpy as np

from prunelora.errors import PlanError

Layers = Sequence[np.ndarray]

# Smaller than any gradient that float64 holds for a unit that does anything; keeps a layer of zeros at zero.
EPS = 1e-20


def paper(scores: Layers) -> list[np.ndarray]:
    """Divide by each layer's L2 norm, then stretch all layers together to 0..1.

    I'[l,h] = I[l,h] / (||I[l,:]||_2 + eps);  I'' = (I' - min I') / (max I' - min I'), min and max over all L x H.
    """
    divided = [layer / (np.linalg.norm(layer) + EPS) for layer in scores]
    everything = np.concatenate(divided) if divided else np.zeros(0)
    if not everything.size:
        return divided
    low, high = everything.min(), everything.max()
    return [(layer - low) / (high - low) if high > low else np.zeros_like(layer) for layer in divided]


def none(scores: Layers) -> list[np.ndarray]:
    """Leave the scores as they are: layers compete by their raw gradients."""
    return list(scores)


NORMALISATIONS: dict[str, Callable[[Layers], list[np.ndarray]]] = {"paper": paper, "none": none}


def normalise(scores: Layers, how: str) -> list[np.ndarray]:
    """Apply a normalisation by name: "paper" or "none".

    Raises:
        PlanError: If there is none of that name.
    """
    if how not in NORMALISATIONS:
        raise PlanError(f"normalise={how!r} is unknown. Use one of: {', '.join(NORMALISATIONS)}.")
    return NORMALISATIONS[how](scores)
