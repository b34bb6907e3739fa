"""Every code block of the README runs, word for word and in its order, in a copy of the project."""

import os
import re
import shutil
import subprocess

import pytest
from conftest import ROOT

import demo_gan

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.M | re.S)
TESTS = next(code for _, code in BLOCKS if code.endswith("python -m pytest\n"))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The project as git knows it, in a folder of its own."""
    folder = tmp_path_factory.mktemp("copy")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(os.path.exists, listed.splitlines()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


RUN = [(language, code) for language, code in BLOCKS if code != TESTS]


@pytest.mark.parametrize(("language", "code"), RUN, ids=[code.splitlines()[-1] for _, code in RUN])
def test_a_block_of_the_readme_runs(language, code, copy):
    environment = {**os.environ, "DISPLAY": "", "PYTHONPATH": ""}
    if language == "sh":
        command = ["sh", "-e", "-c", code]
    else:
        assert language == "python"
        command = [copy / ".venv" / "bin" / "python", "-W", "error::UserWarning", "-c", code]
    run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    assert "Warning" not in run.stderr


def test_ci_runs_the_test_command_of_the_readme_word_for_word():
    found = subprocess.run(
        ["sh", "-c", re.search(r'eval "\$\((.*)\)"', (ROOT / ".ci" / "run").read_text())[1]],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.stdout == TESTS


def test_the_pictures_of_the_readme_are_kept_by_git():
    pictures = re.findall(r"\]\((img/[^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).exists()
        ignored = subprocess.run(["git", "check-ignore", "-q", picture], cwd=ROOT, check=False)
        assert ignored.returncode == 1


def test_the_flags_of_the_readme_are_those_of_the_program():
    rows = re.findall(r"^\| `-\w+`, `--(\w+)` \| `?([^|`]+?)`? \|", README, re.M)
    defaults = vars(demo_gan.parse_args([]))
    words = {None: "none", False: "off"}
    assert dict(rows) == {flag: words.get(value, str(value)) for flag, value in defaults.items()}
