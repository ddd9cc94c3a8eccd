"""Calls to addresses that a person gave: by https, to public addresses alone, and to the very address that was looked at.

An address is dangerous because of where it leads: to the database beside us, to a cloud's metadata, to a router. So

1. the URL is read strictly (`read_address`): https, no sign-in in it, no number that is an address in disguise;
2. its name is resolved once, and refused if any answer is not public; the connection goes to the address that was looked at,
   while TLS still checks the name: a name that changes its answer in between (DNS rebinding) changes nothing;
3. no redirect is followed, no proxy of the environment used; the answer has a largest size and a last moment.

The operator names exceptions as `host:port` (`PREFERABLE_ALLOWED_HOSTS`): such a host may be private and may be called by http.
There is no way to name all, and nothing that switches this off.
"""

import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import httpcore

from app.errors import AppError, StartupError
from app.settings import Settings

LONGEST_URL = 500
CONNECT_SECONDS = 10.0

_NUMERIC_END = re.compile(r"(^|\.)(0x[0-9a-f]*|[0-9]+)\.?$", re.IGNORECASE)
"""A host whose last part is a number is an address to some part of every system, whatever the others make of it."""

_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*", re.IGNORECASE)

_CARRYING_IPV4 = {
    ipaddress.ip_network("::/96"): 0,
    ipaddress.ip_network("::ffff:0:0:0/96"): 0,
    ipaddress.ip_network("64:ff9b::/96"): 0,
    ipaddress.ip_network("64:ff9b:1::/48"): 0,
    ipaddress.ip_network("2002::/16"): 80,
}
"""IPv6 addresses that lead to the IPv4 address inside (compatible, translated, NAT64, 6to4), so many bits from their end."""

_PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
"""All that is given out for the public; whatever else exists is of one machine, one network, or no one's."""

_SPECIAL_IPV6 = [
    ipaddress.ip_network(net) for net in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16")
]
"""Within it, what leads elsewhere: Teredo and other protocols, documentation, 6to4, segment routing."""

Resolve = Callable[[str, int], Sequence[str]]
"""(host, port) -> its addresses as text. Raises OSError."""

Connect = Callable[[str, int, float], httpcore.NetworkStream]
"""(address, port, timeout_seconds) -> an open connection."""


class FetchError(AppError):
    """The call was refused or came to nothing; the sentence says which and why."""

    status = 502


class AddressRefused(FetchError):
    """The address may not be called."""

    status = 422


class Unanswered(FetchError):
    """Nothing usable came back: no connection, no answer in time, one that is too large. Another try may help."""


class TimedOut(Unanswered):
    """No whole answer came in time; the other side may have done its work all the same."""


@dataclass(frozen=True)
class Address:
    """A URL that may be looked up."""

    scheme: str
    host: str
    port: int
    path: str
    """With the query."""
    is_named: bool
    """Whether the operator allowed this host and port by name."""

    @property
    def url(self) -> str:
        """As it is asked for."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


@dataclass(frozen=True)
class Reply:
    """An answer, whatever its status. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Limits:
    """What one call may take."""

    seconds: float = 60.0
    """From the look-up to the last byte."""
    body_bytes: int = 4 * 1024**2


def read_allowed(text: str) -> frozenset[tuple[str, int]]:
    """`host:port` pairs between commas. Raises ValueError for anything else, above all for patterns."""
    found = set()
    for part in filter(None, (each.strip() for each in text.split(","))):
        host, colon, port = part.rpartition(":")
        host = host.removeprefix("[").removesuffix("]").lower()
        if not colon or not port.isdigit() or not 0 < int(port) < 65536 or not (_HOST.fullmatch(host) or ":" in host):
            raise ValueError(f"{part!r} is not host:port; expected names as models.internal:8000, with commas between")
        found.add((host, int(port)))
    return frozenset(found)


@lru_cache
def allowed_hosts(settings: Settings) -> frozenset[tuple[str, int]]:
    """Hosts and ports that the operator named. Raises StartupError where the setting names no such thing."""
    try:
        return read_allowed(settings.allowed_hosts)
    except ValueError as error:
        raise StartupError(f"PREFERABLE_ALLOWED_HOSTS: {error}.") from None


def read_address(url: str, allowed: Iterable[tuple[str, int]] = ()) -> Address:
    """A URL as far as it can be judged without looking anything up. Raises AddressRefused."""
    if len(url) > LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise AddressRefused(f"The address has more than {LONGEST_URL} characters, or some that belong in none.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise AddressRefused(f"{url[:80]!r} is no address; expected https://host/path.") from None
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower().removesuffix(".")
    if scheme not in ("http", "https") or not host:
        raise AddressRefused(f"{url[:80]!r} is no address of the web; expected https://host/path.")
    if "@" in parts.netloc or parts.fragment:
        raise AddressRefused("The address holds a user name, a password or a #part; leave it out.")
    port = port if port is not None else (443 if scheme == "https" else 80)
    if port == 0:
        raise AddressRefused("Port 0 is none; leave the port out, or name the right one.")
    _check_host(host)
    is_named = (host, port) in frozenset(allowed)
    if scheme == "http" and not is_named:
        raise AddressRefused(
            f"{host} would be called by plain http, where anybody on the way reads along; use https. For a host inside your own "
            f"network, name {host}:{port} in PREFERABLE_ALLOWED_HOSTS."
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address(scheme, host, port, path, is_named)


def _check_host(host: str) -> None:
    if _strict_ip(host) is not None:
        return
    if _NUMERIC_END.search(host):
        raise AddressRefused(f"{host!r} is a number; write an address as four numbers with points, or use a name.")
    if len(host) > 253 or not _HOST.fullmatch(host) or any(len(label) > 63 for label in host.split(".")):
        raise AddressRefused(f"{host[:80]!r} is no name of a host.")


def check_ip(text: str, *, is_named: bool = False) -> str:
    """An address that may be connected to, in its normal form. Raises AddressRefused.

    A host that the operator named may be private; what reaches no single machine, and link-local addresses, where clouds keep
    their keys, are refused even so.
    """
    ip = _strict_ip(text)
    if ip is None:
        raise AddressRefused(f"{text[:60]!r} is no address of a host.")
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    for each in (ip, *_carried(ip)):
        if each.is_link_local or each.is_multicast or each.is_unspecified:
            raise AddressRefused(f"{ip} is an address that nothing outside may be reached by.")
    if not is_named and not _is_public(ip):
        raise AddressRefused(
            f"{ip} is not a public address. A host inside your own network is named, with its port, in PREFERABLE_ALLOWED_HOSTS."
        )
    return str(ip)


def _carried(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 address that an IPv6 address leads to, if it does; `::1` is no such."""
    if isinstance(ip, ipaddress.IPv4Address) or ip.is_loopback:
        return []
    return [
        ipaddress.IPv4Address((int(ip) >> shift) & 0xFFFFFFFF) for net, shift in _CARRYING_IPV4.items() if ip in net
    ]


def _is_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global
    return ip in _PUBLIC_IPV6 and ip.is_global and not any(ip in net for net in _SPECIAL_IPV6)


def _strict_ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text) if "%" not in text else None
    except ValueError:
        return None


def resolve(host: str, port: int) -> list[str]:
    """Addresses of a name by the system's resolver, which may take as long as it likes. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[4][0]) for place in found))


def connect(address: str, port: int, timeout: float) -> httpcore.NetworkStream:
    """A connection to an address that was checked."""
    return httpcore.SyncBackend().connect_tcp(address, port, timeout=timeout)


class _Guarded(httpcore.NetworkBackend):
    """Resolves, checks and connects: the one place from which a call leaves."""

    def __init__(self, address: Address, deadline: float, find: Resolve, link: Connect) -> None:
        self._address, self._deadline, self._find, self._link = address, deadline, find, link

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """To the first of the host's addresses, all of which must be fit to be called."""
        if (host, port) != (self._address.host, self._address.port):
            raise AddressRefused(f"The call was led to {host}:{port}, which nobody asked for.")
        try:
            found = _within(self._deadline, lambda: self._find(host, port))
        except httpcore.TimeoutException:
            raise Unanswered(f"{host} was not found in time: the look-up of its name gave no answer.") from None
        except (OSError, UnicodeError) as error:
            raise Unanswered(
                f"{host} is not found ({getattr(error, 'strerror', None) or error}). Is its name spelled rightly?"
            ) from error
        checked = [check_ip(ip, is_named=self._address.is_named) for ip in found]
        if not checked:
            raise Unanswered(f"{host} has no address.")
        seconds = min(CONNECT_SECONDS, _left(self._deadline))
        return _Timed(self._link(checked[0], port, seconds), self._deadline)

    def sleep(self, seconds: float) -> None:
        """Between tries to connect, of which there is one."""
        time.sleep(min(seconds, _left(self._deadline)))


class _Timed(httpcore.NetworkStream):
    """A connection every wait of which ends with the call's last moment, however often a byte trickles in."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Some bytes."""
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All bytes."""
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        """End it."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same, encrypted; the certificate must be of the name that was asked for."""
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline)), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """What the connection knows of itself."""
        return self._stream.get_extra_info(info)


def call(
    method: str,
    address: Address,
    *,
    headers: Mapping[str, str] | None = None,
    content: bytes = b"",
    limits: Limits | None = None,
    find: Resolve = resolve,
    link: Connect = connect,
) -> Reply:
    """Ask an address once. Raises AddressRefused, or Unanswered where nothing usable came back.

    A redirect is no answer: where it leads, nobody has looked. `find` and `link` are the resolver and the way to connect.
    """
    limits = limits or Limits()
    deadline = time.monotonic() + limits.seconds
    backend = _Guarded(address, deadline, find, link)
    sent = {"User-Agent": "preferable", "Accept-Encoding": "identity", "Connection": "close", **(headers or {})}
    try:
        with (
            httpcore.ConnectionPool(ssl_context=_trusted(), max_connections=1, network_backend=backend) as pool,
            pool.stream(method, address.url, headers=list(sent.items()), content=content) as response,
        ):
            found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            _check_answer(address, response.status, found)
            return Reply(response.status, found, _read(address, response, limits))
    except httpcore.TimeoutException:
        raise TimedOut(f"{address.host} gave no whole answer within {limits.seconds:g} seconds.") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError, OSError) as error:
        said = str(error).strip() or type(error).__name__
        raise Unanswered(f"{address.host} cannot be called: {said[:200]}.") from error


def _check_answer(address: Address, status: int, headers: Mapping[str, str]) -> None:
    if 300 <= status < 400:
        raise AddressRefused(f"{address.host} redirects elsewhere ({status}); give the address that answers itself.")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Unanswered(f"{address.host} answers compressed, though it was asked not to.")


def _read(address: Address, response: httpcore.Response, limits: Limits) -> bytes:
    body = bytearray()
    for part in response.iter_stream():
        body += part
        if len(body) > limits.body_bytes:
            raise Unanswered(f"{address.host} answers with more than {limits.body_bytes:,} bytes.")
    return bytes(body)


def _within(deadline: float, find: Callable[[], Sequence[str]]) -> Sequence[str]:
    """What `find` gives or raises, if it does so before the deadline; it is left to itself after. Raises httpcore.ReadTimeout."""
    came: queue.SimpleQueue[Sequence[str] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            came.put(find())
        except Exception as error:  # raised again where it is waited for
            came.put(error)

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    try:
        found = came.get(timeout=_left(deadline))
    except queue.Empty:
        raise httpcore.ReadTimeout("the look-up's time is over") from None
    if isinstance(found, Exception):
        raise found
    return found


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the call's time is over")
    return left


@lru_cache
def _trusted() -> ssl.SSLContext:
    """Certificates by the authorities that certifi lists, as for every other client of ours."""
    import httpx

    return httpx.create_ssl_context(trust_env=False)
