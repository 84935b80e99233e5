"""Save a session's KV caches to disk, so that it continues without reading its prompt again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OutputError
from ..gguf.split import files_of
from .database import store_path

if TYPE_CHECKING:
    from ..engine.adapters import Adapters
    from ..engine.engine import Engine
    from .session import Session
    from .store import Store

_ROOM = 256  # the least number of free tokens after loading a cache


def save_cache(engine: Engine, session: Session) -> int:
    """Write the KV caches of the last answer's views.  Returns their size in bytes, 0 if there are none.

    Raises:
        OutputError: a file cannot be written.
    """
    read = _read_tokens(session)
    adapters = engine.lanes.adapters(len(read))
    if adapters is None or session.id is None:
        return 0
    remove_cache(session.id)
    files = _files(engine, session.id, adapters)
    try:
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError as error:
        raise OutputError(f"cannot write the cache {files[0]}: {error.strerror or error}") from None
    size = engine.lanes.save(files)
    if not size:
        remove_cache(session.id)
        raise OutputError(f"cannot write the cache {files[0]}: is the disk full?")
    return size


def load_cache(engine: Engine, session: Session, adapters: Sequence[Adapters]) -> None:
    """Load a session's caches into the views, if they were saved with this model and these adapters."""
    read = _read_tokens(session)
    if len(read) != len(adapters) or session.id is None:
        return
    files = _files(engine, session.id, adapters)
    if all(file.is_file() for file in files):
        engine.lanes.load(files, min(max(read) + _ROOM, engine.lanes.context_limit), adapters)


def remove_session(store: Store, session_id: int) -> None:
    """Delete a session, its caches and its words.  Raises the errors of `Store.remove`."""
    store.remove(session_id)
    remove_cache(session_id)
    store.purge()


def remove_cache(session_id: int) -> None:
    """Delete a session's caches of all models."""
    for file in _folder().glob(f"{session_id}-*.kv"):
        file.unlink(missing_ok=True)


def _read_tokens(session: Session) -> list[int]:
    """The number of tokens in each view's cache at the end of the last answer."""
    usage = session.turns[-1].statistics.get("usage") if session.turns else None
    return [prompt + usage["completion_tokens"] for prompt in usage["prompt_tokens"]] if usage else []


def _folder() -> Path:
    return store_path().with_suffix(".caches")


def _files(engine: Engine, session_id: int, adapters: Sequence[Adapters]) -> list[Path]:
    """The cache file of each view.

    Its name has a hash of the model, the adapters and the cache types, on which its content depends.
    """
    first, *parts = files_of(engine.model.file)
    of = (*_state(first), engine.settings.cache_type_k, engine.settings.cache_type_v, *map(_state, parts))
    files = []
    for view, each in enumerate(adapters):
        adapted = [(*_state(Path(file)), scale) for file, scale in (*each.loras, *each.vectors)]
        key = hashlib.sha256(repr((*of, *adapted)).encode()).hexdigest()[:16]
        files.append(_folder() / f"{session_id}-{key}-{view}.kv")
    return files


def _state(path: Path) -> tuple[str, int, int]:
    """A key that identifies a file's current content: path, size, and time of modification."""
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns
