"""Names of the kinds of task in configurations, recipes and results, and the kind that a model has a head for."""

from typing import Any

SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"
TOKENS = "token_classification"
CAUSAL_LM = "causal_lm"

# Kinds of task head shared by several kinds of task: rows and images have one label, several, or a number.
SEQUENCES, IMAGES = "sequence_classification", "image_classification"

# The Auto class of transformers for each kind of task head.
AUTO_CLASS = {
    SEQUENCES: "AutoModelForSequenceClassification",
    IMAGES: "AutoModelForImageClassification",
    TOKENS: "AutoModelForTokenClassification",
    CAUSAL_LM: "AutoModelForCausalLM",
}

# Values of `config.problem_type`; the other kinds are known by the model's class.
OF_CONFIG = (SINGLE_LABEL, MULTI_LABEL, REGRESSION)
# Kinds with one label per token instead of one per row.
BY_TOKEN = (TOKENS, CAUSAL_LM)


def head_for(problem_type: str, *, images: bool) -> str:
    """The kind of task head for a kind of task: a key of AUTO_CLASS."""
    return problem_type if problem_type in BY_TOKEN else IMAGES if images else SEQUENCES


def problem_type_of(model: Any) -> str | None:
    """The kind of task of a model, by its class and configuration; None without a known task head."""
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
    """Names of a model's classes by id, from its configuration; empty without id2label."""
    names = getattr(getattr(model, "config", None), "id2label", None) or {}
    return tuple(names[number] for number in sorted(names))
