"""Settings of the task data; their descriptions feed the command line, recipes and the docs."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, field_validator, model_validator

from prunelora.data.given import Given, as_named_or_given
from prunelora.data.text_files import check_encoding
from prunelora.errors import advice, option
from prunelora.settings import Settings

# Settings that describe a user's own data; they are fixed for a named task.
OF_OWN_DATA = ("data_config", "text", "text_pair", "label", "task_type")

TaskType = Literal[
    "auto",
    "single_label_classification",
    "multi_label_classification",
    "regression",
    "token_classification",
    "causal_lm",
]


class DataSettings(Settings):
    """Where the task data is, which columns matter, and how rows are split."""

    data: str | None = Field(
        default=None,
        min_length=1,
        description="Task data: a .csv, .tsv, .jsonl, .json, .parquet or .conll file, or .txt with task_type "
        "causal_lm; a folder with files named train, validation and test of these types, or one saved by "
        "datasets.save_to_disk; a folder of images in folders of classes; a name on the Hugging Face hub; or "
        "rotten-tomatoes, the embedded example. In Python also a pandas DataFrame, a datasets.Dataset, or a dict of "
        "these by split.",
    )
    task: str | None = Field(
        default=None,
        description="A GLUE task by name, in place of data: cola, mnli, mrpc, qnli, qqp, rte, sst2, stsb or wnli. "
        "Read from data_dir, or from the hub if data_dir is not given.",
    )
    data_dir: str | None = Field(
        default=None,
        min_length=1,
        description="Folder that holds the files of the named task, or a folder of the task's name with these files: "
        "train.tsv with validation.tsv or dev.tsv, or the hub's Parquet files.",
    )
    data_config: str | None = Field(
        default=None, description="Configuration of a hub data set, such as sst2 of nyu-mll/glue."
    )
    text: str | None = Field(
        default=None,
        description="Column with the text, the lists of words, or the images. Guessed from its name if not given.",
    )
    text_pair: str | None = Field(
        default=None,
        description="Column with the second text of a pair. Guessed with the text column if neither is given.",
    )
    label: str | None = Field(
        default=None,
        description="Column with the label, or several 0/1 columns joined by commas (multi-label). "
        "Guessed from its name if not given.",
    )
    task_type: TaskType = Field(
        default="auto",
        description="Kind of task. auto: words and whole numbers are classes, numbers with a fraction are regression, "
        "several 0/1 columns or lists are multi-label, a list of words with a list of tags is token_classification. "
        "causal_lm is language modelling: rows have no label, the model must be a decoder, and every line of a .txt "
        "file is a row.",
    )
    validation_fraction: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Share of rows (0 to 1) cut off to choose the best checkpoint: of the whole table, or of the given "
        "training split. Not used if train, validation and test are all given.",
    )
    test_fraction: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Share of rows (0 to 1) cut off for the reported numbers if the data is a single table.",
    )
    split_seed: int = Field(default=0, ge=0, description="Seed of every cut of rows.")
    encoding: str | None = Field(
        default=None,
        description="Encoding of text files that are not UTF-8, such as cp1252, cp1251, shift_jis or utf-16. "
        "The error about such a file shows its text in each likely encoding.",
    )
    max_length: int = Field(
        default=128, ge=8, description="Longest input in tokens, a pair together; longer inputs are cut off."
    )
    max_train_rows: int | None = Field(
        default=None,
        ge=2,
        description="Most training rows to use; stratified and seeded, taken after the test rows and before the "
        "validation rows are cut off. All if not given.",
    )

    # Rows given in place of a name; `data` then describes them.
    _given: Given | None = PrivateAttr(None)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_given_rows(cls, content: Any, handler: ModelWrapValidatorHandler["DataSettings"]) -> "DataSettings":
        if not isinstance(content, Mapping):
            return handler(content)
        data = as_named_or_given(content.get("data"))
        rows = data if isinstance(data, Given) else None
        settings = handler({**content, "data": rows.described if rows else data})
        settings._given = rows
        return settings

    @property
    def given(self) -> Given | None:
        """The rows that were given in Python as data; None if data is a name."""
        return self._given

    @property
    def described(self) -> str:
        """Name of the data in reports: the task's name, or the value of data."""
        return self.task or str(self.data)

    @field_validator("encoding")
    @classmethod
    def _encoding_exists(cls, value: str | None) -> str | None:
        return value if value is None else check_encoding(value)

    @model_validator(mode="after")
    def _one_source(self) -> "DataSettings":
        if self.data_dir is not None and self.task is None:
            raise ValueError(
                f"{option('data_dir', self.data_dir)} belongs to a named task: give {advice('task')}, or the folder as "
                f"{advice('data')}"
            )
        if (self.data is None) == (self.task is None):
            both = f"{option('data', self.data)} and {option('task', self.task)}"
            given = "neither" if self.data is None else both
            raise ValueError(f"give either {advice('data')} or {advice('task')}; found {given}")
        of_own_data = {name: getattr(self, name) for name in OF_OWN_DATA if getattr(self, name) not in (None, "auto")}
        if self.task is not None and of_own_data:
            options = ", ".join(option(name, value) for name, value in of_own_data.items())
            raise ValueError(
                f"{options}: columns and labels of {option('task', self.task)} are known; give the files as "
                f"{advice('data')}"
            )
        return self

    @model_validator(mode="after")
    def _fractions_leave_training_rows(self) -> "DataSettings":
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"{option('validation_fraction', self.validation_fraction)} and "
                f"{option('test_fraction', self.test_fraction)} leave no rows to train on. Their sum must be below 1."
            )
        return self
