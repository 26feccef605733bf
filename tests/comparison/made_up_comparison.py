"""A comparison made up by hand, with numbers as a small BERT gives them: nothing is trained, nothing is timed."""

import statistics

from prunelora.comparison.results import (
    ComparisonResults,
    Estimate,
    LatencyFacts,
    MemoryFacts,
    MethodFacts,
    PairFacts,
    TrialFacts,
)
from prunelora.evaluation.timing import Spread

SEEDS = (0, 1, 2)
ROWS = 872
MAJORITY = 0.509
METHODS = ("full", "lora", "prune-lora", "random-prune-lora", "magnitude-prune-lora")

# Accuracy of each seed; time of a step over full's; time of inference over the dense model's; trained; saved bytes.
_ACCURACIES = {
    "full": (0.8922, 0.8865, 0.8899),
    "lora": (0.8853, 0.8819, 0.8876),
    "prune-lora": (0.8842, 0.8784, 0.8830),
    "random-prune-lora": (0.8475, 0.8349, 0.8532),
    "magnitude-prune-lora": (0.8521, 0.8601, 0.8555),
}
_TITLES = {
    "full": "Full fine-tuning: every weight of the dense model.",
    "lora": "Plain LoRA on the dense model: one rank on q, k, v and output of every layer.",
    "prune-lora": "The paper's method: heads scored by the task's loss, the least important cut, ranks by importance.",
    "random-prune-lora": "As prune-lora, but which heads are cut is drawn at random: what scoring is worth.",
    "magnitude-prune-lora": "As prune-lora, but heads are scored by the size of their weights.",
}
_SIZES = ((1, 32, 6.1), (1, 128, 15.7), (32, 32, 103.4), (32, 128, 517.6))


def share(median, spread=0.015):
    return Spread(median=median, q25=median * (1 - spread), q75=median * (1 + spread))


def made_up_method(name, *, accuracies, seeds=SEEDS, splits=("test",), timed=True, others=None, device_peak=None):
    """A method whose cost follows from its name."""
    cut, tuned = "prune" in name, name == "full"
    trained = 22_713_986 if tuned else 268_418 if cut else 319_106
    parameters = 20_935_682 if cut else 22_713_986
    step = 1.0 if tuned else 0.57 if cut else 0.66
    metrics = {"accuracy": accuracies, **(others or {})}
    return MethodFacts(
        name=name,
        title=_TITLES.get(name, "A recipe of one's own."),
        learning_rate=5e-5 if tuned else 1e-3,
        tried={"2.5e-05": 0.871, "5e-05": 0.884, "0.0001": 0.88}
        if tuned
        else {"0.0005": 0.869, "0.001": 0.881, "0.002": 0.872},
        seeds=tuple(seeds),
        quality={
            split: {
                metric: Estimate.of([value - 0.004 * place for value in values]) for metric, values in metrics.items()
            }
            for place, split in enumerate(splits)
        },
        parameters=parameters,
        trained=trained,
        disk_bytes=4 * parameters + 9_000,
        macs=1_179_648_000 if cut else 1_434_451_968,
        heads=(50 if cut else 72, 72),
        neurons=(9216, 9216),
        memory=MemoryFacts(
            weights=4 * parameters,
            gradients=4 * trained,
            optimizer=8 * trained,
            saved=1_105_000_000 if tuned else 602_000_000 if cut else 731_000_000,
            device_peak=device_peak,
            inference=4 * parameters + 50_331_648,
            step_rows=32,
            tokens=128,
        ),
        step_ms=1890.0 * step if timed else None,
        step_to_full=share(step) if timed else None,
        step_to_lora=share(step / 0.66) if timed else None,
        train_seconds=1100.0 * step + (65 if cut else 0),
        latencies=tuple(
            LatencyFacts(
                batch_size=batch, tokens=tokens, milliseconds=dense * ratio, to_dense=share(ratio)
            )
            for place, (batch, tokens, dense) in enumerate(_SIZES)
            for ratio in [(0.93, 0.89, 0.85, 0.82)[place] if cut else 1.0 + 0.003 * (name == "lora")]
        )
        if timed
        else (),
    )  # fmt: skip


def made_up_pairs(methods, splits=("test",), metric="accuracy", rows=ROWS):
    """Every later method with every earlier one; p falls with the difference."""
    pairs = []
    for split in splits:
        for place, first in enumerate(methods):
            for second in methods[:place]:
                mine, theirs = (one.quality[split][metric].values for one in (first, second))
                by_seed = tuple(a - b for a, b in zip(mine, theirs, strict=False))
                difference = statistics.fmean(by_seed)
                p_value = max(0.0005, 0.9 - 90 * abs(difference))
                pairs.append(
                    PairFacts(
                        first=first.name, second=second.name, split=split, metric=metric, difference=difference,
                        by_seed=by_seed, low=difference - 0.012, high=difference + 0.011, p_value=p_value,
                        p_holm=p_value, row_error=0.006, rows=rows,
                    )
                )  # fmt: skip
    return tuple(pairs)


def made_up_trials(methods, splits=("test",)):
    """Every learning rate with the first seed, the chosen one with all."""
    trials = []
    for method in methods:
        for tried, value in method.tried.items():
            chosen = float(tried) == method.learning_rate
            for place, seed in enumerate(method.seeds if chosen else method.seeds[:1]):
                trials.append(
                    TrialFacts(
                        method=method.name,
                        learning_rate=float(tried),
                        seed=seed,
                        validation={"accuracy": value + 0.001 * place, "loss": 0.31},
                        test={
                            split: {"accuracy": method.quality[split]["accuracy"].values[place] if chosen else value}
                            for split in splits
                        },
                        best_step=750,
                        steps=1125,
                        step_ms=980.0,
                        seconds={"finetune": 1100.0, "merge": 1.2},
                        trained={"lora": 147_456, "head": 148_994},
                        plan_id="0123456789abcdef" if "prune" in method.name else None,
                        recipe={"format": "prunelora-recipe-1"},
                        prunelora="0.1.0",
                        machine={"cpu": "AMD EPYC"},
                    )
                )
    return tuple(trials)


def make_comparison(
    names=METHODS,
    *,
    seeds=SEEDS,
    splits=("test",),
    timed=True,
    missing=(),
    accuracies=None,
    device_peak=None,
    **changes,
):
    """The whole of it; `accuracies` changes those of some methods."""
    chosen = {name: (accuracies or {}).get(name, _ACCURACIES.get(name, (0.88, 0.87, 0.875))) for name in names}
    methods = tuple(
        made_up_method(
            name, accuracies=chosen[name][: len(seeds)], seeds=seeds, splits=splits, timed=timed,
            device_peak=device_peak,
        )
        for name in names
    )  # fmt: skip
    content = {
        "model": "minilm",
        "data": "sst2",
        "task": {
            "problem_type": "single_label_classification",
            "label_names": ["negative", "positive"],
            "rows": {"train": 11_000, "validation": 1_000, **dict.fromkeys(splits, ROWS)},
            "majority_rate": {split: MAJORITY - 0.1 * place for place, split in enumerate(splits)},
            "metrics": ["accuracy"],
            "notes": ["Text is the column 'sentence'."],
            "fingerprint": "89abcdef01234567",
        },
        "seeds": tuple(seeds),
        "missing": tuple(missing),
        "methods": methods,
        "pairs": made_up_pairs(methods, splits),
        "trials": made_up_trials(methods, splits),
        "timing": {"sizes": [[1, 32], [1, 128], [32, 32], [32, 128]], "repeats": 15, "warmup": 3, "step_rows": 32}
        if timed
        else None,
        "machine": {"cpu": "AMD EPYC 9254", "device": "cpu", "threads": 2, "versions": {"torch": "2.13.0"}},
        "prunelora": "0.1.0",
    }
    return ComparisonResults.model_validate(content | changes)
