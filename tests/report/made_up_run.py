"""A run made up by hand: no model is loaded, nothing is trained."""

import numpy as np

from prunelora.importance.importance import Importance
from prunelora.models.architecture import Architecture
from prunelora.models.lineage import Lineage
from prunelora.planning.plan import Plan
from prunelora.report.results import RunResults
from prunelora.stages.kinds import BY_KIND

NEURONS = 64


def made_up_importance(layers=6, heads=12, seed=0):
    base = Architecture(
        family="bert", hidden_size=24, head_dim=2, num_heads=(heads,) * layers, num_neurons=(NEURONS,) * layers
    )
    random = np.random.default_rng(seed)
    return Importance(
        heads=tuple(random.gamma(2.0, 1.0, heads) for _ in range(layers)),
        neurons=tuple(random.gamma(2.0, 1.0, NEURONS) for _ in range(layers)),
        lineage=Lineage.whole(base),
        provenance={"criterion": "gradient", "num_examples": 1024, "num_tokens": 20000, "model": "minilm"},
    )


def made_up_plan(importance, keep=0.5):
    """Half of the heads by raw score, and the first neurons; the last layer loses every head."""
    scores = np.concatenate(importance.heads)
    bound = np.quantile(scores, 1 - keep)
    layers = importance.lineage.base.num_layers
    heads = [tuple(np.flatnonzero(layer >= bound).tolist()) for layer in importance.heads[:-1]]
    return Plan(
        base=importance.lineage.base,
        heads=(*heads, ()),
        neurons=tuple(tuple(range(8 * (1 + layer % 8))) for layer in range(layers)),
        ranks={name: tuple(8 if layer % 3 == 0 else 4 for layer in range(layers)) for name in
               ("query", "key", "value", "output")},
    )  # fmt: skip


def training(accuracies, trainable, step_ms, loss=0.5):
    history = []
    for epoch, accuracy in enumerate(accuracies, start=1):
        history += [
            {"step": 53 * epoch + part - 53, "epoch": epoch - 1 + part / 53, "loss": 1.4 * loss / (epoch + part / 53)}
            for part in (13, 26, 39, 52)
        ]
        history.append(
            {
                "step": 53 * epoch,
                "epoch": float(epoch),
                "validation_loss": loss / epoch**0.3,
                "validation_accuracy": accuracy,
                "validation_f1_macro": accuracy - 0.01,
            }
        )
    best = int(np.argmax(accuracies))
    return {
        "history": history,
        "best": {"validation_accuracy": accuracies[best], "validation_loss": 0.4},
        "best_step": 53 * (best + 1),
        "steps": 53 * len(accuracies),
        "seconds": 100.0,
        "step_ms": step_ms,
        "trainable": trainable,
    }


def timing(median_ms, spread=0.03):
    return {
        "median_ms": median_ms,
        "q25_ms": median_ms * (1 - spread),
        "q75_ms": median_ms * (1 + spread),
        "repeats": 15,
    }


def measurement(speed=1.84, spread=0.03):
    """As in Measurement.to_dict(): smaller batches gain less."""
    sizes = {(1, 32): (6.13, 0.8), (1, 128): (15.72, 0.9), (32, 32): (103.4, 0.95), (32, 128): (517.6, 1.0)}
    return {
        "model": {
            "parameters": {"total": 17_343_234, "trainable": 17_343_234, "embeddings": 1, "blocks": 1, "other": 1},
            "macs": 678_125_568,
            "weight_bytes": 69_372_936,
            "saved_for_backward_bytes": 412_345_678,
        },
        "base": {
            "parameters": {"total": 22_713_986, "trainable": 22_713_986, "embeddings": 1, "blocks": 1, "other": 1},
            "macs": 1_434_451_968,
            "weight_bytes": 90_855_944,
            "saved_for_backward_bytes": 765_432_100,
        },
        "latencies": [
            {
                "engine": engine,
                "batch_size": batch,
                "tokens": tokens,
                "model": timing(base_ms * factor / (speed * gain), spread),
                "base": timing(base_ms * factor, spread),
                "ratio": {name: part / (speed * gain) for name, part in (("median", 1), ("q25", 0.97), ("q75", 1.03))},
            }
            for engine, factor in (("torch", 1.0), ("onnxruntime", 0.7))
            for (batch, tokens), (base_ms, gain) in sizes.items()
        ],
        "settings": {"macs_tokens": 128, "training_batch_size": 32, "training_tokens": 128},
        "machine": {
            "cpu": "Some CPU", "threads": 2, "device": "cpu", "versions": {"torch": "2.13.0", "onnxruntime": None}
        },
    }  # fmt: skip


def make_results(
    *,
    accuracy=0.803,
    majority_rate=0.501,
    model="minilm",
    without=(),
    baseline=True,
    accuracies=(0.74, 0.79, 0.81, 0.80),
    **measured,
):
    """A run; the options say how this one differs, those of `measurement` among them."""
    importance = made_up_importance()
    plan = made_up_plan(importance)
    own = {"lora": 61_440, "norms": 9_984, "head": 148_610, "other": 0}
    facts = {
        "linear_probe": (6.2, {"loss": 0.61, "validation": {"accuracy": 0.71, "f1_macro": 0.70}}),
        "score": (11.4, dict(importance.provenance)),
        "plan": (0.02, {"plan_id": plan.id}),
        "prune": (3.1, {"parameters_before": 22_713_986, "parameters_after": 17_343_234,
                        "validation": {"accuracy": 0.673, "f1_macro": 0.66}}),
        "finetune": (187.5, training(accuracies, own, 211.0)),
        "merge": (4.4, {"validation": {"accuracy": 0.81, "f1_macro": 0.80}}),
        "export": (9.0, {"file": "model.onnx", "bytes": 69_500_000}),
        "baseline": (290.1, {"training": training((0.80, 0.82, 0.83, 0.82), own | {"lora": 147_456}, 340.0, 0.45),
                             "rank": 8, "validation": {"accuracy": 0.83},
                             "test": {"accuracy": 0.826, "f1_macro": 0.825}}),
        "measure": (62.0, {"test": {"accuracy": accuracy, "f1_macro": 0.799}, "test_rows": 853,
                           "measurement": measurement(**measured)}),
    }  # fmt: skip
    left_out = {*without, *(() if baseline else ("baseline",))}
    return RunResults(
        model=model,
        data="rotten-tomatoes",
        task={
            "problem_type": "single_label_classification",
            "label_names": ["negative", "positive"],
            "rows": {"train": 6_824, "validation": 853, "test": 853},
            "test_name": "test",
            "majority_rate": majority_rate,
            "majority_rates": {"test": majority_rate},
            "validation_majority_rate": None,
            "metrics": ["accuracy", "f1_macro"],
            "columns": {"text": "text", "label": "label"},
            "notes": ["Columns: text as text, label as label.", "Test and validation rows were cut off, seed 0."],
            "fingerprint": "0123456789abcdef",
        },
        seed=0,
        recipe_yaml=f"format: prunelora-recipe-1\nmodel: {model}\nseed: 0\nstages:\n- stage: linear_probe\n",
        folder="runs/first",
        importance=importance,
        plan=plan,
        stages={
            name: stage_result(name, seconds, found) for name, (seconds, found) in facts.items() if name not in left_out
        },
    )


def stage_result(name: str, seconds: float, facts: dict) -> dict:
    """As a run has it of a stage."""
    stage = BY_KIND[name.partition("-")[0]]
    return {"seconds": seconds, "facts": facts, "label": stage.label, "makes_model": stage.makes_model}
