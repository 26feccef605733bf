"""Guessing columns, and turning labels into ids and numbers."""

import pytest

from prunelora.data.columns import choose_columns
from prunelora.data.labels import encode_labels
from prunelora.data.settings import DataSettings
from prunelora.data.tables import Table
from prunelora.errors import DataError


def choose(names: str, **options):
    table = Table({name: ["1", "2"] if name in ("idx", "label") else ["some words", "more"] for name in names.split()})
    return choose_columns(table, DataSettings(data="x.csv", **options), where="x.csv")


def encode(train, columns=("label",), **options):
    others = {split: options.pop(split) for split in ("validation", "test") if split in options}
    return encode_labels({"train": train, **others}, columns=columns, **options)


@pytest.mark.parametrize(
    ("names", "texts", "label"),
    [
        ("sentence label", ("sentence",), "label"),
        ("idx Review Stars", ("Review",), "Stars"),
        ("sentence1 sentence2 label idx", ("sentence1", "sentence2"), "label"),
        ("question sentence label", ("question", "sentence"), "label"),
        ("question1 question2 target", ("question1", "question2"), "target"),
        ("premise hypothesis genre gold_label", ("premise", "hypothesis"), "gold_label"),
        ("label score text", ("text",), "label"),
        ("tweet idx sentiment", ("tweet",), "sentiment"),
    ],
)
def test_columns_are_guessed_from_their_names(names, texts, label):
    columns = choose(names)
    assert columns.texts == texts
    assert columns.label == label


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("text review label", "text, review"),
        ("title body label", "title, body"),
        ("text stars sentiment", "stars, sentiment"),
        ("text polarity", "Columns: text, polarity"),
        ("idx label", "no column looks like text"),
    ],
)
def test_an_ambiguous_guess_lists_the_columns_and_the_options(names, message):
    with pytest.raises(DataError, match=message):
        choose(names)


def test_named_columns_win_and_the_rest_is_guessed():
    columns = choose("title body label", text="body")
    assert (columns.texts, columns.guessed) == (("body",), ("label",))
    columns = choose("sentence1 sentence2 label", text="sentence2", text_pair="sentence1", label="label")
    assert (columns.texts, columns.guessed) == (("sentence2", "sentence1"), ())
    assert choose("title body label", text_pair="body").texts == ("title", "body")


def test_one_column_cannot_be_two_things():
    with pytest.raises(DataError, match="used twice"):
        choose("text label", text="text", text_pair="text")


def test_words_become_ids_in_alphabetical_order():
    encoded = encode(["pos", "neg", "pos "], test=["neg"])
    assert (encoded.names, encoded.by_split) == (("neg", "pos"), {"train": [1, 0, 1], "test": [0]})


@pytest.mark.parametrize("labels", [["10", "2", "10"], [10, 2, 10], [10.0, 2.0, 10.0], ["10.0", "2", "10"]])
def test_whole_numbers_become_ids_in_order_of_their_value(labels):
    encoded = encode(labels)
    assert (encoded.problem_type, encoded.names) == ("single_label_classification", ("2", "10"))
    assert encoded.by_split["train"] == [1, 0, 1]


def test_codes_with_leading_zeros_are_words():
    assert encode(["01", "1", "02"]).names == ("01", "02", "1")


def test_numbers_with_a_fraction_are_regression():
    encoded = encode(["1", "2.5", "-3e-1"])
    assert (encoded.problem_type, encoded.names) == ("regression", ())
    assert encoded.by_split["train"] == [1.0, 2.5, -0.3]


def test_task_type_overrides_the_guess():
    assert encode(["1", "2"], task_type="regression").by_split["train"] == [1.0, 2.0]
    assert encode(["1.5", "2.5"], task_type="single_label_classification").names == ("1.5", "2.5")
    with pytest.raises(DataError, match="'good' in row 2"):
        encode(["1", "good"], task_type="regression")
    with pytest.raises(DataError, match="task_type='multi_label_classification'"):
        encode(["1", "0"], task_type="multi_label_classification")
    with pytest.raises(DataError, match="task_type='regression'"):
        encode([[1, 0], [0, 1]], task_type="regression")


def test_hundreds_of_whole_numbers_are_asked_about():
    numbers = [str(n) for n in range(300)]
    with pytest.raises(DataError, match=r"300 different labels.*task_type='regression'"):
        encode(numbers)
    assert len(encode(numbers, task_type="single_label_classification").names) == 300


def test_several_zero_one_columns_are_multi_label():
    encoded = encode([["1", "0"], ["1", "1"], [0, False]], columns=("toxic", "rude"))
    assert (encoded.problem_type, encoded.names) == ("multi_label_classification", ("toxic", "rude"))
    assert encoded.by_split["train"] == [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    with pytest.raises(DataError, match=r"row 2 has \['1', '2'\]"):
        encode([["1", "0"], ["1", "2"]], columns=("toxic", "rude"))


def test_lists_of_words_ids_or_indicators_are_multi_label():
    assert encode([["b"], [], ["a", "b"]]).by_split["train"] == [[0.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    assert encode([[1], [0, 2]], class_names=("x", "y", "z")).by_split["train"] == [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    assert encode([[1, 0, 0], [0, 1, 1]]).by_split["train"] == [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]
    with pytest.raises(DataError, match=r"label 3, .* 0 to 2"):
        encode([[1], [3]], class_names=("x", "y", "z"))


def test_a_multi_label_name_never_seen_in_training_is_an_error():
    with pytest.raises(DataError, match=r"test: 1 row .*lack: 'rude'"):
        encode([["1", "0"], ["0", "0"]], columns=("toxic", "rude"), test=[["0", "1"]])
    with pytest.raises(DataError, match="lack: 'c'"):
        encode([["a"], ["b"]], test=[["a", "c"]])


def test_class_names_keep_their_own_order():
    encoded = encode([1, 0], class_names=("zebra", "ape"))
    assert (encoded.names, encoded.by_split["train"]) == (("zebra", "ape"), [1, 0])
    with pytest.raises(DataError, match=r"label 2, .* 0 to 1"):
        encode([2, 0], class_names=("zebra", "ape"))


@pytest.mark.parametrize("label", [float("nan"), "nan", "NaN", float("inf"), "-inf"])
def test_what_is_no_finite_number_among_numbers_is_no_class(label):
    for numbers in ([0, 1], ["0", "1"], [1.0, 2.0]):
        with pytest.raises(DataError, match=r"train: 1 row \(first: row 3.*(no label|not a finite number)"):
            encode([*numbers, label])
    with pytest.raises(DataError, match="test: 1 row"):
        encode([0, 1], test=[1, label])
    with pytest.raises(DataError, match="finite"):
        encode([1.5, 2.5, "inf"], task_type="single_label_classification")


def test_nan_and_none_are_labels_where_labels_are_words():
    assert encode(["nan", "good", "None", "inf"]).names == ("None", "good", "inf", "nan")
    assert encode([["nan"], ["none", "a"]]).names == ("a", "nan", "none")
    with pytest.raises(DataError, match="no label in column 'label'"):
        encode(["good", "bad", float("nan")])


def test_class_ids_that_a_float_cannot_hold_stay_apart():
    first, second = 2**53, 2**53 + 1
    for labels in ([first, second], [str(first), f"{second}.0"], [float(first), str(second)]):
        encoded = encode(labels)
        assert (encoded.names, encoded.by_split["train"]) == ((str(first), str(second)), [0, 1])
    assert encode([10**400, 10**400 + 1]).by_split["train"] == [0, 1]


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf"), ""])
def test_nothing_in_a_list_of_labels_is_no_class(nothing):
    with pytest.raises(DataError, match=r"train: row 2 has \[2, .*\] in column 'label'"):
        encode([[1, 2], [2, nothing], [3]])
    with pytest.raises(DataError, match="test: row 1 "):
        encode([[1, 0], [0, 1]], test=[[nothing, 1]])


def test_a_label_that_is_no_list_among_lists_is_an_error():
    with pytest.raises(DataError, match="row 3 has 3 in column 'label'"):
        encode([[1, 2], [2, 1], 3])


@pytest.mark.parametrize("labels", [["1", "0 ", " 1", "1.0", "0."], [1.0, "0", "1 ", "\u00a00", 0]])
def test_whole_numbers_are_classes_however_a_spreadsheet_wrote_them(labels):
    assert encode(labels).names == ("0", "1")


def test_what_cannot_be_seen_at_the_end_of_a_word_makes_no_class():
    assert encode(["good", " good", "good\u00a0", "\ufeffgood", "good\u200b ", "bad"]).names == ("bad", "good")


def test_true_and_false_are_one_class_each_in_any_case():
    encoded = encode([True, False], test=["TRUE", "false"])
    assert (encoded.names, encoded.by_split["test"]) == (("False", "True"), [1, 0])
    assert encode(["true", "false"]).names == ("false", "true")
    assert encode([["TRUE", "0"], ["FALSE", 1]], columns=("toxic", "rude")).by_split["train"] == [[1, 0], [0, 1]]


def test_words_that_differ_in_their_case_alone_are_noted():
    assert "Good, good" in encode(["good", "Good", "bad"]).notes[0]
    assert encode(["good", "bad"]).notes == ()


def test_a_decimal_comma_is_read_for_regression_and_asked_about_otherwise():
    encoded = encode(["0,5", "1", " 2,25 "], task_type="regression")
    assert (encoded.by_split["train"], len(encoded.notes)) == ([0.5, 1.0, 2.25], 1)
    assert encode(["0,5", "1,234"], task_type="regression").by_split["train"] == [0.5, 1.234]
    with pytest.raises(DataError, match=r"'0,5'.*task_type='regression'"):
        encode(["0,5", "1", "2"])
    assert encode(["1,2", "1", "2"], task_type="single_label_classification").names == ("1", "1,2", "2")
    with pytest.raises(DataError, match="'1,234'"):
        encode(["1,234", "5"], task_type="regression")


def test_lists_written_as_text_are_asked_about():
    labels = ["['a']", "['a', 'b']", "[]"]
    with pytest.raises(DataError, match=r"\['a'\]"):
        encode(labels)
    assert len(encode(labels, task_type="single_label_classification").names) == 3
    table = Table({"tokens": ["['a', 'b']"] * 2, "label": ["x", "y"]})
    with pytest.raises(DataError, match="column 'tokens'"):
        choose_columns(table, DataSettings(data="x.csv"), where="x.csv")


def test_a_first_line_that_is_a_row_is_told():
    table = Table({"fine film": ["dull film", "odd film"], "good": ["bad", "good"]})
    with pytest.raises(DataError, match=r"first line .*'good'"):
        choose_columns(table, DataSettings(data="x.csv"), where="x.csv")
