"""The examples of docs/ci.md, the action and the hook: each run as its program would, in a repository of its own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import junitparser
import pytest
import yaml
from doc_snippets import ROOT, blocks_of

BLOCKS = {block.file: block for block in blocks_of(ROOT / "docs" / "ci.md") if block.file is not None}
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
KEEPS, LOSES = "models/keeps.yaml", "models/loses.yaml"
#: How the runner of GitHub Actions runs a script of a workflow, and one of an action that asks for bash.
OF_WORKFLOW, OF_ACTION = ("-e",), ("--noprofile", "--norc", "-eo", "pipefail")
#: Every run of the action installs gradcli: compiling each time would take minutes, and .ci/run has done it.
WITHOUT_COMPILER = {"GRADCLI_NO_COMPILE": "1", "GRADCLI_REQUIRE_COMPILED": ""}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX shells")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheels")
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    environment = os.environ | {"PIP_NO_INDEX": "1"} | WITHOUT_COMPILER
    subprocess.run([sys.executable, "-m", "pip", *build], check=True, env=environment)
    return folder


@dataclass(frozen=True)
class Machine:
    """Somebody else's repository, and a machine on which gradcli is not installed yet."""

    repository: Path
    environment: Mapping[str, str]

    def run(self, script: str, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a script in the repository, by bash with these options."""
        file = self.repository.parent / "step.sh"
        file.write_text(script, encoding="utf-8")
        return subprocess.run(
            ["bash", *options, str(file)],
            cwd=self.repository,
            env={**self.environment, **more},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    @property
    def summary(self) -> str:
        """What the step left for its summary."""
        return Path(self.environment["GITHUB_STEP_SUMMARY"]).read_text(encoding="utf-8")

    def commit(self, *names: str) -> None:
        """Put files of the page into the repository."""
        for name in names:
            path = self.repository / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(BLOCKS[name].text, encoding="utf-8")
        subprocess.run(["git", "add", "--all"], cwd=self.repository, check=True)


@pytest.fixture
def machine(wheels: Path, tmp_path: Path) -> Machine:
    programs, site, repository = tmp_path / "programs", tmp_path / "site", tmp_path / "repository"
    for folder in (programs, site, repository):
        folder.mkdir()
    for name, line in {"python": 'exec {} "$@"', "pip": 'exec {} -m pip "$@"'}.items():
        program = programs / name
        program.write_text(f"#!/bin/sh\n{line.format(shlex.quote(sys.executable))}\n")
        program.chmod(0o755)
    (tmp_path / "summary.md").touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "PYTHON", "PIP_"))}
    environment = kept | {
        "PATH": os.pathsep.join([str(site / "bin"), str(programs), os.environ["PATH"]]),
        "PYTHONPATH": str(site),
        # What pip installs goes there, from the wheel of this checkout, beside the packages that the tests have.
        "PIP_TARGET": str(site),
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # which is how pip has it said in the environment that there is to be none
        "PIP_FIND_LINKS": str(wheels),
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(repository),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        **WITHOUT_COMPILER,
    }
    subprocess.run(["git", "init", "--quiet"], cwd=repository, check=True)
    return Machine(repository, environment)


@pytest.fixture
def installed(machine: Machine) -> Machine:
    """Return the machine with gradcli installed."""
    done = machine.run("pip install --quiet gradcli")
    assert done.returncode == 0, done.stderr
    return machine


def expanded(text: str, values: Mapping[str, str]) -> str:
    """Return a text with the expressions of GitHub's in it replaced."""
    return re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda found: values[found[1]], text)


def run_action(machine: Machine, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Run the steps of the action up to the first that fails, as the runner does; but for those of other actions."""
    values = {f"inputs.{name}": str(one["default"]) for name, one in ACTION["inputs"].items()}
    values |= {f"inputs.{name}": value for name, value in inputs.items()} | {"github.action_path": str(ROOT)}
    for step in ACTION["runs"]["steps"]:
        if "run" not in step:
            continue
        assert step["shell"] == "bash"
        environment = {name: expanded(text, values) for name, text in step.get("env", {}).items()}
        done = machine.run(step["run"], *OF_ACTION, **environment)
        if done.returncode:
            return done
    return done


def steps_of_workflow(name: str) -> list[dict[str, Any]]:
    (job,) = yaml.safe_load(BLOCKS[name].text)["jobs"].values()
    steps: list[dict[str, Any]] = job["steps"]
    return steps


# The action.


def test_no_input_stands_in_a_script() -> None:
    """An expression in a script would be replaced before bash reads it, and could be a command."""
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", "")


def test_the_action_checks_somebody_else_s_repository(machine: Machine) -> None:
    machine.commit(KEEPS)
    done = run_action(machine, files="models")
    assert (done.returncode, done.stdout) == (0, "gradcli check: 3 checks passed, in 1 file\n"), done.stderr
    assert "**PASSED** 3 checks passed, in 1 file" in machine.summary
    where = machine.run('python -c "import gradcli; print(gradcli.__file__)"').stdout
    assert where.startswith(str(machine.repository.parent / "site"))
    machine.commit(LOSES)
    done = run_action(machine)
    assert done.returncode == 3
    line = 1 + BLOCKS[LOSES].lines.index("  verdict: [stable, transient]")
    assert done.stdout.startswith(
        f"::error file={LOSES},line={line},title=gradcli verdict::expected stable or transient, but the verdict is"
    )
    assert done.stdout.endswith("\ngradcli check: 1 of 5 checks failed, in 1 of 2 files\n")


def test_inputs_are_names_and_words_whatever_is_in_them(installed: Machine) -> None:
    installed.commit(KEEPS)
    (installed.repository / "two words").mkdir()
    shutil.move(installed.repository / KEEPS, installed.repository / "two words" / "a.yaml")
    done = run_action(installed, files="\n  two words  \n".replace("  ", ""), args="--baseline\nb.json\n--update\n")
    assert done.returncode == 0, done.stderr
    assert (installed.repository / "b.json").exists()
    for hostile in ("$(touch pwned)", "two words; touch pwned", "`touch pwned`", "--output=pwned", '"; touch pwned #'):
        assert run_action(installed, files=hostile).returncode == 4, hostile
    assert not (installed.repository / "pwned").exists()


def test_the_workflow_with_the_action_gives_it_inputs_that_it_has(installed: Machine) -> None:
    (step,) = [step for step in steps_of_workflow(".github/workflows/gradient.yml") if "gradcli" in step["uses"]]
    assert set(step["with"]) <= set(ACTION["inputs"])
    installed.commit(KEEPS)
    made = run_action(installed, files=step["with"]["files"], args=f"{step['with']['args']}--update")
    assert made.returncode == 0, made.stderr
    assert run_action(installed, **step["with"]).returncode == 0


# The others.


def test_the_workflow_without_the_action_runs(machine: Machine) -> None:
    machine.commit(KEEPS, LOSES)
    scripts = [step["run"] for step in steps_of_workflow(".github/workflows/gradient-by-hand.yml") if "run" in step]
    codes = [machine.run(script, *OF_WORKFLOW).returncode for script in scripts]
    assert codes == [0, 3]
    assert "**FAILED** 1 of 5 checks failed, in 1 of 2 files" in machine.summary


def test_the_pipeline_of_gitlab_leaves_its_report(machine: Machine) -> None:
    machine.commit(KEEPS, LOSES)
    (job,) = yaml.safe_load(BLOCKS[".gitlab-ci.yml"].text).values()
    done = machine.run("\n".join(job["script"]), "-eo", "pipefail")
    assert done.returncode == 3, done.stderr
    report = junitparser.JUnitXml.fromfile(str(machine.repository / job["artifacts"]["reports"]["junit"]))
    assert (report.tests, report.failures, report.errors) == (5, 1, 0)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_rules_of_the_makefile_run(installed: Machine) -> None:
    installed.commit(KEEPS, "Makefile")
    for rule in ("gradient", "baseline"):
        assert installed.run(f"make {rule}").returncode == 0
    assert (installed.repository / "baseline.json").exists()
    installed.commit(LOSES)
    assert installed.run("make gradient").returncode != 0


def test_the_shell_script_tells_what_failed(installed: Machine) -> None:
    installed.commit(KEEPS, "check.sh")

    def ran() -> tuple[int, str]:
        done = installed.run("sh check.sh")
        return done.returncode, (done.stdout + done.stderr).strip().splitlines()[-1]

    assert ran() == (0, "the gradient is as expected")
    installed.commit(LOSES)
    assert ran() == (3, "the gradient is not as expected")
    (installed.repository / LOSES).write_text("{cell: rnn, expect: {verdct: stable}}")
    assert ran() == (2, "could not be checked: exit code 2")


def test_the_hook_runs_as_pre_commit_runs_it(installed: Machine) -> None:
    config = yaml.safe_load(BLOCKS[".pre-commit-config.yaml"].text)
    (asked,) = config["repos"][0]["hooks"]
    assert asked["id"] == HOOK["id"]
    assert not HOOK["pass_filenames"]
    installed.commit(KEEPS)
    for hook in (HOOK, {**HOOK, **asked}):  # pre-commit lets the repository's own keys win
        assert installed.run(shlex.join([*shlex.split(hook["entry"]), *hook["args"]])).returncode == 0
    installed.commit(LOSES)
    assert installed.run(shlex.join([*shlex.split(HOOK["entry"]), *HOOK["args"]])).returncode == 3
