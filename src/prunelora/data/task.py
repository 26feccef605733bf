"""A task ready for scoring and training: three splits with encoded labels."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prunelora.data.images import IMAGE, Picture, holds_images
from prunelora.data.rows import Rows
from prunelora.errors import DataError
from prunelora.models.problem_types import CAUSAL_LM, MULTI_LABEL, SINGLE_LABEL, TOKENS

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class TaskData:
    """Three splits of labelled texts or images, or of texts alone for language modelling.

    Attributes:
        name: Short name of the task, from the file, folder or hub name.
        train: Rows for scoring and training.
        validation: Rows that choose the best checkpoint.
        test: Rows that are reported.
        label_names: Names of the classes by id; empty for regression and for language modelling.
        problem_type: As in `prunelora.models.problem_types`.
        fingerprint: Hash over the rows of all splits; the same rows from another path or format give the same.
        columns: Chosen columns by role: text (or image), text_pair and label.
        notes: Short lines to print: columns chosen, how the splits were made, rows per split.
        metrics: Names of the reported metrics; the first chooses checkpoints.
        test_name: Name of `test` among the reported splits.
        more_tests: Further reported splits: MNLI's "mismatched", where `test` is "matched".
    """

    name: str
    train: "datasets.Dataset"
    validation: "datasets.Dataset"
    test: "datasets.Dataset"
    label_names: tuple[str, ...]
    problem_type: str
    fingerprint: str
    columns: dict[str, str]
    notes: tuple[str, ...]
    metrics: tuple[str, ...]
    test_name: str = "test"
    more_tests: "dict[str, datasets.Dataset]" = field(default_factory=dict)

    @property
    def num_labels(self) -> int:
        """Outputs of the task head: classes, or 1 for regression. Meaningless for language modelling."""
        return len(self.label_names) or 1

    @property
    def is_pair(self) -> bool:
        """Whether every row has two texts."""
        return "text_pair" in self.train.column_names

    @property
    def by_word(self) -> bool:
        """Whether every row is a list of words, each with a label."""
        return self.problem_type == TOKENS

    @property
    def of_images(self) -> bool:
        """Whether every row is an image."""
        return holds_images(self.train)

    @property
    def reported(self) -> "dict[str, datasets.Dataset]":
        """Every split that is reported: {"test": ...}, or {"matched": ..., "mismatched": ...}."""
        return {self.test_name: self.test, **self.more_tests}

    def split(self, name: str) -> "datasets.Dataset":
        """Rows of a split: "train", "validation", "test", or a reported split by its name ("matched").

        Raises:
            DataError: If the task has no split of this name.
        """
        splits = {"train": self.train, "validation": self.validation, "test": self.test, **self.reported}
        if name not in splits:
            raise DataError(f"{self.name} has no split {name!r}. It has: {', '.join(splits)}.")
        return splits[name]

    @property
    def majority_rate(self) -> float | None:
        """Accuracy on the test rows, or on their words, of always predicting train's most frequent class.

        None for regression, multi-label tasks and language modelling. Of equally frequent classes the lowest id counts.
        """
        return self.majority_rates[self.test_name]

    @property
    def majority_rates(self) -> dict[str, float | None]:
        """`majority_rate` of every reported split."""
        return self._majority_rates(self.reported)

    @property
    def validation_majority_rate(self) -> float | None:
        """`majority_rate` of the validation rows."""
        return self._majority_rates({"validation": self.validation})["validation"]

    def _majority_rates(self, splits: "Mapping[str, datasets.Dataset]") -> dict[str, float | None]:
        if self.problem_type not in (SINGLE_LABEL, TOKENS):
            return dict.fromkeys(splits)
        counts = Counter(self._classes(self.train))
        most_frequent = min(counts, key=lambda label: (-counts[label], label))
        labels = {split: self._classes(rows) for split, rows in splits.items()}
        return {split: ids.count(most_frequent) / len(ids) for split, ids in labels.items()}

    def _classes(self, rows: "datasets.Dataset") -> list[int]:
        labels = list(rows["label"])
        return [tag for row in labels for tag in row] if self.by_word else labels

    @property
    def facts(self) -> dict[str, Any]:
        """Facts of the data for results, as plain values."""
        return {
            "rows": {"train": len(self.train), "validation": len(self.validation)}
            | {split: len(rows) for split, rows in self.reported.items()},
            "majority_rate": dict(self.majority_rates),
            "metrics": list(self.metrics),
            "notes": list(self.notes),
            "fingerprint": self.fingerprint,
        }


def as_dataset(rows: Rows, *, problem_type: str) -> "datasets.Dataset":
    """Rows with encoded labels as an in-memory `datasets.Dataset`."""
    import datasets

    text = datasets.Value("string")
    columns: dict[str, list] = {"text": rows.texts}
    features: dict[str, object] = {"text": text if problem_type != TOKENS else datasets.Sequence(text)}
    if rows.texts and isinstance(rows.texts[0], Picture):
        columns, features = {IMAGE: [picture.cell for picture in rows.texts]}, {IMAGE: datasets.Image()}
    if rows.pairs is not None:
        columns["text_pair"], features["text_pair"] = rows.pairs, text
    if problem_type != CAUSAL_LM:
        label = datasets.Value("int64" if problem_type in (SINGLE_LABEL, TOKENS) else "float32")
        columns["label"] = rows.labels
        features["label"] = datasets.Sequence(label) if problem_type in (MULTI_LABEL, TOKENS) else label
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def fingerprint_of(splits: dict[str, Rows], *, label_names: tuple[str, ...], problem_type: str) -> str:
    """Hash of the rows of every split, in order, with the kind of task and the names of the labels."""
    digest = hashlib.sha256(json.dumps([problem_type, label_names]).encode())
    for name, rows in splits.items():
        digest.update(json.dumps([name, len(rows)]).encode())
        for texts, label in zip(rows.inputs(), rows.labels, strict=True):
            digest.update(json.dumps([*texts, label]).encode())
    return digest.hexdigest()[:16]
