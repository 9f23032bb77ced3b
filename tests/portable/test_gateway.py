"""firmware/gateway.py: what no other test sees."""

import asyncio
import sys

import gateway
import virtualtime
from expect import eq
from play import MICROPYTHON


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


def test_a_job_goes_on_where_there_is_no_memory_to_say_that_it_failed():
    class Full:
        """As the log in flash and the status service, where the heap is full."""

        gave_way = 0

        def add(self, *line):
            pass

        def error(self, error):
            raise MemoryError

        def give_way(self):
            self.gave_way += 1

    full = Full()
    kept = gateway.time, gateway.file, gateway.starved
    gateway.time, gateway.file, gateway.starved = virtualtime.Clock(), full, full.give_way
    tries = []

    async def work():
        tries.append(gateway.time.uptime())
        if len(tries) < 3:
            raise (MemoryError, ValueError)[len(tries) - 1]
        await asyncio.sleep(1000)

    async def main():
        task = asyncio.create_task(gateway.supervise("work", work))
        await asyncio.sleep(10)
        eq(task.done(), False)
        task.cancel()

    if not MICROPYTHON:
        sys.print_exception = print
    try:
        virtualtime.run(main())
    finally:
        if not MICROPYTHON:
            del sys.print_exception
        gateway.time, gateway.file, gateway.starved = kept
    eq((tries, full.gave_way), ([0, 1, 3], 1))
