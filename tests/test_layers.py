"""Imports run one way along the stages, and what is arithmetic reaches no torch. Sources are read, nothing is run."""

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src"

# From the bottom to the top. A module imports from its own layer and from those before it.
LAYERS = (
    ("errors", "progress", "settings", "storage", "version"),
    ("models",),
    ("data",),
    ("importance",),
    ("planning",),
    ("pruning",),
    ("finetuning",),
    ("delivery",),
    ("evaluation",),
    ("report",),
    ("stages",),
    ("run", "pipeline", "recipe"),  # with the two import paths of version 0.2
    ("comparison",),
    ("reproduction",),
    ("cli", "__main__"),
    ("prunelora",),  # the package itself, which names what every layer offers; nothing imports it from below
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
HEAVY = {
    "torch", "transformers", "peft", "accelerate", "datasets", "pandas", "pyarrow", "sklearn", "scipy", "PIL",
    "matplotlib", "onnx", "onnxruntime",
}  # fmt: skip
# Modules about models that checks use before any heavy import.
LIGHT_MODELS = tuple(
    f"prunelora.models.{name}" for name in ("architecture", "families", "family", "lineage", "problem_types", "source")
)
FEWEST_MODULES = 70


@dataclass(frozen=True)
class Import:
    """One imported module; `at_load` where importing the importer runs it."""

    target: str
    line: int
    at_load: bool


Modules = dict[str, list[Import]]


def read_modules(source: Path) -> Modules:
    """Every module of the package `prunelora` under a source folder, by dotted name, with what it imports."""
    paths = {dotted_name(path.relative_to(source)): path for path in sorted((source / "prunelora").rglob("*.py"))}
    modules = {}
    for name, path in paths.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        modules[name] = list(imports_in(tree, package, paths.keys(), at_load=True))
    return modules


def dotted_name(path: Path) -> str:
    # prunelora/models/__init__.py -> prunelora.models
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_in(node: ast.AST, package: str, known: Collection[str], *, at_load: bool) -> Iterator[Import]:
    """Imports anywhere below a node, those in functions and under TYPE_CHECKING marked as not run at load."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, at_load)
        elif isinstance(child, ast.ImportFrom):
            base = absolute(child, package)
            for alias in child.names:
                # `from prunelora.models import gates` imports a module, `from prunelora.errors import DataError` none.
                submodule = f"{base}.{alias.name}"
                yield Import(submodule if submodule in known else base, child.lineno, at_load)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports_in(child, package, known, at_load=False)
        elif isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for statement in child.body:
                yield from imports_in(ast.Module([statement], []), package, known, at_load=False)
            yield from imports_in(ast.Module(child.orelse, []), package, known, at_load=at_load)
        else:
            yield from imports_in(child, package, known, at_load=at_load)


def absolute(node: ast.ImportFrom, package: str) -> str:
    # In prunelora.models: `from ..errors import X` -> prunelora.errors
    if node.level == 0:
        return node.module or ""
    parents = package.split(".")
    parents = parents[: len(parents) - (node.level - 1)]
    return ".".join([*parents, *([node.module] if node.module else [])])


def ours(name: str) -> bool:
    return name == "prunelora" or name.startswith("prunelora.")


def rank_of(module: str) -> int | None:
    """Layer of a module; None if its package, or the module at the root, has no place in LAYERS."""
    parts = module.split(".")
    return RANK.get(parts[min(1, len(parts) - 1)])


def upward_imports(modules: Modules) -> list[str]:
    """Imports, wherever they stand, that go against the order."""
    found = []
    for module, imports in modules.items():
        rank = rank_of(module)
        if rank is None:
            found.append(f"{module}: it has no place in LAYERS")
            continue
        for each in imports:
            if ours(each.target) and ((target := rank_of(each.target)) is None or target > rank):
                found.append(f"{module}:{each.line} imports {each.target}")
    return found


def reached_at_load(start: str, modules: Modules) -> dict[str, list[str]]:
    """What importing a module imports, other packages by their top name, each with the chain that leads to it."""
    chains = {start: [start]}
    queue = [start]
    while queue:
        module = queue.pop(0)
        # Importing a.b.c runs a and a.b first.
        parts = module.split(".")
        targets = [".".join(parts[:length]) for length in range(1, len(parts))] if ours(module) else []
        targets += [each.target for each in modules.get(module, []) if each.at_load]
        for target in targets:
            name = target if ours(target) else target.split(".")[0]
            if name not in chains:
                chains[name] = [*chains[module], name]
                queue.append(name)
    return chains


def heavy_chains(start: str, modules: Modules) -> list[str]:
    chains = reached_at_load(start, modules)
    return [" -> ".join(chains[name]) for name in sorted(HEAVY & chains.keys())]


@pytest.fixture(scope="module")
def modules() -> Modules:
    return read_modules(SOURCE)


def test_imports_run_one_way_along_the_stages(modules):
    assert len(modules) >= FEWEST_MODULES, sorted(modules)
    assert upward_imports(modules) == []


def test_arithmetic_and_the_command_line_reach_nothing_heavy(modules):
    light = [
        name
        for name in modules
        if name in ("prunelora", "prunelora.errors", "prunelora.cli.main", *LIGHT_MODELS)
        or name.startswith("prunelora.planning")
    ]
    assert {"prunelora.errors", "prunelora.planning", *LIGHT_MODELS} <= set(light)
    assert [chain for name in light for chain in heavy_chains(name, modules)] == []


def test_reading_a_csv_reaches_nothing_heavy(modules):
    light = ("prunelora.data.load", "prunelora.data.metrics", "prunelora.data.truncation")
    assert set(light) <= modules.keys()
    assert [chain for name in light for chain in heavy_chains(name, modules)] == []


def test_errors_before_any_work_reach_nothing_heavy(modules):
    light = ["prunelora.run.execute", "prunelora.run.check", "prunelora.comparison.methods", "prunelora.models.source"]
    assert set(light) <= modules.keys()
    stages = [name for name in modules if name.startswith("prunelora.stages.")]
    kinds = reached_at_load("prunelora.stages.kinds", modules).keys() & set(stages)
    assert len(kinds) >= 12
    assert [chain for name in [*light, *kinds] for chain in heavy_chains(name, modules)] == []


def test_every_package_has_modules(modules):
    packages = {name.split(".")[1] for name in modules if name.count(".") >= 2}
    assert packages == {path.parent.name for path in (SOURCE / "prunelora").glob("*/__init__.py")}


# The walker itself, on packages made up for it: what it must find, and what it must leave alone.

MADE_UP = {
    "__init__.py": "",
    "errors.py": "",
    "models/__init__.py": "",
    "models/gates.py": "import torch\n",
    "planning/__init__.py": "",
    "planning/plan.py": "from prunelora.errors import PlanError\n",
    "pipeline.py": "from prunelora.planning import plan\n",
    "cli/__init__.py": "",
    "cli/main.py": "from prunelora import pipeline\n",
}


def made_up(folder: Path, changes: dict[str, str] | None = None) -> Modules:
    for name, text in {**MADE_UP, **(changes or {})}.items():
        path = folder / "prunelora" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return read_modules(folder)


def test_an_ordered_package_has_no_findings(tmp_path):
    modules = made_up(tmp_path)
    assert len(modules) == len(MADE_UP)
    assert upward_imports(modules) == []
    assert heavy_chains("prunelora.planning.plan", modules) == []


@pytest.mark.parametrize(
    "text",
    [
        "import prunelora.pipeline",
        "from prunelora import pipeline",
        "from .. import pipeline",
        "from ..planning.plan import Plan",
        "def late():\n    from prunelora.cli.main import app",
        "if TYPE_CHECKING:\n    from prunelora.planning.plan import Plan",
        "import prunelora",
        "from prunelora import __version__",
    ],
)
def test_an_import_against_the_order_is_found_however_it_is_written(tmp_path, text):
    findings = upward_imports(made_up(tmp_path, {"models/gates.py": text}))
    assert len(findings) == 1
    assert findings[0].startswith("prunelora.models.gates:")


def test_a_package_outside_the_order_is_found(tmp_path):
    findings = upward_imports(made_up(tmp_path, {"misc/__init__.py": "", "misc/text.py": ""}))
    places = ("prunelora.misc", "prunelora.misc.text")
    assert findings == [f"{name}: it has no place in LAYERS" for name in places]


@pytest.mark.parametrize(
    ("text", "chain"),
    [
        ("import torch.nn", "prunelora.planning.plan -> torch"),
        ("from torch import nn", "prunelora.planning.plan -> torch"),
        ("try:\n    import peft\nexcept ImportError:\n    peft = None", "prunelora.planning.plan -> peft"),
        ("from prunelora.models import gates", "prunelora.planning.plan -> prunelora.models.gates -> torch"),
    ],
)
def test_a_heavy_import_is_found_through_other_modules(tmp_path, text, chain):
    assert heavy_chains("prunelora.planning.plan", made_up(tmp_path, {"planning/plan.py": text})) == [chain]


def test_a_heavy_import_in_the_init_of_a_package_on_the_way_is_found(tmp_path):
    changes = {"models/__init__.py": "import torch", "models/table.py": ""}
    modules = made_up(tmp_path, {**changes, "planning/plan.py": "from prunelora.models.table import FAMILIES"})
    assert heavy_chains("prunelora.planning.plan", modules) == [
        "prunelora.planning.plan -> prunelora.models.table -> prunelora.models -> torch"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "def late():\n    import torch",
        "if TYPE_CHECKING:\n    import torch",
        "import typing\nif typing.TYPE_CHECKING:\n    import torch",
    ],
)
def test_an_import_that_does_not_run_at_load_is_light(tmp_path, text):
    assert heavy_chains("prunelora.planning.plan", made_up(tmp_path, {"planning/plan.py": text})) == []
