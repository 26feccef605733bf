import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest
from report.made_up_run import make_results

from prunelora.report import page as page_writer
from prunelora.report.run_page import sections, write_report
from prunelora.report.summary import summarise

SECTIONS = [
    "Dense against pruned", "Files", "Which heads matter, and which were cut", "What stays in every layer",
    "LoRA ranks", "Training", "Time of a forward pass", "Quality along the way", "Time of every stage", "Data",
    "Load the model", "Recipe",
]  # fmt: skip


class Page(HTMLParser):
    """What a page refers to, its ids, headings, tags and text."""

    def __init__(self, html):
        super().__init__()
        self.references, self.ids, self.headings, self.tags, self.text = [], [], [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.references.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "h2" and data.strip():
            self.headings.append(data)
        self.text += data


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report with its real figures, for tests that only look at it."""
    folder = tmp_path_factory.mktemp("report")
    return folder, write_report(make_results(), folder)


@pytest.fixture
def sketched(monkeypatch):
    """Figures are left empty: laying them out is most of the work."""

    def save_drawn(figures, folder):
        paths = {f"{name}.{kind}": folder / f"{name}.{kind}" for name in figures for kind in ("svg", "png")}
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths.values():
            path.write_text("<svg></svg>", encoding="utf-8")
        return paths

    monkeypatch.setattr(page_writer, "save_drawn", save_drawn)


def read(folder, results):
    write_report(results, folder)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_what_it_says_it_wrote_is_exactly_what_is_there(written):
    folder, names = written
    assert sorted(names) == sorted(files(folder))


def test_the_page_has_every_section_and_figure(written):
    page = Page((written[0] / "report.html").read_text(encoding="utf-8"))
    assert page.headings == SECTIONS
    assert page.tags.count("svg") == 5


def test_the_page_refers_to_nothing_outside_itself(written):
    html = (written[0] / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.references
    assert all(reference.startswith("#") for reference in page.references)
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    assert "script" not in page.tags
    assert set(re.findall(r"url\((.)", html)) <= {"#"}


def test_ids_are_unique_and_every_reference_within_the_page_leads_to_one(written):
    html = (written[0] / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    wanted = {reference[1:] for reference in page.references} | set(re.findall(r"url\(#([^)]+)\)", html))
    assert len(page.ids) == len(set(page.ids))
    assert wanted <= set(page.ids)


@pytest.mark.usefixtures("sketched")
def test_names_are_shown_and_not_obeyed(tmp_path):
    results = make_results(model="<b>")
    task = results.task | {"label_names": ["<script>alert(1)</script>", "a|b"], "notes": ["`x` | <i>y</i>"]}
    html = read(tmp_path, dataclasses.replace(results, data="a & <u>", task=task))
    page = Page(html)
    assert not {"b", "script", "i", "u"} & set(page.tags)
    assert "<b>" in page.text
    assert "<script>alert(1)</script>" in page.text
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    prose, _, code = markdown.partition("```")
    assert "<" not in prose
    assert "a\\|b" in prose
    assert "model: <b>" in code


def test_the_same_run_gives_the_same_bytes(written, tmp_path):
    write_report(make_results(), tmp_path)
    first, second = files(written[0]), files(tmp_path)
    assert len(first) == 13
    assert first == second


@pytest.mark.parametrize(
    "without",
    [
        (),
        ("baseline",),
        ("linear_probe",),
        ("export",),
        ("linear_probe", "export", "baseline", "merge", "finetune"),
        ("measure", "score", "plan", "prune", "finetune", "merge", "export", "baseline", "linear_probe"),
    ],
)
@pytest.mark.usefixtures("sketched")
def test_stages_that_did_not_run_are_no_obstacle(tmp_path, without):
    results = make_results(without=without)
    html = read(tmp_path, results)
    page = Page(html)
    assert ("Training" in page.headings) == ("finetune" not in without)
    assert ("Time of a forward pass" in page.headings) == ("measure" not in without)
    assert ("<td>not trained</td>" in html) == ("baseline" in without and "measure" not in without)


@pytest.mark.usefixtures("sketched")
def test_a_run_without_scores_and_plan_has_a_report(tmp_path):
    page = Page(read(tmp_path, dataclasses.replace(make_results(), importance=None, plan=None)))
    assert "LoRA ranks" not in page.headings
    assert "Dense against pruned" in page.headings


@pytest.mark.usefixtures("sketched")
def test_warnings_stand_on_the_page(tmp_path):
    assert "Nothing was learnt" in Page(read(tmp_path, make_results(accuracy=0.5))).text
    assert "Warnings" not in Page(read(tmp_path, make_results())).text


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ({"problem_type": "regression"}, 'pipeline("text-classification", prunelora.load(folder), tokenizer=folder)'),
        ({"problem_type": "token_classification"}, 'pipeline("token-classification", prunelora.load(folder), token'),
        ({"problem_type": "causal_lm"}, 'pipeline("text-generation", prunelora.load(folder), tokenizer=folder)'),
        (
            {"problem_type": "single_label_classification", "columns": {"image": "image", "label": "label"}},
            'pipeline("image-classification", prunelora.load(folder), image_processor=folder)("picture.png")',
        ),
        (
            {"problem_type": "regression", "columns": {"text": "a", "text_pair": "b", "label": "c"}},
            'tokenizer=folder)({"text": "A text.", "text_pair": "Another."})',
        ),
        ({"problem_type": "a kind of its own"}, "\nmodel = prunelora.load(folder)"),
    ],
)
def test_the_model_is_loaded_into_the_pipeline_of_its_kind_of_task(task, line):
    results = make_results()
    task = results.task | {"metrics": ["accuracy"]} | task
    found = sections(dataclasses.replace(results, task=task))
    code = next(one.code for one in found if one.title == "Load the model")
    assert line in code
    assert ("transformers" in code) == ("pipeline" in code)


@pytest.mark.usefixtures("sketched")
def test_the_majority_rate_stands_beside_the_accuracy_in_every_file(tmp_path):
    html = read(tmp_path, make_results())
    for text in (html, (tmp_path / "report.md").read_text(encoding="utf-8")):
        assert "always the most frequent class" in text
        assert "50.1" in text
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["task"]["majority_rate"] == 0.501


@pytest.mark.usefixtures("sketched")
def test_metrics_hold_every_fact_and_are_plain_json(tmp_path):
    results = make_results()
    facts = {**results.facts("linear_probe"), "loss": float("nan")}
    stages = {**results.stages, "linear_probe": results.stages["linear_probe"] | {"facts": facts}}
    write_report(dataclasses.replace(results, stages=stages), tmp_path)

    def refuse(name):
        raise AssertionError(name)

    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert metrics["stages"]["measure"]["facts"] == results.facts("measure")
    assert metrics["stages"]["linear_probe"]["facts"]["loss"] is None
    assert metrics["plan_id"] == results.plan.id
    assert metrics["summary"] == summarise(results)


def test_pictures_in_markdown_are_there(written):
    folder = written[0]
    pictures = re.findall(r"\]\((figures/[^)]+)\)", (folder / "report.md").read_text(encoding="utf-8"))
    assert len(pictures) == 5
    assert all((folder / picture).is_file() for picture in pictures)
