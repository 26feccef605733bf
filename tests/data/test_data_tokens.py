"""Tokens and batches."""

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from prunelora.data.load import load_task
from prunelora.data.settings import DataSettings
from prunelora.data.tokens import batches, calibration_batches, tokenise
from prunelora.errors import DataError


@pytest.fixture
def tokenizer():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{n}" for n in range(50))]
    tiny = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tiny.pre_tokenizer = pre_tokenizers.Whitespace()
    tiny.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tiny, pad_token="[PAD]", unk_token="[UNK]", model_input_names=names)


def task(tmp_path, rows, header="text\tlabel", **options):
    path = tmp_path / "rows.tsv"
    path.write_text("\n".join([header, *("\t".join(map(str, row)) for row in rows)]) + "\n")
    return load_task(DataSettings(data=str(path), **options))


@pytest.fixture
def words(tmp_path):
    # Row n has n % 7 + 1 words, the last of which is its own.
    return task(tmp_path, [(" ".join(["w0"] * (n % 7) + [f"w{n}"]), n % 2) for n in range(50)])


def test_tokens_are_the_tokenizers_own_unpadded_and_truncated(words, tokenizer):
    tokenised = tokenise(words.train, tokenizer, max_length=6)
    assert tokenised.column_names == [*tokenizer("w1"), "labels"]
    assert len(tokenised) == len(words.train)
    for text, label, row in zip(words.train["text"], words.train["label"], tokenised, strict=True):
        assert row["input_ids"] == tokenizer(text, truncation=True, max_length=6)["input_ids"]
        assert row["labels"] == label
    assert {len(row["input_ids"]) for row in tokenised} == {3, 4, 5, 6}
    assert tokenised.cache_files == []


def test_rows_in_several_parts_are_the_rows_at_once(words, tokenizer, monkeypatch):
    whole = tokenise(words.train, tokenizer, max_length=16)
    monkeypatch.setattr("prunelora.data.tokens.ROWS_AT_ONCE", 7)
    parts = tokenise(words.train, tokenizer, max_length=16)
    assert parts.features == whole.features
    assert parts.to_dict() == whole.to_dict()


def test_pairs_are_tokenised_together(tmp_path, tokenizer):
    rows = [(f"w{n}", "w1 w2", n % 2) for n in range(30)]
    pairs = task(tmp_path, rows, header="premise\thypothesis\tlabel")
    row = tokenise(pairs.train, tokenizer, max_length=16)[0]
    text = pairs.train[0]["text"]
    assert row["input_ids"] == [2, *tokenizer.convert_tokens_to_ids([text]), 3, 5, 6, 3]
    assert row["token_type_ids"] == [0, 0, 0, 1, 1, 1]


def test_batches_are_padded_to_their_own_longest_row_in_order(words, tokenizer):
    tokenised = tokenise(words.train, tokenizer, max_length=16)
    made = batches(tokenised, tokenizer, batch_size=6)
    assert [len(batch["labels"]) for batch in made] == [6, 6, 6, 6, 6, 6, 4]
    rows = iter(tokenised)
    for batch in made:
        lengths = batch["attention_mask"].sum(1)
        assert batch["input_ids"].shape[1] == int(lengths.max())
        for ids, length, label in zip(batch["input_ids"], lengths, batch["labels"], strict=True):
            row = next(rows)
            assert ids[:length].tolist() == row["input_ids"]
            assert int(label) == row["labels"]


def test_tokens_are_kept_in_half_the_memory_of_what_a_model_reads(words, tokenizer):
    tokenised = tokenise(words.train, tokenizer, max_length=16)
    kept = sum(tokenised.data.column(name).nbytes for name in ("input_ids", "attention_mask"))
    read = batches(tokenised, tokenizer, batch_size=1)
    assert {value.dtype for value in read[0].values()} == {torch.int64}
    assert kept < 0.6 * sum(row[name].nbytes for row in read for name in ("input_ids", "attention_mask"))


@pytest.mark.parametrize(
    ("header", "rows", "options", "dtype", "shape"),
    [
        ("text\tlabel", [(f"w{n}", n % 2) for n in range(20)], {}, torch.int64, (4,)),
        ("text\tlabel", [(f"w{n}", n / 8) for n in range(20)], {}, torch.float32, (4,)),
        ("text\ta\tb", [(f"w{n}", n % 2, n % 3 == 0) for n in range(20)], {"label": "a,b"}, torch.float32, (4, 2)),
    ],
)
def test_labels_have_the_type_that_the_loss_takes(header, rows, options, dtype, shape, tmp_path, tokenizer):
    rows = [[int(cell) if isinstance(cell, bool) else cell for cell in row] for row in rows]
    batch = calibration_batches(task(tmp_path, rows, header, **options), tokenizer, batch_size=4)[0]
    assert batch["labels"].dtype == dtype
    assert batch["labels"].shape == shape


def rows_of(made, tokenizer):
    return sorted(
        tokenizer.decode(ids, skip_special_tokens=False).replace("[PAD]", "").strip()
        for batch in made
        for ids in batch["input_ids"]
    )


def test_calibration_rows_are_training_rows_only(words, tokenizer):
    everything = rows_of(calibration_batches(words, tokenizer), tokenizer)
    assert everything == sorted(f"[CLS] {text} [SEP]" for text in words.train["text"])


def test_calibration_sample_is_seeded_and_as_large_as_asked(words, tokenizer):
    first, again, other = (
        rows_of(calibration_batches(words, tokenizer, rows=10, seed=seed, batch_size=4), tokenizer)
        for seed in (0, 0, 1)
    )
    assert len(first) == 10
    assert first == again
    assert first != other


def test_calibration_rows_are_sorted_by_length(words, tokenizer):
    made = calibration_batches(words, tokenizer, batch_size=4)
    lengths = [int(length) for batch in made for length in batch["attention_mask"].sum(1)]
    assert lengths == sorted(lengths)


def test_a_tokenizer_without_padding_token_is_an_error(words, tokenizer):
    tokenised = tokenise(words.train, tokenizer, max_length=16)
    tokenizer.pad_token = None
    with pytest.raises(DataError, match=r"no padding token.*tokenizer\.pad_token = "):
        batches(tokenised, tokenizer, batch_size=4)


def test_a_row_without_tokens_is_an_error(words):
    bare = Tokenizer(models.WordLevel({"[PAD]": 0, "w0": 1}))
    bare.normalizer = normalizers.Replace(Regex(".+"), "")
    with pytest.raises(DataError, match="Row 1 gives no tokens"):
        tokenise(words.train.select([3]), PreTrainedTokenizerFast(tokenizer_object=bare), max_length=8)
