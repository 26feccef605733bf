"""Sums over batches equal the sums over all rows at once, in any order of the batches."""

import pytest
import torch

from prunelora.importance.moments import LEAST_PANEL, MOST_PANELS, OuterSum, WeightedMoments

CPU = torch.device("cpu")
# One panel; panels of unequal heights; more columns than MOST_PANELS panels of LEAST_PANEL rows.
SIZES = (1, 5, 2 * LEAST_PANEL + 1, (MOST_PANELS + 2) * LEAST_PANEL - 3)


def rows(number: int, size: int, *, mean: float = 0.0, dtype=torch.float64, seed: int = 0):
    return mean + torch.randn(number, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("size", SIZES)
def test_the_sum_of_outer_products_is_that_of_all_rows_at_once(size):
    x, vector = rows(12, size), rows(1, size, seed=1)[0]
    total = OuterSum(size, CPU)
    for batch in x.split(5):
        total.add(batch)
    total.add_outer(vector, 0.5)
    assert torch.allclose(total.matrix(), x.T @ x + 0.5 * torch.outer(vector, vector), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("centred", [True, False])
def test_moments_of_batches_are_those_of_all_rows_at_once(centred):
    x, weights = rows(30, 6, mean=3.0), rows(30, 1, seed=1)[:, 0].square()
    moments = WeightedMoments(6, CPU, centred=centred)
    for part in (slice(0, 1), slice(1, 1), slice(1, 20), slice(20, 30)):
        moments.add(x[part], weights[part])
    shifted = x - weights @ x / weights.sum() if centred else x
    assert torch.allclose(moments.covariance(), (weights[:, None] * shifted).T @ shifted / weights.sum(), rtol=1e-12)


@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_moments_in_float32_do_not_depend_on_the_order_of_batches(mean):
    parts = [rows(7, 5, mean=mean, dtype=torch.float32, seed=seed) for seed in range(9)]
    batches = [(x, torch.full((7,), 0.1 + number)) for number, x in enumerate(parts)]
    totals = []
    for order in (batches, batches[::-1]):
        totals.append(WeightedMoments(5, CPU, centred=True))
        for x, weights in order:
            totals[-1].add(x, weights)
    forward, backward = (total.covariance() for total in totals)
    assert torch.allclose(forward, backward, rtol=1e-10, atol=0)
    # A large common mean does not cost precision.
    x, weights = (torch.cat(parts).double() for parts in zip(*batches, strict=True))
    centred = x - weights @ x / weights.sum()
    exact = (weights[:, None] * centred).T @ centred / weights.sum()
    assert torch.allclose(forward, exact, rtol=1e-4, atol=1e-4)
