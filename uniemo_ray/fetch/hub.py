"""A model hub over HTTP: what a revision holds, and files of it, resumed and verified."""

import hashlib
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from typing_extensions import override

from uniemo_ray.store.fingerprint import file_sha256

logger = logging.getLogger(__name__)
CHUNK = 1 << 20
ATTEMPTS = 5
TIMEOUT_S = 30.0
PAUSE_S = 1.0


@dataclass(frozen=True)
class HubFile:
    """A file as the hub states it."""

    name: str
    size: int
    digest: str
    """SHA-256 of a large file, git's SHA-1 of a small one."""
    is_sha256: bool


@dataclass(frozen=True)
class Listing:
    """A revision."""

    repository: str
    commit: str
    files: dict[str, HubFile]


class Hub:
    """One hub.

    Args:
        endpoint: `https://huggingface.co`, or a mirror.
        token: for gated repositories; sent to the endpoint alone, never to where it redirects.
    """

    def __init__(self, endpoint: str, *, token: str | None = None) -> None:
        self.endpoint, self._token = endpoint.rstrip("/"), token
        self._opener = urllib.request.build_opener(_Redirect())

    @classmethod
    def from_environment(cls) -> "Hub":
        """Endpoint and token as huggingface_hub finds them (HF_ENDPOINT, HF_TOKEN, its token file).

        Raises:
            ValueError: when the environment forbids the network.
        """
        from huggingface_hub import constants, get_token

        if constants.HF_HUB_OFFLINE:
            raise ValueError("HF_HUB_OFFLINE is set, so nothing can be fetched: unset it for this command")
        return cls(constants.ENDPOINT, token=get_token())

    def list(self, repository: str, revision: str) -> Listing:
        """Files of a revision with sizes and hashes.

        Raises:
            ValueError: no such repository or revision, no permission, no answer.
        """
        url = f"{self.endpoint}/api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true"
        try:
            with self._open(url) as answer:
                values = json.load(answer)
            files = {item["rfilename"]: _hub_file(item) for item in values["siblings"]}
            return Listing(repository, str(values["sha"]), files)
        except urllib.error.HTTPError as error:
            raise ValueError(_refusal(error.code, repository, revision, self.endpoint)) from None
        except (OSError, HTTPException, KeyError, ValueError) as error:
            raise ValueError(f"{self.endpoint} does not list {repository}: {_reason(error)}") from None

    def download(
        self, listing: Listing, name: str, target: Path, *, report: Callable[[int], None] | None = None
    ) -> Path:
        """A file of a revision; what an interrupted call has left beside `target` is gone on with.

        Args:
            listing: of the revision.
            name: of the file.
            target: appears once it is whole and its hash is the stated one.
            report: called with the number of bytes there so far.

        Raises:
            ValueError: the hub gives up the connection again and again, or other bytes than it states.
        """
        file, part = listing.files[name], target.with_name(target.name + ".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        url = f"{self.endpoint}/{listing.repository}/resolve/{listing.commit}/{quote(name)}"
        for attempt in range(ATTEMPTS):
            try:
                self._append(url, part, size=file.size, report=report)
                break
            except (OSError, HTTPException) as error:
                if attempt + 1 == ATTEMPTS or _is_final(error):
                    raise ValueError(f"{url} cannot be fetched: {_reason(error)}; run it again") from None
                logger.warning("%s: %s, trying again", name, _reason(error))
                time.sleep(PAUSE_S * 2**attempt)
        if not matches(part, file):
            part.unlink()
            raise ValueError(
                f"{url} has another hash than the hub states ({file.digest[:12]}): "
                f"it was removed, run it again"
            )
        part.replace(target)
        return target

    def _append(self, url: str, part: Path, *, size: int, report: Callable[[int], None] | None) -> None:
        there = part.stat().st_size if part.exists() else 0
        if there > size:
            part.unlink()
            there = 0
        if there == size and part.exists():
            return
        with self._open(url, start=there) as answer, part.open("ab") as file:
            if there and answer.status != 206:  # a server that knows no ranges sends all of it
                file.truncate(0)
                there = 0
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                there += len(chunk)
                if report:
                    report(there)
        if there < size:
            raise ConnectionError(f"the connection ended after {there} of {size} bytes")

    def _open(self, url: str, *, start: int = 0) -> Any:
        headers = {"User-Agent": "uniemo_ray", "Accept-Encoding": "identity"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if start:
            headers["Range"] = f"bytes={start}-"
        return self._opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)


def matches(path: Path, file: HubFile) -> bool:
    """Whether a local file has the stated size and hash."""
    if path.stat().st_size != file.size:
        return False
    return (file_sha256(path) if file.is_sha256 else git_sha1_of(path)) == file.digest


def git_sha1_of(path: Path) -> str:
    """Git's name of a file's content."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follows redirects, without the token where they lead to another host."""

    @override
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if new is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            new.remove_header("Authorization")
        return new


def _hub_file(item: dict[str, Any]) -> HubFile:
    large = item.get("lfs")
    if large:
        return HubFile(str(item["rfilename"]), int(large["size"]), str(large["sha256"]), True)
    return HubFile(str(item["rfilename"]), int(item["size"]), str(item["blobId"]), False)


def _is_final(error: Exception) -> bool:
    return isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500 and error.code != 429


def _refusal(status: int, repository: str, revision: str, endpoint: str) -> str:
    if status in (401, 403):
        return (
            f"{endpoint} wants a token with access to {repository}: accept its licence there and set HF_TOKEN"
        )
    if status == 404:
        return f"{endpoint} has no {repository} at revision {revision}"
    return f"{endpoint} answered {status} for {repository}: try again later"


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "reason", None) or error).split())
