"""Errors about paths, suffixes, options and recipes are answered before torch and other large packages are imported."""

import json
import os
import subprocess
import sys

from test_package import HEAVY, SOURCE

RUN = ["run", "--model", "minilm", "--out", "out"]
CASES = {
    "does not exist": [*RUN, "--data", "nowhere.csv"],
    "has the extension .xlsx": [*RUN, "--data", "table.xlsx"],
    "Such a file is not read": [*RUN, "--data", "rows.pkl"],
    "./nowhere does not exist": ["run", "--model", "./nowhere", "--data", "rows.csv", "--out", "out"],
    "No such option": [*RUN, "--data", "rows.csv", "--frobnicate", "3"],
    "no such setting": [*RUN, "--data", "rows.csv", "--set", "plan.keep_head=3"],
    "less than or equal to 1": [*RUN, "--data", "rows.csv", "--keep-macs", "2"],
    "no packaged recipe": [*RUN, "--data", "rows.csv", "--recipe", "tune-frist"],
    "cannot be read as a recipe": [*RUN, "--data", "rows.csv", "--recipe", "bad.yaml"],
    "needs 'score' before it": [*RUN, "--data", "rows.csv", "--recipe", "order.yaml"],
    "is not empty and holds no run": ["run", "--data", "rows.csv", "--out", "."],
    "missing": ["plan", "out"],
    "no plan there": ["show", "nowhere.json"],
    "nowhere.csv does not exist": ["check", "--data", "nowhere.csv"],
    "belongs to data": ["check", "--text", "review"],
    "expected numbers": ["compare", "--data", "rows.csv", "--out", "out", "--seeds", "a"],
    "no method of this name": ["compare", "--data", "rows.csv", "--out", "out", "--methods", "lorra"],
    "no such column. Columns: text": [*RUN, "--data", "rows.csv", "--text", "review"],
    "no such column. Columns:": ["check", "--data", "rows.csv", "--label", "stars"],
    "nofolder does not exist": ["reproduce", "--data-dir", "nofolder", "--out", "out"],
    "neither.csv does not exist": ["compare", "--data", "neither.csv", "--out", "out"],
}  # fmt: skip
ASK = """
import contextlib, io, json, sys
from prunelora.cli.main import main

answers = {}
for said, arguments in json.loads(sys.argv[1]).items():
    sys.argv = ["prunelora", *arguments]
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()) as out:
        sys.argv.append("--json")
        with contextlib.suppress(SystemExit):
            main()
    answers[said] = [out.getvalue(), sorted({name.split(".")[0] for name in sys.modules})]
print(json.dumps(answers))
"""


def test_errors_about_the_command_line_are_answered_before_large_packages_are_imported(tmp_path, minilm_path):
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"row {i},{i % 2}\n" for i in range(20)))
    for name in ("table.xlsx", "rows.pkl"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "bad.yaml").write_text("stages: [")
    (tmp_path / "order.yaml").write_text("stages: [{stage: plan}]")
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    asked = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(CASES)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    answers = json.loads(asked.stdout)
    assert answers.keys() == CASES.keys()
    for said, (answer, imported) in answers.items():
        message = json.loads(answer)["error"]["message"]
        assert said in message, CASES[said]
        assert not {*HEAVY, "pyarrow", "PIL", "scipy"} & set(imported), CASES[said]
    assert not (tmp_path / "out").exists()
