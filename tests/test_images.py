"""Runs on images: data from folders and data sets, pixels made as they are read, and half of a vision model cut."""

import json

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from small_run import copy_dense_exports, make_data, make_model
from tiny import largest_difference, logits, stir, tiny_config, tiny_model
from transformers import AutoModelForImageClassification, ViTImageProcessor

import prunelora as pl
from prunelora.data.columns import Columns
from prunelora.data.load import load_task
from prunelora.data.pixels import PixelBatches
from prunelora.data.rows import read_rows
from prunelora.data.settings import DataSettings
from prunelora.data.tables import Table
from prunelora.data.tokens import batches, calibration_batches, tokenise
from prunelora.delivery.processors import load_image_processor
from prunelora.errors import CheckpointError, DataError, UnsupportedModelError
from prunelora.evaluation.feasibility import check
from prunelora.evaluation.quality import predict_rows
from prunelora.models.inputs import image_tokens, random_inputs
from prunelora.run.check import check_run
from prunelora.run.execute import execute
from prunelora.run.recipe import Recipe, load_recipe
from prunelora.stages.context import pretrained

SIDE = 12
COLOURS = {"blue": (40, 60, 200), "red": (200, 60, 40)}


def picture(colour, seed):
    """A noisy square, its own for every seed."""
    noise = np.random.default_rng(seed).integers(-40, 40, (16, 20, 3))
    return Image.fromarray(np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8))


def write_folder(folder, rows=80, start=0):
    for number in range(rows):
        name = sorted(COLOURS)[number % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        picture(name, start + number).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("images") / "colours")


@pytest.fixture(scope="module")
def processor():
    return ViTImageProcessor(size={"height": SIDE, "width": SIDE})


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, processor):
    folder = tmp_path_factory.mktemp("vit") / "model"
    torch.manual_seed(0)
    AutoModelForImageClassification.from_config(tiny_config("vit")).save_pretrained(str(folder))
    processor.save_pretrained(str(folder))
    return folder


def load(data, **options):
    return load_task(DataSettings(data=str(data), **options))


def test_folders_of_classes_are_a_task(folder):
    task = load(folder)
    assert (task.problem_type, task.label_names, task.of_images) == (
        "single_label_classification", ("blue", "red"), True,
    )  # fmt: skip
    assert {split: len(rows) for split, rows in (("train", task.train), ("test", task.test))} == {
        "train": 64,
        "test": 8,
    }
    assert task.majority_rate == 0.5
    assert task.train.column_names == ["image", "label"]
    row = task.train[0]
    wanted = COLOURS[task.label_names[row["label"]]]
    assert np.abs(np.array(row["image"]).mean((0, 1)) - wanted).max() < 12
    assert "image column: image (guessed; text to change)" in task.notes


def test_the_same_images_as_a_data_set_are_the_same_task(folder, tmp_path):
    paths = sorted((folder / "blue").iterdir()) + sorted((folder / "red").iterdir())
    features = datasets.Features({"picture": datasets.Image(), "label": datasets.ClassLabel(names=["blue", "red"])})
    rows = {
        "picture": [{"bytes": path.read_bytes(), "path": None} for path in paths],
        "label": [int(path.parent.name == "red") for path in paths],
    }
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows, features=features)}).save_to_disk(
        tmp_path / "saved"
    )
    assert load(tmp_path / "saved").fingerprint == load(folder).fingerprint


def test_splits_are_folders_too(tmp_path):
    for start, (split, rows) in enumerate((("train", 24), ("validation", 8), ("test", 6))):
        write_folder(tmp_path / "data" / split, rows, start=1000 * start)
    task = load(tmp_path / "data")
    assert (len(task.train), len(task.validation), len(task.test)) == (24, 8, 6)


def test_equal_pictures_go_to_the_same_side(tmp_path):
    for number in range(30):
        for name in COLOURS:
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            picture(name, number // 3).save(tmp_path / "data" / name / f"{number}.png")
    task = load(tmp_path / "data")

    def pictures(rows):
        return {bytes(one.tobytes()) for one in rows["image"]}

    assert pictures(task.train).isdisjoint(pictures(task.test))
    assert pictures(task.train).isdisjoint(pictures(task.validation))


def test_what_is_no_image_is_an_error(tmp_path):
    folder = write_folder(tmp_path / "data", 20)
    (folder / "notes").mkdir()
    with pytest.raises(DataError, match="blue holds images and notes none"):
        load(folder)
    gone = {"image": [{"bytes": None, "path": str(tmp_path / "gone.png")}] * 4, "label": [0, 1, 0, 1]}
    with pytest.raises(DataError, match=r"row 1 of column 'image': .*gone.png"):
        read_rows(Table(gone), Columns("image", None, ("label",), (), images=True), where="train")
    with pytest.raises(DataError, match="column 'image' holds images"):
        load(write_folder(tmp_path / "more", 20), text_pair="label")


@pytest.mark.parametrize(
    "place", ["train/blue/2020/1.png", "train/blue/1.jfif", "train/1.png", "test/green/2020/1.png"]
)
def test_images_that_would_not_be_read_are_an_error(place, tmp_path):
    for split, rows in (("train", 24), ("test", 6)):
        write_folder(tmp_path / "data" / split, rows)
    assert load(tmp_path / "data") is not None
    path = tmp_path / "data" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    picture("blue", 0).save(path, format="PNG")
    with pytest.raises(DataError, match=r"is not read|holds images and \w+ none"):
        load(tmp_path / "data")


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html></html>", "half"])
def test_a_file_that_is_no_image_is_an_error_before_any_work(content, tmp_path):
    path = write_folder(tmp_path / "data", 20) / "blue" / "18.png"
    path.write_bytes(path.read_bytes()[:200] if content == "half" else content)
    with pytest.raises(DataError, match=r"row 6 of column 'image': .*18\.png .* \d+ bytes"):
        load(tmp_path / "data")
    cells = {"image": [{"bytes": path.read_bytes(), "path": None}], "label": [0]}
    with pytest.raises(DataError, match=r"row 1 of column 'image': .* \d+ bytes"):
        read_rows(Table(cells), Columns("image", None, ("label",), (), images=True), where="train")


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp", "tiff"])
def test_an_image_that_is_cut_off_is_an_error_before_any_work(suffix, tmp_path):
    folder = write_folder(tmp_path / "data", 20)
    (folder / "blue" / "18.png").unlink()
    path = folder / "blue" / f"18.{suffix}"
    picture("blue", 18).save(path)
    assert load(folder) is not None
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"18\.{suffix}"):
        load(folder)


def test_a_model_is_looked_at_with_images_of_the_size_that_it_will_be_given(folder, tmp_path, latency_asked):
    """DINOv2's processors make smaller images than its configuration names, and its positions are interpolated."""
    source = tmp_path / "dinov2"
    AutoModelForImageClassification.from_config(tiny_config("dinov2")).save_pretrained(str(source))
    smaller = ViTImageProcessor(size={"height": 8, "width": 8})
    smaller.save_pretrained(str(source))
    model = pretrained(Recipe(model=str(source)), load(folder), smaller)
    dense = AutoModelForImageClassification.from_pretrained(str(source))
    given = torch.zeros(1, 3, 8, 8)
    assert image_tokens(dense) > image_tokens(model) == dense.base_model(given).last_hidden_state.shape[1]
    shape = random_inputs(model, batch_size=2, tokens=1, generator=torch.Generator())["pixel_values"].shape
    assert shape == (2, 3, 8, 8)
    assert pl.measure(model, sizes=None, repeats=1, warmup=0).settings["macs_tokens"] == image_tokens(model)
    found = check(str(source), data=DataSettings(data=str(folder)), keep_macs=0.5)
    assert found.tokens == image_tokens(model)
    assert image_tokens(pl.load(pl.save(model, tmp_path / "saved"))) == image_tokens(model)


def test_a_model_that_reads_one_size_of_images_is_refused_another(folder, model_folder):
    with pytest.raises(UnsupportedModelError, match=r"12 x 12.* 8 x 8"):
        pretrained(Recipe(model=str(model_folder)), load(folder), ViTImageProcessor(size={"height": 8, "width": 8}))


def test_pixels_are_the_processors_own_and_made_when_they_are_read(folder, processor, monkeypatch):
    task = load(folder)
    rows = tokenise(task.train, processor, max_length=128)
    calls = []
    monkeypatch.setattr(type(processor), "__call__", lambda *_, **__: calls.append(1) or pytest.fail("read too early"))
    made = batches(rows, processor, batch_size=10)
    assert isinstance(made, PixelBatches)
    assert len(made) == 7
    monkeypatch.undo()
    assert [len(batch["labels"]) for batch in made] == [10] * 6 + [4]
    batch = made[1]
    assert batch["labels"].tolist() == task.train["label"][10:20]
    wanted = processor(images=[one.convert("RGB") for one in task.train["image"][10:20]], return_tensors="pt")
    assert torch.equal(batch["pixel_values"], wanted["pixel_values"])
    sample = calibration_batches(task, processor, rows=6, batch_size=4)
    assert [tuple(batch["pixel_values"].shape) for batch in sample] == [(4, 3, SIDE, SIDE), (2, 3, SIDE, SIDE)]
    model = tiny_model("vit", dtype=torch.float32, num_labels=2)
    with torch.no_grad():
        alone = model(pixel_values=batch["pixel_values"]).logits.numpy()
    np.testing.assert_allclose(predict_rows(model, rows, processor, batch_size=7)[10:20], alone, atol=1e-5)


def test_a_vision_model_of_half_the_size_learns_colours(folder, model_folder, tmp_path, monkeypatch):
    copy_dense_exports(monkeypatch)
    settings = {
        "model": str(model_folder),
        "task.data": str(folder),
        "score.rows": 32,
        "prune.repair_rows": 64,
        "finetune.epochs": 4,
        "finetune.batch_size": 8,
        "finetune.learning_rate": 5e-3,
        "measure.repeats": 3,
    }
    outcome = execute(load_recipe("cut-first").with_settings(settings), tmp_path / "run", progress=False)
    measured = outcome.results.facts("measure")
    assert measured["test"]["accuracy"] == 1.0 > measured["majority_rate"]
    costs = measured["measurement"]
    assert costs["model"]["macs"] <= 0.5 * costs["base"]["macs"]
    assert costs["settings"]["sizes"] == [[1, 10], [32, 10]]
    assert costs["settings"]["macs_tokens"] == image_tokens(outcome.load()) == 10
    assert outcome.results.plan.provenance["options"]["tokens"] == 10
    assert outcome.results.facts("prune")["repair"]["rows"] == 64
    kept = load_image_processor(tmp_path / "run" / "model")
    shown = kept(images=[picture("red", 7), picture("blue", 8)], return_tensors="pt")
    with torch.no_grad():
        assert outcome.load()(**shown).logits.argmax(-1).tolist() == [1, 0]
    assert (tmp_path / "run" / "report.html").exists()


def test_an_adapter_for_images_finds_its_model_again(model_folder, tmp_path):
    model = AutoModelForImageClassification.from_pretrained(str(model_folder))
    plan = pl.make_plan(pl.score(model, criterion="magnitude"), keep_macs=0.5)
    tuned = pl.add_adapter(pl.prune_(model, plan), plan)
    stir(tuned)
    batch = {"pixel_values": torch.randn(2, 3, SIDE, SIDE)}
    pl.save(tuned.eval(), tmp_path / "adapter")
    assert largest_difference(logits(tuned, batch), logits(pl.load(tmp_path / "adapter"), batch)) < 1e-5


def test_texts_for_a_vision_model_and_images_for_a_language_model_are_errors(
    folder, model_folder, tmp_path, minilm_path
):
    recipe = load_recipe("cut-first")
    texts = {"model": str(model_folder), "task.data": str(make_data(tmp_path / "reviews.csv"))}
    with pytest.raises(UnsupportedModelError, match=r"images.* texts"):
        execute(recipe.with_settings(texts), tmp_path / "one", progress=False)
    images = {"model": str(make_model(tmp_path / "bert", minilm_path)), "task.data": str(folder)}
    with pytest.raises(UnsupportedModelError, match=r"texts.* images"):
        execute(recipe.with_settings(images), tmp_path / "two", progress=False)
    (tmp_path / "bare").mkdir()
    with pytest.raises(CheckpointError, match="image processor"):
        load_image_processor(tmp_path / "bare")


def test_check_counts_images_by_their_patches(folder, model_folder, prunelora):
    fast = ("--no-latency", "--no-training")
    code, out, err = prunelora("check", "--model", str(model_folder), "--data", str(folder), *fast, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["tokens"], found["data"]["median_tokens"]) == (10, None)
    assert found["data"]["majority_rate"] == 0.5
    code, out, err = prunelora("check", "--model", str(model_folder), "--data", str(folder), *fast)
    assert "images" in out


def test_check_foresees_every_stage_of_a_run_on_images(folder, model_folder):
    options = {"model": str(model_folder), "data": str(folder)}
    recipe = load_recipe("cut-first").without_export().with_options(options)
    found = check_run(recipe, latency=False).run
    assert [stage.stage for stage in found.stages] == recipe.names
    assert all(stage.seconds >= 0 for stage in found.stages)
    assert found.memory_bytes > 0
