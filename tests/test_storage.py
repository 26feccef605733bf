"""Atomic writes: the old thing or the new one, whatever fails in between."""

from pathlib import Path

import pytest

from prunelora.storage import locked, replacing_file, replacing_folder, write_text


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail() -> None:
        with replacing_file(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_put_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    with replacing_folder(folder) as temporary:
        (temporary / "weights").write_text("old")
    replace = Path.replace

    def only_aside(self: Path, target: Path) -> Path:
        if self.name.startswith(".model.") and not self.name.endswith(".old"):
            raise OSError("disk full")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", only_aside)

    def fail() -> None:
        with replacing_folder(folder) as temporary:
            (temporary / "weights").write_text("new")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert (folder / "weights").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_what_killed_processes_left_is_swept_away_and_nothing_else(tmp_path):
    own = [".env.template", ".notes.backup12.txt", ".gitignore", "plan.json"]
    for name in own:
        (tmp_path / name).write_text("mine")
    unfinished: list = []  # Kept, since a context that is closed cleans up behind itself.
    for name in ("plan.json", "weights"):
        writing = replacing_file(tmp_path / name)
        writing.__enter__().write_text("half")
        unfinished.append(writing)
    folder = replacing_folder(tmp_path / "model")
    (folder.__enter__() / "part").write_text("half")
    assert len(list(tmp_path.iterdir())) == len(own) + 3
    with locked(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*own, ".lock"])
