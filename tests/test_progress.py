"""Progress: there where a run asks for it, and not a character where nobody does."""

import io
import re
import sys
import time

import pytest
from tiny import tiny_batch, tiny_model

import prunelora as pl
from prunelora import progress


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(progress, "DELAY_SECONDS", 1e-9)
    monkeypatch.setattr(progress, "LOG_SECONDS", 0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("items", [[1, 2, 3], iter([1, 2, 3])])
def test_items_are_the_same_with_progress_and_without(items, capsys):
    items = list(items)
    assert list(progress.over(items, "counting")) == items
    assert capsys.readouterr() == ("", "")
    with progress.bars(True):
        assert list(progress.over(iter(items), "counting")) == items
        assert list(progress.over(items, "knowing")) == items
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "counting: 2, " in shown.err
    assert "knowing: 2 of 3, " in shown.err
    assert list(progress.over(items, "counting")) == items
    assert capsys.readouterr() == ("", "")


def test_a_terminal_sees_a_bar_with_the_time_left(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.bars(True):
        for _ in progress.over([1, 2, 3], "counting"):
            time.sleep(0.15)  # tqdm draws no oftener than every 0.1 s.
    assert "\rcounting: " in terminal.getvalue()
    assert re.search(r"\d/3 \[\d\d:\d\d<\d\d:\d\d", terminal.getvalue())


def test_a_log_file_gets_plain_lines_each_of_its_own_even_from_nested_work(capsys):
    with progress.bars(True):
        for _ in progress.over([1, 2], "outside"):
            list(progress.over([1, 2], "inside"))
    err = capsys.readouterr().err
    assert "\r" not in err
    assert "\x1b" not in err
    assert err.endswith("\n")
    assert {line.partition(":")[0] for line in err.splitlines()} == {"outside", "inside"}
    assert all(re.fullmatch(r"\w+: \d of 2, \d\d:\d\d so far, [\d:?]+ left", line) for line in err.splitlines())


def test_a_log_file_gets_lines_no_oftener_than_it_should(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_SECONDS", 3600)
    with progress.bars(True):
        for _ in progress.over(range(1000), "counting"):
            time.sleep(0)
    assert capsys.readouterr().err == ""


def test_scores_cuts_and_repair_show_what_they_are_at(capsys):
    model, batches = tiny_model(), [tiny_batch(8), tiny_batch(8)]
    with progress.bars(True):
        plan = pl.make_plan(pl.score(model, batches, criterion="obs"), keep_macs=0.5, normalise="none")
        pl.prune_(model, plan, repair_with=batches)
    shown = capsys.readouterr().err
    assert [what for what in ("scoring", "eliminating units", "repairing") if what not in shown] == []
