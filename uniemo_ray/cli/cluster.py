"""A Ray cluster as the command line needs it: where it is, the token, and its Jobs API over plain HTTP."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from uniemo_ray.addresses import LOCAL_HOSTS, home_folder, without_proxy

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
HEAD_STATES = ".ray-head/*/state.json"
TIMEOUT_S = 15.0


class ClusterError(ValueError):
    """No usable cluster, in one line."""


@dataclass(frozen=True)
class Cluster:
    """Address of a Jobs API and how to authenticate there."""

    address: str
    """`http://host:port` of the dashboard."""
    token: str | None
    """None where authentication is switched off."""

    def environment(self) -> dict[str, str]:
        """Variables that make Ray's own clients use this cluster."""
        settings = {"RAY_API_SERVER_ADDRESS": self.address}
        if _is_local(self.address):
            settings |= without_proxy(os.environ)
        if self.token is None:
            return settings | {"RAY_AUTH_MODE": "disabled"}
        return settings | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def get(self, path: str) -> Any:
        """JSON of a GET request.

        Raises:
            ClusterError: nothing answers at the address, or it refuses the token.
        """
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(self.address + path, headers=headers)
        try:
            with _opener(self.address).open(request, timeout=TIMEOUT_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ClusterError(self._refusal(error.code)) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            proxy = _proxy_of(self.address)
            asked = (
                f"; the proxy {proxy} was asked, NO_PROXY names hosts that are reached without"
                if proxy
                else ""
            )
            raise ClusterError(
                f"no Ray head answers at {self.address} ({reason}{asked}): start one with "
                "`uniemo head start`, or give --address"
            ) from None

    def _refusal(self, status: int) -> str:
        if status == 401:
            return (
                f"the Ray head at {self.address} wants a token and got none: "
                "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
            )
        if status == 403:
            return (
                f"the Ray head at {self.address} refuses the token: "
                "check RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
            )
        return f"{self.address} answered with HTTP status {status}: is this a Ray dashboard?"


def find_cluster(address: str | None, *, folder: Path, environ: Mapping[str, str]) -> Cluster:
    """The cluster that the user means.

    The address is the given one, else RAY_API_SERVER_ADDRESS or RAY_ADDRESS, else the one local head that
    was started from `folder`, else Ray's default. The token is what Ray's own clients would take
    (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token), unless RAY_AUTH_MODE is `disabled`.

    Raises:
        ClusterError: the address is no URL, or the token file cannot be read.
    """
    named = address or environ.get("RAY_API_SERVER_ADDRESS") or environ.get("RAY_ADDRESS")
    if named and named != "auto":
        return Cluster(_check_address(named), _find_token(environ))
    local = _local_head(folder)
    return local if local is not None else Cluster(DEFAULT_ADDRESS, _find_token(environ))


def _check_address(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClusterError(
            f"the address (--address, RAY_API_SERVER_ADDRESS or RAY_ADDRESS) must be the dashboard's, "
            f"as in {DEFAULT_ADDRESS}; got {address!r}"
        )
    return address.rstrip("/")


def _local_head(folder: Path) -> Cluster | None:
    states = sorted(folder.glob(HEAD_STATES))
    if not states:
        return None
    if len(states) > 1:
        names = ", ".join(str(path.parent) for path in states)
        raise ClusterError(f"several local Ray heads are recorded ({names}): give --address")
    state = json.loads(states[0].read_text(encoding="utf-8"))
    return Cluster(state["address"], _read_token(Path(state["token_path"])))


def _find_token(environ: Mapping[str, str]) -> str | None:
    if environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return None
    if token := environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    if path := environ.get("RAY_AUTH_TOKEN_PATH"):
        return _read_token(Path(path))
    home = home_folder()
    default = home / ".ray" / "auth_token" if home else None
    return _read_token(default) if default and default.is_file() else None


def _read_token(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ClusterError(f"cannot read the token file {path}: {error.strerror}") from None


def _opener(address: str) -> urllib.request.OpenerDirector:
    """Proxies are for the outside: a head on this machine is asked directly."""
    no_proxy = [urllib.request.ProxyHandler({})] if _is_local(address) else []
    return urllib.request.build_opener(*no_proxy)


def _proxy_of(address: str) -> str | None:
    """The proxy that the environment names for an address."""
    parts = urlsplit(address)
    if _is_local(address) or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _is_local(address: str) -> bool:
    return urlsplit(address).hostname in LOCAL_HOSTS
