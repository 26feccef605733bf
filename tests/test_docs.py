"""The pages of docs/ and the README do what they say: their examples run, in order, as they stand.

On every page the `python` blocks and the `prunelora` commands of `console` blocks are run one after the other in an
empty folder; python blocks of a page share their names. A block right behind the comment `<!-- exact -->` also shows
exactly what is printed: a console block below its command, a text block what the block before it printed.
"""

import contextlib
import io
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_run import copy_dense_exports

from prunelora.cli import terminal
from prunelora.cli.app import app
from prunelora.models.families import FAMILIES
from prunelora.stages.kinds import BY_KIND

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Without examples: the start page, the reference that is made from docstrings, and what benchmarks write.
WITHOUT_EXAMPLES = {"index", "api", "ablation", "results"}
PAGES = sorted(path.stem for path in DOCS.glob("*.md") if path.stem not in WITHOUT_EXAMPLES)
SKIPPED = "<!-- not run -->"
EXACT = "<!-- exact -->"


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int  # Of its first line of text, counted from 1.
    comment: str  # What stands right before it.


def blocks_of(path: Path) -> list[Block]:
    blocks: list[Block] = []
    fence, language, start, before = "", "", 0, ""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        opening = re.fullmatch(r"(`{3,})(\S*).*", line)
        if fence:
            if line == fence:
                blocks.append(Block(language, "\n".join(lines[start : number - 1]), start + 1, before))
                fence = before = ""
        elif opening:
            fence, language, start = opening[1], opening[2], number
        elif line.strip():
            before = line.strip()
    assert not fence, f"{path}: a block that begins in line {start} never ends"
    return blocks


def runnable(blocks: list[Block]) -> list[Block]:
    return [block for block in blocks if block.language in ("python", "console") and block.comment != SKIPPED]


def commands_of(block: Block) -> list[tuple[str, str]]:
    """Every command of a console block, and what is shown below it."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(shown)) for command, shown in found]


def printed_by(action, *arguments) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        action(*arguments)
    return out.getvalue()


def run_command(command: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "prunelora", f"only prunelora's commands are run in console blocks, found {command!r}"
    code = app(arguments, standalone_mode=False)
    assert not code, f"{command!r} ended with {code}"


def run_page(path: Path) -> int:
    namespace: dict = {"__name__": "__page__"}
    out, count = "", 0
    for block in blocks_of(path):
        where = f"{path.name}, line {block.line}"
        if block in runnable([block]):
            count += 1
            if block.language == "python":
                # Padded, so that a traceback names the page's own line.
                code = compile("\n" * (block.line - 1) + block.text, str(path), "exec")
                out = printed_by(exec, code, namespace)
            else:
                for command, shown in commands_of(block):
                    out = printed_by(run_command, command)
                    if block.comment == EXACT:
                        assert as_shown(out) == as_shown(shown), f"{where}: {command}"
        elif block.comment == EXACT:
            assert block.language == "text", f"{where}: exact output stands in a text or console block"
            assert as_shown(out) == as_shown(block.text), where
    return count


def as_shown(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


@pytest.fixture
def empty_folder(tmp_path, monkeypatch, minilm_path):
    """Where a page runs; pages use the embedded tokenizer, so the packages of the extra `demo` must be there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(terminal._out, "width", 120)
    torch.manual_seed(0)
    rows = dict(FAMILIES)
    yield tmp_path
    FAMILIES.clear()  # One page adds a family.
    FAMILIES.update(rows)


def test_every_page_is_in_the_contents_and_has_examples():
    contents = re.findall(r"^[a-z_]+$", (DOCS / "index.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(set(contents) - WITHOUT_EXAMPLES) == PAGES
    assert len(PAGES) == 15
    found = {page: len(runnable(blocks_of(DOCS / f"{page}.md"))) for page in PAGES}
    assert min(found.values()) >= 2, found
    assert sum(found.values()) >= 60, found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(page, empty_folder, monkeypatch):
    copy_dense_exports(monkeypatch)
    assert run_page(DOCS / f"{page}.md") >= 2


@pytest.mark.filterwarnings("ignore")
def test_the_readmes_python_and_command_line_ask_for_the_same_run(empty_folder, monkeypatch):
    """Without the run itself, which takes minutes: everything else in the README's examples is done for real."""
    asked = []

    def execute(recipe, out, **_):
        recipe.check()
        asked.append((recipe, str(out)))
        return SimpleNamespace(summary=[], load=lambda: None, folder=Path(out), ran=(), results=None)

    monkeypatch.setattr("prunelora.run.execute.execute", execute)
    for lines in ("shown", "files"):
        monkeypatch.setattr(f"prunelora.report.summary.{lines}", lambda results: [])
    assert run_page(ROOT / "README.md") >= 3
    assert len(asked) >= 2
    assert len({(recipe.to_yaml(), out) for recipe, out in asked}) == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")
def test_the_examples_of_the_readme_run(empty_folder):
    assert run_page(ROOT / "README.md") >= 3


def test_every_command_has_its_section():
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    headings = set(re.findall(r"^### `prunelora (\w+)`", (DOCS / "cli.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert len(commands) >= 12
    assert headings == commands


def test_every_setting_of_a_stage_is_in_a_table():
    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"\{settings\} prunelora\.stages\.\w+\.(\w+)", text))
    expected = {kind.__name__ for kind in BY_KIND.values() if set(kind.model_fields) - {"stage"}}
    assert len(expected) == 8
    assert shown == expected
