"""firmware/gateway.py: what no other test sees."""

import asyncio

import gateway


async def test_a_task_that_loses_a_cancel_ends_all_the_same():
    flag = asyncio.Event()

    async def busy():
        while True:
            await asyncio.wait_for(flag.wait(), 10)
            flag.clear()

    task = asyncio.create_task(busy())
    await asyncio.sleep(0.01)
    flag.set()  # the cancel comes just when wait_for() has what it waits for
    await gateway.end([task])
    assert task.done()


async def test_tasks_end_however_they_wait():
    async def waits():
        await asyncio.Event().wait()

    async def spins():
        while True:
            await asyncio.wait_for(asyncio.sleep(0), 1)

    async def ends():
        pass

    tasks = [asyncio.create_task(work()) for work in (waits, spins, spins, ends)]
    await asyncio.sleep(0.01)
    await gateway.end(tasks)
    assert [t.done() for t in tasks] == [True] * 4
