"""A hundred devices with certificates on a real broker, and what each tries with each other."""

import asyncio
import itertools
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mqtt_wire import Client

from edgeloop_controller.broker_files.names import CONTROLLER
from edgeloop_controller.ca.authority import Authority, key_pem, new_key
from edgeloop_controller.core.enrolment import DeviceKey

DEVICES: Final = 100
MOSQUITTO: Final = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
NATS: Final = str(Path(sys.executable).parent / "nats-server")


def device(number: int) -> str:
    return f"dev{number:03d}"


class Started:
    """A broker of one test."""

    def __init__(
        self, command: list[str], log: Path, port: int, wait_until: Callable[..., None]
    ) -> None:
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file)

        def listens() -> bool:
            assert self.process.poll() is None, log.read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listens)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Fleet:
    """Certificates of all, and how to connect by one."""

    directory: Path
    authority: Authority
    port: int
    contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)
    keys: list[DeviceKey] = field(default_factory=list)
    """Those that were made, for a broker that is to know them."""

    def issue(self, name: str) -> tuple[Path, str]:
        """(file of key and certificate, serial)"""
        key, now = new_key(), time.time()
        issued = self.authority.issue_client(name, key.public_key(), now - 300, now + 3600)
        path = self.directory / f"{name}-{issued.serial[:8]}.pem"
        path.write_bytes(key_pem(key) + issued.chain_pem.encode())
        self.keys.append(DeviceKey(name, issued.key))
        return path, issued.serial

    def context(self, name: str) -> ssl.SSLContext:
        if name not in self.contexts:
            self.contexts[name] = self.context_of(self.issue(name)[0])
        return self.contexts[name]

    def context_of(self, path: Path | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.trusted_pem)
        if path is not None:
            context.load_cert_chain(path)
        return context

    async def connect(self, name: str, client_id: str | None = None, **more: object) -> Client:
        """By the certificate of `name`."""
        given = client_id or name.replace(".", "-")  # NATS takes no dots
        return await Client.connect(self.port, self.context(name), given, **more)  # type: ignore[arg-type]

    async def controller(self) -> Client:
        client = await self.connect(CONTROLLER)
        assert client.connack == 0
        return client

    async def all_devices(self) -> list[Client]:
        return list(await asyncio.gather(*(self.connect(device(n)) for n in range(DEVICES))))


async def quiet(clients: list[Client]) -> None:
    """Whatever the broker had to bring to them is there: it answers a ping after it, on the same
    connection; twice, for what one of them still had to be told."""
    for _ in range(2):
        asked = [(client, client.granted.count(-1) + 1) for client in clients if not client.ended]
        for client, _ in asked:
            client.ping()
        for client, pings in asked:
            await client.until(lambda c=client, n=pings: c.granted.count(-1) >= n or c.ended)  # type: ignore[misc]


async def nobody_reads_another(fleet: Fleet, qos: int) -> tuple[set[tuple[str, str]], int]:
    """Who got what was for whom: (reader, owner), when each subscribes to all of each other. And
    how many of the foreign subscriptions the broker granted."""
    controller = await fleet.controller()
    devices = await fleet.all_devices()
    for reader in devices:
        own = f"edgeloop/v1/{reader.name}/down/+"
        reader.subscribe(own, qos=qos)
    await quiet(devices)
    granted = [len([one for one in reader.granted if one in (0, 1)]) for reader in devices]
    assert granted == [1] * DEVICES, "each reads its own"
    wide = ("edgeloop/v1/+/down/+", "edgeloop/v1/+/up/+", "edgeloop/#", "+/#", "#", "$MQTT/sub/#")
    for reader in devices:
        others = [other.name for other in devices if other is not reader]
        for name in others:
            reader.subscribe(f"edgeloop/v1/{name}/down/+", f"edgeloop/v1/{name}/up/+", qos=qos)
        if not reader.ended:
            for one in wide:
                reader.subscribe(one, qos=qos)
    await quiet(devices)
    tried = sum(len([one for one in reader.granted if one in (0, 1)]) - 1 for reader in devices)
    alive = [await _again(fleet, one) for one in devices]
    # What the controller says to each, and what each says.
    for one in alive:
        controller.publish(f"edgeloop/v1/{one.name}/down/desired", one.name.encode(), qos=1)
        one.publish(f"edgeloop/v1/{one.name}/up/hello", one.name.encode(), qos=1)
    await controller.until(lambda: controller.acknowledged >= DEVICES)
    for one in alive:
        await one.until(lambda c=one: any(t.endswith("/down/desired") for t, _ in c.received))  # type: ignore[misc]
    await quiet([controller, *alive])
    got = {(one.name, payload.decode()) for one in alive for _, payload in one.received}
    for one in [controller, *alive]:
        await one.close()
    return got, tried


async def _again(fleet: Fleet, client: Client) -> Client:
    """A broker may end the connection of who asks for what is not theirs: they come back."""
    return await _back(fleet, client.name) if client.ended else client


async def nobody_writes_for_another(fleet: Fleet, qos: int) -> set[tuple[str, str, str]]:
    """Who reached whom by publishing to each of each other's topics: (writer, owner, direction), as
    the controller and all devices got it. For a broker that ends no connection for it."""
    controller = await fleet.controller()
    controller.subscribe("edgeloop/v1/+/up/+", "edgeloop/v1/+/down/+", "#", qos=1)
    devices = await fleet.all_devices()
    for one in devices:
        one.subscribe(f"edgeloop/v1/{one.name}/down/+", qos=1)
    await quiet([controller, *devices])
    for writer, owner in itertools.product(devices, devices):
        writer.publish(f"edgeloop/v1/{owner.name}/up/hello", writer.name.encode(), qos=qos)
        writer.publish(f"edgeloop/v1/{owner.name}/down/desired", writer.name.encode(), qos=qos)
    await quiet(devices)
    await quiet([controller, *devices])
    await controller.until(lambda: len({payload for _, payload in controller.received}) >= DEVICES)
    reached = set()
    for one in [controller, *devices]:
        for topic, payload in one.received:
            _, _, owner_name, direction, _ = topic.split("/")
            reached.add((payload.decode(), owner_name, direction))
    for one in [controller, *devices]:
        await one.close()
    return reached


@dataclass
class Intrusions:
    """What came of connecting under another's client id and writing to another's topic."""

    tries: int = 0
    thrown_out: set[tuple[str, str]] = field(default_factory=set)
    """(thief, victim) whose connection ended."""
    reached: set[tuple[str, str]] = field(default_factory=set)
    """(thief, topic) that the controller or the victim got."""


async def intrusions(fleet: Fleet, thieves: Iterable[int]) -> Intrusions:
    """Each thief against each other device: a connection for `up` and one for `down`, since a
    broker may end it at the first forbidden message. Who is thrown out comes back before the
    next thief."""
    controller = await fleet.controller()
    controller.subscribe("edgeloop/v1/+/up/+", qos=1)
    victims = [await _back(fleet, device(number)) for number in range(DEVICES)]
    await quiet([controller])
    came = Intrusions()
    for thief in map(device, thieves):

        async def intrude(victim: str, kind: str, by: str = thief) -> None:
            client = await fleet.connect(by, client_id=victim)
            client.publish(f"edgeloop/v1/{victim}/{kind}", by.encode(), qos=1)
            client.publish(f"edgeloop/v1/{by}/up/hello", b"own")
            client.ping()
            await client.until(lambda: client.ended or -1 in client.granted)
            await client.close()

        others = [one for one in victims if one.name != thief]
        for kind in ("up/hello", "down/desired"):
            await asyncio.gather(*(intrude(one.name, kind) for one in others))
            came.tries += len(others)
        await quiet([controller, *others])
        came.thrown_out |= {(thief, one.name) for one in others if one.ended}
        for client in [controller, *others]:
            foreign = [it for it in client.received if it[1] == thief.encode()]
            came.reached |= {(thief, topic) for topic, _ in foreign}
        victims = [await _back(fleet, one.name) if one.ended else one for one in victims]
    for client in [controller, *victims]:
        await client.close()
    return came


async def _back(fleet: Fleet, name: str) -> Client:
    client = await fleet.connect(name)
    client.subscribe(f"edgeloop/v1/{name}/down/+", qos=1)
    await quiet([client])
    return client


async def wills_for_others(fleet: Fleet) -> set[tuple[str, str]]:
    """(writer, owner) of last wills that came: each device leaves one for itself, and one for the
    next device."""
    controller = await fleet.controller()
    controller.subscribe("edgeloop/v1/+/up/+", "#", qos=1)
    await quiet([controller])
    owners = [(device(n), device(n + m)) for n in range(DEVICES - 1) for m in (1, 0)]
    for writer, owner in owners:
        will = (f"edgeloop/v1/{owner}/up/presence", f"{writer}>{owner}".encode())
        client = await fleet.connect(writer, will=will)
        client.drop()
    last = f"{device(DEVICES - 2)}>{device(DEVICES - 2)}".encode()
    await controller.until(lambda: any(payload == last for _, payload in controller.received))
    await quiet([controller])
    came = {tuple(payload.decode().split(">")) for _, payload in controller.received}
    await controller.close()
    return came  # type: ignore[return-value]
