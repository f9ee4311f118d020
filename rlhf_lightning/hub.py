"""Models of the Hugging Face hub, also where no way leads to it: its cache is used, and the rest refused at once."""

from __future__ import annotations

import os
import socket
import sys
from functools import cache
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies, proxy_bypass

from rlhf_lightning.errors import UserError

TIMEOUT = 3.0
"""Seconds that the hub has to answer a call before it counts as out of reach."""


def find(name: str, revision: str | None = None) -> None:
    """See that a model is a folder, or may be had from the hub or its cache; without a way to the hub nothing is asked
    of it any more in this process.

    Args:
        name: a folder or hub name.
        revision: branch, tag or commit on the hub.

    Raises:
        UserError: for a folder that isn't there, or a hub name that isn't in the cache and can't be looked up.
    """
    folder = Path(name).expanduser()
    if folder.exists():
        return
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"cannot load the model {name!r}: there is no such folder. Give a model folder or a hub name.")
    told_offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if not told_offline and reachable():
        return
    if not _cached(name, revision):
        why = "HF_HUB_OFFLINE is set" if told_offline else f"there is no way to {_host()} from here"
        raise UserError(
            f"cannot load the model {name!r}: there is no such folder here, it is not in the hub's cache "
            f"({_cache_folder()}), and {why}. Check the name; give the model's folder instead; or fetch it where there "
            f"is a connection (hf download {name}) and bring the cache along."
        )
    _stay_offline()


def _stay_offline() -> None:
    """Let the hub's client look into its cache alone: it would otherwise try, and try again, for most of a minute."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:  # it has read the variable already
        vars(constants)["HF_HUB_OFFLINE"] = True


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def _host() -> str:
    return urlparse(_endpoint()).hostname or "huggingface.co"


def _way() -> str:
    """What is to be connected to: the proxy that the environment names for the hub, else the hub."""
    proxies = {} if proxy_bypass(_host()) else getproxies()
    proxy = proxies.get(urlparse(_endpoint()).scheme) or proxies.get("all")
    if not proxy:
        return _endpoint()
    return proxy if "://" in proxy else f"http://{proxy}"


@cache
def reachable() -> bool:
    """Whether the hub answers, or the proxy that leads to it; asked once a process."""
    way = urlparse(_way())
    try:
        port = way.port or {"http": 80, "https": 443}.get(way.scheme, 1080)  # else a SOCKS proxy
        socket.create_connection((way.hostname or "", port), TIMEOUT).close()
    except (OSError, ValueError):  # a port that is none, a name that can't be one
        return False
    return True


def _cache_folder() -> Path:
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub")).expanduser()


def _cached(name: str, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", cache_dir=_cache_folder(), revision=revision)
    except HFValidationError:
        return False
    return isinstance(found, str)
