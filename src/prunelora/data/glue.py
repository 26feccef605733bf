"""The GLUE tasks, one row each: columns, classes, metrics, and the layout of the published files."""

from dataclasses import dataclass
from typing import Literal

from prunelora.errors import DataError, advice, one_of, option

GLUE_ON_THE_HUB = "nyu-mll/glue"


@dataclass(frozen=True)
class NamedTask:
    """A task known by name.

    Attributes:
        name: Value of the option task.
        folder: Name of its folder in the official distribution.
        texts: Possible names of the text column; for a pair, pairs of names.
        label_names: Names of the classes by id; empty for regression.
        metrics: Names of the reported metrics; the first chooses checkpoints.
        labels: Possible names of the label column.
        no_label: Labels of rows on which annotators did not agree; such rows are left out.
        no_header: Columns of the official files, if these have no header line.
        broken_rows: Whether published files have rows with missing cells; such rows are left out.
        parts: Names of the parts of the validation rows, the main part first; empty if they are one set.
        other_files: Stems of the original files, by split, for a folder without a file named train.
    """

    name: str
    folder: str
    texts: tuple[tuple[str, ...], ...]
    label_names: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    labels: tuple[str, ...] = ("label",)
    no_label: tuple[str, ...] = ()
    no_header: tuple[str, ...] = ()
    broken_rows: bool = False
    parts: tuple[str, ...] = ()
    other_files: tuple[tuple[str, str], ...] = ()

    @property
    def is_pair(self) -> bool:
        """Whether every row has two texts."""
        return len(self.texts[0]) == 2

    @property
    def problem_type(self) -> Literal["single_label_classification", "regression"]:
        """As `transformers` spells it in a configuration."""
        return "single_label_classification" if self.label_names else "regression"

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of a folder with files of this task, in lower case."""
        return tuple(dict.fromkeys((self.name, self.folder.lower())))

    @property
    def stems(self) -> dict[str, tuple[str, ...]]:
        """Names of the files of each split, without suffix: train, validation, test, and parts after the first.

        {"train": ("train",), "validation": ("validation", "dev", "validation_matched", "dev_matched"), ...,
        "mismatched": ("validation_mismatched", "dev_mismatched")}
        """
        first = [f"_{part}" for part in self.parts[:1]]
        stems = {
            "train": ("train",),
            "validation": tuple(f"{stem}{part}" for part in ("", *first) for stem in ("validation", "dev")),
            "test": tuple(f"test{part}" for part in ("", *first)),
        }
        return stems | {part: (f"validation_{part}", f"dev_{part}") for part in self.parts[1:]}


_SENTENCE = (("sentence",),)
_SENTENCES = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
_ACCURACY_AND_F1 = ("accuracy", "f1")

GLUE: dict[str, NamedTask] = {
    task.name: task
    for task in (
        NamedTask(
            "cola",
            "CoLA",
            _SENTENCE,
            ("unacceptable", "acceptable"),
            ("matthews",),
            no_header=("source", "label", "star", "sentence"),
        ),
        NamedTask(
            "mnli",
            "MNLI",
            (("premise", "hypothesis"), _SENTENCES),
            ("entailment", "neutral", "contradiction"),
            labels=("label", "gold_label"),
            no_label=("-",),
            parts=("matched", "mismatched"),
        ),
        NamedTask(
            "mrpc",
            "MRPC",
            (_SENTENCES, ("#1 String", "#2 String")),
            ("not_equivalent", "equivalent"),
            _ACCURACY_AND_F1,
            labels=("label", "Quality"),
            other_files=(("train", "msr_paraphrase_train"), ("test", "msr_paraphrase_test")),
        ),
        NamedTask("qnli", "QNLI", (("question", "sentence"), _SENTENCES), _ENTAILMENT),
        NamedTask(
            "qqp",
            "QQP",
            (("question1", "question2"), _SENTENCES),
            ("not_duplicate", "duplicate"),
            _ACCURACY_AND_F1,
            labels=("label", "is_duplicate"),
            broken_rows=True,
        ),
        NamedTask("rte", "RTE", (_SENTENCES,), _ENTAILMENT),
        NamedTask("sst2", "SST-2", _SENTENCE, ("negative", "positive")),
        NamedTask("stsb", "STS-B", (_SENTENCES,), (), ("pearson", "spearman"), labels=("label", "score")),
        NamedTask("wnli", "WNLI", (_SENTENCES,), ("not_entailment", "entailment")),
    )
}


def named_task(name: str) -> NamedTask:
    """The row of a task.

    Raises:
        DataError: If there is none of this name.
    """
    if name not in GLUE:
        raise DataError(
            f"{option('task', name)}: no task of this name.{one_of(name, GLUE)} Give your own data as {advice('data')}."
        )
    return GLUE[name]
