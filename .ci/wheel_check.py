"""Hold that the built wheel is whole: it has every file of the package, and works away from the source tree.

The wheel is installed into a new environment that borrows the dependencies of the running one, so nothing is
downloaded. Usage: python .ci/wheel_check.py DIST
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src"


def missing_files(wheel: Path) -> list[str]:
    """Files of the source package that the wheel lacks."""
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    wanted = {
        path.relative_to(SOURCE).as_posix()
        for path in (SOURCE / "prunelora").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return sorted(wanted - packed)


def run(*command: str | Path, cwd: Path) -> str:
    """Output of a command, away from this repository's PYTHONPATH; ends the program where the command fails."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def main(dist: Path) -> None:
    wheels = list(dist.glob("prunelora-*.whl"))
    if len(wheels) != 1:
        sys.exit(f"{dist} holds {len(wheels)} wheels of prunelora, expected one")
    wheel = wheels[0].resolve()
    if missing := missing_files(wheel):
        sys.exit(f"{wheel.name} lacks {', '.join(missing)}")

    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        venv.create(home / "venv", with_pip=False)
        scripts = home / "venv" / ("Scripts" if os.name == "nt" else "bin")
        python = scripts / "python"
        run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=home)
        # Lines of a .pth file are appended to sys.path, and the borrowed folder's own .pth files are not read:
        # the dependencies are found, the editable prunelora is not.
        site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip())
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")

        found = Path(run(python, "-c", "import prunelora; print(prunelora.__file__)", cwd=home).strip()).resolve()
        if not found.is_relative_to(home.resolve()):
            sys.exit(f"prunelora was imported from {found}, not from the installed wheel")
        print(run(scripts / "prunelora", "--help", cwd=home))
        print(run(scripts / "prunelora", "families", cwd=home))
        print(run(scripts / "prunelora", "compare", "--dry-run", cwd=home))  # Reads the packaged recipes.
    print(f"{wheel.name}: complete, installs, runs")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
