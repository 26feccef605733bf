"""The tasks of GLUE, one row each: columns, classes, metrics, and what published files of it are called."""

from dataclasses import dataclass

from prunelora.errors import DataError


@dataclass(frozen=True)
class NamedTask:
    """A task known by name. A person's own table is the same kind of thing, with columns guessed or named.

    Attributes:
        name: As typed after --task.
        texts: Names that the text column has in files of this task; for a pair, pairs of names.
        label_names: Names of the classes by id; empty for regression.
        metrics: What is reported, the one that chooses checkpoints first.
    """

    name: str
    texts: tuple[tuple[str, ...], ...]
    label_names: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)

    @property
    def is_pair(self) -> bool:
        """Whether every row has two texts."""
        return len(self.texts[0]) == 2


_SENTENCES = ("sentence1", "sentence2")

GLUE: dict[str, NamedTask] = {
    task.name: task
    for task in (
        NamedTask("cola", (("sentence",),), ("unacceptable", "acceptable"), ("matthews",)),
        NamedTask(
            "mnli", (("premise", "hypothesis"), _SENTENCES), ("entailment", "neutral", "contradiction"), ("accuracy",)
        ),
        NamedTask("mrpc", (_SENTENCES,), ("not_equivalent", "equivalent"), ("accuracy", "f1")),
        NamedTask("qnli", (("question", "sentence"), _SENTENCES), ("entailment", "not_entailment")),
        NamedTask(
            "qqp", (("question1", "question2"), _SENTENCES), ("not_duplicate", "duplicate"), ("accuracy", "f1")
        ),
        NamedTask("rte", (_SENTENCES,), ("entailment", "not_entailment")),
        NamedTask("sst2", (("sentence",),), ("negative", "positive")),
        NamedTask("stsb", (_SENTENCES,), (), ("pearson", "spearman")),
        NamedTask("wnli", (_SENTENCES,), ("not_entailment", "entailment")),
    )
}


def named_task(name: str) -> NamedTask:
    """The row of a task.

    Raises:
        DataError: If there is none of this name.
    """
    if name not in GLUE:
        raise DataError(f"--task {name}: no task of this name. Use one of: {', '.join(GLUE)}; or --data for your own.")
    return GLUE[name]
