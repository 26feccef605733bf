"""Atomic writes: the old thing or the new one, whatever fails in between."""

from pathlib import Path

import pytest

from prunelora.storage import replacing_file, replacing_folder, write_text


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
