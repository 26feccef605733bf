"""The ablation: its variants, the order of its work, its choices on made-up records, and its page."""

import argparse
import json
import statistics

import numpy as np
import pytest
from benchmark_records import trained_as

from benchmarks.ablation import benchmark, page
from benchmarks.ablation import results as found_in
from benchmarks.ablation.results import Ablation, Difference
from benchmarks.ablation.variants import (
    BASES,
    BUDGETS,
    EVERYTHING,
    FINALISTS,
    GROUPS,
    PACKAGED,
    SCREENING_SEED,
    SCREENING_TASKS,
    SEEDS,
    VARIANTS,
)
from benchmarks.harness import FOLDER, ROOT
from benchmarks.tasks import FOUR, TASKS
from benchmarks.trials import cut_of, trial_for
from prunelora.data.settings import DataSettings
from prunelora.run.recipe import Recipe, load_recipe

PM, MINUS, NONE = "\N{PLUS-MINUS SIGN}", "\N{MINUS SIGN}", "\N{EN DASH}"


def record(name, task, seed=0, *, factor=1.0, accuracy=0.85, loss=0.4, test=0.84, memory=1_000, cut="repaired"):
    """A made-up record of a variant."""
    rate = EVERYTHING[name].rate_at(factor)
    pruned = "first" in name
    return {
        "method": name,
        "task": task,
        "seed": seed,
        "learning_rate": rate,
        "validation": {"accuracy": accuracy, "loss": loss},
        "test": {"test": {"accuracy": test}},
        "steps": 300,
        "prunelora": "0.1.0",
        "machine": {"cpu": "AMD EPYC"},
        "heads": [36 if pruned else 72, 72],
        "neurons": [4608 if pruned else 9216, 9216],
        "memory": {"most": {"training": memory}},
        "cut": {
            "before": {"accuracy": 0.86},
            "cut": {"accuracy": 0.7 if cut else 0.6},
            "repaired": {"accuracy": 0.8} if cut else None,
        }
        if pruned
        else None,
    }


def save(folder, records):
    ablation = Ablation(folder)
    for one in records:
        ablation.add(one)
    return Ablation(folder)


def all_trials(name, task, *, best=1.0, **facts):
    """A variant's records on the screening seed, one learning rate a little better than the others."""
    accuracy = facts.pop("accuracy", 0.85)
    return [
        record(name, task, factor=factor, accuracy=accuracy if factor == best else accuracy - 0.01, **facts)
        for factor in EVERYTHING[name].factors or (best,)
    ]


def table_of(text):
    """Rows of a Markdown table by their first cell."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in rows[2:]}


# Variants -------------------------------------------------------------------------------------------------------------


def test_every_variant_is_a_recipe_that_comparisons_take(tmp_path):
    base = Recipe(model="minilm", task=DataSettings(task="rte", data_dir=str(tmp_path)))
    for variant in EVERYTHING.values():
        rate = variant.rate_at(0.5)
        trial = trial_for(variant, "rte", learning_rate=rate, seed=1, runs=tmp_path, base=base)
        assert (trial.method.name, trial.method.title, trial.learning_rate) == (variant.name, variant.title, rate)
        assert trial.recipe.stages[:-1] == variant.for_task("rte", rate).stages


@pytest.mark.parametrize(("name", "variant"), PACKAGED.items())
def test_the_packaged_recipes_are_variants(name, variant):
    stages = [stage for stage in load_recipe(name).stages if stage.stage not in ("export", "measure", "report")]
    assert stages == list(VARIANTS[variant].resolved.stages)


@pytest.mark.parametrize("task", FOUR)
def test_every_variant_trains_for_as_long(task):
    for variant in EVERYTHING.values():
        tunings = variant.for_task(task, 1e-3).tunings.values()
        assert sum(one.epochs for one in tunings) == pytest.approx(TASKS[task].epochs, rel=1e-4)


def test_no_two_variants_are_the_same():
    assert len({str(variant.resolved.stages) for variant in EVERYTHING.values()}) == len(EVERYTHING)
    assert len(VARIANTS) == 45
    assert sum(map(len, GROUPS.values())) == len(EVERYTHING) == 52


def test_a_variant_changes_its_base_or_takes_another_recipe():
    for variant in VARIANTS.values():
        if variant.against in BASES:
            assert variant.name.startswith(f"{variant.against}-")
            assert variant.changes or variant.recipe != variant.against
            tuned_first = variant.resolved.stages[0].stage == "finetune"
            assert variant.factors or variant.rate_of == ("lora-all" if tuned_first else "cut-first"), variant.name
    assert {len(variant.factors) for variant in VARIANTS.values()} == {0, 1, 2}
    assert VARIANTS["tune-first"].rate_of == "lora-all"


def test_all_keep_the_same_fraction_of_the_macs():
    for name, variant in EVERYTHING.items():
        plans = [stage for stage in variant.resolved.stages if stage.stage == "plan"]
        budget = float(name.partition("@")[2] or 0.5)
        assert budget in (0.5, *BUDGETS)
        assert variant.keep_macs == (budget if plans else 1.0)
        if plans:
            assert plans[-1].keep_macs == budget or (plans[-1].keep_heads, plans[-1].keep_ffn) == (budget, budget)


def test_at_fewer_macs_a_variant_is_compared_with_its_base_there():
    against = {variant.name: variant.against for variant in GROUPS["tight"]}
    assert against["tune-first-split-late-gentle@0.2"] == "tune-first@0.2"
    assert against["cut-first-early@0.35"] == "cut-first@0.35"
    assert against["tune-first@0.35"] == against["tune-first-split-late-gentle@0.1"] == "lora-all"
    assert EVERYTHING["cut-first@0.35"].rate_of == "cut-first"
    assert EVERYTHING["tune-first@0.2"].rate_of == "lora-all"


def test_the_records_were_trained_as_the_variants_say():
    ablation = Ablation()
    assert len(ablation.records) == 285
    for one in ablation.records:
        assert trained_as(EVERYTHING[one["method"]], one), (one["method"], one["task"])
    assert not trained_as(
        VARIANTS["cut-first-raw"], next(one for one in ablation.records if one["method"] == "cut-first")
    )


# Order of the work ----------------------------------------------------------------------------------------------------


def order(tasks, groups, seeds):
    return list(benchmark.schedule(argparse.Namespace(tasks=tasks, groups=groups, seeds=seeds)))


def test_one_seed_of_everything_comes_before_the_next():
    found = order(["sst2", "rte"], GROUPS, [0, 1])
    assert [seed for seed, *_ in found] == sorted(seed for seed, *_ in found)
    assert [group for seed, group, task, _ in found if (seed, task) == (0, "sst2")] == list(GROUPS)
    names = {(seed, task, group): [one.name for one in some] for seed, group, task, some in found}
    later = [(task, group) for seed, task, group in names if seed == 1]
    assert {group for _, group in later} == {"references", "bases", "splits", "start", "features", "tight"}
    assert names[1, "rte", "splits"] == names[1, "sst2", "splits"] == [PACKAGED["tune-first"]]
    assert all(name.partition("@")[0] in FINALISTS for name in names[1, "rte", "tight"])
    # The first seed alone trains the bases at the smaller budgets.
    extra = {f"{base}@0.35" for base in BASES} | {"tune-first@0.2"}
    assert set(names[0, "rte", "tight"]) - set(names[1, "rte", "tight"]) == extra
    screened = {group for seed, task, group in names if (seed, task) == (0, "rte")}
    assert screened == {"references", "bases", "splits", "weights", "start", "features", "tight"}
    assert len(names[0, "rte", "splits"]) == 7


def test_the_bases_are_trained_before_what_is_compared_with_them():
    assert [group for _, group, *_ in order(["rte"], ["adapter"], [0])] == ["bases"]
    assert [group for _, group, *_ in order(["sst2"], ["adapter"], [0])] == ["bases", "adapter"]
    assert [group for _, group, *_ in order(["rte"], ["references"], [0])] == ["references"]


def test_the_finalists_are_the_variants_furthest_above_their_base_in_the_screening():
    """On the validation rows of the screening tasks, over all seeds that both were trained with."""
    ablation = Ablation()
    asked_for_time = {"cut-first-rows-512", "cut-first-rows-256", "cut-first-every-weight"}
    # The features came later, and the packaged cut-first is among them.
    asked_for_time |= {variant.name for variant in GROUPS["features"]}
    for base, finalist in zip(BASES, FINALISTS[:2], strict=True):
        leads = {}
        for variant in VARIANTS.values():
            if variant.against == base and variant.name not in asked_for_time:
                pairs = ablation.against(variant, page.accuracy).pairs
                leads[variant.name] = Difference(tuple(pair for pair in pairs if pair[0] in SCREENING_TASKS)).mean
        assert max(leads, key=leads.get) == finalist
        assert leads[finalist] > 0


def test_learning_rates_are_tried_first_and_no_record_is_made_twice(tmp_path, monkeypatch):
    trained = []

    def train(variant, task, rate, seed):
        trained.append((variant.name, rate, seed))
        return record(variant.name, task, seed, factor=rate / variant.learning_rate)

    monkeypatch.setattr(benchmark, "train_variant", train)
    ablation = save(tmp_path, all_trials("lora-all", "rte", best=0.5))
    for _ in range(2):
        for name in ("cut-first", "tune-first", "cut-first-raw"):
            for piece in benchmark.trainings(ablation, VARIANTS[name], name, "rte", 1):
                piece.run()
    assert trained == [
        ("cut-first", 2e-3, 0), ("cut-first", 1e-3, 0), ("cut-first", 2e-3, 1), ("tune-first", 1e-3, 1),
        ("cut-first-raw", 2e-3, 1),
    ]  # fmt: skip
    assert len(Ablation(tmp_path).records) == len(trained) + 2


def test_a_variant_without_a_chosen_learning_rate_is_left_out(tmp_path, capsys):
    assert list(benchmark.trainings(Ablation(tmp_path), VARIANTS["cut-first-raw"], "it", "rte", 0)) == []
    assert "cut-first" in capsys.readouterr().out


# Choices --------------------------------------------------------------------------------------------------------------


def test_learning_rates_are_chosen_on_validation_rows_and_only_when_all_were_tried(tmp_path):
    better_on_validation, better_reported = all_trials("cut-first", "rte", best=0.5)[::-1]
    better_reported["test"]["test"]["accuracy"] = 1.0
    found = save(tmp_path, [better_reported])
    assert found.factor(VARIANTS["cut-first"], "rte") is None
    found = save(tmp_path, [better_on_validation])
    for name in ("cut-first", "cut-first-fisher", "cut-first@0.35"):
        assert found.factor(EVERYTHING[name], "rte") == 0.5
    assert found.factor(VARIANTS["cut-first"], "mrpc") is None


def test_of_equally_good_learning_rates_the_smaller_loss_is_chosen(tmp_path):
    records = [record("cut-first", "rte", factor=factor, loss=loss) for factor, loss in ((1.0, 0.5), (0.5, 0.4))]
    assert save(tmp_path, records).factor(VARIANTS["cut-first"], "rte") == 0.5


def test_a_record_at_another_learning_rate_counts_as_missing(tmp_path):
    found = save(tmp_path, [*all_trials("cut-first", "rte", best=0.5), record("cut-first-fisher", "rte", factor=1.0)])
    assert found.record(VARIANTS["cut-first-fisher"], "rte", 0) is None
    found = save(tmp_path, [record("cut-first-fisher", "rte", factor=0.5)])
    assert found.record(VARIANTS["cut-first-fisher"], "rte", 0)["learning_rate"] == 1e-3


def test_every_task_counts_the_same_however_many_seeds_it_has():
    difference = Difference((("rte", 0, 1.0), ("rte", 1, 3.0), ("mrpc", 0, 6.0)))
    assert difference.mean == 4.0
    assert difference.error == pytest.approx(2.0)  # Of 2 and 6, the tasks' means.
    single = Difference((("rte", 0, 1.0),))
    assert (single.mean, single.error, found_in.clear({"one": single})) == (1.0, None, set())
    assert page.points(single) == "+1.00"


@pytest.mark.parametrize(("tasks", "clear"), [(2, False), (3, False), (12, True)])
def test_few_tasks_must_agree_more_closely(tasks, clear):
    """All are three standard errors from nothing: Student's t asks for 12.7, 4.3 and 2.2."""
    values = [(-1) ** place for place in range(tasks)]
    offset = 3 * statistics.stdev(values) / tasks**0.5 - statistics.fmean(values)
    difference = Difference(tuple((f"task-{place}", 0, one + offset) for place, one in enumerate(values)))
    assert difference.mean == pytest.approx(3 * difference.error)
    assert found_in.clear({"one": difference}) == ({"one"} if clear else set())


def test_seeds_of_one_task_do_not_count_as_tasks():
    by_task = Difference((("rte", 0, 1.0), ("mrpc", 0, 3.0)))
    by_seed = Difference(
        tuple((task, seed, value) for task, value in (("rte", 1.0), ("mrpc", 3.0)) for seed in range(9))
    )
    assert by_seed.error == by_task.error


def test_few_of_many_variants_that_change_nothing_are_called_clear():
    """Forty variants on four tasks, fifty times: with Holm's adjustment some are clear in about 5 % of pages."""
    generator = np.random.default_rng(0)
    pages = 0
    for _ in range(50):
        variants = {
            str(name): Difference(tuple((f"task-{task}", 0, float(generator.normal())) for task in range(4)))
            for name in range(40)
        }
        pages += bool(found_in.clear(variants))
    assert pages / 50 < 0.1


# Around the cut -------------------------------------------------------------------------------------------------------


def test_the_metrics_around_the_last_of_two_cuts_are_recorded():
    judged = {
        name: {"accuracy": value} for name, value in zip("abcdef", (0.6, 0.55, 0.58, 0.51, 0.56, 0.8), strict=True)
    }
    stages = [
        ("linear_probe", {"validation": judged["a"]}),
        ("prune-1", {"validation": judged["c"], "validation_before_repair": judged["b"]}),
        ("prune", {"validation": judged["e"], "validation_before_repair": judged["d"]}),
        ("merge", {"validation": judged["f"]}),
    ]
    assert cut_of(stages) == {"before": judged["c"], "cut": judged["d"], "repaired": judged["e"]}
    unrepaired = [("merge-1", {"validation": judged["a"]}), ("prune", {"validation": judged["b"]})]
    assert cut_of(unrepaired) == {"before": judged["a"], "cut": judged["b"], "repaired": None}
    assert cut_of(unrepaired[:1]) is None


# The page -------------------------------------------------------------------------------------------------------------


def test_the_committed_page_is_written_from_the_records(monkeypatch, tmp_path):
    monkeypatch.setattr(page, "PAGE", tmp_path / "ablation.md")
    text = page.write_ablation().read_text(encoding="utf-8")
    assert text == (ROOT / "docs" / "ablation.md").read_text(encoding="utf-8")


def test_the_results_page_has_the_accuracies_by_budget():
    columns, rows = page.how_far(Ablation())
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    shown = columns.index("against dense LoRA") + 1
    for row in rows:
        assert f"| {' | '.join(row[:shown])} |" in text
    reported, without, validated = next(row[shown - 1 :] for row in rows if row[0] == "0.5")
    assert all(value in text for value in (reported, without, validated))


@pytest.fixture
def two_tasks(tmp_path):
    """Records in which repair is worth 1 point on one task and 3 on the other, on the validation rows."""
    records = [*all_trials("lora-all", "rte", memory=2_000), *all_trials("lora-all", "mrpc")]
    for task, gain in (("rte", 0.01), ("mrpc", 0.03)):
        for name in ("tune-first", "tune-first-gradient"):
            records += [record(name, task), record(name, task, 1, accuracy=0.86)]
        records += [
            record(
                "tune-first-no-repair", task, seed, accuracy=0.85 + 0.01 * seed - gain, loss=0.45, test=0.85, cut=None
            )
            for seed in (0, 1)
        ]
    return save(tmp_path, records)


def test_differences_are_paired_by_task_and_seed(two_tasks):
    variants = [VARIANTS[name] for name in ("tune-first-no-repair", "cut-first-no-repair")]
    rows = table_of(page.differences(two_tasks, variants))
    question, against, points, loss, reported, rests_on = rows["tune-first-no-repair"]
    assert (question, against) == (VARIANTS["tune-first-no-repair"].title, "tune-first-gradient")
    # -1 and -1 on one task, -3 and -3 on the other: of two tasks standard deviation 1.414, over the root of 2.
    assert points == f"{MINUS}2.00 {PM} 1.00"
    assert loss in (f"+0.050 {PM} 0.000", f"+0.025 {PM} 0.000")
    assert reported == f"+1.00 {PM} 0.00"
    assert rests_on == "mrpc, rte; seeds 0, 1"
    assert rows["cut-first-no-repair"][2:] == [NONE] * 4


def test_accuracies_by_budget_are_of_the_packaged_recipe_on_the_reported_rows(tmp_path):
    name = PACKAGED["tune-first"]
    records = [one for task in ("rte", "mrpc") for one in all_trials("lora-all", task, test=0.80)]
    records += [record("lora-all", "rte", 1, test=0.78), record(name, "mrpc", test=0.79, accuracy=0.83)]
    records += [record(name, "rte", seed, test=0.82, accuracy=0.86) for seed in (0, 1)]
    records += [record(f"{name}@0.2", "rte", test=0.76), record(PACKAGED["cut-early"], "mrpc", test=0.75)]
    _, rows = page.how_far(save(tmp_path, records))
    shown = {budget: list(cells) for budget, *cells in rows}
    assert list(shown) == ["most frequent class", "all, LoRA", "0.5, cut-early", "0.5", "0.2"]
    assert shown["all, LoRA"] == [NONE, "80.0 (1 seed)", NONE, f"79.0 {PM} 1.4", NONE, *[NONE] * 3]
    # +2 and +4 on one task, -1 on the other: means 3 and -1. On the validation rows +1 and +1, and -2: 1 and -2.
    differences = [f"+1.00 {PM} 2.00", f"{MINUS}1.00", f"{MINUS}0.50 {PM} 1.50"]
    assert shown["0.5"] == [NONE, "79.0 (1 seed)", NONE, f"82.0 {PM} 0.0", NONE, *differences]
    assert shown["0.5, cut-early"][:5] == [NONE, "75.0 (1 seed)", NONE, NONE, NONE]
    assert shown["0.2"][-3:] == [f"{MINUS}4.00", NONE, "0.00"]


def test_the_cut_the_costs_and_the_accuracies_are_shown(two_tasks):
    cuts = table_of(page.around_the_cut(two_tasks))
    assert cuts["tune-first"] == ["86.0", "70.0", "80.0", "85.5", "mrpc, rte; seeds 0, 1"]
    assert cuts["tune-first-no-repair"][:3] == ["86.0", "60.0", NONE]
    costs = table_of(page.costs(two_tasks))
    assert costs["tune-first"] == ["300", "75 %", "36 of 72", "4,608 of 9,216"]  # Half of lora-all's on rte.
    assert costs["lora-all"] == ["300", "100 %", "72 of 72", "9,216 of 9,216"]
    assert table_of(page.by_task(two_tasks))["tune-first"] == [NONE, "85.5 (84.0)", NONE, "85.5 (84.0)", NONE]
    rates = page.rates(two_tasks)
    assert f"| lora-all | 0.002 | {NONE} | 85.0, chosen | {NONE} | 85.0, chosen |" in rates
    assert f"| lora-all | 0.001 | {NONE} | 84.0 | {NONE} | 84.0 |" in rates


def test_the_tables_of_cuts_without_training_equal_their_results():
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(found_in.RESULTS.glob("cuts-*.json"))]
    text = (FOLDER / "ablation" / "page.md").read_text(encoding="utf-8")
    assert [one["task"] for one in found] == ["mrpc", "rte", "sst2"]

    def judged(moments):
        accuracy, loss = (statistics.fmean(one[key] for one in moments) for key in ("accuracy", "loss"))
        return f"{100 * accuracy:.1f} ({loss:.3f})"

    layers = {"paper": "layers normalised", "none": "raw"}
    kinds = {"cost": "balanced by cost", "none": "not scaled", "equal": "the same fraction of each"}
    cells = table_of(text[text.index("| scores |") : text.index("## Time of scoring")])
    dense = judged([one["dense"] for one in found])
    assert cells.pop("nothing cut") == ["", "", dense, ""] * 2
    shown = 0
    for criterion, normalise, balance in {
        (one["criterion"], one["normalise"], one["balance"]) for one in found[0]["cuts"]
    }:
        row = cells[f"{criterion}, {layers[normalise]}, heads and neurons {kinds[balance]}"]
        for budget, part in ((0.5, row[:4]), (0.35, row[4:])):
            asked = {"criterion": criterion, "normalise": normalise, "balance": balance, "keep_macs": budget}
            cuts = [cut for one in found for cut in one["cuts"] if asked.items() <= cut.items()]
            sizes = [f"{statistics.fmean(cut[key] for cut in cuts):,.0f}" for key in ("heads", "neurons")]
            repaired = [cut["repaired"] for cut in cuts if cut["repaired"]]
            assert part == [*sizes, judged([cut["cut"] for cut in cuts]), judged(repaired) if repaired else NONE]
            shown += len(cuts)
    assert shown == sum(len(one["cuts"]) for one in found) == 3 * 2 * len(cells)
    seconds = table_of(text[text.index("| work |") : text.index("## Memory and sizes")])
    half = [cut for one in found for cut in one["cuts"] if cut["keep_macs"] == 0.5]
    repair, plan = ([cut[key] for cut in half if cut[key]] for key in ("repair_seconds", "plan_seconds"))
    assert seconds.pop("repair") == [f"{statistics.fmean(repair):.1f}"]
    assert seconds.pop("planning") == [f"{statistics.fmean(plan):.2f}"]
    scores = {name: statistics.fmean(one["score_seconds"][name] for one in found) for name in found[0]["score_seconds"]}
    assert seconds == {f"scoring, {name}": [f"{value:.1f}"] for name, value in scores.items()}


def test_a_cut_that_is_that_of_the_base_is_shown_once():
    alike = {name for name, one in VARIANTS.items() if one.against in BASES and not page.cuts_otherwise(one)}
    adapters = {one.name for one in GROUPS["adapter"]}
    assert alike == adapters | {"cut-first-every-weight", "tune-first-distilled"} | {
        f"tune-first-{name}" for name in ("half-rate", "keep-start")
    }


def test_seeds_begin_with_the_one_that_screens():
    assert SEEDS[0] == SCREENING_SEED
