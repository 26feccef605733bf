"""Kinds of task by the name that configurations, recipes and results give them, and what kind a model is made for."""

from typing import Any

SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"
TOKENS = "token_classification"
CAUSAL_LM = "causal_lm"

# Kinds that need heads of one class; images may have one label, several, or a number, as texts may.
SEQUENCES, IMAGES = "sequence_classification", "image_classification"

# The Auto class of transformers that makes a model with such a head.
AUTO_CLASS = {
    SEQUENCES: "AutoModelForSequenceClassification",
    IMAGES: "AutoModelForImageClassification",
    TOKENS: "AutoModelForTokenClassification",
    CAUSAL_LM: "AutoModelForCausalLM",
}

# What a configuration of transformers can say; of the others the class of the model tells.
OF_CONFIG = (SINGLE_LABEL, MULTI_LABEL, REGRESSION)
# One label a token, and not one a row.
BY_TOKEN = (TOKENS, CAUSAL_LM)


def head_for(problem_type: str, *, images: bool) -> str:
    """The kind of head that a kind of task needs: a key of AUTO_CLASS."""
    return problem_type if problem_type in BY_TOKEN else IMAGES if images else SEQUENCES


def problem_type_of(model: Any) -> str | None:
    """The kind of task that a model is made for, by its class and its configuration; None for one without a head."""
    name = type(model).__name__
    if name.endswith("ForTokenClassification"):
        return TOKENS
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return CAUSAL_LM
    if name.endswith(("ForSequenceClassification", "ForImageClassification")):
        config = model.config
        return config.problem_type or (REGRESSION if config.num_labels == 1 else SINGLE_LABEL)
    return None


def label_names_of(model: Any) -> tuple[str, ...]:
    """Names of a model's classes by id, from its configuration; empty where it has none."""
    names = getattr(getattr(model, "config", None), "id2label", None) or {}
    return tuple(names[number] for number in sorted(names))
