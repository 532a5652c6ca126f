"""Where the server is and who is asking: the settings of a client, checked once."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Generator

import httpx

from provara._visible import visible_line
from provara.errors import ConfigurationError

DEFAULT_BASE = "http://127.0.0.1:8787"


class Address:
    """A server's address and a token for it. Its repr does not tell the token."""

    def __init__(self, base_url: str | None, token: str | None, *, allow_insecure: bool) -> None:
        given = base_url if base_url is not None else os.environ.get("AGENT_HUB_BASE") or DEFAULT_BASE
        self.base, self.is_https = _checked_base(given, allow_insecure=allow_insecure)
        self.auth = TokenAuth(token if token is not None else os.environ.get("AGENT_HUB_TOKEN", ""))

    def __repr__(self) -> str:
        return repr(self.base)


class TokenAuth(httpx.Auth):
    """Lends the token to a request while it is sent; what errors keep of the request afterwards has none."""

    HEADER = "X-Agent-Token"

    def __init__(self, token: str) -> None:
        token = token.strip()
        # A header's value that cannot be sent would stand in the error about it.
        if not all("!" <= char <= "~" for char in token):
            raise ConfigurationError("the token has characters that no token has; copy it again, without quotes")
        self.__token = token

    def __repr__(self) -> str:
        return "TokenAuth(…)" if self.__token else "TokenAuth()"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self.__token:
            request.headers[self.HEADER] = self.__token
        try:
            yield request
        finally:
            request.headers.pop(self.HEADER, None)


def _checked_base(given: str, *, allow_insecure: bool) -> tuple[str, bool]:
    # The text itself may hold a password, so the messages do not repeat it.
    wanted = "set base_url or AGENT_HUB_BASE to something like `http://127.0.0.1:8787`"
    try:
        url = httpx.URL(given.strip().rstrip("/"))
    except (httpx.InvalidURL, ValueError):
        raise ConfigurationError(f"the server's address is no URL; {wanted}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError(f"the server's address is no http or https URL; {wanted}")
    if url.userinfo or url.query or url.fragment:
        raise ConfigurationError(f"the server's address has more than host, port and path; {wanted}")
    if url.scheme == "http" and not allow_insecure and not _is_loopback(url.host):
        raise ConfigurationError(
            f"plain http would show the token to everybody between here and `{visible_line(url.host)}`; "
            "use https, or allow_insecure=True where something else protects the way"
        )
    return str(url), url.scheme == "https"


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
