"""Holds the code to its own rules: sizes, import order between rooms, optional libraries, docstrings, leftovers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "obligor"

# The rooms in the order that data walks through them: a room imports only from those before it.
ROOMS = (
    "errors", "findings", "sources", "parts", "events", "features", "sequences", "credit", "models", "decisions",
    "monitoring", "lifecycle", "simulator", "engines", "stores", "tracking", "worker", "project", "console", "cli",
)  # fmt: skip
ASSEMBLERS = {"worker", "project", "console", "cli"}  # the only places where adapters and rooms are put together
# A library that only one place may import, and where.
CONFINED = {
    "apsw": "stores/sqlite/",
    "confluent_kafka": "stores/kafka/",
    "deltalake": "stores/delta/",
    "fastavro": "stores/kafka/",
    "lmdb": "stores/lmdb/",
    "mlflow": "tracking/",
    "optuna": "sequences/training/search.py",
    "psycopg": "stores/postgres/",
    "py4j": "engines/spark/",
    "pyspark": "engines/spark/",
    "ray": "engines/ray/",
    "redis": "stores/redis/",
    "xgboost": "models/",
    "starlette": "decisions/",
    "torch": "sequences/training/",
    "uvicorn": "cli/",
    "typer": "cli/",
}
MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
DOCUMENTED_SHARE_MIN = 0.9
BROAD_EXCEPT_ALLOWED = {"decisions/edge.py"}


@cache
def _modules() -> dict[str, ast.Module]:
    return {
        path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text())
        for path in sorted(SOURCE.rglob("*.py"))
        if "template" not in path.relative_to(SOURCE).parts
    }


def _room(module: str) -> str:
    return module.split("/")[0].removesuffix(".py")


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_modules_and_functions_stay_short() -> None:
    long = [
        f"{name}: {n} lines"
        for name in _modules()
        if (n := len((SOURCE / name).read_text().splitlines())) > MODULE_LINES_MAX
    ]
    for name, tree in _modules().items():
        for function in _functions(tree):
            lines = (function.end_lineno or 0) - function.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                long.append(f"{name}:{function.lineno} {function.name}: {lines} lines")
    assert long == []


def test_rooms_import_only_towards_the_top() -> None:
    wrong = []
    for name, tree in _modules().items():
        room = _room(name)
        if room in ("__init__", "__main__"):
            continue
        assert room in ROOMS, f"{name}: {room!r} is not a room; add it to ROOMS in its place"
        for imported in _imports(tree):
            parts = imported.split(".")
            if parts[0] != "obligor" or len(parts) < 2 or parts[1] not in ROOMS or parts[1] == room:
                continue
            upward = ROOMS.index(parts[1]) < ROOMS.index(room)
            adapter = parts[1] in ("stores", "engines", "tracking") and room not in ASSEMBLERS
            if not upward or adapter:
                wrong.append(f"{name} imports {imported}")
    assert wrong == []


def test_modules_have_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {}
    names = {
        "obligor." + name.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): name for name in _modules()
    }
    for dotted, name in names.items():
        tree = _modules()[name]
        top = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        graph[dotted] = {i for i in _imports(ast.Module(body=list(top), type_ignores=[])) if i in names and i != dotted}
    done: set[str] = set()

    def visit(node: str, path: tuple[str, ...]) -> None:
        assert node not in path, " -> ".join([*path[path.index(node) :], node])
        if node not in done:
            for following in sorted(graph[node]):
                visit(following, (*path, node))
            done.add(node)

    for node in graph:
        visit(node, ())


def test_libraries_stay_in_their_place() -> None:
    wrong = []
    for name, tree in _modules().items():
        for imported in _imports(tree):
            place = CONFINED.get(imported.split(".")[0])
            if place and not name.startswith(place):
                wrong.append(f"{name} imports {imported}; only {place} may")
    assert wrong == []


def test_importing_obligor_is_light() -> None:
    heavy = (
        "numpy|numba|pyarrow|polars|pandas|xgboost|scipy|torch|starlette|apsw|lmdb|redis|typer|rich|confluent_kafka|"
        "fastavro|mlflow"
    )
    script = f"import sys, re, obligor; print([m for m in sys.modules if re.fullmatch('{heavy}', m)])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_public_names_are_documented() -> None:
    documented, missing = 0, []
    for name, tree in _modules().items():
        assert ast.get_docstring(tree), f"{name} has no module docstring"
        public: list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef] = []
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith(
                "_"
            ):
                public.append(node)
                if isinstance(node, ast.ClassDef):
                    public += [m for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")]
        for node in public:
            if ast.get_docstring(node):
                documented += 1
            else:
                missing.append(f"{name}:{node.lineno} {node.name}")
    share = documented / max(1, documented + len(missing))
    assert share >= DOCUMENTED_SHARE_MIN, f"{share:.0%} documented; missing: {missing}"


def test_everything_broad_is_caught_only_at_the_edge() -> None:
    wrong = []
    for name, tree in _modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and name not in BROAD_EXCEPT_ALLOWED:
                caught = ast.unparse(node.type) if node.type else "everything"
                if caught in ("everything", "Exception", "BaseException") and not _reraises(node):
                    wrong.append(f"{name}:{node.lineno} catches {caught}")
    assert wrong == []


def _reraises(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(node, ast.Raise) and node.exc is None for node in ast.walk(handler))


def test_the_core_reads_no_clock() -> None:
    clock = re.compile(
        r"\btime\.time\(|\btime\.time_ns\(|datetime\.now\(|datetime\.utcnow\(|date\.today\(|np\.random\.(?!Generator|default_rng)"
    )
    core = ("events/", "features/", "credit/", "models/", "sequences/", "simulator/")
    wrong = [
        f"{name}:{number}"
        for name in _modules()
        if name.startswith(core)
        for number, line in enumerate((SOURCE / name).read_text().splitlines(), 1)
        if clock.search(line)
    ]
    assert wrong == []


def test_no_leftovers() -> None:
    leftover = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|\bbreakpoint\(|\bpdb\b|/work/|/tmp/|\bpickle\.(load|dump)")
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for folder in ("src", "bench", "examples", "docs", "tests")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".md", ".toml", ".html") and path.name != "test_tidy.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if leftover.search(line)
    ]
    assert wrong == []


def test_every_module_has_its_tests() -> None:
    exempt = {"__init__.py", "__main__.py"}
    tests = {path.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    missing = []
    for name, tree in _modules().items():
        path = Path(name)
        has_code = any(_functions(tree))
        if path.name in exempt or not has_code:
            continue
        dotted = "obligor." + name.removesuffix(".py").replace("/", ".")
        # An adapter is one folder, and one file tests what it promises; so do the kernels.
        whole = path.parts[0] in ("stores", "engines") or path.parent.name == "kernels"
        unit = path.parent if whole else path.with_suffix("")
        mirrored = (unit.parent / f"test_{unit.name}.py").as_posix() in tests
        if not mirrored and not _imported_by_tests(dotted):
            missing.append(name)
    assert missing == []


@cache
def _test_imports() -> frozenset[str]:
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("*.py"):
        found.update(_imports(ast.parse(path.read_text())))
    return frozenset(found)


def _imported_by_tests(dotted: str) -> bool:
    return dotted in _test_imports()


@pytest.mark.parametrize(
    "page", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/evidence.md"]
)
def test_pages_exist_and_their_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    assert len(text) > 200
    broken = [
        target
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
        if not target.startswith(("http://", "https://", "mailto:"))
        and not (ROOT / page).parent.joinpath(target).exists()
    ]
    assert broken == []
