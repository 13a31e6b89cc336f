"""What stands in the packages, and what the places that list them say of the project."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import gradcli

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HOME = "https://github.com/gradcli/gradcli"


def check_packages() -> ModuleType:
    """Return the module with which CI looks at the built files."""
    spec = importlib.util.spec_from_file_location("check_packages", ROOT / ".ci" / "check_packages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_described(text: str) -> str:
    """Return a page as the build makes a description of it."""
    hook: dict[str, Any] = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    for substitution in hook["substitutions"]:
        text = re.sub(substitution["pattern"], substitution["replacement"], text)
    return text.replace("$HFPR_VERSION", gradcli.__version__)


def test_the_description_leads_somewhere_from_a_package_index() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert list(check_packages().faults_of_description(as_described(page))) == []
    for target in re.findall(rf"{HOME}/blob/v{re.escape(gradcli.__version__)}/([^)#]+)", as_described(page)):
        assert (ROOT / target).exists(), target


def test_links_and_pictures_become_absolute() -> None:
    version = gradcli.__version__
    page = "[a](docs/a.md#b) ![c](docs/c.svg) [d](https://example.org/d) [e](#e) [f](mailto:f@example.org)"
    raw = f"https://raw.githubusercontent.com/gradcli/gradcli/v{version}"
    assert as_described(page) == (
        f"[a]({HOME}/blob/v{version}/docs/a.md#b) ![c]({raw}/docs/c.svg) [d](https://example.org/d) [e](#e)"
        " [f](mailto:f@example.org)"
    )


@pytest.mark.parametrize("text", ["[a](docs/a.md)", '<img src="docs/a.svg">', "<a href=docs/a.md>a</a>"])
def test_a_link_that_leads_nowhere_is_found(text: str) -> None:
    assert len(list(check_packages().faults_of_description(text))) == 1


def test_what_is_wrong_with_a_wheel_is_found() -> None:
    found = list(check_packages().faults_of_wheel(["tests/test_it.py", "gradcli/__init__.py"], 2_000_000))
    assert "the wheel has tests/test_it.py" in found
    assert "the wheel has no gradcli/cells/lstm.yaml" in found
    assert "the wheel has no gradcli/examples/configs/lstm.yaml" in found
    assert "the wheel has no manual page" in found
    assert "the wheel has 2,000,000 bytes, more than 1,000,000" in found
    assert "the wheel has no gradcli/__init__.py" not in found


def test_the_extension_is_in_wheels_for_a_platform_alone() -> None:
    extension, checks = "gradcli/engine/compiled/_interpreter.abi3.so", check_packages()
    assert f"the wheel has no {extension}" in list(checks.faults_of_wheel([], 0, built=True))
    assert not any(extension in fault for fault in checks.faults_of_wheel([extension], 0, built=True))
    assert f"the wheel has {extension}, and is tagged for every platform" in list(
        checks.faults_of_wheel([extension], 0)
    )
    source = "gradcli/engine/compiled/interpreter.c"
    assert f"the wheel has {source}" in list(checks.faults_of_wheel([source], 0))
    assert f"the wheel has no {source}" not in list(checks.faults_of_wheel([], 0))
    assert f"the sdist has no {source}" in list(checks.faults_of_sdist([]))
    assert f"the sdist has no {extension}" not in list(checks.faults_of_sdist([]))


def test_what_is_wrong_with_an_sdist_is_found() -> None:
    found = list(check_packages().faults_of_sdist(["README.md"]))
    assert "the sdist has no tests/conftest.py" in found
    assert "the sdist has no README.md" not in found


def test_the_citation_is_that_of_this_version() -> None:
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    # The fields that version 1.2.0 of the format asks for, and those that must agree with the package.
    assert found["cff-version"] == "1.2.0"
    assert found["message"]
    assert found["title"].startswith("gradcli: ")
    assert [set(author) for author in found["authors"]] == [{"name"}]
    assert found["type"] == "software"
    assert found["version"] == gradcli.__version__
    assert found["license"] == PROJECT["project"]["license"]
    assert found["repository-code"] == found["url"] == HOME
    known = {"cff-version", "message", "type", "title", "abstract", "authors", "version", "license", "url"}
    assert set(found) == known | {"repository-code", "keywords"}


def test_all_addresses_are_of_one_project() -> None:
    urls = PROJECT["project"]["urls"]
    assert urls["Homepage"] == HOME
    assert all(url == HOME or url.startswith(f"{HOME}/") for url in urls.values())
    for url in urls.values():
        if found := re.fullmatch(rf"{HOME}/(?:tree|blob)/main/(.+)", url):
            assert (ROOT / found[1]).exists()


def test_the_lowest_python_is_the_same_everywhere() -> None:
    lowest = PROJECT["project"]["requires-python"].removeprefix(">=")
    versions = [
        found[1]
        for line in PROJECT["project"]["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line))
    ]
    assert versions[0] == lowest
    assert versions == [f"3.{minor}" for minor in range(int(lowest[2:]), int(lowest[2:]) + len(versions))]
    assert PROJECT["tool"]["mypy"]["python_version"] == lowest
    assert f"Python {lowest} or newer" in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
