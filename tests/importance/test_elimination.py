"""Elimination costs equal those of a brute-force greedy search that solves every least-squares problem anew."""

import numpy as np
import pytest
import torch

from prunelora.errors import ScoreError
from prunelora.importance import elimination
from prunelora.importance.elimination import DAMPING, elimination_costs


def random_problem(*, columns: int, rows: int = 5, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    inputs = torch.randn(200, columns, generator=generator, dtype=torch.float64) @ (torch.eye(columns) + 0.5 * mixed)
    gradients = torch.randn(50, rows, generator=generator, dtype=torch.float64)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return weight, inputs.T @ inputs / 200, gradients.T @ gradients


def least_error(weight, inputs, errors, kept: list[int]) -> float:
    """Minimum over matrices V with the kept columns alone of tr((V - W)^T G (V - W) H), with H damped."""
    damped = inputs + DAMPING * inputs.diagonal().mean() * torch.eye(len(inputs), dtype=torch.float64)
    best = torch.zeros_like(weight)
    if kept:
        best[:, kept] = (torch.linalg.solve(damped[kept][:, kept], damped[kept]) @ weight.T).T
    return float(torch.trace((best - weight).T @ errors @ (best - weight) @ damped))


def columns_of(groups: list[int], width: int) -> list[int]:
    return [group * width + column for group in groups for column in range(width)]


def greedy(weight, inputs, errors, width: int) -> tuple[list[int], list[float]]:
    """Order and costs by trying every group in every step."""
    remaining = list(range(weight.shape[1] // width))
    order, costs, error = [], [], 0.0
    while remaining:
        tried = {
            group: least_error(
                weight, inputs, errors, columns_of([other for other in remaining if other != group], width)
            )
            for group in remaining
        }
        cheapest = min(tried, key=tried.get)
        order.append(cheapest)
        costs.append(tried[cheapest] - error)
        error = tried[cheapest]
        remaining.remove(cheapest)
    return order, costs


@pytest.mark.parametrize("width", [1, 2, 3])
def test_costs_and_order_are_those_of_trying_every_group_in_every_turn(width):
    weight, inputs, errors = random_problem(columns=12, seed=width)
    scores = elimination_costs(weight, inputs, errors, width=width)
    order, costs = greedy(weight, inputs, errors, width)
    assert scores.argsort().tolist() == order
    np.testing.assert_allclose(scores[order], np.maximum.accumulate(costs), rtol=1e-8)


def test_taking_out_many_in_a_step_hardly_changes_what_is_left(monkeypatch):
    weight, inputs, errors = random_problem(columns=60, rows=20)
    one_by_one = elimination_costs(weight, inputs, errors).argsort()
    monkeypatch.setattr(elimination, "STEPS", 12)  # Five in a step.
    in_steps = elimination_costs(weight, inputs, errors).argsort()
    assert in_steps.tolist() != one_by_one.tolist()
    kept = (sorted(order[30:].tolist()) for order in (one_by_one, in_steps))
    exact, near = (least_error(weight, inputs, errors, some) for some in kept)
    assert near <= 1.1 * exact
    at_random = torch.randperm(60, generator=torch.Generator().manual_seed(1))[:30].tolist()
    assert least_error(weight, inputs, errors, at_random) > 1.4 * exact


def test_of_two_that_do_the_same_one_goes_for_nothing_and_the_other_counts():
    weight, inputs, errors = random_problem(columns=6)
    twin = torch.arange(6)
    twin[5] = 0  # Reads what the first one reads.
    inputs = inputs[twin][:, twin]
    scores = elimination_costs(weight, inputs, errors)
    alone = elimination_costs(weight[:, :5] + weight[:, [5]] * torch.eye(5)[0], inputs[:5, :5], errors)
    assert min(scores[0], scores[5]) < 0.05 * np.median(scores)
    assert max(scores[0], scores[5]) == pytest.approx(alone[0], rel=0.1)


def test_moments_that_rounding_left_with_negative_eigenvalues_are_damped_more():
    weight, inputs, errors = random_problem(columns=6)
    values, vectors = torch.linalg.eigh(inputs)
    values[0] = -0.05 * values.mean()
    scores = elimination_costs(weight, vectors @ torch.diag(values) @ vectors.T, errors)
    assert np.isfinite(scores).all()
    assert (scores > 0).all()


def test_what_nothing_depends_on_costs_nothing():
    weight, inputs, errors = random_problem(columns=6)
    np.testing.assert_array_equal(elimination_costs(weight, inputs, 0 * errors), np.zeros(6))
    np.testing.assert_array_equal(elimination_costs(weight, 0 * inputs, errors), np.zeros(6))
    # Rounding can leave what does not differ with variances below 0.
    np.testing.assert_array_equal(elimination_costs(weight, -1e-12 * inputs, errors), np.zeros(6))
    assert elimination_costs(weight[:, :0], inputs[:0, :0], errors).shape == (0,)


@pytest.mark.parametrize("broken", ["inputs", "errors"])
def test_moments_that_are_not_finite_are_an_error(broken):
    weight, inputs, errors = random_problem(columns=6)
    {"inputs": inputs, "errors": errors}[broken][0, 0] = torch.inf
    with pytest.raises(ScoreError, match="not finite"):
        elimination_costs(weight, inputs, errors)


def test_scores_rise_from_turn_to_turn():
    weight, inputs, errors = random_problem(columns=40)
    scores = np.sort(elimination_costs(weight, inputs, errors))
    assert (np.diff(scores) > 0).all()
