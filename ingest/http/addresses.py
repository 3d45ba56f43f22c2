"""Which addresses may be connected to: public ones, unless private ones are asked for.

A resolver is asked for names only; an address written into a URL goes past it. So both are
checked: the resolver's answers and every address before it is connected to.
"""

import socket
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple, Protocol

import aiodns
from aiohappyeyeballs import AddrInfoType

GLOBAL_UNICAST = IPv6Network("2000::/3")  # all that has ever been given out
TRANSLATED = IPv6Network("64:ff9b::/96")  # an IPv4 address behind NAT64


class ForbiddenAddressError(OSError):
    """The address is not a public one."""


def is_public(address: str) -> bool:
    """Whether a numeric address is one of the public internet."""
    ip = _unwrap(ip_address(address))
    if isinstance(ip, IPv6Address):
        embedded = ip.sixtofour or (ip.teredo or (None, None))[1]
        return ip in GLOBAL_UNICAST and ip.is_global and embedded is None
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _unwrap(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if not isinstance(ip, IPv6Address):
        return ip
    if ip in TRANSLATED:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.ipv4_mapped or ip


class Address(NamedTuple):
    """Where a host is."""

    family: int
    text: str


class Resolver(Protocol):
    """Looks names up."""

    async def resolve(self, host: str) -> list[Address]:
        """Addresses of a host; raises OSError when there are none."""

    async def close(self) -> None:
        """Give up what is being looked up."""


class DefaultResolver:
    """Looks names up by c-ares: the system's own look-ups each take a thread."""

    @cached_property
    def _resolver(self) -> aiodns.DNSResolver:
        return aiodns.DNSResolver()

    async def resolve(self, host: str) -> list[Address]:
        """Look a name up; raises OSError when it has no address."""
        try:
            found = await self._resolver.getaddrinfo(
                host, socket.AF_UNSPEC, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
        except aiodns.error.DNSError as error:
            raise OSError(f"{host}: {error}") from error
        return [Address(node.family, _text(*node.addr)) for node in found.nodes]

    async def close(self) -> None:
        """Give up what is being looked up."""
        if "_resolver" in vars(self):
            await self._resolver.close()


def _text(address: bytes, port: int, flow: int = 0, scope: int = 0) -> str:
    return address.decode("ascii") + (f"%{scope}" if scope else "")


class PublicResolver:
    """Resolves names to their public addresses only."""

    def __init__(self, resolver: Resolver | None = None) -> None:
        self._resolver = resolver or DefaultResolver()

    async def resolve(self, host: str) -> list[Address]:
        """Look a name up; raises ForbiddenAddressError when all its addresses are private."""
        found = await self._resolver.resolve(host)
        public = [address for address in found if is_public(address.text)]
        if found and not public:
            raise ForbiddenAddressError(f"{host} has no public address")
        return public

    async def close(self) -> None:
        """Close the resolver that does the work."""
        await self._resolver.close()


def open_resolver(public: bool) -> Resolver:
    """What looks names up, private ones too unless only `public` ones are to be found."""
    return PublicResolver() if public else DefaultResolver()


def check_public(address: str) -> None:
    """Raise ForbiddenAddressError for a numeric address that is not public."""
    if not is_public(address):
        raise ForbiddenAddressError(f"{address} is not a public address")


def open_public_socket(address: AddrInfoType) -> socket.socket:
    """A socket to connect with; raises ForbiddenAddressError as `check_public` does."""
    family, kind, protocol, _, target = address
    check_public(str(target[0]))
    return socket.socket(family, kind, protocol)
