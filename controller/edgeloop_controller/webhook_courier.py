"""Carries events to webhooks: one thread, one asyncio loop, a task a hook, over httpx.

Invariants: at most one attempt a hook is underway, in the order of the log; an attempt has one
total timeout, whatever drips; a dead or slow receiver holds up its own hook only; of an answer at
most ANSWER_READ_MAX_BYTES are read; redirects are not followed; what the database cannot settle now
is delivered again.
"""

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, Final, TypeVar

import httpx

from edgeloop_controller.config import WEBHOOKS_MAX, WebhookConfig
from edgeloop_controller.core.webhook_policy import WAIT_S_MAX, Verdict, verdict, wait_s
from edgeloop_controller.errors import RefusedInputError
from edgeloop_controller.services.cloud_events import LoggedEvent, Message, cloud_event, headers_of
from edgeloop_controller.services.failure_log import FailureLog
from edgeloop_controller.services.webhooks import Webhooks, read_secrets
from edgeloop_protocol.backoff import backoff_s
from edgeloop_protocol.clock import Clock

logger = logging.getLogger(__name__)

POLL_S: Final = 1.0
WAIT_S_MIN: Final = 1.0
ANSWER_READ_MAX_BYTES: Final = 512
STOP_S: Final = 5.0
DATABASE_THREADS: Final = 2

R = TypeVar("R")


@dataclass(frozen=True)
class Answer:
    """`status` None: there was none; `error` is empty after a success."""

    status: int | None
    error: str = ""
    retry_after: str = ""


class Courier:
    """`start` and `stop` once each; `wait_s_min` is for tests."""

    def __init__(
        self,
        webhooks: Webhooks,
        clock: Clock,
        poll_s: float = POLL_S,
        wait_s_min: float = WAIT_S_MIN,
    ) -> None:
        self._webhooks = webhooks
        self._clock = clock
        self._poll_s = poll_s
        self._wait_s_min = wait_s_min
        self._failures = FailureLog(logger)
        self._database = ThreadPoolExecutor(DATABASE_THREADS, "webhooks-database")
        self._loop = asyncio.new_event_loop()
        # Looking up a name may hang, and cannot be called off: one thread for each, and some over.
        self._loop.set_default_executor(ThreadPoolExecutor(2 * WEBHOOKS_MAX, "webhooks-names"))
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What is underway is broken off, and comes again after the next start."""
        self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join(STOP_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._tasks = [
            self._loop.create_task(self._carry(name, hook))
            for name, hook in self._webhooks.hooks.items()
        ]
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._database.shutdown(wait=False)
        self._loop.close()

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _carry(self, name: str, hook: WebhookConfig) -> None:
        limits = httpx.Limits(max_connections=1)
        agent = {"user-agent": f"edgeloop-controller/{version('edgeloop-controller')}"}
        run = _Run()
        while True:
            try:
                async with httpx.AsyncClient(
                    limits=limits, timeout=hook.timeout_s, headers=agent
                ) as http:
                    while True:
                        await self._carry_due(name, hook, http, run)
            except Exception:
                self._failures.failed(f"webhook {name}")
                await asyncio.sleep(self._poll_s)

    async def _carry_due(
        self, name: str, hook: WebhookConfig, http: httpx.AsyncClient, run: "_Run"
    ) -> None:
        due = await self._in_database(self._webhooks.due, name)
        attempts = due.attempts
        for event in due.events:
            await self._carry_one(name, hook, http, event, attempts, run)
            attempts = 0
        if not due.events:
            await asyncio.sleep(self._poll_s)

    async def _carry_one(
        self,
        name: str,
        hook: WebhookConfig,
        http: httpx.AsyncClient,
        event: LoggedEvent,
        attempts: int,
        run: "_Run",
    ) -> None:
        """Until it is settled."""
        message = cloud_event(event, self._webhooks.source)
        while True:
            answer = await self._attempt(hook, http, message)
            attempts += 1
            age_s = self._clock.wall() - event.at
            match verdict(answer.status, attempts, age_s, self._webhooks.bounds(name)):
                case Verdict.DELIVERED:
                    await self._in_database(self._webhooks.delivered, name, event)
                    self._failures.worked(f"webhook {name}")
                    run.failures = 0
                    return
                case Verdict.GIVEN_UP:
                    logger.error("webhook %s: gave up event %d: %s", name, event.id, answer.error)
                    await self._in_database(
                        self._webhooks.gave_up, name, event, attempts, answer.error
                    )
                    await self._rest(run, answer)
                    return
                case Verdict.AGAIN:
                    if run.failures == 0:
                        logger.warning("webhook %s: %s: trying again", name, answer.error)
                    await self._in_database(self._webhooks.failed, name, answer.error)
                    await self._rest(run, answer)

    async def _rest(self, run: "_Run", answer: Answer) -> None:
        run.failures += 1
        jittered_s = backoff_s(run.failures, random.random(), self._wait_s_min, WAIT_S_MAX)  # noqa: S311
        await asyncio.sleep(wait_s(jittered_s, answer.retry_after))

    async def _attempt(
        self, hook: WebhookConfig, http: httpx.AsyncClient, message: Message
    ) -> Answer:
        try:
            secrets = read_secrets(hook.secret_file)
            headers = headers_of(message, secrets, self._clock.wall())
            async with (
                asyncio.timeout(hook.timeout_s),
                http.stream("POST", hook.url, content=message.body, headers=headers) as response,
            ):
                return await _answer(response)
        except (TimeoutError, httpx.TimeoutException):
            return Answer(None, f"no answer within {hook.timeout_s:g} s")
        except RefusedInputError as error:
            return Answer(None, str(error))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return Answer(None, f"{type(error).__name__}: {error}" if str(error) else repr(error))

    async def _in_database(self, work: Callable[..., R], *arguments: Any) -> R:
        """Its own threads: a database that is slow holds up no receiver's answer."""
        return await self._loop.run_in_executor(self._database, partial(work, *arguments))


@dataclass
class _Run:
    """Failures in a row, over events: a receiver that is dead is not asked faster for each."""

    failures: int = 0


async def _answer(response: httpx.Response) -> Answer:
    if response.is_success:
        return Answer(response.status_code)
    if response.has_redirect_location:
        error = f"answered {response.status_code}, a redirect, which is not followed"
        return Answer(response.status_code, error)
    said = b""
    async for some in response.aiter_raw(ANSWER_READ_MAX_BYTES):
        said = some[:ANSWER_READ_MAX_BYTES]
        break
    words = "".join(c if c.isprintable() else " " for c in said.decode(errors="replace"))
    error = f"answered {response.status_code} {words.strip()}".strip()
    return Answer(response.status_code, error, response.headers.get("retry-after", ""))


@contextmanager
def carrying(webhooks: Webhooks, clock: Clock) -> Iterator[None]:
    """Nothing is started where no webhook is configured. Raises StartError."""
    webhooks.open()
    if not webhooks.hooks:
        yield
        return
    courier = Courier(webhooks, clock)
    courier.start()
    try:
        yield
    finally:
        courier.stop()
