"""Download a model from Hugging Face into the cache that its own programs, llama.cpp and others share.

huggingface_hub makes the requests, retries them and places the files.  It is imported inside functions, because that
takes 0.2 s.  Its `hf_hub_download` (2.4) deletes the partial file of a broken download, and verifies no checksum.  So
the content is fetched here, with its `http_get`; afterwards `hf_hub_download` finds it in the cache.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any

import psutil

from ..errors import ModelError, UsageError
from .library import quantization_of, without_part
from .locate import PREFERRED, Repository

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

Progress = Callable[[str, int, int], None]  # the current action, bytes done, bytes in all

#: Quantizations chosen by default: first a 4-bit one that most repositories have, then the most similar ones.
_CHOSEN = (PREFERRED, "Q4_K_S", "UD-Q4_K_XL", "Q4_K_L", "Q4_0", "MXFP4", "Q5_K_M", "IQ4_XS", "Q8_0")
_PIECE = 1 << 20
_CHECKSUM = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ETAG = re.compile(r"[\w-][\w.+=-]*", re.ASCII)


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository; sha256 is None if the repository has none."""

    name: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Choice:
    """The files to download.

    revision: the commit that they belong to.
    files: the file, or all parts of a split model in order.
    others: the repository's other quantizations.
    """

    repo: str
    revision: str
    quantization: str
    files: tuple[RemoteFile, ...]
    others: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def choose(repository: Repository) -> Choice:
    """Choose the files of a repository in the given quantization; by default in one of about four bits.

    Raises:
        ModelError: the repository cannot be read or contains no GGUF file, or there is no folder for downloads.
        UsageError: it has no such quantization; the message lists those that it has.
    """
    _cache()  # fails before any request
    with _explained(repository.repo):
        info = _described(repository.repo)
    models = _models(info)
    if not models:
        raise ModelError(f"{repository.repo} contains no GGUF file: look for a repository whose name ends in -GGUF")
    name = _chosen(repository, models)
    others = tuple(sorted(spelled for spelled in models if spelled != name))
    return Choice(repository.repo, info.sha or "main", name, tuple(models[name]), others)


def _described(repo: str) -> ModelInfo:
    """The hub's description of a repository.  Raises ModelError if it is invalid."""
    from huggingface_hub.errors import HFValidationError

    hub = _hub()
    try:
        info: ModelInfo = hub.HfApi().model_info(repo, files_metadata=True, timeout=hub.constants.HF_HUB_ETAG_TIMEOUT)
    except HFValidationError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise _invalid_reply(repo) from error
    if not all(_is_valid(sibling) for sibling in info.siblings or ()):
        raise _invalid_reply(repo)
    return info


def _is_valid(sibling: Any) -> bool:
    """True if a file's name cannot leave its folder, and its size and checksum are valid."""
    name, size, sha256 = sibling.rfilename, sibling.size, sibling.lfs.sha256 if sibling.lfs else None
    return (
        isinstance(name, str)
        and name.isprintable()
        and not {"", ".", ".."} & {*name.replace("\\", "/").split("/")}
        and (size is None or (type(size) is int and size >= 0))
        and isinstance(sha256, str | None)
    )


def _invalid_reply(repo: str) -> ModelError:
    host = _hub().constants.ENDPOINT
    return ModelError(
        f"the reply of {host} for {repo} is not one of Hugging Face: check HF_ENDPOINT, and whether a proxy "
        "answers instead"
    )


def _models(info: ModelInfo) -> dict[str, list[RemoteFile]]:
    """The models of a repository by quantization, or by file name if the quantization is unknown or not unique."""
    models: dict[str, list[RemoteFile]] = {}
    for sibling in info.siblings or ():
        name = sibling.rfilename
        base = name.rsplit("/", 1)[-1].lower()
        if base.endswith(".gguf") and not base.startswith("mmproj"):
            sha256 = sibling.lfs.sha256 if sibling.lfs else None
            whole = sha256 if sha256 and _CHECKSUM.fullmatch(sha256) else None
            models.setdefault(without_part(name), []).append(RemoteFile(name, sibling.size or 0, whole))
    by_quantization: dict[str, list[str]] = {}
    for model in models:
        by_quantization.setdefault(quantization_of(model) or "", []).append(model)
    named: dict[str, list[RemoteFile]] = {}
    for quantization, same in by_quantization.items():
        for model in same:
            files = sorted(models[model], key=lambda file: file.name)
            is_unique = quantization and len(same) == 1
            named[quantization if is_unique else files[0].name.rsplit("/", 1)[-1].removesuffix(".gguf")] = files
    return named


def _chosen(repository: Repository, models: dict[str, list[RemoteFile]]) -> str:
    if repository.quantization:
        for name in models:
            if repository.quantization.lower() in (name.lower(), f"{name.lower()}.gguf"):
                return name
        raise UsageError(f"{repository.repo} has no {repository.quantization}: it has {', '.join(sorted(models))}")
    for name in _CHOSEN:
        if name in models:
            return name
    if len(models) == 1:
        return next(iter(models))
    raise UsageError(
        f"name a quantization of {repository.repo}, as in {repository.repo}:{min(models)}: it has "
        f"{', '.join(sorted(models))}"
    )


# Disk and memory.


def check_room(choice: Choice) -> None:
    """Refuse a download that does not fit on the disk.

    Raises:
        ModelError: there is too little space; the message gives both sizes.
    """
    needed = sum(file.size - _had(choice.repo, file) for file in choice.files)
    folder = _cache()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ModelError(
            f"not enough disk space: the download takes {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB "
            "free. Set HF_HUB_CACHE to another folder, or free space"
        )


def memory_warning(choice: Choice) -> str | None:
    """The warning for a model that is larger than this machine's memory."""
    memory = psutil.virtual_memory().total
    if choice.size < memory:
        return None
    return (
        f"the weights take {choice.size / 1e9:.1f} GB and this machine has {memory / 1e9:.1f} GB of memory: unless "
        "a GPU holds the model, it runs slowly from the disk, or not at all"
    )


def _had(repo: str, file: RemoteFile) -> int:
    """The number of bytes that are already downloaded."""
    if file.sha256 is None:
        return 0
    blob = _blob(repo, file.sha256)
    if blob.exists():
        return file.size
    partial = _partial(blob)
    return min(file.size, partial.stat().st_size) if partial.exists() else 0


# The download.


def download(choice: Choice, progress: Progress) -> Path:
    """Fetch the files into Hugging Face's cache, and return the first.  Downloaded parts are not fetched again.

    Raises:
        ModelError: the connection broke, the disk is full, or the file differs from the repository's.
    """
    before = 0
    paths = []
    for file in choice.files:

        def so_far(what: str, n: int, done: int = before) -> None:
            progress(what, done + n, choice.size)

        paths.append(_fetched(choice, file, so_far))
        before += file.size
    return paths[0]


def _fetched(choice: Choice, file: RemoteFile, so_far: Callable[[str, int], None]) -> Path:
    hub = _hub()
    with _explained(choice.repo):
        _check_headers(choice, file)
        if file.sha256 and file.size <= hub.constants.MAX_HTTP_DOWNLOAD_SIZE:
            _fetch_blob(choice, file, file.sha256, so_far)
        return Path(hub.hf_hub_download(choice.repo, file.name))  # links the blob to its name, or fetches it


def _check_headers(choice: Choice, file: RemoteFile) -> None:
    """Refuse invalid HTTP headers, because huggingface_hub makes file and folder names from them."""
    hub = _hub()
    headers = hub.get_hf_file_metadata(hub.hf_hub_url(choice.repo, file.name))
    if not (_COMMIT.fullmatch(headers.commit_hash or "") and _ETAG.fullmatch(headers.etag or "")):
        raise _invalid_reply(choice.repo)


def _fetch_blob(choice: Choice, file: RemoteFile, sha256: str, so_far: Callable[[str, int], None]) -> None:
    """Fetch the missing part of a file, and move the complete file to its place in huggingface_hub's cache."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    blob = _blob(choice.repo, sha256)
    partial = _partial(blob)
    blob.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(partial.with_suffix(".lock")):
        if blob.exists():
            return
        with partial.open("r+b" if partial.exists() else "w+b") as target:
            had = target.seek(0, os.SEEK_END)
            if had > file.size:
                had = target.seek(0)
                target.truncate()
            url = _hub().hf_hub_url(choice.repo, file.name, revision=choice.revision)
            try:
                http_get(
                    url, _counted(target, so_far), resume_size=had, headers=build_hf_headers(), expected_size=file.size
                )
            except BaseException as error:
                target.flush()
                raise _broken(error, choice, file, os.fstat(target.fileno()).st_size) from error
        if _sha256(partial, so_far) != sha256:
            partial.unlink()
            raise ModelError(f"{file.name} is damaged (its checksum differs from the repository's): pull it again")
        partial.replace(blob)
    partial.with_suffix(".lock").unlink(missing_ok=True)


def _broken(error: BaseException, choice: Choice, file: RemoteFile, n: int) -> BaseException:
    """The error to raise for a download that stopped after ``n`` bytes.

    It is the original error, unless pjlocal can tell the user what to do.
    """
    from huggingface_hub.errors import HfHubHTTPError

    wrong_size = isinstance(error, OSError) and not isinstance(error, HfHubHTTPError) and "Consistency" in str(error)
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if wrong_size or status == 416:  # the file differs from the announced one, so no part of it can be used
        _partial(_blob(choice.repo, file.sha256 or "")).unlink(missing_ok=True)
        return ModelError(f"the size of {file.name} differs from that at {choice.repo}: pull it again")
    if isinstance(error, KeyboardInterrupt) or status is not None or not n or not _is_of_the_network(error):
        return error
    return ModelError(
        f"the connection broke after {n / 1e6:.0f} of {file.size / 1e6:.0f} MB: the same command continues from there"
    )


def _counted(file: IO[bytes], so_far: Callable[[str, int], None]) -> Any:
    """The file for http_get, so that it reports the bytes written."""

    def write(data: bytes) -> int:
        n = file.write(data)
        so_far("downloading", file.tell())
        return n

    return SimpleNamespace(write=write, seek=file.seek, tell=file.tell, truncate=file.truncate)


def _sha256(path: Path, so_far: Callable[[str, int], None]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            so_far("checking", file.tell())
    return digest.hexdigest()


def _cache() -> Path:
    cache = Path(_hub().constants.HF_HUB_CACHE)
    if cache.parts[:1] == ("~",):
        raise ModelError("no home folder for downloads is known: set HOME, or set HF_HOME to a folder")
    return cache


def _blob(repo: str, sha256: str) -> Path:
    return _cache() / f"models--{repo.replace('/', '--')}" / "blobs" / sha256


def _partial(blob: Path) -> Path:
    """The partial file, under a name that huggingface_hub does not use."""
    return blob.with_name(f"{blob.name}.pjlocal.incomplete")


# huggingface_hub and its errors.


def _hub() -> Any:
    import huggingface_hub
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # pjlocal's messages replace its warnings
    huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = _PIECE  # a broken connection loses one piece; the default is 10 MiB
    return huggingface_hub


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Turn errors of huggingface_hub into messages."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        if (message := _message(error, repo)) is None:
            raise
        raise ModelError(message) from error


def _message(error: Exception, repo: str) -> str | None:
    from huggingface_hub import constants, errors, get_token

    page, token = f"{constants.ENDPOINT}/{repo}", get_token()
    if isinstance(error, errors.GatedRepoError):
        first = f"{repo} requires that you accept its terms: do so on {page}"
        if token:
            return f"{first}, with the account of your token"
        return f"{first}, then set HF_TOKEN to a token of {constants.ENDPOINT}/settings/tokens"
    if isinstance(error, errors.DisabledRepoError):
        return f"Hugging Face has disabled {repo}: see {page}"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    missing = isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError)
    if missing or (status == 401 and not token):  # private repositories look like missing ones
        hidden = "your token has no access to it, or is no longer valid" if token else "set HF_TOKEN if it is private"
        return f"there is no repository {repo} at {constants.ENDPOINT}: check the spelling, or {hidden}"
    if isinstance(error, errors.RemoteEntryNotFoundError | errors.RevisionNotFoundError):
        return f"{repo} changed during the download: pull it again"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids requests to Hugging Face: unset it to pull"
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(error.response, repo)
    if _is_timeout(error):
        seconds = constants.HF_HUB_ETAG_TIMEOUT
        return f"{constants.ENDPOINT} does not answer within {seconds} seconds: try again later, or check HF_ENDPOINT"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"cannot write to {_cache()}: {error.strerror}. Free space, and the same command continues from there; or "
            "set HF_HUB_CACHE to another folder"
        )
    if _is_of_the_network(error):
        return f"cannot reach {constants.ENDPOINT}: {error or type(error).__name__}"
    return None


def _refused(response: Any, repo: str) -> str:
    from huggingface_hub.constants import ENDPOINT as host

    status = response.status_code
    if status == 429:
        wait = response.headers.get("Retry-After", "")
        when = f"in {wait} seconds" if wait.isdecimal() else "in a few minutes"
        return f"too many requests to Hugging Face: try again {when}, or set HF_TOKEN, which allows more"
    if status == 401:
        return f"{host} refuses your token for {repo}: set HF_TOKEN to a valid token"
    if status == 403:
        return f"Hugging Face forbids {repo} to this account: see its page, and the permissions of HF_TOKEN"
    if status >= 500:
        return f"{host} has a problem (status {status}): try again later"
    named = ", and HF_ENDPOINT" if "HF_ENDPOINT" in os.environ else ""
    return f"{host} refuses {repo} (status {status}): check the spelling{named}"


def _is_timeout(error: BaseException) -> bool:
    """True for a timeout.  The timeouts of huggingface_hub's HTTP library are not subclasses of TimeoutError."""
    return isinstance(error, TimeoutError) or "Timeout" in type(error).__name__


def _is_of_the_network(error: BaseException) -> bool:
    """True for an error of the connection, which may come from huggingface_hub's HTTP library."""
    from huggingface_hub.errors import HfHubHTTPError

    return isinstance(error, (HfHubHTTPError.__bases__[0], ConnectionError, TimeoutError))
