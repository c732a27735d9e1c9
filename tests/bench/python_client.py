#!/usr/bin/python3 -B
"""Measure an asyncio client with 64 calls in flight for a second, and print the calls per second.

    python_client.py kvstored|redis SOCKET get|put
"""
import asyncio
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
IN_FLIGHT = 64
KEYS = 1000
VALUE = b"x" * 128
BUCKET = "bench"


async def measure(call):
    """Return how often per second `call(key)` is done, with IN_FLIGHT at a time."""
    count = 0
    keys = [f"python.{i}" for i in range(KEYS)]
    end = time.monotonic() + 1.0

    async def work(number):
        nonlocal count
        while time.monotonic() < end:
            await call(keys[(count + number) % KEYS])
            count += 1

    begin = time.monotonic()
    await asyncio.gather(*(work(number) for number in range(IN_FLIGHT)))
    return count / (time.monotonic() - begin)


async def measure_kvstored(path, operation):
    """Measure this project's client."""
    sys.path.insert(0, str(ROOT / "client/python"))
    import kvstored.aio  # pylint: disable=import-outside-toplevel

    async with kvstored.aio.Client(path) as client:
        await client.bulk_put(BUCKET, {f"python.{i}": VALUE for i in range(KEYS)})

        async def get(key):
            assert (await client.get(BUCKET, key)).value == VALUE

        async def put(key):
            await client.put(BUCKET, key, VALUE)

        return await measure(get if operation == "get" else put)


async def measure_redis(path, operation):
    """Measure redis-py."""
    import redis.asyncio  # pylint: disable=import-outside-toplevel

    client = redis.asyncio.Redis(unix_socket_path=path)
    for i in range(KEYS):
        await client.set(f"python.{i}", VALUE)

    async def get(key):
        assert await client.get(key) == VALUE

    async def put(key):
        await client.set(key, VALUE)

    result = await measure(get if operation == "get" else put)
    await client.close()
    return result


if __name__ == "__main__":
    side, socket_path, wanted = sys.argv[1:]
    print(asyncio.run((measure_kvstored if side == "kvstored" else measure_redis)(socket_path, wanted)))
