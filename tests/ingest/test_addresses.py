import re
import socket

import pytest

from capstan.ingest.http.addresses import (
    Address,
    DefaultResolver,
    ForbiddenAddressError,
    PublicResolver,
    is_public,
    open_public_socket,
)

PRIVATE = re.findall(
    r"\S+",
    """
    0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1
    192.0.0.1 192.0.2.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 240.0.0.1
    255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1
    64:ff9b:1::1 100::1 2001::1 2001:db8::1 2002:7f00:1:: fc00::1 fd00::1 fe80::1 fe80::1%eth0
    fec0::1 ff02::1
    """,
)
PUBLIC = ["1.1.1.1", "8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700:4700::1111"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


class Names:
    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(self, host: str) -> list[Address]:
        return [Address(socket.AF_INET, address) for address in self.addresses]

    async def close(self) -> None:
        pass


async def test_a_name_resolves_to_its_public_addresses_only() -> None:
    resolver = PublicResolver(Names("10.0.0.1", "8.8.8.8", "::1"))
    assert [address.text for address in await resolver.resolve("h")] == ["8.8.8.8"]
    with pytest.raises(ForbiddenAddressError, match="h has no public address"):
        await PublicResolver(Names("127.0.0.1")).resolve("h")


def test_a_socket_is_opened_for_a_public_address_only() -> None:
    stream = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
    open_public_socket((*stream, ("8.8.8.8", 80))).close()
    with pytest.raises(ForbiddenAddressError):
        open_public_socket((*stream, ("127.0.0.1", 80)))


async def test_names_are_looked_up() -> None:
    resolver = DefaultResolver()
    found = await resolver.resolve("localhost")
    assert {address.text for address in found} <= {"127.0.0.1", "::1"}
    assert found
    with pytest.raises(OSError, match=r"a\.\.test"):
        await resolver.resolve("a..test")
    await resolver.close()
