"""Many rows into a table by few statements."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from engine.storage.sqlite.bulk import BulkInsert

INSERT = BulkInsert("things", "id, name", width=2)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as opened:
        opened.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        yield opened


@pytest.mark.parametrize("count", [0, 1, 9, 10, 99, 100, 111, 257])
def test_each_row_is_there_once_and_in_order(connection: sqlite3.Connection, count: int) -> None:
    """Whatever the number is made up of, every row comes in, and so many are told."""
    rows = [(number, f"n{number}") for number in range(count)]
    assert INSERT.run(connection, rows) == count
    assert connection.execute("SELECT id, name FROM things ORDER BY rowid").fetchall() == rows


def test_rows_that_are_there_stay_as_they_are(connection: sqlite3.Connection) -> None:
    """A key that is taken is passed over and not counted; the rows around it come in."""
    INSERT.run(connection, [(5, "old"), (107, "old")])
    assert INSERT.run(connection, [(number, "new") for number in range(120)]) == 118
    taken = connection.execute("SELECT id FROM things WHERE name = 'old' ORDER BY id").fetchall()
    assert taken == [(5,), (107,)]


def test_the_statements_are_few(connection: sqlite3.Connection) -> None:
    """A thousand rows take ten statements: each one may cost a wait for the interpreter's lock."""
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    INSERT.run(connection, [(number, "n") for number in range(1000)])
    assert sum(text.startswith("INSERT") for text in statements) == 10


def test_other_faults_are_not_passed_over(connection: sqlite3.Connection) -> None:
    """Only a taken key is: a row that the table cannot hold raises."""
    with pytest.raises(sqlite3.IntegrityError, match="NOT NULL"):
        INSERT.run(connection, [(1, None)])
