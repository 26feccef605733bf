"""Bars: there where a run asks for them, and not a character where nobody does."""

import pytest
from tiny import tiny_batch, tiny_model

import prunelora as pl
from prunelora import progress


@pytest.mark.parametrize("items", [[1, 2, 3], iter([1, 2, 3])])
def test_items_are_the_same_with_a_bar_and_without(items, capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0)
    items = list(items)
    assert list(progress.over(items, "counting")) == items
    assert capsys.readouterr() == ("", "")
    with progress.bars(True):
        assert list(progress.over(iter(items), "counting")) == items
        assert list(progress.over(items, "knowing")) == items
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "counting" in shown.err
    assert "knowing: " in shown.err
    assert "/3" in shown.err
    assert list(progress.over(items, "counting")) == items
    assert capsys.readouterr() == ("", "")


def test_scores_cuts_and_repair_show_what_they_are_at(capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0)
    model, batches = tiny_model(), [tiny_batch(8)]
    with progress.bars(True):
        plan = pl.make_plan(pl.score(model, batches, criterion="surgeon"), keep_macs=0.5, normalise="none")
        pl.prune_(model, plan, repair_with=batches)
    shown = capsys.readouterr().err
    assert [what for what in ("scoring", "leaving units out", "repairing") if what not in shown] == []
