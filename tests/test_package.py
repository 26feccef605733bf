"""What a person has after `pip install`: quick commands, and types for their checker."""

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src"

# Runs --help of the program and of each command in one process, as the entry point does, and says what was imported.
ASK_FOR_HELP = """
import contextlib, io, json, sys
from prunelora.cli.main import app, main
import typer

commands = sorted(typer.main.get_command(app).commands)
answers = {}
for arguments in [[], *([command] for command in commands)]:
    sys.argv = ["prunelora", *arguments, "--help"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main()
    answers[" ".join(arguments)] = out.getvalue()
print(json.dumps({"answers": answers, "imported": sorted({name.split(".")[0] for name in sys.modules})}))
"""
HEAVY = {"torch", "transformers", "peft", "accelerate", "datasets", "sklearn", "matplotlib", "onnx", "onnxruntime"}
COMMANDS = {"run", "score", "plan", "show", "prune", "finetune", "merge", "measure", "export", "report", "families"}


def test_help_of_every_command_imports_nothing_heavy():
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", ASK_FOR_HELP], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert set(said["answers"]) >= {"", *COMMANDS}
    for command, answer in said["answers"].items():
        assert "Usage: prunelora" in answer, f"prunelora {command} --help said {answer!r}"
    assert HEAVY & set(said["imported"]) == set()


def test_importing_the_package_imports_nothing_heavy():
    code = "import prunelora, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.split())
    assert "prunelora" in imported
    assert HEAVY & imported == set()


def test_the_package_says_that_it_is_typed():
    assert (files("prunelora") / "py.typed").is_file()
