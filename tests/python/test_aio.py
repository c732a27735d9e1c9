"""The asyncio client."""
import asyncio
import os
import socket
import threading
import time
import unittest
import unittest.mock

import kvstored
import kvstored.aio
import msgpack
from daemon_process import PATIENCE_S
from fake_daemon import DISMISSAL, NOT_HELD, FakeDaemon, measured_memory, packing_memory
from kvstored._core import Call, Core, Request
from kvstored._outbox import Outbox
from own_daemon import DaemonTest


class AioTest(DaemonTest, unittest.IsolatedAsyncioTestCase):
    """Each test has a client and a bucket."""

    async def asyncSetUp(self):
        asyncio.get_running_loop().slow_callback_duration = PATIENCE_S
        self.client = self.new_client()
        self.bucket = self.id().rpartition(".")[2]
        await self.client.bucket_create(self.bucket, history=5)

    async def asyncTearDown(self):
        await self.client.close()

    def new_client(self, **options):
        return kvstored.aio.Client(self.path, timeout=PATIENCE_S, **options)

    async def restart_meanwhile(self, kill=False):
        """Restart the daemon while the loop runs."""
        await asyncio.get_running_loop().run_in_executor(None, self.end_daemon, kill)
        self.start_daemon()


class Calls(AioTest):
    """Calls of many tasks."""

    async def test_many_calls_are_in_flight(self):
        client, bucket = self.client, self.bucket

        async def one(i):
            revision = await client.put(bucket, f"k{i}", str(i))
            entry = await client.get(bucket, f"k{i}")
            assert (entry.revision, entry.text) == (revision, str(i))

        await asyncio.gather(*(one(i) for i in range(2000)))
        self.assertEqual(len(await client.keys(bucket)), 2000)

    async def test_large_values_are_in_flight(self):
        """More than the socket takes: further calls wait. The answers are less than limits.out_buffer_bytes."""
        client, bucket = self.client, self.bucket
        await asyncio.gather(*(client.put(bucket, f"k{i}", bytes([i]) * 500_000) for i in range(60)))
        entries = await asyncio.gather(*(client.get(bucket, f"k{i}") for i in range(60)))
        self.assertEqual([entry.value for entry in entries], [bytes([i]) * 500_000 for i in range(60)])

    async def test_an_error_is_raised_where_the_call_was_made(self):
        results = await asyncio.gather(
            self.client.get(self.bucket, "a..b"), self.client.get(self.bucket, "k"), self.client.get("missing", "k"),
            return_exceptions=True)
        self.assertIsInstance(results[0], kvstored.InvalidArgument)
        self.assertIsNone(results[1])
        self.assertIsInstance(results[2], kvstored.BucketNotFound)

    async def test_a_cancelled_call_leaves_nothing_behind(self):
        client, bucket = self.client, self.bucket
        tasks = [asyncio.ensure_future(client.get(bucket, "k", wait_above=0, timeout=PATIENCE_S)) for _ in range(100)]
        while (await client.stats()).watches.open < 100:
            pass
        for task in tasks[:50]:
            task.cancel()
        with self.assertRaises(asyncio.TimeoutError):
            await asyncio.wait_for(client.get(bucket, "k", wait_above=0, timeout=PATIENCE_S), 0.05)
        revision = await client.put(bucket, "k", "v")
        results = await asyncio.gather(*tasks, return_exceptions=True)
        self.assertTrue(all(isinstance(result, asyncio.CancelledError) for result in results[:50]))
        self.assertEqual([result.revision for result in results[50:]], [revision] * 50)
        while (await client.stats()).watches.open:
            pass
        core = client._channel.core  # pylint: disable=protected-access
        self.assertEqual(len(core._pending), 0)  # pylint: disable=protected-access

    async def test_cancelled_waits_take_no_place(self):
        """More of them than a session may have at a time, whose own timeouts are far away."""
        client, bucket = self.client, self.bucket
        async with self.new_client() as holder, holder.lock(bucket, "l"):
            for make_call in (lambda: client.get(bucket, "k", wait_above=0, timeout=PATIENCE_S),
                              lambda: client.lock(bucket, "l").acquire()):
                for _ in range(12):
                    tasks = [asyncio.ensure_future(make_call()) for _ in range(100)]
                    await asyncio.sleep(0)
                    await client.stats()  # the calls have arrived
                    for task in tasks:
                        task.cancel()
                    results = await asyncio.gather(*tasks, return_exceptions=True)
                    self.assertTrue(all(isinstance(result, asyncio.CancelledError) for result in results), results)
                stats = await client.stats()
                while stats.watches.open or stats.locks.waiting:
                    stats = await client.stats()
                core = client._channel.core  # pylint: disable=protected-access
                self.assertEqual(len(core._pending), 0)  # pylint: disable=protected-access

    async def test_the_next_waiter_gets_a_lock_that_others_have_given_up(self):
        bucket = self.bucket
        async with self.new_client() as holder, self.new_client() as other:
            lock = holder.lock(bucket, "l")
            token = await lock.acquire()
            tasks = [asyncio.ensure_future(self.client.lock(bucket, "l").acquire()) for _ in range(100)]
            while (await holder.stats()).locks.waiting < 100:
                pass
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            next_lock = other.lock(bucket, "l")
            waiting = asyncio.ensure_future(next_lock.acquire())
            while (await holder.stats()).locks.waiting != 1:
                pass
            await lock.release()
            self.assertEqual(await waiting, token + 2)  # one revision is that of the marker
            await next_lock.release()

    async def test_a_get_that_waits_ends_with_its_timeout(self):
        self.assertIsNone(await self.client.get(self.bucket, "k", wait_above=0, timeout=2))

    async def test_a_client_belongs_to_one_loop(self):
        def elsewhere():
            with self.assertRaises(RuntimeError):
                asyncio.run(self.client.get(self.bucket, "k"))

        await asyncio.get_running_loop().run_in_executor(None, elsewhere)

    async def test_a_forked_process_does_not_use_the_connection_of_its_parent(self):
        await self.client.put(self.bucket, "k", "parent")
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                with self.assertRaises(RuntimeError):
                    asyncio.run(asyncio.wait_for(self.client.put(self.bucket, "k", "child"), PATIENCE_S))
                asyncio.run(self.client.close())
                status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assertEqual((await self.client.get(self.bucket, "k")).text, "parent")

    async def test_closing_ends_calls_and_watches(self):
        watch = self.client.watch(self.bucket)
        task = asyncio.ensure_future(self.client.get(self.bucket, "k", wait_above=0, timeout=PATIENCE_S))
        next_entry = asyncio.ensure_future(watch.__anext__())
        while (await self.client.stats()).watches.open < 2:
            pass
        await self.client.close()
        results = await asyncio.gather(task, next_entry, return_exceptions=True)
        self.assertEqual([type(result) for result in results], [kvstored.Unavailable] * 2)
        with self.assertRaises(kvstored.Unavailable):
            await self.client.get(self.bucket, "k")


class ErrorsAsText(AioTest):
    """A session that has chosen errors as text."""

    async def test_they_are_understood(self):
        client = self.client
        await client.session_configure(errors="text")
        with self.assertRaises(kvstored.BucketNotFound) as raised:
            await asyncio.wait_for(client.get("nobucket", "k"), PATIENCE_S)
        self.assertEqual((raised.exception.outcome, raised.exception.retryable), (None, False))
        with self.assertRaises(kvstored.Conflict) as raised:
            await client.update(self.bucket, "k", "v", 77)
        self.assertEqual(raised.exception.outcome, "none")
        self.assertNotIn("outcome", raised.exception.message)
        async with self.client.lock(self.bucket, "l"):
            with self.assertRaises(kvstored.Conflict):
                await self.client.lock(self.bucket, "l", wait=0).acquire()


class Views(AioTest):
    """Views of a bucket."""

    async def test_a_view_has_values_of_its_codec(self):
        view = self.client.bucket(self.bucket, kvstored.JSON)
        await view.put("a", {"x": [1]}, ttl=60)
        await view.update({"b": 2})
        self.assertEqual(await view.get("a"), {"x": [1]})
        self.assertEqual([item async for item in view.items()], [("a", {"x": [1]}), ("b", 2)])
        self.assertEqual((await view.keys(), await view.contains("a"), await view.delete("a"), await view.delete("a")),
                         (["a", "b"], True, True, False))
        self.assertEqual((await view.setdefault("c", 3), await view.pop("c"), await view.pop("c", 4)), (3, 3, 4))
        with self.assertRaises(KeyError):
            await view.pop("c")
        self.assertFalse(await view.contains("no key"))
        await view.update(d=4)
        self.assertEqual(await view.pop("d"), 4)
        async with view.transaction() as transaction:
            transaction.put("t", "1")
        async with view.lock("l") as lock:
            self.assertGreater(lock.token, 0)


class Transactions(AioTest):
    """Transactions."""

    async def test_tasks_that_change_one_key_lose_nothing(self):
        client, bucket = self.client, self.bucket
        await client.put(bucket, "n", "0")

        async def add(transaction):
            transaction.put("n", str(int((await transaction.get("n")).text) + 1))

        await asyncio.gather(*(client.run_transaction(bucket, add) for _ in range(64)))
        self.assertEqual((await client.get(bucket, "n")).text, "64")

    async def test_a_transaction_is_given_up_after_its_attempts_and_its_timeout(self):
        client, bucket = self.client, self.bucket
        calls = []

        async def disturb(transaction):
            calls.append(transaction)
            await transaction.get("n")
            await client.put(bucket, "n", "1")
            transaction.put("n", "2")

        with self.assertRaises((kvstored.Conflict, kvstored.AlreadyExists)):
            await client.run_transaction(bucket, disturb, attempts=3)
        self.assertEqual(len(calls), 3)
        calls.clear()
        # On a slow machine, the timeout may be that of a call.
        with self.assertRaises((kvstored.Conflict, kvstored.AlreadyExists, kvstored.DeadlineExceeded)):
            await client.run_transaction(bucket, disturb, timeout=4)
        self.assertGreater(len(calls), 1)

    async def test_a_change_between_two_reads_begins_again(self):
        client, bucket = self.client, self.bucket
        calls = 0

        async def read_twice(transaction):
            nonlocal calls
            calls += 1
            await transaction.get("n")
            if calls == 1:
                await client.put(bucket, "n", "1")
            await transaction.get("n")
            transaction.put("m", "done")

        await client.run_transaction(bucket, read_twice)
        self.assertEqual(calls, 2)
        with self.assertRaises(kvstored.AlreadyExists):  # of the function itself, and not of its transaction
            await client.run_transaction(bucket, lambda transaction: client.create(bucket, "n", "2"))

    async def test_a_commit_that_has_failed_is_not_tried_again_at_the_end(self):
        async with self.client.transaction(self.bucket) as transaction:
            transaction.update("k", "v", 77)
            with self.assertRaises(kvstored.Conflict):
                await transaction.commit()

    async def test_nothing_is_added_after_a_commit(self):
        transactions = [self.client.transaction(self.bucket) for _ in range(2)]
        for transaction in transactions:
            transaction.create("k", "v")
        await transactions[0].commit()
        with self.assertRaises(kvstored.AlreadyExists):
            await transactions[1].commit()
        for transaction in transactions:
            for add in (lambda t: t.put("l", "v"), lambda t: t.create("l", "v"), lambda t: t.update("l", "v", 1),
                        lambda t: t.delete("k"), lambda t: t.purge("k"), lambda t: t.check("l", 0)):
                with self.assertRaisesRegex(RuntimeError, "begin a new transaction"):
                    add(transaction)
            with self.assertRaisesRegex(RuntimeError, "begin a new transaction"):
                await transaction.get("k")

    async def test_a_transaction_without_operations_checks_nothing(self):
        async with self.client.transaction(self.bucket) as transaction:
            self.assertIsNone(await transaction.get("k"))
            await self.client.put(self.bucket, "k", "v")
        self.assertEqual((transaction.is_committed, transaction.revisions), (True, []))

    async def test_the_function_is_async(self):
        with self.assertRaisesRegex(TypeError, "must be async"):
            await self.client.run_transaction(self.bucket, lambda transaction: transaction.put("k", "v"))
        self.assertIsNone(await self.client.get(self.bucket, "k"))

    async def test_body_and_commit(self):
        client, bucket = self.client, self.bucket
        async with client.transaction(bucket) as transaction:
            self.assertIsNone(await transaction.get("k"))
            transaction.put("k", "1", headers={"By": "me"})
            transaction.put("l", "2", ttl=60)
        entries = await client.bulk_get(bucket, ["k", "l"])
        self.assertEqual([entries["k"].revision, entries["l"].revision], transaction.revisions)
        self.assertEqual((entries["k"].headers, entries["l"].ttl), ({"By": "me"}, 60))
        with self.assertRaises(kvstored.AlreadyExists):
            async with client.transaction(bucket) as transaction:
                transaction.check("k", 0)
                transaction.delete("l")


class Watches(AioTest):
    """Watches."""

    async def test_initial_entries_and_changes(self):
        client, bucket = self.client, self.bucket
        await client.bulk_put(bucket, {"a.1": "1", "b.1": "2"})
        async with client.watch(bucket, ["a.*", "c.*"]) as watch:
            self.assertEqual([entry.key async for entry in watch.initial()], ["a.1"])
            await client.delete(bucket, "a.1")
            await client.put(bucket, "b.2", "x")
            await client.put(bucket, "c.1", "3")
            first, second = await watch.__anext__(), await watch.__anext__()
            self.assertEqual((first.key, first.is_deleted, second.key, second.text), ("a.1", True, "c.1", "3"))
        self.assertEqual([entry async for entry in watch], [])
        while (await client.stats()).watches.open:
            pass

    async def test_it_continues_across_restarts_without_a_gap(self):
        client, bucket = self.client, self.bucket
        await client.bucket_update(bucket, history=64)
        seen = []

        async def follow():
            async for entry in client.watch(bucket):
                seen.append(int(entry.text))
                if seen[-1] == 59:
                    return

        task = asyncio.ensure_future(follow())
        for i in range(60):
            if i in (15, 30, 45):
                await self.restart_meanwhile(kill=i == 30)
            await client.put(bucket, "k", str(i), timeout=PATIENCE_S)
        await asyncio.wait_for(task, PATIENCE_S)
        self.assertEqual(sorted(set(seen)), seen)
        self.assertEqual(seen[-45:], list(range(15, 60)))

    async def test_a_watch_that_has_delivered_nothing_has_no_gap(self):
        client, bucket = self.client, self.bucket
        async with client.watch(bucket) as watch:
            self.assertEqual([entry async for entry in watch.initial()], [])
            other = DaemonTest.new_client(self)
            self.addCleanup(other.close)
            other.connect()
            # The loop does not run meanwhile, and so does not see the changes before it has lost the connection.
            self.end_daemon(kill=False)
            self.start_daemon()
            for value in ("1", "2"):
                other.put(bucket, "k", value, timeout=PATIENCE_S)
            self.assertEqual([(await watch.__anext__()).text for _ in range(2)], ["1", "2"])

    async def test_it_continues_in_a_bucket_that_was_recreated_meanwhile(self):
        """Although the new bucket has not reached the revision that was delivered last."""
        client, bucket = self.client, self.bucket
        for i in range(10):
            await client.put(bucket, "k", str(i))
        async with client.watch(bucket) as watch, client.watch(bucket, from_revision=100) as later:
            self.assertEqual([entry.text async for entry in watch.initial()], ["9"])
            self.assertEqual([entry async for entry in later.initial()], [])
            other = DaemonTest.new_client(self)
            self.addCleanup(other.close)
            other.connect()
            # The loop does not run meanwhile, and so does not see the changes before it has lost the connection.
            self.end_daemon(kill=False)
            self.start_daemon()
            other.bucket_delete(bucket)
            other.bucket_create(bucket)
            other.put(bucket, "k", "new", timeout=PATIENCE_S)
            self.assertEqual((await asyncio.wait_for(watch.__anext__(), PATIENCE_S)).text, "new")
            revision = await client.put(bucket, "k", "newer")
            self.assertEqual((await asyncio.wait_for(watch.__anext__(), PATIENCE_S)).revision, revision)
            while revision < 100:  # the program has asked for this one
                revision = await client.put(bucket, "k", str(revision))
            self.assertEqual((await asyncio.wait_for(later.__anext__(), PATIENCE_S)).revision, 100)

    async def test_closing_a_watch_ends_iteration_in_another_task(self):
        watch = self.client.watch(self.bucket)
        self.assertEqual([entry async for entry in watch.initial()], [])
        task = asyncio.ensure_future(watch.__anext__())
        await asyncio.sleep(0)
        await watch.close()
        with self.assertRaises(StopAsyncIteration):
            await asyncio.wait_for(task, PATIENCE_S)

    async def test_an_iteration_that_is_left_ends_its_watch(self):
        """More often than a session may have watches."""
        client, bucket = self.client, self.bucket
        await client.put(bucket, "k", "v")
        for _ in range(1100):
            async for entry in client.watch(bucket):
                self.assertEqual(entry.text, "v")
                break
        async for _ in client.watch(bucket).initial():
            break
        while (await client.stats()).watches.open:
            pass
        core = client._channel.core  # pylint: disable=protected-access
        self.assertFalse(core._watches)  # pylint: disable=protected-access

    async def test_a_watch_that_another_thread_drops_ends_without_a_call(self):
        async with self.new_client() as other:
            watches = [self.client.watch(self.bucket)]
            await watches[0].__aenter__()  # pylint: disable=unnecessary-dunder-call
            await asyncio.get_running_loop().run_in_executor(None, watches.clear)
            while (await other.stats()).watches.open:
                pass

    async def test_an_iteration_that_is_cancelled_before_the_watch_has_begun_can_go_on(self):
        client, bucket = self.client, self.bucket
        await client.put(bucket, "k", "v")
        watch = client.watch(bucket)
        for _ in range(2):
            task = asyncio.ensure_future(watch.__anext__())
            await asyncio.sleep(0)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
        self.assertEqual((await watch.__anext__()).text, "v")
        await watch.close()

    async def test_a_statement_that_is_cancelled_before_its_watch_has_begun_ends_the_watch(self):
        async def enter():
            async with watch:
                pass

        watch = self.client.watch(self.bucket)
        task = asyncio.ensure_future(enter())
        await asyncio.sleep(0)
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        with self.assertRaises(StopAsyncIteration):
            await watch.__anext__()
        while (await self.client.stats()).watches.open:
            pass

    async def test_a_slow_consumer_is_resumed(self):
        client, bucket = self.client, self.bucket
        async with client.watch(bucket) as watch:
            self.assertEqual([entry async for entry in watch.initial()], [])
            for i in range(150):
                await client.put(bucket, f"k{i}", bytes(100_000))
            self.assertEqual([(await watch.__anext__()).key for _ in range(150)], [f"k{i}" for i in range(150)])

    async def test_a_slow_consumer_gets_the_contents_of_a_bucket_whose_markers_are_removed_meanwhile(self):
        """If the watch were stopped before it is ready, it could not be resumed after that."""
        client, bucket = self.client, "memory"  # the markers of one on disk may stay
        await client.bucket_create(bucket, storage="memory")
        for i in range(150):
            await client.put(bucket, f"k{i}", bytes(100_000))
        async with client.watch(bucket) as watch:
            received = watch._watch  # pylint: disable=protected-access
            await client._channel.start_watch(received)  # pylint: disable=protected-access
            while not received.is_ready and not received.is_paused:
                await asyncio.sleep(0)
            await client.delete(bucket, "k149")
            self.assertEqual(await client.bucket_compact(bucket, older_than=0), 1)
            self.assertEqual([entry.key async for entry in watch.initial()], [f"k{i}" for i in range(150)])
            self.assertTrue((await asyncio.wait_for(watch.__anext__(), PATIENCE_S)).is_deleted)

    async def test_a_key_that_is_overwritten_is_seen_in_its_last_state(self):
        client, bucket = self.client, self.bucket
        await client.bucket_update(bucket, history=1)
        async with client.watch(bucket, meta_only=True) as watch:
            for _ in range(100):
                await client.put(bucket, "k", "12345")
            revision = await client.put(bucket, "k", "123")
            async for entry in watch:
                if entry.revision == revision:
                    self.assertEqual((entry.size, entry.value), (3, b""))
                    break

    async def test_beginnings_that_exclude_each_other_are_refused(self):
        with self.assertRaises(kvstored.InvalidArgument):
            await self.client.watch(self.bucket, include_history=True, updates_only=True).__anext__()


class Restarts(AioTest):
    """The daemon ends and comes back."""

    async def test_increments_of_many_tasks_are_done_once(self):
        client, bucket = self.client, self.bucket
        done = []
        stopped = False

        async def work():
            while not stopped:
                done.append((await client.increment(bucket, "n", timeout=PATIENCE_S)).value)

        tasks = [asyncio.ensure_future(work()) for _ in range(16)]
        for kill in (False, True, True):
            count = len(done)
            while len(done) < count + 100:
                await asyncio.sleep(0.001)
            await self.restart_meanwhile(kill)
        count = len(done)
        while len(done) < count + 100:
            await asyncio.sleep(0.001)
        stopped = True
        await asyncio.gather(*tasks)
        self.assertEqual(sorted(done), list(range(1, len(done) + 1)))

    async def test_calls_wait_for_the_daemon_until_their_timeout(self):
        client, bucket = self.client, self.bucket
        await asyncio.get_running_loop().run_in_executor(None, self.stop_daemon)
        with self.assertRaises(kvstored.Unavailable) as raised:
            await client.put(bucket, "k", "v", timeout=0.5)
        self.assertEqual((raised.exception.outcome, raised.exception.retryable), ("none", True))
        self.assertRegex(str(raised.exception), f"^cannot connect to {self.path} for .*: is kvstored running\\?$")
        task = asyncio.ensure_future(client.put(bucket, "k", "v", timeout=PATIENCE_S))
        self.start_daemon()
        self.assertGreater(await task, 0)


class Locks(AioTest):
    """Locks."""

    async def test_the_body_of_a_lost_lock_is_cancelled(self):
        cancelled = False
        with self.assertRaises(kvstored.LockLost) as raised:
            async with self.client.lock(self.bucket, "l"):
                try:
                    await self.client.delete(self.bucket, "l")
                    await asyncio.sleep(PATIENCE_S)
                except asyncio.CancelledError:
                    cancelled = True
                    raise
        self.assertTrue(cancelled)
        self.assertIsInstance(raised.exception.__cause__, kvstored.Conflict)
        await asyncio.sleep(0)  # the task itself is not cancelled

    async def test_an_acquire_that_was_cancelled_leaves_no_lock(self):
        other = self.new_client()
        lock = self.client.lock(self.bucket, "l")
        async with other.lock(self.bucket, "l"):
            task = asyncio.ensure_future(lock.acquire())
            while not (await other.stats()).locks.waiting:
                pass
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
        async with other.lock(self.bucket, "l", wait=PATIENCE_S):
            pass
        await lock.acquire()
        await lock.release()
        await other.close()

    async def test_an_acquire_that_is_cancelled_when_its_answer_arrives_leaves_no_lock(self):
        lock = self.client.lock(self.bucket, "l")
        task = asyncio.ensure_future(lock.acquire())
        core = self.client._channel.core  # pylint: disable=protected-access
        original = core.receive

        def receive(data):
            original(data)
            task.cancel()

        core.receive = receive
        with self.assertRaises(asyncio.CancelledError):
            await task
        core.receive = original
        other = self.new_client()
        async with other.lock(self.bucket, "l", wait=PATIENCE_S / 2):
            pass
        await other.close()

    async def test_a_lost_lock_can_be_acquired_again(self):
        lock = self.client.lock(self.bucket, "l")
        token = await lock.acquire()
        await self.client.delete(self.bucket, "l")
        while lock.valid_for():
            await asyncio.sleep(0)
        with self.assertRaises(kvstored.LockLost):
            await lock.release()
        self.assertGreater(await lock.acquire(), token)
        await lock.release()

    async def test_without_reconnect_a_lost_connection_is_a_lost_lock(self):
        client = self.new_client(reconnect=False)
        with self.assertRaises(kvstored.LockLost):
            async with client.lock(self.bucket, "l"):
                ended = asyncio.get_running_loop().run_in_executor(None, self.end_daemon, False)
                await asyncio.sleep(PATIENCE_S)
        await ended
        self.start_daemon()
        await client.close()

    async def test_a_lost_ephemeral_key_is_reported(self):
        lost = asyncio.get_running_loop().create_future()
        self.client.on_ephemeral_lost(lambda bucket, key, error: lost.set_result((bucket, key, error.code)))
        await self.client.put(self.bucket, "me", "1", ephemeral=True)
        await self.client.delete(self.bucket, "me")
        self.assertEqual(await asyncio.wait_for(lost, PATIENCE_S), (self.bucket, "me", "conflict"))

    async def test_an_exception_of_the_body_is_kept(self):
        with self.assertRaises(ZeroDivisionError):
            async with self.client.lock(self.bucket, "l"):
                raise ZeroDivisionError
        self.assertIsNone(await self.client.get(self.bucket, "l"))

    async def test_a_cancellation_from_outside_releases_it(self):
        held = asyncio.Event()

        async def hold():
            async with self.client.lock(self.bucket, "l"):
                held.set()
                await asyncio.sleep(PATIENCE_S)

        task = asyncio.ensure_future(hold())
        await held.wait()
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        self.assertIsNone(await self.client.get(self.bucket, "l"))

    @unittest.skipUnless(hasattr(asyncio.Task, "uncancel"), "tasks count their cancellations since Python 3.11")
    async def test_a_cancellation_from_outside_is_kept_if_the_lock_is_lost_as_well(self):
        held, cleaning = asyncio.Event(), asyncio.Event()

        async def hold():
            async with self.client.lock(self.bucket, "l"):
                try:
                    held.set()
                    await asyncio.sleep(PATIENCE_S)
                finally:
                    cleaning.set()
                    await asyncio.sleep(PATIENCE_S)

        for first, second in (("cancel", "lose"), ("lose", "cancel")):
            held.clear()
            cleaning.clear()
            task = asyncio.ensure_future(hold())
            await held.wait()
            for step in (first, second):
                if step == "cancel":
                    task.cancel()
                else:
                    await self.client.delete(self.bucket, "l")
                await cleaning.wait()
            with self.subTest(first=first), self.assertRaises(asyncio.CancelledError):
                await asyncio.wait_for(task, PATIENCE_S / 2)

    async def test_tasks_get_it_one_after_another(self):
        clients = [self.new_client() for _ in range(4)]
        inside, most = 0, 0

        async def work(client):
            nonlocal inside, most
            for _ in range(5):
                async with client.lock(self.bucket, "l", wait=PATIENCE_S):
                    inside += 1
                    most = max(most, inside)
                    await asyncio.sleep(0)
                    inside -= 1

        await asyncio.gather(*(work(client) for client in clients))
        self.assertEqual(most, 1)
        for client in clients:
            await client.close()

    async def test_it_survives_restarts(self):
        async with self.client.lock(self.bucket, "l") as lock:
            token = lock.token
            await self.restart_meanwhile()
            self.assertGreater(await lock.check(), 0)
            await self.restart_meanwhile(kill=True)
            self.assertGreater(await lock.check(), 0)
            self.assertEqual(lock.token, token)

    async def test_tasks_that_find_a_new_session_acquire_it_once(self):
        async with self.client.lock(self.bucket, "l") as lock:
            token = lock.token
            for kill in (False, True):
                await self.restart_meanwhile(kill)
                await asyncio.gather(*(lock.check() for _ in range(20)))
                self.assertEqual(lock.token, token)

    async def test_a_held_lock_is_refused_to_others(self):
        other = self.new_client()
        async with self.client.lock(self.bucket, "l", value="me"):
            with self.assertRaises(kvstored.Locked) as raised:
                await other.lock(self.bucket, "l", wait=0).acquire()
            self.assertEqual(raised.exception.value, b"me")
        await other.close()


class HeldCalls(unittest.TestCase):
    """Calls that wait for a connection."""

    def test_the_effort_to_give_one_up_does_not_grow_with_their_number(self):
        core = Core(reconnect=True, timeout_s=PATIENCE_S)
        comparisons = []

        def is_same(call, other):
            comparisons.append(1)
            return call is other

        def ends_of(end, timeout_s):
            calls = [core.new_call(Request("kv.get", ["b", "k"], {}, lambda result: result), lambda call: None, timeout_s)
                     for _ in range(1000)]
            for call in calls:
                core.submit(call)
            comparisons.clear()
            with unittest.mock.patch.object(Call, "__eq__", is_same):
                end(calls)
            self.assertFalse(core.has_calls())
            return len(comparisons)

        self.assertLess(ends_of(lambda calls: [core.give_up(call) for call in reversed(calls)], None), 5000)
        self.assertLess(ends_of(lambda calls: core._end_expired(time.monotonic()), 0), 5000)


class Sending(unittest.TestCase):
    """Messages on their way to the socket."""

    def send(self, sizes, takes):
        """Send messages to a socket that takes so many bytes of each system call. Return the messages, their calls,
        what the socket has got in each system call, and the rest."""
        calls = [Call(Request("kv.get", [], {}, lambda result: result), 0.0, None, lambda call: None) for _ in sizes]
        messages = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
        core = unittest.mock.Mock()
        core.take_output.side_effect = [list(zip(messages, calls)), [], []]
        got = []

        def sendmsg(buffers):
            got.append(buffers)
            if not takes:
                raise BlockingIOError
            return min(takes.pop(0), sum(map(len, buffers)))

        outbox = Outbox()
        connection = unittest.mock.Mock(sendmsg=sendmsg, send=lambda message: sendmsg([message]))
        outbox.send(connection, core)
        return messages, calls, got, outbox, connection, core

    def test_messages_are_neither_joined_nor_copied(self):
        messages, calls, got, outbox, _, _ = self.send([10] * 64, [640])
        self.assertEqual(len(got), 1)
        self.assertTrue(all(one is message for one, message in zip(got[0], messages)))
        self.assertFalse(outbox)
        self.assertTrue(all(call.is_sent for call in calls))

    def test_a_cut_message_goes_on_where_it_was_cut(self):
        takes = [25]
        messages, calls, got, outbox, connection, core = self.send([10] * 4, takes)
        self.assertEqual([call.is_sent for call in calls], [True, True, True, False])
        self.assertTrue(outbox)
        self.assertEqual(bytes(outbox.take(3)), messages[2][5:8])
        outbox.send(connection, core)  # the socket takes nothing
        self.assertEqual([call.is_sent for call in calls], [True, True, True, False])
        takes += [2, 100]
        outbox.send(connection, core)  # it takes two bytes, and is full
        outbox.send(connection, core)
        self.assertEqual([b"".join(buffers) for buffers in got[-2:]], [messages[2][8:] + messages[3], messages[3]])
        self.assertFalse(outbox)
        self.assertTrue(calls[3].is_sent)

    def test_more_messages_than_the_kernel_takes_at_once_are_sent(self):
        messages, calls, got, outbox, _, _ = self.send([1] * 200 * 6, [512, 512, 512])
        self.assertEqual([len(buffers) for buffers in got], [512, 512, 176])
        self.assertFalse(outbox)
        self.assertTrue(all(call.is_sent for call in calls) and len(messages) == 1200)


class FakeAnswers(unittest.IsolatedAsyncioTestCase):
    """Answers that the real daemon gives only at an unlucky moment."""

    def start(self, answer):
        """Return a daemon that gives these answers, and a client with it."""
        daemon = FakeDaemon(answer)
        self.addCleanup(daemon.close)
        client = kvstored.aio.Client(daemon.path, timeout=PATIENCE_S)
        self.addAsyncCleanup(client.close)
        return daemon, client

    @staticmethod
    async def wait_until(condition):
        """Let the loop run until the condition holds."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end
            await asyncio.sleep(0.001)

    async def lose_lock_session(self):
        """Return a daemon, a lock that a former session of the client holds, and an Event that lets the next
        lock.acquire be answered."""
        may_answer = threading.Event()
        may_answer.set()

        def answer(method, _):
            if method == "lock.check" and daemon.methods().count("lock.acquire") == 1:
                return NOT_HELD, None
            if method == "lock.acquire":
                may_answer.wait(PATIENCE_S)
            return None, {"token": 7, "valid_for": PATIENCE_S}

        daemon, client = self.start(answer)
        self.addCleanup(may_answer.set)
        lock = client.lock("b", "l")
        await lock.acquire()
        may_answer.clear()
        daemon.drop()
        await client.call("daemon.info")
        return daemon, client, lock, may_answer

    async def cancel_when_called(self, work, daemon, method, count):
        """Cancel a coroutine when it has made a call for that many times."""
        task = asyncio.ensure_future(work)
        await self.wait_until(lambda: daemon.methods().count(method) == count)
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task

    async def test_a_lock_is_waited_for_in_one_call(self):
        """A second call would be the last in line."""
        daemon, client = self.start(lambda method, _: (None, {"token": 7, "valid_for": PATIENCE_S}))
        for name, wait in (("days", 86400 * 7), ("endless", None)):
            async with client.lock("b", name, wait=wait):
                pass
        waits = [arguments[2]["wait"] for method, arguments in daemon.calls if method == "lock.acquire"]
        self.assertAlmostEqual(waits[0], 86400 * 7, delta=PATIENCE_S)
        self.assertEqual(waits[1:], [1e9])

    async def test_a_wait_for_a_lock_does_not_begin_again_with_a_new_connection(self):
        """Here the daemon has dismissed the call."""
        def answer(method, _):
            if method == "lock.acquire" and len(daemon.calls) == 1:
                daemon.connections[0].sendall(msgpack.packb([1, None, DISMISSAL, None]))
                daemon.drop()
                return b""
            return None, {"token": 7, "valid_for": PATIENCE_S}

        daemon, client = self.start(answer)
        async with client.lock("b", "l", wait=1000):
            pass
        first, second = [arguments[2]["wait"] for method, arguments in daemon.calls if method == "lock.acquire"]
        self.assertLess(second, first)

    async def test_a_cancelled_check_does_not_release_the_lock(self):
        daemon, client, lock, may_answer = await self.lose_lock_session()
        await self.cancel_when_called(lock.check(), daemon, "lock.acquire", 2)
        may_answer.set()
        await client.call("daemon.info")
        await client.call("daemon.info")
        self.assertNotIn("lock.release", daemon.methods())
        self.assertGreater(await lock.check(), 0)
        await lock.release()

    async def test_a_cancelled_release_releases_the_lock(self):
        """Also if it had to be acquired again for that."""
        daemon, _, lock, may_answer = await self.lose_lock_session()

        def release_answers(method, arguments):
            return (NOT_HELD, None) if method == "lock.release" and len(releases()) == 1 else answer(method, arguments)

        def releases():
            return [method for method in daemon.methods() if method == "lock.release"]

        answer, daemon.answer = daemon.answer, release_answers
        await self.cancel_when_called(lock.release(), daemon, "lock.acquire", 2)
        may_answer.set()
        await self.wait_until(lambda: len(releases()) == 3)
        self.assertEqual(lock.token, 0)

    async def test_a_lock_that_is_not_confirmed_in_time_is_released(self):
        """The daemon renews the lock for the session, which lives: otherwise nobody could get it again."""
        may_answer = threading.Event()
        may_answer.set()
        self.addCleanup(may_answer.set)

        def answer(method, _):
            if method == "lock.check":
                may_answer.wait(PATIENCE_S)
            return None, {"token": 7, "valid_for": 0.5}

        daemon, client = self.start(answer)
        with self.assertRaises(kvstored.LockLost):
            async with client.lock("b", "l"):
                may_answer.clear()
                await asyncio.sleep(PATIENCE_S)
        may_answer.set()
        await self.wait_until(lambda: "lock.release" in daemon.methods())
        self.assertEqual(daemon.calls[daemon.methods().index("lock.release")][1][:3], ["b", "l", 7])

    async def wait_until_only_the_test_runs(self):
        """A task that keeps a lock must end."""
        await self.wait_until(lambda: asyncio.all_tasks() == {asyncio.current_task()})

    async def test_a_lock_that_was_lost_is_no_longer_kept(self):
        """Although it is acquired again, and kept by another task then."""
        daemon, client = self.start(lambda method, _: (
            None, {"token": daemon.methods().count("lock.acquire"), "valid_for": PATIENCE_S}))
        lock = client.lock("b", "l")
        await lock.acquire()
        daemon.connections[0].sendall(msgpack.packb([2, "lock.lost", ["b", "l", 1, NOT_HELD]]))
        await self.wait_until(lambda: not lock.valid_for())
        self.assertEqual(await lock.acquire(), 2)
        with self.assertRaises(RuntimeError):
            await lock.acquire()
        await lock.release()
        await self.wait_until_only_the_test_runs()
        self.assertEqual(daemon.methods(), ["lock.acquire", "lock.acquire", "lock.release"])

    async def test_a_lock_is_no_longer_kept_if_that_is_cancelled_when_a_check_is_answered(self):
        daemon, client = self.start(lambda method, _: (None, {"token": 7, "valid_for": 3}))
        lock = client.lock("b", "l")
        await lock.acquire()
        core = client._channel.core  # pylint: disable=protected-access
        original = core.receive
        releasing = []

        def receive(data):
            original(data)
            if not releasing and "lock.check" in daemon.methods():
                releasing.append(asyncio.ensure_future(lock.release()))

        core.receive = receive
        await self.wait_until(lambda: releasing)
        await releasing[0]
        await self.wait_until_only_the_test_runs()
        self.assertEqual(daemon.methods(), ["lock.acquire", "lock.check", "lock.release"])

    async def test_a_lock_is_kept_if_the_daemon_confirms_it_after_the_loop_was_blocked(self):
        was_blocked = threading.Event()

        def answer(method, _):
            if method == "lock.check":
                time.sleep(0.02)  # longer than a turn of the loop
            return None, {"token": 7, "valid_for": PATIENCE_S if was_blocked.is_set() else 0.2}

        _, client = self.start(answer)
        asyncio.get_running_loop().slow_callback_duration = PATIENCE_S
        with unittest.mock.patch("kvstored._aio_lock.LATE_CHECK_S", PATIENCE_S):
            async with client.lock("b", "l") as lock:
                await asyncio.sleep(0)  # the lock is being kept
                while lock.valid_for():
                    time.sleep(0.001)
                was_blocked.set()
                await self.wait_until(lock.valid_for)

    async def test_a_function_that_fails_after_a_reconnect_does_not_prevent_the_others(self):
        daemon, client = self.start(lambda method, _: (None, 1))
        errors, called = [], []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context["exception"]))
        client.on_reconnected(lambda: 1 // 0)
        client.on_reconnected(lambda: called.append(1))
        await client.connect()
        await self.wait_until(lambda: daemon.connections)
        daemon.drop()
        await self.wait_until(lambda: called)
        self.assertEqual([type(error) for error in errors], [ZeroDivisionError])

    async def test_calls_wait_for_a_daemon_that_reads_nothing_until_their_timeout(self):
        """They are not packed meanwhile: one value of 1 MB is in memory few times, however many calls write it."""
        daemon, client = self.start(lambda method, _: (None, 1))
        daemon.may_read.clear()
        value = bytes(1_000_000)
        with measured_memory() as peak:
            begin = time.monotonic()
            errors = await asyncio.gather(*(client.put("b", "k", value, timeout=1) for _ in range(200)),
                                          return_exceptions=True)
            self.assertGreaterEqual(time.monotonic() - begin, 1)
        self.assertLess(peak(), 20_000_000)
        self.assertEqual({type(error) for error in errors}, {kvstored.DeadlineExceeded})
        unsent = [error for error in errors if error.outcome == "none"]
        self.assertGreater(len(unsent), 190)
        for error in unsent:
            self.assertRegex(str(error), "^the daemon reads nothing: the call was not sent$")
            self.assertTrue(error.retryable)
        daemon.may_read.set()
        self.assertEqual(await client.put("b", "l", "v"), 1)
        self.assertLessEqual(len(daemon.calls), 200 - len(unsent) + 1)  # those are not sent later

    async def test_a_value_is_not_copied_while_it_waits_for_the_socket(self):
        """But by MessagePack."""
        daemon, client = self.start(lambda method, _: (None, 1))
        value = bytes(8_000_000)
        await client.connect()
        daemon.may_read.clear()
        limit = packing_memory(value) + 4_000_000  # a copy has 8 MB
        with measured_memory() as peak:
            task = asyncio.ensure_future(client.put("b", "k", value))
            await self.wait_until(lambda: client._channel._is_full)  # pylint: disable=protected-access
        self.assertLess(peak(), limit)
        daemon.may_read.set()
        self.assertEqual(await task, 1)
        self.assertEqual([len(arguments[2]) for _, arguments in daemon.calls], [8_000_000])

    async def test_closing_does_not_wait_for_a_daemon_that_reads_nothing(self):
        daemon, client = self.start(lambda method, _: (None, 1))
        daemon.may_read.clear()
        task = asyncio.ensure_future(client.put("b", "k", bytes(5_000_000)))
        await self.wait_until(lambda: daemon.connections)
        await asyncio.wait_for(client.close(), PATIENCE_S / 2)
        with self.assertRaises(kvstored.Unavailable):
            await task

    async def test_calls_that_wait_for_room_are_sent_in_their_order_also_on_the_next_connection(self):
        daemon, client = self.start(lambda method, _: (None, 1))
        daemon.may_read.clear()
        with measured_memory() as peak:
            value = bytes(1_000_000)
            tasks = [asyncio.ensure_future(client.put("b", f"k{i:03}", value)) for i in range(100)]
            await self.wait_until(lambda: daemon.connections)
            daemon.drop()
            await self.wait_until(lambda: len(daemon.connections) == 2)
            connection = client._channel  # pylint: disable=protected-access
            await self.wait_until(lambda: connection._is_full)  # pylint: disable=protected-access
        self.assertLess(peak(), 20_000_000)
        cancelled = tasks.pop()
        cancelled.cancel()
        daemon.may_read.set()
        self.assertEqual(await asyncio.gather(*tasks), [1] * 99)
        keys = [arguments[1] for _, arguments in daemon.calls]
        self.assertEqual(keys, [f"k{i:03}" for i in range(99)])

    async def test_a_failed_write_does_not_lose_the_last_answers(self):
        """Those of a daemon that shuts down: an answer, and the dismissal, after which every call can be repeated."""
        has_ended = threading.Event()

        def answer(_method, _arguments):
            if has_ended.is_set():
                return None, 2
            connection = daemon.connections[0]
            connection.sendall(msgpack.packb([1, 1, None, 1]) + msgpack.packb([1, None, DISMISSAL, None]))
            connection.shutdown(socket.SHUT_RDWR)
            has_ended.set()
            return b""

        daemon, client = self.start(answer)
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = PATIENCE_S
        await client.connect()
        first = asyncio.ensure_future(client.call("bucket.purge", "a"))
        await asyncio.sleep(0)  # the call is made
        loop.call_soon(has_ended.wait, PATIENCE_S)  # and sent. Then the loop is blocked
        second = asyncio.ensure_future(client.call("bucket.purge", "b"))
        self.assertEqual([await first, await second], [1, 2])
        self.assertEqual([arguments[0] for _, arguments in daemon.calls], ["a", "b"])

    async def end_session(self, reason, *, has_answered):
        """Let the daemon end a session while a write with an id and one without are in flight. Return what the other
        one has returned or raised, and whether the one with an id was repeated as one that may have been executed."""
        def answer(method, _):
            if len(daemon.connections) > 1 or method == "daemon.info":
                return None, 1
            if method == "bucket.purge":
                daemon.connections[0].sendall(msgpack.packb([1, None, reason, None]))
                daemon.drop()
            return b""

        daemon, client = self.start(answer)
        if has_answered:
            await client.call("daemon.info")
        written, purged = await asyncio.gather(client.put("b", "k", "v"), client.call("bucket.purge", "b"),
                                               return_exceptions=True)
        self.assertEqual(written, 1)
        first, second = [arguments[-1] for method, arguments in daemon.calls if method == "kv.put"]
        self.assertEqual(first["id"], second["id"])
        return purged, "first_sent" in second

    async def test_only_a_dismissal_says_that_nothing_was_executed(self):
        exhausted = {**DISMISSAL, "code": "resource_exhausted"}
        self.assertEqual(await self.end_session(DISMISSAL, has_answered=True), (1, False))
        # A session that is refused has executed nothing. One that is ended for its memory may have.
        self.assertEqual(await self.end_session(exhausted, has_answered=False), (1, True))
        purged, is_repeated = await self.end_session(exhausted, has_answered=True)
        self.assertEqual((type(purged), purged.outcome, is_repeated), (kvstored.ResourceExhausted, "unknown", True))

    async def test_a_call_writes_what_its_arguments_were_when_it_was_made(self):
        """Also when it is sent again: with its id, other arguments are an error although it was executed."""
        daemon, client = self.start(lambda method, _: (None, 1) if len(daemon.connections) > 1 else b"")
        value, tree, headers = bytearray(b"value"), {"a": [{"b": 1}]}, {"By": "me"}
        calls = [asyncio.ensure_future(call) for call in (
            client.put("b", "k", value, headers=headers), client.put("b", "l", memoryview(value)),
            client.put("b", "m", tree), client.bulk_put("b", {"n": tree}))]
        calls[3].add_done_callback(lambda call: call.exception())  # its answer is not a map
        await self.wait_until(lambda: len(daemon.calls) == 4)
        value[:] = b"other"
        tree["a"][0]["b"] = 2
        headers["By"] = "you"
        daemon.drop()
        self.assertEqual(await asyncio.gather(*calls[:3]), [1, 1, 1])
        await self.wait_until(lambda: len(daemon.calls) == 8)
        for (_, first), (_, second) in zip(daemon.calls[:4], daemon.calls[4:]):
            del second[-1]["first_sent"]
            self.assertEqual(first, second)

    async def test_names_that_are_not_utf8_are_texts_with_surrogate_escapes(self):
        """Other NATS clients can store them. The daemon sends them as bin."""
        entry = {"key": b"k\xff", "value": b"v", "revision": 7, "created": 0, "operation": "put",
                 "headers": {b"N\xfe": "x", "By": b"\xe4"}}
        plain = {"key": b"\xe4.b", "value": b"v", "revision": 8, "created": 0, "operation": "put"}
        answers = {
            "kv.get": entry, "kv.history": [entry, plain], "kv.keys": ["a", b"k\xff"], "bucket.info": {
                "last_revision": 0}, "watch.start": 1, "daemon.config": {
                "file": b"/etc/\xff", "access": [{"users": [b"\xff"], "groups": [], "buckets": ["*"], "allow": "read",
                                                  "line": 1}],
                "settings": {"listen.path": {"value": b"/run/\xff", "from": "file", "line": 2}}}}
        pages = [[entry, plain], []]

        def answer(method, _):
            if method == "kv.entries":
                return None, pages.pop(0)
            if method == "kv.put":
                return {"code": "conflict", "message": "m", "retryable": False, "bucket": "b", "key": b"k\xff"}, None
            if method == "watch.stop":
                return None, None
            if method == "watch.start":
                return msgpack.packb([1, 2, None, 1]) + msgpack.packb([2, "watch.entries", [1, [entry, plain]]])
            return None, answers[method]

        daemon, client = self.start(answer)
        watch = self.start(answer)[1].watch("b")
        read = [await client.get("b", "k"), (await client.history("b", "k"))[0], await watch.__anext__()]
        await watch.close()
        for one in read:
            self.assertEqual((one.key, one.headers), ("k\udcff", {"N\udcfe": "x", "By": "\udce4"}))
            self.assertEqual(one.key.encode(errors="surrogateescape"), b"k\xff")
        self.assertEqual((await client.history("b", "k"))[1].key, "\udce4.b")
        self.assertEqual(await client.keys("b", after="k\udcff"), ["a", "k\udcff"])
        self.assertEqual([one.key async for one in client.iterate("b")], ["k\udcff", "\udce4.b"])
        self.assertEqual([arguments[-1].get("after") for method, arguments in daemon.calls if method in (
            "kv.keys", "kv.entries")], [b"k\xff", None, b"\xe4.b"])
        with self.assertRaises(kvstored.Conflict) as raised:
            await client.put("b", "k", "v")
        self.assertEqual(raised.exception.key, "k\udcff")
        config = await client.config()
        self.assertEqual((config.file, config.settings["listen.path"].value, config.access[0].users),
                         ("/etc/\udcff", "/run/\udcff", ["\udcff"]))

    async def test_a_call_with_a_name_that_is_not_utf8_is_refused(self):
        daemon, client = self.start(lambda method, _: (None, 1))
        for call, where in (
                (client.get("b", "k\udcff"), "argument 2 of kv.get"), (client.put("b", "k\udcff", "v"), "argument 2"),
                (client.put("b", "k", "v", headers={"By": "\udcff"}), "option headers of kv.put")):
            with self.assertRaisesRegex(kvstored.InvalidArgument, f"^{where}.*: '.*' is not UTF-8: ") as raised:
                await call
            self.assertEqual(raised.exception.outcome, "none")
        self.assertEqual(await client.put("b", "k", "v"), 1)
        self.assertEqual(daemon.methods(), ["kv.put"])

    async def test_a_malformed_error_ends_the_calls(self):
        for malformed in (True, 5, [], {"code": "conflict"}, {"message": "no code"}, "no code"):
            _, client = self.start(lambda method, _, error=malformed: (error, None))
            for call in (client.get("b", "k"), client.put("b", "k", "v"), client.lock("b", "l", wait=0).acquire()):
                with self.assertRaises(kvstored.Internal) as raised:
                    await asyncio.wait_for(call, PATIENCE_S / 2)
                self.assertIn("broke the protocol", str(raised.exception))

    async def test_a_message_of_another_form_ends_the_calls(self):
        for message in (b"\xc1", b"\x05", b"\x94\x01\x90\xc0\xc0", b"\x94\x00\x01\xc0\xc0"):
            _, client = self.start(lambda method, _, message=message: message)
            for call in (client.get("b", "k", timeout=0.1), client.lock("b", "l", wait=0).acquire()):
                with self.assertRaises(kvstored.KvstoredError) as raised:
                    await asyncio.wait_for(call, PATIENCE_S / 2)
                self.assertIn("broke the protocol", str(raised.exception))

    async def test_a_malformed_result_is_an_error_of_the_call(self):
        for result in (True, 5, "text", [5], {"a": 1}):
            _, client = self.start(lambda method, _, result=result: (None, result))
            calls = [client.get("b", "k"), client.history("b", "k"), client.bulk_get("b", ["k"]),
                     client.bulk_put("b", {"k": "v"}), client.bucket_info("b"), client.bucket_infos(), client.health(),
                     client.info(), client.stats(), client.dump(), client.config(), client.sessions(),
                     client.lock("b", "l", wait=0).acquire(), client.watch("b").__anext__()]
            if result != 5:
                calls += [client.put("b", "k", "v"), client.increment("b", "k"), client.delete_matching("b", "x")]
            if not isinstance(result, list):
                calls.append(client.keys("b"))
            if not isinstance(result, str):
                calls.append(client.metrics())
            if not isinstance(result, dict):
                calls.append(client.session_configure())
            for call in calls:
                with self.assertRaises(kvstored.Internal) as raised:
                    await asyncio.wait_for(call, PATIENCE_S / 2)
                self.assertIn("broke the protocol", str(raised.exception))
