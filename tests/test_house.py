"""The house rules that a machine can check: floors, sizes, names, exports, imports, what lessons may hold."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ENGINE = ROOT / "kmemlab"
WIDGETS = ROOT / "widgets" / "kmemlab_widgets"
LESSONS = ROOT / "lessons"

MAX_FILE = 500  # lines
MAX_FUNCTION = 48  # lines: two of the kernel's 24-line screens
MAX_CELL = 15  # lines of one code cell
MAX_NOTEBOOK = 60 * 1024  # bytes, outputs included
MAX_TWO_SITTINGS = 170 * 1024  # a lesson that says "# Part 2": 18 questions and 7 exercises do not fit into 60 KiB

# Module -> floor. A module imports from lower floors only, so a request walks down the stairs and a result back up.
# A new module gets a line here; one that builds on a neighbour of its floor stands half a floor higher.
FLOORS: dict[str, float] = {
    "gfp": 0,
    "gfp_facts": 0.5,
    "report": 0,
    "failure_reader": 0.5,
    "address": 0,
    "events": 0,
    "snapshot": 0,
    "null": 0,
    "sleep_reader": 0.5,
    "slub_reader": 0.5,
    "kernels": 1,
    "size_classes": 1,
    "context": 1,
    "reclaim_events": 0.5,
    "task_events": 0.5,
    "fair": 1,
    "wait": 1,
    "sched": 1.5,
    "mutex": 1.7,
    "kthread": 9.4,
    "shrinker": 5,
    "memory": 1,
    "story": 1,
    "mmzone": 2,
    "buddy": 3,
    "check": 6.6,
    "mm_init": 3,
    "layout": 9.3,
    "observe": 6.6,
    "recording": 4,
    "pcplist": 4,
    "vmscan": 5.5,
    "compaction": 5.7,
    "oom_kill": 5,
    "page_free": 5,
    "page_slowpath": 6.4,
    "page_alloc": 6,
    "get_free_pages": 7,
    "slub_def": 6,
    "slub_bytes": 6.2,
    "slub_report": 6.3,
    "slub_debug": 6.5,
    "slub": 7,
    "slab_common": 7.5,
    "boot_caches": 7,
    "slabinfo": 9.2,
    "slab": 7,
    "kmalloc": 8,
    "mempool": 9,
    "vmalloc": 9,
    "percpu": 9,
    "memblock": 9,
    "procfs": 9,
    "facade": 9.8,
    "from_procfs": 9.5,
    "from_report": 9.5,
    "show_mem": 8.9,
    "dmesg": 9,
    "ftrace": 9,
    "explain_slab": 8.9,
    "explain_reclaim": 8.9,
    "explain_rounds": 8.9,
    "explain": 9,
    "pressure": 9.7,
    "twin": 9.7,
    "probe": 10.5,
    "observer": 0.5,
    "watermarks": 10.5,
    "task_watch": 10.5,
    "log": 9.3,
    "slab_machine": 9.5,
    "workload": 9.6,
    "machine": 10,
    "slub_conform": 10.7,
    "conform": 11,
    "lessons": 11,
    "cli": 12,
    "jupyter.nodelay": 0,
}


def python_files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py") if "_lessons" not in path.parts)


def identify(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ENGINE).with_suffix("").parts)


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a module without what stands under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield other
                yield from runtime_nodes(other)
            continue
        yield node
        yield from runtime_nodes(node)


def imported_modules(source: str, modules: set[str]) -> list[tuple[int, str]]:
    """Return (line, module) for each import of one of the engine's modules; "" is the package itself."""
    found = []
    for node in runtime_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "kmemlab"):
            base = node.module or "" if not node.level else f"kmemlab.{node.module or ''}".rstrip(".")
            below = base.removeprefix("kmemlab").removeprefix(".")
            names = [base if below else f"kmemlab.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            head, _, rest = name.partition(".")
            if head == "kmemlab":
                found.append((node.lineno, rest if rest in modules else rest.split(".")[0] if rest else ""))
    return found


def floor_faults(name: str, source: str, floors: dict[str, float]) -> list[str]:
    """Return what is wrong with the imports of one module of the engine."""
    if name not in floors:
        return [f"{name} has no floor: give it one in FLOORS"]
    faults = []
    for line, target in imported_modules(source, set(floors)):
        if target not in floors:
            faults.append(f"line {line}: imports {target or 'the package itself'}, which stands on no floor")
        elif floors[target] >= floors[name]:
            faults.append(f"line {line}: floor {floors[name]} imports {target} on floor {floors[target]}")
    return faults


ENGINE_MODULES = [path for path in python_files(ENGINE) if path.name not in ("__init__.py", "__main__.py")]


@pytest.mark.parametrize("path", ENGINE_MODULES, ids=identify)
def test_imports_lead_down(path: Path) -> None:
    assert not floor_faults(module_name(path), path.read_text(encoding="utf-8"), FLOORS)


@pytest.mark.parametrize(
    ("name", "source", "fault"),
    [
        ("buddy", "from kmemlab.mmzone import Zone", None),
        ("buddy", "if TYPE_CHECKING:\n    from kmemlab.machine import Machine", None),
        ("buddy", "from kmemlab.machine import Machine", "floor 3 imports machine on floor 10"),
        ("buddy", "def f():\n    import kmemlab.page_alloc", "floor 3 imports page_alloc on floor 6"),
        ("buddy", "from kmemlab import cli", "floor 3 imports cli on floor 12"),
        ("buddy", "from .machine import Machine", "floor 3 imports machine on floor 10"),
        ("buddy", "from kmemlab import Machine", "stands on no floor"),
        ("buddy", "import kmemlab", "stands on no floor"),
        ("gfp", "import kmemlab.events", "floor 0 imports events on floor 0"),
        ("attic", "", "has no floor"),
    ],
)
def test_the_floors_test_can_fail(name: str, source: str, fault: str | None) -> None:
    faults = floor_faults(name, source, FLOORS)
    assert (fault is None and not faults) or (fault is not None and fault in faults[0])


def functions_over(source: str, limit: int) -> list[str]:
    """Return the functions longer than ``limit`` lines, from ``def`` to the last line."""
    return [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > limit
    ]


OURS = python_files(ENGINE, WIDGETS, ROOT / "tools", LESSONS / "checks")


@pytest.mark.parametrize("path", OURS, ids=identify)
def test_files_and_functions_stay_small(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MAX_FILE
    assert not functions_over(source, MAX_FUNCTION)


def test_the_size_test_can_fail() -> None:
    assert functions_over("def f():\n" + "    pass\n" * 48, MAX_FUNCTION) == ["f: 49 lines"]
    assert not functions_over("def f():\n" + "    pass\n" * 47, MAX_FUNCTION)


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules that reach themselves by imports."""

    def reaches(start: str) -> bool:
        seen: set[str] = set()
        todo = list(graph[start])
        while todo:
            name = todo.pop()
            if name == start:
                return True
            if name not in seen:
                seen.add(name)
                todo += graph.get(name, ())
        return False

    return [name for name in graph if reaches(name)]


def import_graph(package: str, paths: list[Path]) -> dict[str, set[str]]:
    """Return module -> modules of the same package that it imports, at the top or inside a function."""
    graph: dict[str, set[str]] = {}
    for path in paths:
        targets: set[str] = set()
        for node in runtime_nodes(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    base = f"{package}.{base}".rstrip(".")
                targets |= {base} | ({f"{package}.{alias.name}" for alias in node.names} if base == package else set())
        graph[f"{package}.{path.stem}"] = {name for name in targets if name.startswith(f"{package}.")}
    return graph


def test_no_import_cycles() -> None:
    assert not cycles(import_graph("kmemlab", ENGINE_MODULES))
    assert not cycles(import_graph("kmemlab_widgets", [p for p in python_files(WIDGETS) if p.name != "__init__.py"]))
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c"]


PACKAGES = ["kmemlab", *(f"kmemlab.{module_name(path)}" for path in ENGINE_MODULES)]
PACKAGES += [
    f"kmemlab_widgets.{path.stem}" if path.stem != "__init__" else "kmemlab_widgets" for path in python_files(WIDGETS)
]


@pytest.mark.parametrize("name", PACKAGES)
def test_exports(name: str) -> None:
    """What ``__all__`` promises exists, and what is public of it says what it does."""
    module = importlib.import_module(name)
    module = sys.modules[name]  # kmemlab.conform the module, not the function of that name
    assert module.__doc__, "the module has no docstring"
    assert hasattr(module, "__all__"), "the module has no __all__"
    missing = [export for export in module.__all__ if not hasattr(module, export)]
    assert not missing
    things = {export: getattr(module, export) for export in module.__all__}
    silent = [
        export
        for export, thing in things.items()
        if (inspect.isfunction(thing) or inspect.isclass(thing)) and not inspect.getdoc(thing)
    ]
    assert not silent, "no docstring"


def mangled_names(source: str) -> list[str]:
    """Return the names inside class bodies that Python would silently turn into ``_Class__name``."""
    found = []
    for klass in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)):
        for node in ast.walk(klass):
            names = {
                ast.Name: lambda n: [n.id],
                ast.Attribute: lambda n: [n.attr],
                ast.FunctionDef: lambda n: [n.name],
                ast.arg: lambda n: [n.arg],
                ast.keyword: lambda n: [n.arg or ""],
                ast.alias: lambda n: [n.asname or n.name],
                ast.Global: lambda n: n.names,
            }.get(type(node), lambda n: [])(node)
            found += [
                f"line {getattr(node, 'lineno', '?')}: {name}"
                for name in names
                if name.startswith("__") and not name.endswith("__")
            ]
    return sorted(set(found))


@pytest.mark.parametrize("path", python_files(ENGINE, WIDGETS), ids=identify)
def test_no_mangled_names(path: Path) -> None:
    """``__GFP_HIGH`` inside a class means ``_Class__GFP_HIGH``: keep such names at module level."""
    assert not mangled_names(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("source", "bad"),
    [
        ("class A:\n    x = __GFP_HIGH", ["line 2: __GFP_HIGH"]),
        ("class A:\n    def f(self): return gfp.__GFP_HIGH", ["line 2: __GFP_HIGH"]),
        ("class A:\n    def __free_pages(self): pass", ["line 2: __free_pages"]),
        ("class A:\n    def __init__(self): self.__class__", []),
        ("x = __GFP_HIGH\nclass A:\n    x = FLAGS['__GFP_HIGH']", []),
    ],
)
def test_the_mangling_test_can_fail(source: str, bad: list[str]) -> None:
    assert mangled_names(source) == bad


def test_import_is_light() -> None:
    """``import kmemlab`` brings nothing but the standard library; how long it takes, ``make bench`` tells."""
    program = (
        "import sys; before = set(sys.modules); import kmemlab;"
        "print(*{m.split('.')[0] for m in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - sys.stdlib_module_names == {"kmemlab"}


NOTEBOOKS = sorted(LESSONS.glob("*.ipynb"))
FLOOR_NAMES = "|".join(sorted(set(FLOORS) - {"conform"}))  # conform is also a function of the facade
FLOOR_IMPORT = rf"\bfrom kmemlab\.|\bimport kmemlab\.|\bfrom kmemlab import [^#\n]*\b({FLOOR_NAMES})\b"
FORBIDDEN = {
    r"^\s*[%!]\s*pip\b|\bpip install\b|\bmicropip\b": "installs packages",
    r"\b(urllib|requests|httpx|wget|curl|urlopen|socket)\b": "downloads",
    r"\b(import ipywidgets|from ipywidgets)\b": "imports ipywidgets (panels are imported by name)",
    r"\b(threading|multiprocessing|subprocess)\b": "does not exist in JupyterLite",
    FLOOR_IMPORT: "imports a floor's module (lessons use the facade)",
}


def lesson_faults(text: str) -> list[str]:
    """Return what a lesson holds that it may not."""
    notebook = json.loads(text)
    faults = []
    most = (
        MAX_TWO_SITTINGS
        if any("".join(c["source"]).startswith("# Part 2") for c in notebook["cells"])
        else MAX_NOTEBOOK
    )
    if len(text.encode()) > most:
        faults.append(f"{len(text.encode())} bytes, more than {most}")
    if "widgets" in notebook["metadata"]:
        faults.append("saved widget state in metadata.widgets")
    for number, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            continue
        if len(source.splitlines()) > MAX_CELL:
            faults.append(f"cell {number}: {len(source.splitlines())} lines")
        faults += [f"cell {number}: {why}" for rule, why in FORBIDDEN.items() if re.search(rule, source, re.MULTILINE)]
        for output in cell["outputs"]:
            if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
                faults.append(f"cell {number}: a saved widget view (run make lessons)")
    return faults


@pytest.mark.parametrize("path", NOTEBOOKS, ids=identify)
def test_lessons_hold_nothing_forbidden(path: Path) -> None:
    assert not lesson_faults(path.read_text(encoding="utf-8"))


def notebook_text(source: str, outputs: list[object] | None = None, metadata: dict[str, object] | None = None) -> str:
    cell = {"cell_type": "code", "source": source.splitlines(keepends=True), "outputs": outputs or []}
    return json.dumps({"cells": [cell], "metadata": metadata or {}})


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("from kmemlab import Machine, GFP_KERNEL, conform\nm = Machine()", None),
        ("from kmemlab_widgets import ZoneMap", None),
        ("%pip install kmemlab", "installs packages"),
        ("import urllib.request", "downloads"),
        ("import ipywidgets as W", "imports ipywidgets"),
        ("from kmemlab.buddy import expand", "imports a floor"),
        ("from kmemlab import buddy", "imports a floor"),
        ("import threading", "JupyterLite"),
        ("x = 1\n" * 16, "16 lines"),
    ],
)
def test_the_lesson_test_can_fail(source: str, fault: str | None) -> None:
    faults = lesson_faults(notebook_text(source))
    assert (fault is None and not faults) or (fault is not None and fault in faults[0])


def test_the_lesson_test_sees_saved_widgets_and_size() -> None:
    view: dict[str, object] = {"data": {"application/vnd.jupyter.widget-view+json": {"model_id": "0"}}}
    assert "widget view" in lesson_faults(notebook_text("1", [view]))[0]
    assert "widget state" in lesson_faults(notebook_text("1", metadata={"widgets": {}}))[0]
    assert "bytes" in lesson_faults(notebook_text("1", [{"text": "x" * MAX_NOTEBOOK}]))[0]
