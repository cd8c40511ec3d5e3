"""Find published weights by name: a local file or directory, or a repository of the Hugging Face Hub.

Of a repository, only weights, settings and card are fetched, into huggingface_hub's cache. Its offline mode
(`HF_HUB_OFFLINE`) is honored; where the Hub gives no answer, the copy in the cache is used.
"""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import yaml
from huggingface_hub import HfApi, constants, errors, metadata_load, snapshot_download

from vidtl.errors import UserError, did_you_mean
from vidtl.models.base import CONFIG_FILE, WEIGHTS_FILE
from vidtl.models.weights.files import INDEX_FILE, PREPROCESSOR_FILES, TORCH_FILE

TIMEOUT = 10.0  # seconds until the Hub counts as unreachable

_CARD = "README.md"
_SETTINGS = (CONFIG_FILE, *PREPROCESSOR_FILES, _CARD)
WEIGHT_SUFFIXES = (".safetensors", ".npz", ".pth", ".pyth", ".pt", ".tar", ".bin")
_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(/(?P<file>[^@]+))?(@(?P<revision>[^@]+))?")
# The library whose errors are the last ones varies.
_FAILURES: tuple[type[Exception], ...] = (OSError, errors.HFValidationError, *errors.HfHubHTTPError.__bases__)


class _Remote(NamedTuple):
    """A repository, perhaps one file of it, at a branch, tag or commit."""

    repository: str
    file: str | None
    revision: str


def find_source(name: str) -> Path:
    """Return the local path of published weights; files of a repository are fetched unless the cache has them.

    `name` is a file, a directory, a repository `owner/name`, or a file of one, `owner/name/path/of/file.pth`; of a
    repository also another branch, tag or commit than `main`: `owner/name@revision`. The path is that given, that of
    the snapshot of a repository, or of its file that was asked for or has the only weights.

    UserError: no such place or revision, no weights or several files of them, gated, or neither cached nor reached.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    place = Path(name.partition("@")[0])
    match, is_file = _NAME.fullmatch(name), place.suffix in WEIGHT_SUFFIXES
    if match is None or bool(match["file"]) != is_file or (is_file and place.parent.is_dir()):
        raise UserError(f"{name} does not exist; {_advice(path)}")
    remote = _Remote(match["repository"], match["file"], match["revision"] or constants.DEFAULT_REVISION)
    api = HfApi()
    try:
        info = api.model_info(remote.repository, revision=remote.revision, timeout=TIMEOUT)
        names, cached = [each.rfilename for each in info.siblings or ()], False
    except _FAILURES as error:
        names, cached = _cached_names(remote, error), True
    wanted = _select(names, remote)
    try:
        for each in wanted:
            got = api.hf_hub_download(
                remote.repository, each, revision=remote.revision, etag_timeout=TIMEOUT, local_files_only=cached
            )
    except _FAILURES as error:
        raise _not_available(remote, error) from error
    return Path(got).parent if wanted[-1] in _usual_weights(wanted) and not remote.file else Path(got)


def license_of(source: Path) -> str:
    """Return the license that the card of a directory or repository states, or `not stated`."""
    folders = [source, *source.parents] if source.is_dir() else source.parents
    folder = next((each for each in folders if each.parent.name == "snapshots"), folders[0])
    try:
        card = metadata_load(folder / _CARD) or {}
    except (OSError, ValueError, yaml.YAMLError):
        card = {}
    stated = card.get("license")
    return str((card.get("license_name") if stated == "other" else None) or stated or "not stated")


def _select(names: Sequence[str], remote: _Remote) -> list[str]:
    """Choose the files to fetch, weights last; UserErrors for none of these and for several models."""
    settings = [each for each in _SETTINGS if each in names]
    if remote.file:
        if remote.file not in names:
            raise UserError(f"{remote.repository} has no file {remote.file}; {did_you_mean(remote.file, names)}")
        return [*settings, remote.file]
    if usual := _usual_weights(names):
        return [*settings, *usual]
    others = [each for each in names if each.endswith(WEIGHT_SUFFIXES) and not each.endswith(".bin")]
    if len(others) == 1:
        return [*settings, *others]
    if others:
        examples = ", ".join(f"{remote.repository}/{each}" for each in others[:12])
        raise UserError(f"{remote.repository} has {len(others)} files of weights; allowed: one of them, {examples}")
    allowed = f"{WEIGHTS_FILE}, {TORCH_FILE}, or one file with the suffix .safetensors, .npz or .pth"
    raise UserError(f"{remote.repository} has no weights; allowed: {allowed}")


def _usual_weights(names: Sequence[str]) -> list[str]:
    """Select the files that `read_directory_state` reads: the first kind of them."""
    shards = [each for each in names if re.fullmatch(r"model-\d+-of-\d+\.safetensors", each)]
    kinds = ([WEIGHTS_FILE], [INDEX_FILE, *shards], [TORCH_FILE])
    return next((kind for kind in kinds if kind[0] in names), [])


def _cached_names(remote: _Remote, error: Exception) -> list[str]:
    """List the files of a repository in the cache; UserError where its weights are not there."""
    try:
        name, revision = remote.repository, remote.revision
        folder = snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=[])
    except _FAILURES:
        raise _not_available(remote, error) from error
    names = [each.relative_to(folder).as_posix() for each in Path(folder).rglob("*") if each.is_file()]
    if not any(each == remote.file if remote.file else each.endswith(WEIGHT_SUFFIXES) for each in names):
        raise _not_available(remote, error) from error
    return names


def _not_available(remote: _Remote, error: Exception) -> UserError:
    """Describe why a repository cannot be had, and what to do."""
    name, revision = remote.repository, remote.revision
    page = f"{constants.ENDPOINT}/{name}"
    if isinstance(error, errors.GatedRepoError):
        return UserError(f"{name} is gated; accept its terms at {page}, and log in: hf auth login")
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"{name} has no revision {revision!r}; allowed: a branch, tag or commit of {page}")
    cache = Path(constants.HF_HUB_CACHE)
    cached = [each.name.removeprefix("models--").replace("--", "/") for each in cache.glob("models--*--*")]
    if isinstance(error, errors.RepositoryNotFoundError):
        problem = f"no local path and, on {constants.ENDPOINT}, no repository, or a private one (hf auth login)"
        return UserError(f"{name} is {problem}{_nearest(name, cached)}")
    cause = f"not fetched from {constants.ENDPOINT}: {str(error.__cause__ or error).partition(chr(10))[0]}"
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else cause
    command = f"hf download {name}" + (f" --revision {revision}" if revision != constants.DEFAULT_REVISION else "")
    return UserError(
        f"{name} is no local path and not in the cache {cache}, and {reason}{_nearest(name, cached)}; with a network, "
        f"{command!r} puts it into the cache (copy that, or set HF_HOME to its place), and --local-dir DIR behind it "
        "into a directory to give in place of the name"
    )


def _advice(path: Path) -> str:
    """End the message about a path that does not exist."""
    if path.parent == Path() and "patch" in path.name:  # as in every name of timm's vision transformers
        return f"did you mean 'timm/{path.name}'?"
    neighbors = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"allowed: a file, a directory or a repository (owner/name){_nearest(path.name, neighbors)}"


def _nearest(name: str, names: Iterable[str]) -> str:
    found = get_close_matches(name, names, n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
