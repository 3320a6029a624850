"""The rules that keep the code small and readable, counted instead of hoped for."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("api", "demo", "engine", "llm_optimizer", "llm_workers", "utilities")
COMMAND_LINE_TOOLS = ("demo/", "main_app.py", "tests/benchmarks/")
LONGEST_FUNCTION = 50
LONGEST_FILE = 399
LONGEST_ROUTE = 12
METHODS = {"get", "post", "put", "patch", "delete", "api_route"}
BROAD = {"Exception", "BaseException"}
SOURCES = sorted(
    [*ROOT.glob("*.py"), *(path for folder in (*SHIPPED, "tests") for path in (ROOT / folder).rglob("*.py"))]
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, Function))


def lines_of(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def body_lines(node: Function) -> int:
    """Lines of a function's body, its docstring aside."""
    first = node.body[1:] if ast.get_docstring(node) else node.body
    return (node.end_lineno or 0) - first[0].lineno + 1 if first else 0


def is_route(node: Function) -> bool:
    calls = [decorator.func for decorator in node.decorator_list if isinstance(decorator, ast.Call)]
    return any(isinstance(call, ast.Attribute) and call.attr in METHODS for call in calls)


def swallows_all(node: ast.AST) -> bool:
    """Whether this is an `except` for every error that does not end by raising it again."""
    if not isinstance(node, ast.ExceptHandler) or isinstance(node.body[-1], ast.Raise):
        return False
    return node.type is None or any(isinstance(part, ast.Name) and part.id in BROAD for part in ast.walk(node.type))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_functions_and_files_are_short(path: Path) -> None:
    """No function has more than 50 lines and no file 400 or more."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    assert [node.name for node in functions(path) if lines_of(node) > LONGEST_FUNCTION] == []


def test_routes_only_parse_call_and_answer() -> None:
    """A route's body has at most 12 lines, and files with routes neither catch nor raise HTTP errors themselves."""
    routers = [path for path in (ROOT / "api" / "routers").glob("*.py") if any(map(is_route, functions(path)))]
    assert routers
    for path in routers:
        assert [node.name for node in functions(path) if is_route(node) and body_lines(node) > LONGEST_ROUTE] == []
        assert not any(isinstance(node, ast.Try) for node in ast.walk(tree_of(path))), path.name
        assert "HTTPException" not in path.read_text(encoding="utf-8"), path.name


def is_command_line_tool(path: Path) -> bool:
    """The demo and main_app.py, and what of the tests can be started as a program."""
    in_tests = name_of(path).startswith("tests/") and 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
    return in_tests or name_of(path).startswith(COMMAND_LINE_TOOLS)


def test_only_command_line_tools_print() -> None:
    """What a service has to say goes to the log; print is for programs that a person runs."""
    printing = [
        f"{name_of(path)}:{node.lineno}"
        for path in SOURCES
        if not is_command_line_tool(path)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def test_every_test_says_what_it_proves() -> None:
    """A test without a docstring does not say which claim its failure refutes."""
    silent = [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path in SOURCES
        if path.name.startswith("test_")
        for node in functions(path)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []


def test_the_engine_catches_everything_in_its_loops_only() -> None:
    """Only the consumer's loop and the driver's swallow what they do not know; SQLite's writer hands it to the thread
    that asked."""
    broad = Counter(
        name_of(path)
        for path in (ROOT / "engine").rglob("*.py")
        for node in ast.walk(tree_of(path))
        if swallows_all(node)
    )
    handed_over = {"engine/storage/sqlite/writer.py": 2}
    assert broad <= Counter({"engine/jobs/consumer.py": 1, "engine/driving.py": 2, **handed_over})


def test_exemptions_have_reasons() -> None:
    """A line that is exempt from the linter says why; an import where it is first needed (PLC0415) says it itself."""
    bare = re.compile(r"# noqa(?!: PLC0415$|: [A-Z]+\d+(, [A-Z]+\d+)* - \S)")
    unexplained = [
        f"{name_of(path)}:{number}"
        for path in SOURCES
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if bare.search(line)
    ]
    assert unexplained == []
