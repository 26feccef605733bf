"""Methods at several budgets, made up by hand on top of `made_up_comparison`: quality falls with what is cut."""

from comparison.made_up_comparison import MAJORITY, SEEDS, made_up_method, made_up_pairs, make_comparison, share

BUDGETS = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15)
BASES = ("prune-lora", "random-prune-lora")
REFERENCES = ("full", "lora")

# Mean accuracy at each budget; and how far the seeds are from it.
_ACCURACIES = {
    "prune-lora": (0.886, 0.885, 0.882, 0.871, 0.852, 0.801),
    "random-prune-lora": (0.885, 0.868, 0.846, 0.82, 0.79, 0.74),
    "magnitude-prune-lora": (0.884, 0.874, 0.851, 0.829, 0.80, 0.75),
}
_APART = (-0.004, 0.0, 0.004)
_TRIED_AT = 0.5


def made_up_point(base, budget, *, accuracy, seeds=SEEDS, **options):
    """A method at one budget: whatever can be in proportion to the budget is."""
    dense = made_up_method("lora", accuracies=(accuracy,), seeds=seeds[:1], **options)
    method = made_up_method(base, accuracies=[accuracy + one for one in _APART[: len(seeds)]], seeds=seeds, **options)
    tuner = budget == _TRIED_AT
    return method.model_copy(
        update={
            "name": f"{base}@{budget:g}",
            "base": base,
            "keep_macs": budget,
            "tried_on": None if tuner else f"{base}@{_TRIED_AT:g}",
            "tried": method.tried if tuner else {"0.001": accuracy},
            "parameters": int(dense.parameters * (0.5 + 0.5 * budget)),
            "macs": int(dense.macs * budget),
            "heads": (round(72 * budget), 72),
            "neurons": (round(9216 * budget), 9216),
            "memory": dense.memory.model_copy(update={"saved": int(dense.memory.saved * budget)}),
            "step_to_full": share(0.1 + 0.56 * budget) if method.step_to_full else None,
            "latencies": tuple(
                one.model_copy(
                    update={"to_dense": share(budget + (1 - budget) * (0.25 if one.batch_size == 1 else 0.08))}
                )
                for one in dense.latencies
            ),
        }
    )


def make_tradeoff(bases=BASES, budgets=BUDGETS, *, references=REFERENCES, splits=("test",), seeds=SEEDS, timed=True):
    """The whole of it, every method tested against every earlier one."""
    plain = make_comparison(references, splits=splits, seeds=seeds, timed=timed)
    points = [
        made_up_point(
            base, budget, accuracy=max(_ACCURACIES[base][BUDGETS.index(budget)], MAJORITY), seeds=seeds, splits=splits,
            timed=timed,
        )
        for base in bases
        for budget in budgets
    ]  # fmt: skip
    methods = (*plain.methods, *points)
    return plain.model_copy(update={"methods": methods, "pairs": made_up_pairs(methods, splits)})
