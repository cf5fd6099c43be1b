"""A client of a local folder on Chroma's own library, without its Python package.

`chromadb_rust_bindings` does all the work of a local Chroma; the package above it checks arguments
and takes 0.7 seconds to import. Here are the calls that reembed makes, with the same answers. What
is asked for beyond them, and whatever the package might refuse or change on the way, goes to the
package's own client. One process must not have two Chromas open on one folder, so that client takes
the library's place for good; it also does as soon as anybody has imported the package
(`delayed.py`), since they may open the folder as well.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

from reembed.stores.chroma import delayed
from reembed.stores.chroma.address import DEFAULT_DATABASE, DEFAULT_TENANT, Address
from reembed.stores.chroma.handle import LocalCollection, is_plain

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

SETTINGS = ("MIGRATIONS", "MIGRATIONS_HASH_ALGORITHM", "ALLOW_RESET", "IS_PERSISTENT")
"""Variables that the package's settings read besides those that begin with CHROMA_."""
_FILES = 5
"""Files of an index that is open, as the package reckons."""
Result = TypeVar("Result")


def may_open() -> bool:
    """Whether the package is not needed here: nobody has imported it, and no setting is for it."""
    names = (name.upper() for name in os.environ)
    settings = any(name in SETTINGS or name.startswith("CHROMA_") for name in names)
    return delayed.is_delayed() and not settings and not Path(".env").exists()


def prepare() -> None:
    """Load the library, where it will be used, while other things begin."""
    if may_open():
        import chromadb_rust_bindings  # noqa: F401


class _Library:
    """What the clients of one folder share."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._changed = folder, threading.Condition()
        self._users = self._calls = 0
        self._closed = False
        self._bindings: Any = None

    def begin(self) -> None:
        """Open the folder for one user more."""
        self._users += 1
        if self._bindings is None and not self._closed:
            import chromadb_rust_bindings as rust

            self._bindings = rust.Bindings(
                allow_reset=False,
                sqlite_db_config=rust.SqliteDBConfig(
                    hash_type=rust.MigrationHash.MD5,
                    migration_mode=rust.MigrationMode.Apply,
                    url=str(self._folder / "chroma.sqlite3"),
                ),
                persist_path=str(self._folder),
                hnsw_cache_size=resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _FILES,
            )

    @contextmanager
    def call(self) -> Iterator[Any]:
        """The library for one call; None once the package has taken its place."""
        with self._changed:
            self._closed = self._closed or not delayed.is_delayed()
            if self._closed:
                self._close()
            else:
                self._calls += 1
            bindings = self._bindings
        try:
            yield bindings
        finally:
            if bindings is not None:
                del bindings
                with self._changed:
                    self._calls -= 1
                    self._changed.notify_all()

    def _close(self) -> None:
        self._changed.wait_for(lambda: not self._calls)
        self._bindings = None

    def give_up(self) -> None:
        """Let the package take its place, once no call is under way."""
        with self._changed:
            self._closed = True
            self._close()

    def rest(self) -> None:
        """Close all indexes, where there is one user alone."""
        with self._changed:
            if self._users == 1:
                self._close()
                self._users = 0
                self.begin()

    def end(self) -> None:
        """Close the folder with its last user."""
        self._users -= 1
        if not self._users:
            self._bindings = None
            _libraries.pop(self._folder, None)


_libraries: dict[Path, _Library] = {}


class LocalClient:
    """What reembed asks of a client; all else goes to the package's own.

    Args:
        open_whole: opens that one.
    """

    def __init__(self, address: Address, open_whole: Callable[[], ClientAPI]) -> None:
        self.tenant = address.tenant or DEFAULT_TENANT
        self.database = address.database or DEFAULT_DATABASE
        self._open_whole, self._opening = open_whole, threading.Lock()
        self._whole: ClientAPI | None = None
        folder = cast(Path, address.path)
        self._library = _libraries.setdefault(folder, _Library(folder))
        try:
            self._library.begin()
            with self._library.call() as library:
                library.get_tenant(self.tenant)
                library.get_database(self.database, self.tenant)
        except BaseException:
            self._library.end()
            raise

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.whole(), name)

    def whole(self) -> ClientAPI:
        """The package's own client in place of this one."""
        with self._opening:
            if self._whole is None:
                self._library.give_up()
                self._whole = self._open_whole()
            return self._whole

    def ask(
        self, library: Callable[[Any], Result], package: Callable[[], Result], *, plain: bool = True
    ) -> Result:
        """The answer to one call, of the library or of the package's client.

        Args:
            plain: whether the library may be asked.
        """
        if plain:
            with self._library.call() as bindings:
                if bindings is not None:
                    return library(bindings)
        return package()

    @property
    def place(self) -> tuple[str, str]:
        """Tenant and database, as the library's calls end."""
        return self.tenant, self.database

    def get_collection(self, name: str, embedding_function: None = None) -> Any:
        return self.ask(
            lambda library: self._handle(library.get_collection(name, *self.place)),
            lambda: self.whole().get_collection(name, embedding_function=None),
        )

    def get_collection_by_id(self, id: UUID, embedding_function: None = None) -> Any:
        return self.ask(
            lambda library: self._handle(library.get_collection_by_id(str(id), *self.place)),
            lambda: self.whole().get_collection_by_id(id, embedding_function=None),
        )

    def list_collections(self, limit: int | None = None, offset: int | None = None) -> Any:
        return self.ask(
            lambda library: [
                self._handle(one)
                for one in library.list_collections(limit, offset or 0, *self.place)
            ],
            lambda: self.whole().list_collections(limit, offset),
        )

    def create_collection(
        self, name: str, *, metadata: dict[str, Any] | None = None, **settings: Any
    ) -> Any:
        return self.ask(
            lambda library: self._handle(
                library.create_collection(name, None, None, metadata, False, *self.place)
            ),
            lambda: self.whole().create_collection(name, metadata=metadata, **settings),
            plain=not any(settings.values()) and (metadata is None or is_plain(metadata)),
        )

    def delete_collection(self, name: str) -> None:
        self.ask(
            lambda library: library.delete_collection(name, *self.place),
            lambda: self.whole().delete_collection(name),
        )

    def get_max_batch_size(self) -> int:
        return self.ask(
            lambda library: int(library.get_max_batch_size()),
            lambda: self.whole().get_max_batch_size(),
        )

    def _handle(self, found: Any) -> LocalCollection:
        return LocalCollection(self, found)

    def rest(self) -> bool:
        """Close the indexes that are open; False where the package's client has to."""
        if self._whole is None:
            self._library.rest()
        return self._whole is None

    def close(self) -> None:
        """Close the folder, with its last user in this process."""
        if self._whole is not None:
            cast(Any, self._whole).close()
        self._library.end()


def local(client: Any) -> LocalClient | None:
    """The client, if it is one of these."""
    return client if isinstance(client, LocalClient) else None
