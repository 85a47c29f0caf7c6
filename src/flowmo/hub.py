"""The Hugging Face hub: files of a repository, fetched by the hub's own client into its cache.

The client is an extra (``pip install 'flowmo[hub]'``) and imported when it is needed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

from .downloads import readable
from .errors import WeightsError

WEIGHTS = "model.safetensors"
SUFFIXES = (".pth", ".pt", ".safetensors")
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")


def is_address(text: str) -> bool:
    """Return whether ``text`` is a URL."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def repository_of(text: str) -> str | None:
    """Return the ``owner/name`` that ``text`` means, or None.

    ``text`` is that itself, and no path here, or the address of a model's page on the hub.
    """
    if is_address(text):
        parts = urlsplit(text)
        segments = [segment for segment in parts.path.split("/") if segment]
        return "/".join(segments) if parts.netloc.lower() in _HOSTS and len(segments) == 2 else None
    named = _REPOSITORY.fullmatch(text) and not text.endswith(SUFFIXES) and not Path(text).exists()
    return text if named else None


def fetch_from_hub(repository: str, file: str = WEIGHTS, revision: str | None = None) -> Path:
    """Return the path of a hub repository's ``file`` in the hub client's cache.

    A file that is not there yet is fetched, and its size is said first.
    revision: a branch, tag or commit.
    Raises WeightsError where the client is not installed, and for a file that is neither cached nor reachable.
    """
    hub = client()
    cached = hub.try_to_load_from_cache(repository, file, revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    with _hub_errors(hub, repository, file):
        about = hub.get_hf_file_metadata(hub.hf_hub_url(repository, file, revision=revision))
        _say(f"fetching {file} ({readable(about.size)}) of {repository} from the hub; it is kept in {_cache(hub)}")
        path = Path(hub.hf_hub_download(repository, file, revision=revision))
    if about.size is not None and path.stat().st_size != about.size:
        raise WeightsError(
            f"{path} has {path.stat().st_size:,} bytes, but the hub has {about.size:,}; remove it and try again"
        )
    return path


def client() -> ModuleType:
    """Return the package huggingface_hub. Raises WeightsError, with the way to get it, where it is not installed."""
    try:
        import huggingface_hub
    except ImportError:
        raise WeightsError(
            "models on the Hugging Face hub need its client: pip install 'flowmo[hub]'. Or download the file yourself "
            "and give its path"
        ) from None
    return huggingface_hub


@contextmanager
def _hub_errors(hub: ModuleType, repository: str, file: str) -> Iterator[None]:
    """Raise WeightsError, with the way out, for each of the client's many errors inside."""
    errors = hub.errors
    page = f"https://huggingface.co/{repository}"
    try:
        yield
    except (errors.RepositoryNotFoundError, errors.GatedRepoError) as error:
        raise WeightsError(
            f"there is no model {repository!r} on the hub, or it is private ({page}); check the spelling, or log in "
            f"with 'hf auth login' ({type(error).__name__})"
        ) from None
    except (errors.EntryNotFoundError, errors.RevisionNotFoundError) as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise _offline(hub, repository, file, error) from None
        raise WeightsError(f"{page} has no {file}: it is no model of FlowMo's, or of another revision") from None
    except Exception as error:  # the client's transport has changed before: requests, httpx, and their kinds of errors
        raise _offline(hub, repository, file, error) from None


def _offline(hub: ModuleType, repository: str, file: str, error: Exception) -> WeightsError:
    reason = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
    return WeightsError(
        f"{file} of {repository} is not in {_cache(hub)} and the hub cannot be reached ({reason}). On a machine with a "
        f"connection run 'hf download {repository} {file}', copy the file here and give its path to flowmo.load, or "
        "copy that cache folder (HF_HOME names another one); HF_HUB_OFFLINE must not be set when it is fetched"
    )


def _cache(hub: ModuleType) -> str:
    return str(hub.constants.HF_HUB_CACHE)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
