"""Who may import whom: the floor plan of the package, read from the import statements themselves.

Every import counts, wherever it stands: at the top, within a function, for types only. A module that is missing in
the table has no room yet and fails, so that a new room is a line here. Three rules: nobody imports what the table does
not give them, no two rooms or modules import each other in a circle, and start-up loads nothing heavy.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "smtpmaild"
ROOT = Path(__file__).resolve().parent.parent
#: What makes a room wait, block or know an operating system; only rooms that say so in WORLD may have it.
LOOP_AND_SOCKETS = frozenset({"asyncio", "concurrent", "selectors", "socket", "socketserver", "ssl", "uvloop"})
#: The protocol engine is bytes in, bytes out: no clock, no disk, no thread either.
NOT_IN_ENGINE = LOOP_AND_SOCKETS | {"multiprocessing", "os", "pathlib", "select", "signal", "subprocess", "tempfile"}
NOT_IN_ENGINE |= {"threading", "time"}


@dataclass(frozen=True)
class Allowed:
    """What a room may import.

    ours: rooms of this package; "smtp.*" is the room with all its modules, "policy" only its __init__, the seam.
    others: distributions that are not in the standard library.  banned: standard modules it may not have.
    """

    ours: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    banned: frozenset[str] = LOOP_AND_SOCKETS


ANY_OF_THE_STANDARD_LIBRARY: frozenset[str] = frozenset()

#: room -> what it may import, besides the standard library and modules of its own room.
FLOOR_PLAN: Mapping[str, Allowed] = {
    "__init__": Allowed(),
    "__main__": Allowed(ours=("cli",)),
    # values and the engine: everybody's ground floor
    "smtp": Allowed(banned=frozenset(NOT_IN_ENGINE)),
    "content": Allowed(),
    "facts": Allowed(),
    "idn": Allowed(others=("idna",)),
    "resolver": Allowed(others=("dns",)),
    "queue_id": Allowed(),
    "metrics": Allowed(ours=("smtp.*",)),
    "envelope": Allowed(ours=("smtp.*",)),
    "trace": Allowed(ours=("smtp.*", "envelope", "__init__")),
    # decisions
    "routing": Allowed(ours=("smtp.*", "envelope", "metrics", "facts"), others=("pydantic",)),
    "policy": Allowed(
        ours=("smtp.*", "envelope", "content", "metrics", "facts", "idn", "routing.names"), others=("pydantic",)
    ),
    # stores: threads and files, never the loop
    "sink": Allowed(
        ours=("envelope", "trace", "queue_id", "smtp.reply", "smtp.address", "metrics", "facts", "queue.*"),
        others=("pydantic",),
    ),
    # who is it: SASL and accounts, no socket and no loop
    "auth": Allowed(ours=("smtp.*", "envelope", "facts"), others=("argon2", "bcrypt", "passlib")),
    # mail that travels on: kept, and taken where it goes
    "queue": Allowed(ours=("envelope", "trace", "queue_id", "smtp.*", "metrics", "facts"), others=("pydantic",)),
    "delivery": Allowed(
        ours=(
            "envelope",
            "queue.*",
            "queue_id",
            "sink.*",
            "smtp.*",
            "metrics",
            "facts",
            "auth",
            "auth.salted",
            "outcomes",
            "auth.saslprep",
            "resolver",
        ),
        others=("pydantic", "dns"),
        banned=ANY_OF_THE_STANDARD_LIBRARY,
    ),
    # PEM files to SSL contexts: OpenSSL and files, no socket
    "tls": Allowed(
        ours=("auth", "envelope", "facts"), others=("cryptography",), banned=frozenset(LOOP_AND_SOCKETS - {"ssl"})
    ),
    # one transaction, and what carries it
    "outcomes": Allowed(ours=("smtp.*", "envelope", "sink")),
    "reserve": Allowed(ours=("smtp.*", "envelope", "outcomes", "queue_id", "sink")),
    "service": Allowed(ours=("smtp.*", "envelope", "metrics", "facts", "policy.chain", "sink", "routing", "auth")),
    "journal": Allowed(ours=("smtp.*", "envelope", "content", "metrics", "facts", "auth")),
    "sign_in": Allowed(ours=("smtp.*", "envelope", "journal", "auth")),
    "reception": Allowed(
        ours=("smtp.*", "envelope", "trace", "content", "sink", "service", "outcomes", "reserve"),
    ),
    "receiver": Allowed(
        ours=("smtp.*", "envelope", "queue_id", "content", "policy", "policy.chain", "auth", "service", "journal")
        + ("sign_in", "outcomes", "reception")
    ),
    "dialogue": Allowed(ours=("smtp.*", "receiver", "envelope", "queue_id", "auth", "service")),
    "server": Allowed(
        ours=(
            "smtp.*",
            "receiver",
            "service",
            "dialogue",
            "metrics",
            "envelope",
            "facts",
            "content",
            "queue_id",
            "sink",
        )
        + ("resolver", "auth.*", "tls.*", "transcripts.scrubbing", "transcripts.writing"),
        others=("uvloop", "dns"),
        banned=ANY_OF_THE_STANDARD_LIBRARY,
    ),
    "embedding": Allowed(
        ours=("smtp.*", "receiver", "service", "dialogue", "policy.*", "envelope", "content", "facts", "metrics")
        + ("server.connection", "server.stream_session", "server.streams", "idn", "auth"),
        banned=ANY_OF_THE_STANDARD_LIBRARY,
    ),
    # what names nobody: before the log, and so before all that is made of it
    "privacy": Allowed(ours=("facts", "smtp.command")),
    # what happened: a thread and a file; told by the log, asked by commands and pages
    "history": Allowed(ours=("facts",), others=("pydantic_core",), banned=LOOP_AND_SOCKETS - {"asyncio"}),
    # `smtpmaild try`: a session without a network, through stores that store nothing
    "trial": Allowed(
        ours=("smtp.*", "receiver", "service", "dialogue", "envelope", "facts", "sink", "sink.discard", "auth"),
        banned=LOOP_AND_SOCKETS - {"asyncio"},
    ),
    # sessions played through a configuration before it serves
    "rehearsal": Allowed(
        ours=("config.*", "envelope", "service", "routing", "trial", "delivery.agents"),
        banned=LOOP_AND_SOCKETS - {"asyncio"},
    ),
    # what holds for every client: who can relay, which files lie open
    "audit": Allowed(
        ours=("config.*", "envelope", "rehearsal", "routing", "smtp.*", "trial"), banned=LOOP_AND_SOCKETS - {"asyncio"}
    ),
    # sessions as text: read, written, played
    "transcripts": Allowed(
        ours=("dialogue", "envelope", "service", "smtp.*", "trial"), banned=LOOP_AND_SOCKETS - {"asyncio", "ssl"}
    ),
    # what another configuration would have said to the mail on record
    "forecast": Allowed(
        ours=("config.listeners", "envelope", "history", "history.events", "rehearsal", "trial"),
        banned=LOOP_AND_SOCKETS - {"asyncio"},
    ),
    # what programs on this machine call: blocking, light, for one message; and the daemon's side of it
    "sendmail": Allowed(
        ours=("smtp.*", "envelope", "facts", "idn", "queue_id", "queue", "queue.body", "queue.dsn", "queue.reports"),
        banned=LOOP_AND_SOCKETS - {"selectors", "socket"},
    ),
    # HTTP for the operator's eyes, whatever it shows
    "web": Allowed(
        ours=("facts", "server.sockets"), others=("starlette", "uvicorn"), banned=ANY_OF_THE_STANDARD_LIBRARY
    ),
    # what an operator asks and orders: the desk in the attendant, its socket, and the commands' end of it
    "control": Allowed(
        ours=("__init__", "envelope", "facts", "metrics", "queue.*", "server.house", "server.notice", "server.pulse")
        + ("server.sockets", "server.sums", "smtp.address"),
        banned=ANY_OF_THE_STANDARD_LIBRARY,
    ),
    # a server for developers: the engine with policies, routing and a store of its own, and a page to look at it
    "dev": Allowed(
        ours=("smtp.*", "envelope", "facts", "content", "queue_id", "idn", "metrics", "auth", "auth.gate")
        + ("auth.passwords", "policy", "policy.chain", "service", "sink", "server.connection", "server.counts")
        + ("server.listener", "server.sockets", "tls.*", "embedding.options", "web.*", "__init__"),
        others=("starlette",),
        banned=ANY_OF_THE_STANDARD_LIBRARY,
    ),
    "pytest_plugin": Allowed(ours=("dev",), others=("pytest",)),
    # what the operator's browser and monitoring see
    "status": Allowed(
        ours=("control.desk", "control.queue_files", "facts", "metrics", "queue.shards", "web.*")
        + ("history", "history.lives", "history.reading"),
        others=("prometheus_client", "starlette"),
        banned=LOOP_AND_SOCKETS - {"asyncio"},
    ),
    # the file, the log, the one who knows them all
    "config": Allowed(
        ours=(
            "smtp.*",
            "web.presence",
            "policy.builtin",
            "policy.options",
            "policy.senders",
            "sink.builtin",
            "sink.folder",
            "routing",
        )
        + ("envelope", "idn", "delivery.agents", "delivery.builtin", "queue.words")
        + ("auth.accounts", "auth.throttle", "auth.users_file", "tls.settings", "tls.contexts"),
        others=("pydantic", "pydantic_core", "yaml"),
        banned=frozenset({"asyncio", "uvloop"}),
    ),
    "log": Allowed(ours=("facts",), others=("structlog", "pydantic_core")),
    "app": Allowed(
        ours=("__init__", "config.*", "content", "envelope", "facts", "idn", "log", "metrics", "policy.*", "queue_id")
        + ("auth.*", "dialogue", "service", "routing", "server.*", "sink.*", "smtp.*", "tls.*", "trace")
        + (
            "delivery.*",
            "queue.*",
            "resolver",
            "sendmail.*",
            "history.*",
            "privacy.*",
            "rehearsal",
            "trial",
            "control.*",
            "status.*",
            "web.*",
        ),
        others=("uvloop",),
        banned=ANY_OF_THE_STANDARD_LIBRARY,
    ),
    # `smtpmaild top`: plain values on a screen
    "top": Allowed(others=("rich",)),
    "cli": Allowed(
        ours=("__init__", "app", "auth.*", "config.*", "envelope", "facts", "log", "receiver", "server.*", "smtp.*")
        + (
            "trial",
            "history.*",
            "privacy.*",
            "top",
            "rehearsal",
            "transcripts.*",
            "audit.*",
            "forecast",
            "queue.*",
            "idn",
            "sendmail.*",
            "control.*",
        )
        + ("dev.*", "tls.settings", "web.presence"),
        others=("click", "rich"),
        banned=ANY_OF_THE_STANDARD_LIBRARY,
    ),
}

#: What only one or two rooms may know, so that nobody else can grow a dependency on it.
KNOWN_ONLY_TO = {
    "config": {"app", "cli", "rehearsal", "audit", "forecast"},
    "log": {"app", "cli"},
    "app": {"cli"},
}


def module_names() -> Iterator[tuple[str, Path]]:
    """(dotted name below the package, file) of every module; the package itself is "__init__"."""
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        if len(parts) > 1 and parts[-1] == "__init__":
            parts = parts[:-1]
        yield ".".join(parts), path


MODULES = dict(module_names())


def room_of(module: str) -> str:
    return module.partition(".")[0]


def imported(tree: ast.AST, path: Path) -> Iterator[str]:
    """Absolute dotted names of everything a file imports, `from a import b` as a.b where that is a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; say where it comes from"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole.removeprefix(PACKAGE + ".") in MODULES else node.module


class WithoutTypes(ast.NodeTransformer):
    """Leaves out what stands under `if TYPE_CHECKING:`, which no interpreter runs."""

    def visit_If(self, node: ast.If) -> ast.AST:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return ast.Pass()
        return self.generic_visit(node)


def ours(path: Path, *, with_types: bool = True) -> set[str]:
    """The modules of this package that a file imports, named as in MODULES."""
    tree: ast.AST = ast.parse(path.read_bytes(), path.name)
    if not with_types:
        tree = WithoutTypes().visit(tree)
    names = {name for name in imported(tree, path) if name.partition(".")[0] == PACKAGE}
    return {name.removeprefix(PACKAGE).removeprefix(".") or "__init__" for name in names}


def others(path: Path) -> set[str]:
    """The top-level names from elsewhere that a file imports."""
    tree = ast.parse(path.read_bytes(), path.name)
    return {name.partition(".")[0] for name in imported(tree, path)} - {PACKAGE, "__future__"}


def is_allowed(module: str, patterns: Iterable[str]) -> bool:
    return any(
        module == pattern or (pattern.endswith(".*") and f"{module}.".startswith(pattern[:-1])) for pattern in patterns
    )


@pytest.mark.parametrize("module", MODULES)
def test_module_keeps_to_its_room(module: str) -> None:
    room = room_of(module)
    assert room in FLOOR_PLAN, f"{room} has no line in FLOOR_PLAN"
    allowed = FLOOR_PLAN[room]
    path = MODULES[module]

    strangers = {name for name in ours(path) if room_of(name) != room and not is_allowed(name, allowed.ours)}
    assert not strangers, f"{module} may not import {sorted(strangers)} of this package"

    elsewhere = others(path) - sys.stdlib_module_names - set(allowed.others)
    assert not elsewhere, f"{module} may not depend on {sorted(elsewhere)}"

    banned = others(path) & allowed.banned
    assert not banned, f"{module} may not import {sorted(banned)} of the standard library"


@pytest.mark.parametrize("room", KNOWN_ONLY_TO)
def test_room_is_known_only_to(room: str) -> None:
    knowing = {room_of(module) for module, path in MODULES.items() if room in map(room_of, ours(path))}
    assert knowing - {room} <= KNOWN_ONLY_TO[room]


def test_sql_stays_in_its_files() -> None:
    knowing = {module for module, path in MODULES.items() if "sqlite3" in others(path)}
    assert {module for module in knowing if not module.startswith(("queue.sqlite", "history."))} == set()
    assert knowing


def assert_no_circle(graph: Mapping[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("import circle: " + " -> ".join(error.args[1]))


def test_rooms_import_in_one_direction() -> None:
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        graph.setdefault(room_of(module), set()).update(room_of(name) for name in ours(path))
    assert_no_circle({room: knows - {room} for room, knows in graph.items()})


def test_modules_import_in_one_direction() -> None:
    # Within a room two modules may know each other's types, as long as neither needs the other to start.
    assert_no_circle({module: ours(path, with_types=False) - {module} for module, path in MODULES.items()})


def test_circle_is_found() -> None:
    with pytest.raises(pytest.fail.Exception, match="import circle: "):
        assert_no_circle({"a": {"b"}, "b": {"a"}})


def test_every_line_of_the_plan_is_in_use() -> None:
    rooms = {room_of(module) for module in MODULES}
    assert set(FLOOR_PLAN) <= rooms, f"no such room: {sorted(set(FLOOR_PLAN) - rooms)}"


#: What takes long to import and is of no use to `--version`, to `--help` or to a program that only wants our values.
HEAVY = ("asyncio", "pydantic", "pydantic_core", "structlog", "uvloop", "yaml")
LIGHT_STARTS = {
    "import smtpmaild": "import smtpmaild",
    "smtpmaild --version": "from smtpmaild.cli import main; main(['--version'])",
    "smtpmaild --help": "from smtpmaild.cli import main; main(['--help'])",
}


def loaded_by(statement: str) -> set[str]:
    """What of HEAVY a fresh interpreter has in memory when it ends."""
    at_end = f"print('loaded:', *(set(sys.modules) & set({HEAVY!r})))"
    program = f"import atexit, sys; atexit.register(lambda: {at_end}); {statement}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    first, *names = done.stdout.splitlines()[-1].split()
    assert first == "loaded:"
    return set(names)


@pytest.mark.parametrize("start", LIGHT_STARTS)
def test_light_start_loads_nothing_heavy(start: str) -> None:
    assert loaded_by(LIGHT_STARTS[start]) == set()


@pytest.mark.parametrize("name", ["pydantic", "structlog", "uvloop"])
def test_heavy_import_would_be_seen(name: str) -> None:
    assert name in loaded_by(f"import {name}")
