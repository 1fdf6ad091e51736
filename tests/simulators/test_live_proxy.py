"""The proxy between devices and servers, each fault over real sockets."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from edgeloop_simulators.errors import SimulatorError
from edgeloop_simulators.live.proxy import HOST, WINDOW_BYTES, Link, LinkProxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]
Story = Callable[[LinkProxy, Connect, list[bytes]], Awaitable[None]]

PATIENCE_S = 10.0


def played(story: Story, link: Link | None = None) -> None:
    """Plays `story` on a proxy before a server that echoes, and keeps what reached it."""

    async def play() -> None:
        reached: list[bytes] = []

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while chunk := await reader.read(65536):
                reached.append(chunk)
                writer.write(chunk)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, HOST, 0)
        proxy = LinkProxy(HOST, server.sockets[0].getsockname()[1], link)
        port = await proxy.start()
        try:
            async with asyncio.timeout(60):
                await story(proxy, lambda: asyncio.open_connection(HOST, port), reached)
        finally:
            await proxy.close()
            server.close()
        assert proxy.connections == 0

    asyncio.run(play())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def test_bytes_pass_whole_in_order_and_an_end_is_an_end() -> None:
    async def story(_proxy: LinkProxy, connect: Connect, _: object) -> None:
        reader, writer = await connect()
        sent = bytes(range(256)) * 8192
        writer.write(sent)
        writer.write_eof()
        assert await reader.read(-1) == sent
        writer.close()

    played(story)
    played(story, Link(latency_s=0.01))


def test_latency_is_added_each_way() -> None:
    async def story(_proxy: LinkProxy, connect: Connect, _: object) -> None:
        reader, writer = await connect()
        began = asyncio.get_running_loop().time()
        writer.write(b"x")
        await reader.readexactly(1)
        assert asyncio.get_running_loop().time() - began >= 0.2
        writer.close()

    played(story, Link(latency_s=0.1))


def test_bandwidth_bounds_what_passes() -> None:
    async def story(_proxy: LinkProxy, connect: Connect, _: object) -> None:
        reader, writer = await connect()
        began = asyncio.get_running_loop().time()
        writer.write(b"x" * 50_000)
        await reader.readexactly(50_000)
        assert asyncio.get_running_loop().time() - began >= 0.5
        writer.close()

    played(story, Link(bandwidth_bytes_per_s=100_000))


def test_a_stalled_link_holds_what_was_sent_until_it_moves_again() -> None:
    async def story(proxy: LinkProxy, connect: Connect, reached: list[bytes]) -> None:
        reader, writer = await connect()
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        proxy.become(Link(stalled=True))
        writer.write(b"during")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.2)
        assert b"".join(reached) == b"before"
        proxy.become(Link())
        assert await reader.readexactly(6) == b"during"
        writer.close()

    played(story)


def test_a_stalled_link_pushes_back_instead_of_filling_memory() -> None:
    async def story(proxy: LinkProxy, connect: Connect, reached: list[bytes]) -> None:
        _, writer = await connect()
        writer.transport.set_write_buffer_limits(high=0)

        async def flood() -> None:
            for _ in range(1000):
                writer.write(b"x" * WINDOW_BYTES)
                await asyncio.wait_for(writer.drain(), 1.0)

        with pytest.raises(TimeoutError):
            await flood()
        assert not reached
        writer.transport.abort()
        proxy.reset()

    played(story, Link(stalled=True))


def test_a_partition_reaches_nobody_and_heals() -> None:
    async def story(proxy: LinkProxy, connect: Connect, reached: list[bytes]) -> None:
        proxy.become(Link(partitioned=True))
        reader, writer = await connect()
        writer.write(b"hello")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        assert not reached
        proxy.become(Link())
        assert await reader.readexactly(5) == b"hello"
        writer.close()

    played(story)


def test_a_reset_cuts_those_that_are_there_and_no_later_ones() -> None:
    async def story(proxy: LinkProxy, connect: Connect, _: object) -> None:
        reader, writer = await connect()
        writer.write(b"x")
        await reader.readexactly(1)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        await until(lambda: proxy.connections == 0)
        reader, writer = await connect()
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"
        writer.close()

    played(story)


def test_a_target_that_is_away_ends_the_connection(free_port: Callable[[], int]) -> None:
    async def play() -> None:
        proxy = LinkProxy(HOST, free_port())
        reader, writer = await asyncio.open_connection(HOST, await proxy.start())
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.readexactly(1), PATIENCE_S)
        writer.close()
        await proxy.close()

    asyncio.run(play())


def test_impossible_links_are_refused_in_words() -> None:
    with pytest.raises(SimulatorError, match="use stalled"):
        Link(bandwidth_bytes_per_s=0)
    with pytest.raises(SimulatorError, match="0 or more"):
        Link(latency_s=-1)
