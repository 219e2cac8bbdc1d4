"""What the documents say of the house is true."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
VERBS = sorted(path.stem for path in (ROOT / "lvray").glob("[a-z]*.py"))


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return listed.stdout.split()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(page))
    broken = [
        link
        for link in links
        if not re.match(r"[a-z]+:", link) and not (page.parent / link).exists()
    ]
    assert broken == []


def test_the_readme_tree_names_every_file_of_the_package_and_no_other():
    block = re.search(r"```text tree\n(.*?)```", text_of(ROOT / "README.md"), re.DOTALL)
    assert block, "README.md has no ```text tree block"
    named, folders = set(), []
    for line in block[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 4
        entry = line.split()[0] if line.split() else ""
        if entry.endswith("/"):
            folders[depth:] = [entry]
        elif entry:
            named.add("".join(folders[:depth]) + entry)
    real = {
        name
        for name in tracked()
        if name.startswith("lvray/") and name.endswith(".py") and not name.endswith("__init__.py")
    }
    inside = {name for name in named if name.startswith("lvray/") and name.endswith(".py")}
    assert inside == real


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb):
    asked = subprocess.run(
        [sys.executable, "-m", f"lvray.{verb}", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.startswith("usage: lvray")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_that_a_page_names_exists(page):
    named = set(re.findall(r"python -m lvray\.(\w+)", text_of(page)))
    assert named <= set(VERBS)


def test_every_verb_is_in_the_readme():
    readme = text_of(ROOT / "README.md")
    missing = [verb for verb in VERBS if verb[0] != "_" and f"python -m lvray.{verb}" not in readme]
    assert missing == []


@pytest.mark.parametrize(
    "command",
    [
        ["plan", "sweeps/grid.yaml", "--json"],
        ["price", "--json"],
        ["audit", "--help"],
        ["generate", "--help"],
        ["report", "--help"],
        ["simulate", "sweeps/grid.yaml"],
        ["submit", "sweeps/grid.yaml", "--cluster", "laptop", "--dry-run"],
        [
            "submit",
            "sweeps/coursework.yaml",
            "--cluster",
            "csd3-ampere",
            "--account",
            "A-SL3-GPU",
            "--runs",
            "/rds/runs",
            "--dry-run",
        ],
        ["sweep", "--help"],
        ["train", "--help"],
    ],
    ids=lambda command: command[0],
)
def test_verbs_that_run_nothing_load_neither_torch_nor_ray(command):
    program = (
        "import sys, json, contextlib, io\n"
        "from importlib import import_module\n"
        f"main = import_module('lvray.{command[0]}').main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        f"    main({command[1:]!r})\n"
        "heavy = {'torch', 'ray', 'transformers', 'peft', 'matplotlib', 'wandb', 'scipy'}\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))))\n"
    )
    asked = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT
    )
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout) == []


def test_the_lock_satisfies_what_the_project_asks_for():
    locked = {
        line.split("==")[0].lower().replace("_", "-")
        for line in text_of(ROOT / "requirements.lock").splitlines()
        if "==" in line
    }
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))
    asked = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    names = {re.split(r"[\[<>=; ]", line)[0].lower() for line in asked}
    assert names - locked == set()


def test_the_lock_names_no_build_of_torch():
    assert "torch==2.13.0\n" in text_of(ROOT / "requirements.lock")


def test_the_version_is_the_one_in_the_changelog():
    assert f"## {importlib.metadata.version('lvray')}" in text_of(ROOT / "CHANGELOG.md")
