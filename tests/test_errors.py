"""Options in messages, and the known name that a mistyped one resembles."""

import datasets
import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

import prunelora as pl
from prunelora.data.load import load_task
from prunelora.data.settings import DataSettings
from prunelora.data.truncation import Truncation
from prunelora.errors import (
    DataError,
    PruneLoraError,
    RecipeError,
    UnsupportedModelError,
    advice,
    did_you_mean,
    one_of,
    option,
    spelled,
)
from prunelora.finetuning.training import finetune
from prunelora.models.embedding_sizes import EmbeddingSizes, IndexRanges
from prunelora.run.recipe import Recipe, load_recipe
from prunelora.settings import complaint


class Shouting:
    def given(self, name, value):
        return f"GIVEN {name}"

    def advised(self, name, value):
        return f"ADVISED {name}"


def test_options_are_spelled_as_in_python_if_nothing_else_is_set():
    assert option("keep_heads", 73) == "keep_heads=73"
    assert option("count", "all") == advice("count", "all") == "count='all'"
    assert option("keep_heads") == "keep_heads"
    with spelled(Shouting()):
        assert (option("keep_heads", 73), advice("keep_heads")) == ("GIVEN keep_heads", "ADVISED keep_heads")
    assert option("keep_heads", 73) == "keep_heads=73"


def test_the_closest_known_name_is_suggested_whatever_its_case_and_none_where_none_is_close():
    assert did_you_mean("Keep_Mac", ["keep_heads", "keep_macs"]) == " Did you mean 'keep_macs'?"
    assert did_you_mean("zzz", ["keep_heads", "keep_macs"]) == ""
    assert one_of("sst3", ["cola", "sst2"]) == " Did you mean 'sst2'? Use one of: cola, sst2."


@pytest.mark.parametrize(
    ("options", "spelling", "meant"),
    [
        ({"keep_hedas": 3}, "keep_hedas:", "keep_heads"),
        ({"txt": "a"}, "txt:", "text"),
        ({"modle": "a"}, "modle:", "model"),
        ({"criterion": "gradints"}, "criterion='gradints':", "gradient"),
        ({"targets": ["quary"]}, "targets=['quary']:", "query"),
    ],
)
def test_a_mistyped_option_or_value_is_answered_with_the_one_that_is_meant(options, spelling, meant, tmp_path):
    with pytest.raises(RecipeError) as found:
        pl.compress(data="a.csv", out=tmp_path / "run", **options)
    assert str(found.value).startswith(spelling)
    assert f"Did you mean {meant!r}?" in str(found.value)


@pytest.mark.parametrize(
    ("settings", "meant"),
    [
        ({"plan.keep_mac": 0.5}, "keep_macs"),
        ({"plna.keep_macs": 0.5}, "plan"),
        ({"keep_macs": 0.5}, "plan.keep_macs"),
        ({"task.txt": "a"}, "text"),
    ],
)
def test_a_mistyped_setting_is_answered_with_the_one_that_is_meant(settings, meant):
    with pytest.raises(RecipeError, match=f"Did you mean '{meant}'"):
        Recipe().with_settings(settings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: [{stage: score}, {stage: plan, keep_mac: 0.5}]", "'plan.keep_mac'. Did you mean 'keep_macs'"),
        ("stages: [{stage: scroe}]", "Did you mean 'score'"),
        ("sede: 1", "'sede'. Did you mean 'seed'"),
        ("task: {dta: a.csv}", "'task.dta'. Did you mean 'data'"),
        ("stages: [{stage: finetune, epochs: -1}, {stage: merge}, {stage: finetune}]", "finetune-1.epochs=-1: "),
        ("stages: [{stage: measure, repeats: 1}]", "measure.repeats=1: "),
        ("stages: [{rows: 1}]", "'stage 1' is missing"),
        ("stages: 3", "stages=3: "),
        ("- 3", "the content=[3]: "),
    ],
)
def test_a_recipe_file_is_refused_by_the_name_of_the_stage_and_the_setting(tmp_path, text, said):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError) as found:
        load_recipe(tmp_path / "mine.yaml")
    assert str(found.value).startswith(f"{tmp_path / 'mine.yaml'}: ")
    assert said in str(found.value)


def test_an_option_of_all_fine_tunings_is_refused_as_it_was_given():
    with pytest.raises(RecipeError, match=r"^epochs=-3: "):
        Recipe().with_options({"epochs": -3})
    with pytest.raises(RecipeError, match=r"^finetune-1.epochs=-3: "):
        Recipe().with_options({"epochs": 3}, {"finetune-1.epochs": -3})


def test_a_mistyped_setting_of_a_fine_tuning_is_answered_with_the_one_that_is_meant():
    with pytest.raises(PruneLoraError, match=r"'epoch'. Did you mean 'epochs'\?"):
        finetune(None, [], [], tokenizer=None, epoch=3)


def too_long_for_a_model():
    tables = EmbeddingSizes("m", tokens=9, types=None, positions=16, types_are_tokens=False, end=None, padding=None)
    with pytest.raises(UnsupportedModelError) as found:
        tables.check(IndexRanges(longest=20, tokens=(0, 1)), "a row")
    return str(found.value)


def cut_off():
    cut = Truncation(16, rows=9, rows_cut=8, tokens=900, tokens_cut=80, median_tokens=99.0, keeps_most=100)
    return str(cut.describe("train"))


def too_few_to_cut_off():
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": ["c", "d"]})
    with pytest.raises(DataError) as found:
        load_task(DataSettings(data=table))
    return str(found.value)


@pytest.mark.parametrize("message", [too_long_for_a_model, cut_off, too_few_to_cut_off])
def test_messages_about_rows_spell_options_as_they_were_typed(message):
    in_python = message()
    assert "_length=" in in_python or "_fraction=" in in_python
    with spelled(Shouting()):
        shouted = message()
    assert "GIVEN" in shouted or "ADVISED" in shouted
    assert "max_length=" not in shouted
    assert "--" not in shouted


class Small(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = 1
    sizes: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"size": "x" * 3000}, "size='xxx"),
        ({"sizes": [1, "a"]}, "sizes.1='a': "),
        ({"sise": 1}, "unknown key 'sise'. Did you mean 'size'?"),
        ({"other": 1}, "unknown key 'other'. Remove it."),
    ],
)
def test_a_complaint_names_the_place_and_a_bounded_part_of_the_value(content, said):
    with pytest.raises(ValidationError) as found:
        Small.model_validate(content)
    text = complaint(found.value, known=lambda _: Small.model_fields)
    assert text.startswith(said)
    assert len(text) < 400
