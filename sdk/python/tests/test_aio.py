"""The asynchronous client: the same operations over another transport."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest

import provara
from provara import AsyncProvaraClient
from served import Served


def test_many_commands_are_waited_for_at_once(server: Served) -> None:
    async def work() -> list[str]:
        async with AsyncProvaraClient(server.base, server.agent_token) as agent:
            results = await asyncio.gather(*(agent.run(f"echo {n}", timeout=60) for n in range(5)))
            return [result.stdout for result in results]

    with server.approver():
        assert asyncio.run(work()) == [f"{n}\n" for n in range(5)]


def test_a_person_decides_asynchronously(server: Served) -> None:
    async def work() -> None:
        operator = AsyncProvaraClient(server.base, server.token("operator_token.txt"))
        async with AsyncProvaraClient(server.base, server.agent_token) as agent, operator:
            queued = await agent.plan("echo x")
            assert [plan["pending_id"] for plan in await agent.pending(limit=1)] == [queued["pending_id"]]
            done = await operator.approve(queued["pending_id"], queued["digest"], timeout=60)
            assert (await agent.get(queued["pending_id"]))["run"] == done["run"]
            refused = await agent.plan("true")
            await operator.deny(refused["pending_id"], "no")
            assert (await agent.wait(refused["pending_id"]))["state"] == "denied"
            withdrawn = await agent.plan("true")
            assert (await agent.cancel(withdrawn["pending_id"]))["state"] == "withdrawn"
            assert (await agent.policy_check("rm -rf /"))["verdict"] == "deny"
            assert (await agent.health())["status"] == "healthy"
            assert (await agent.status())["ok"] is True

    asyncio.run(work())


def test_errors_are_the_same(server: Served) -> None:
    async def work() -> None:
        async with AsyncProvaraClient(server.base, "wrong") as nobody:
            with pytest.raises(provara.AuthenticationError):
                await nobody.pending()
            with pytest.raises(provara.AuthenticationError):
                await anext(nobody.events())
        async with AsyncProvaraClient("http://127.0.0.1:1", "x") as alone:
            with pytest.raises(httpx.ConnectError):
                await alone.plan("ls")

    asyncio.run(work())


def test_events_come_back_after_a_restart(own_server: Served) -> None:
    async def work() -> None:
        async with AsyncProvaraClient(own_server.base, own_server.agent_token) as agent:
            await agent.plan("make 0")
            async with contextlib.aclosing(agent.events(since=0, types=["plan.queued"])) as events:
                first = await anext(events)
                own_server.kill()
                own_server.restart()
                await agent.plan("make 1")
                second = await anext(events)
            async with contextlib.aclosing(agent.events(since=0, types="plan.queued")) as again:
                assert [await anext(again), await anext(again)] == [first, second]

    asyncio.run(work())
