"""Errors spell options as they were typed: as a flag, after --set, or in a recipe file."""

import pytest
import typer

from prunelora.cli.app import app
from prunelora.cli.typed import TypedOptions, works_on
from prunelora.errors import advice, spelled
from prunelora.run.recipe import load_recipe

RUN = "run", "--data", "rotten-tomatoes", "--out", "out"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*RUN, "--keep-heads", "1.5", "--dry-run"), None),
        (("check", "--keep-heads", "73"), "--keep-heads 73 cannot be met"),
        (("check", "--keep-macs", "2"), "--keep-macs 2: "),
        (("check", "--keep-params", "0.1", "--count", "all"), "Use --keep-params >= 0.54, or --count encoder."),
        ((*RUN, "--epochs", "-3"), "--epochs -3: "),
        ((*RUN, "--criterion", "gradints"), "--criterion gradints: "),
        (("plan", "out", "--data", "x.csv", "--rank-high", "-1"), "--rank-high -1: "),
        (("measure", "out", "--data", "x.csv", "--repeats", "1"), "--repeats 1: "),
        ((*RUN, "--set", "measure.repeats=1"), "--set measure.repeats=1: "),
        ((*RUN, "--set", "measure.repeat=3"), "--set measure.repeat: no such setting. Did you mean 'repeats'?"),
        ((*RUN, "--set", "mesure.repeats=3"), "Did you mean 'measure'?"),
        ((*RUN, "--set", "repeats=3"), "Did you mean 'measure.repeats'?"),
        (
            (*RUN, "--keep-macs", "0.5", "--set", "plan.speedup=2"),
            "--keep-macs 0.5, --set plan.speedup=2.0: two budgets",
        ),
        ((*RUN, "--task", "sst2"), "--data rotten-tomatoes and --task sst2 were both given"),
        ((*RUN, "--recipe", "tune-frist"), "Did you mean 'tune-first'?"),
        ((*RUN, "--validation-fraction", "0.6", "--test-fraction", "0.5"), "--validation-fraction 0.6 and "),
        ((*RUN, "--keep-hedas", "3"), "--keep-heads"),
        (("mesure", "out"), "Did you mean 'measure'"),
    ],
)
def test_an_option_is_spelled_as_it_was_typed(prunelora, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, _, err = prunelora(*arguments)
    if said is None:
        assert code == 0, err
        return
    assert code in (1, 2)
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (RUN, ["--epochs", "--set measure.repeats=30", "--baseline"]),
        (("measure", "out"), ["finetune.epochs", "--repeats 30", "--baseline"]),
    ],
)
def test_what_is_advised_can_be_typed(command, said):
    group = typer.main.get_command(app)
    context = group.commands[command[0]].make_context(command[0], [*command[1:]])
    with spelled(TypedOptions(context)):
        works_on(load_recipe("tune-first"))
        assert [advice("epochs"), advice("measure.repeats", 30), advice("baseline", True)] == said


def test_what_stands_in_a_recipe_file_is_spelled_by_its_stage(prunelora, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load_recipe("tune-first").with_settings({"plan.keep_heads": 73}).save(tmp_path / "mine.yaml")
    code, _, err = prunelora("check", "--recipe", "mine.yaml", "--no-latency", "--no-training")
    assert code == 1
    assert "plan.keep_heads=73 cannot be met" in err
    # Whatever else is typed: the file has its own.
    (tmp_path / "wrong.yaml").write_text("stages: [{stage: score}, {stage: plan, keep_macs: 3}]")
    code, _, err = prunelora(*RUN, "--recipe", "wrong.yaml", "--keep-macs", "0.5")
    assert code == 1
    assert "wrong.yaml: plan.keep_macs=3: " in err
