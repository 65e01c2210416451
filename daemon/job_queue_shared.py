"""SQLite without SQLAlchemy, for what every image asks and writes; threads share their commits."""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from sqlalchemy import Engine

from daemon.errors import StorageFull

_T = TypeVar("_T")
Work = Callable[[sqlite3.Connection], _T]


class SharedCommits:
    """Short pieces of work of many threads on the connections of an engine; as durable as its transactions.

    Parameters
    ----------
    turn
        Held by whoever writes, so that threads of this process never wait for each other within SQLite.
    patience_seconds
        How long a turn is waited for.
    """

    def __init__(self, engine: Engine, turn: threading.Lock, patience_seconds: float) -> None:
        self._engine = engine
        self._turn = turn
        self._reading = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._patience_seconds = patience_seconds
        self._gate = threading.Lock()
        self._waiting: list[_Piece] = []

    def close(self) -> None:
        """Close both connections."""
        with self._turn, self._reading:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()
            self._reader = self._writer = None

    def read(self, work: Work[_T]) -> _T:
        """Read; each statement sees what is committed when it begins.

        Raises
        ------
        StorageFull
            The database could not be read.
        """
        with self._reading:
            self._reader = self._reader or self._connect()
            try:
                return work(self._reader)
            except sqlite3.OperationalError as error:
                raise StorageFull(f"the job table could not be read: {error}") from error

    def write(self, work: Work[_T]) -> _T:
        """Do some writing in one transaction with whatever other threads have to write at this moment.

        A commit waits for the disk, so that many threads are served by few of them: who comes while one is under
        way goes with the next. Work that fails takes nobody with it: then each is done alone. Where the database
        cannot be written, nobody waits for that twice.

        Raises
        ------
        StorageFull
            The database could not be written: disk full, disk fault, or locked for too long.
        """
        mine = _Piece(work)
        with self._gate:
            self._waiting.append(mine)
        self._take_turn(mine)
        try:
            # Nobody waits in vain: who finds his own work still undone does everything that has come.
            if not mine.done:
                with self._gate:
                    together, self._waiting = self._waiting, []
                self._do(together)
        finally:
            self._turn.release()
        if isinstance(mine.failure, sqlite3.OperationalError):
            raise StorageFull(f"the job table could not be written: {mine.failure}") from mine.failure
        if mine.failure is not None:
            raise mine.failure
        return cast("_T", mine.result)

    def _take_turn(self, mine: "_Piece") -> None:
        if self._turn.acquire(timeout=self._patience_seconds):
            return
        with self._gate:
            if mine in self._waiting:
                self._waiting.remove(mine)
                raise StorageFull(f"the job table could not be written: busy for {self._patience_seconds} s")
        self._turn.acquire()  # it is being written at this moment

    def _do(self, pieces: "Sequence[_Piece]") -> None:
        try:
            results = self._commit(pieces)
        except Exception as error:  # noqa: BLE001 -- told to the threads whose work it was
            if len(pieces) == 1 or isinstance(error, sqlite3.OperationalError):
                for piece in pieces:
                    piece.failure, piece.done = error, True
            else:
                for alone in pieces:
                    self._do([alone])
            return
        for piece, result in zip(pieces, results, strict=True):
            piece.result, piece.done = result, True

    def _commit(self, pieces: "Sequence[_Piece]") -> list[object]:
        self._writer = self._writer or self._connect()
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            results = [piece.work(self._writer) for piece in pieces]
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise
        return results

    def _connect(self) -> sqlite3.Connection:
        """Take a connection out of the engine's pool, set up like all of them."""
        pooled = self._engine.raw_connection()
        connection = pooled.dbapi_connection
        assert isinstance(connection, sqlite3.Connection)
        pooled.detach()
        return connection


class _Piece:
    """Work of some thread, and what came of it."""

    def __init__(self, work: Callable[[sqlite3.Connection], object]) -> None:
        self.work = work
        self.done = False
        self.result: object = None
        self.failure: Exception | None = None
