"""The interface of the original service, used as its programs use it."""
import asyncio
import json
import unittest
import unittest.mock

from kvstored.service import KVStoreService, ServiceError, ServiceManager
from own_daemon import DaemonTest


class UsageExample(DaemonTest, unittest.IsolatedAsyncioTestCase):
    """The usage of a job queue."""

    async def asyncSetUp(self):
        self.manager = await ServiceManager(self.path).start()
        self.store = self.manager.kv_store

    async def asyncTearDown(self):
        await self.manager.stop()

    async def test_a_job_queue(self):
        store: KVStoreService = self.store
        await store.get_kv_store("jobs", history=5, description="jobs")
        await store.get_kv_store("jobs", history=5)

        revision = await store.put("jobs", "job.1", json.dumps({"state": "new"}), ttl=3600, owner="worker-1")
        self.assertEqual(await store.get_json("jobs", "job.1"), {"state": "new"})
        self.assertEqual(json.loads(await store.get("jobs", "job.1")), {"state": "new"})
        revision = await store.update("jobs", "job.1", json.dumps({"state": "done"}), revision, owner="worker-2")
        entries = await store.history("jobs", "job.1")
        self.assertEqual((entries[-1].revision, entries[-1].headers), (revision, {"owner": "worker-2"}))
        with self.assertRaises(ServiceError) as raised:
            await store.update("jobs", "job.1", "x", revision - 1)
        self.assertEqual((raised.exception.code, raised.exception.outcome), ("conflict", "none"))

        async with store.kv_transaction("jobs") as transaction:
            transaction.add_operation("put", "job.2", "a")
            transaction.add_operation("put", "job.3", "b")
            transaction.add_operation("delete", "job.1")
        transaction = store.kv_transaction("jobs")
        transaction.add_operation("create", "job.4", "c", ttl=60)
        self.assertEqual(len(await transaction.commit()), 1)
        with self.assertRaises(ServiceError):
            transaction.add_operation("steal", "job.4", "x")

        revisions = await store.bulk_put("jobs", {"x": "1", "y": "2"}, ttl=60)
        self.assertEqual(sorted(revisions), ["x", "y"])
        self.assertEqual(await store.bulk_get("jobs", ["x", "y", "z"]), {"x": b"1", "y": b"2", "z": None})
        with self.assertRaises(ServiceError):
            await store.bulk_put("jobs", [("a..b", "1")])
        self.assertGreater(await store.put_with_retry("jobs", "k", "v", max_retries=3), 0)
        self.assertEqual((await store.delete("jobs", "k"), await store.delete("jobs", "k")), (True, False))
        self.assertIsNone(await store.get("jobs", "k"))

        health = await store.health_check("jobs")
        self.assertEqual(sorted(health), ["bucket", "healthy", "history", "max_value_size", "replicas", "ttl", "values"])
        self.assertTrue(health["healthy"])
        await store.purge("jobs")
        self.assertIsNone(await store.get("jobs", "job.2"))
        self.assertEqual((await store.delete_bucket("jobs"), await store.delete_bucket("jobs")), (True, False))
        with self.assertRaises(ServiceError) as raised:
            await store.get("jobs", "job.2")
        self.assertEqual(raised.exception.code, "bucket_not_found")

    async def test_a_put_is_retried_only_after_errors_that_may_heal_and_not_without_end(self):
        passing, lasting = ServiceError("x", retryable=True), ServiceError("x")
        for outcomes, wanted in (([passing, passing, 7], 3), ([passing] * 4, 3), ([lasting, 7], 1)):
            with unittest.mock.patch.object(self.store, "put", side_effect=outcomes) as put:
                try:
                    self.assertEqual(await self.store.put_with_retry("b", "k", "v", max_retries=2), 7)
                except ServiceError as error:
                    self.assertIs(error, outcomes[wanted - 1])
                self.assertEqual(put.call_count, wanted)

    async def test_wrong_arguments_are_service_errors_too(self):
        store = self.store
        await store.create_bucket("wrong")
        committed = store.kv_transaction("wrong")
        committed.add_operation("put", "t", "v")
        await committed.commit()
        for call in (
                lambda: store.put("wrong", "k", None), lambda: store.put("wrong", "k", object()),
                lambda: store.put("wrong", "k", "v", ttl="5"), lambda: store.put("wrong", "k", 1 << 70),
                lambda: store.put("wrong", None, "v"), lambda: store.put("wrong", "k", "v", header=None),
                lambda: store.bulk_put("wrong", ["a"]), lambda: store.bulk_put("wrong", {"a": None}),
                lambda: store.bulk_get("wrong", "a"), lambda: store.put_with_retry("wrong", "k", "v", max_retries=-1),
                lambda: store.get_kv_store("new", histori=9), lambda: store.history("wrong", None), committed.commit,
                lambda: committed.add_operation("put", "k", "v"), lambda: committed.add_operation("delete", "t"),
                lambda: committed.get("t"), lambda: committed.add_operation("put", "k", None),
                lambda: committed.add_operation("put", "k", object()),
                lambda: committed.add_operation("put", "k", "v", ttl="5"),
                lambda: committed.add_operation("update", "k", "v"), lambda: committed.add_operation("steal", "k")):
            with self.assertRaises(ServiceError) as raised:
                await call()
            self.assertEqual((raised.exception.code, raised.exception.outcome or "none"), ("invalid_argument", "none"))
        self.assertEqual(await store.bulk_get("wrong", ["k", "t"]), {"k": None, "t": b"v"})

    async def test_headers_may_be_numbers_and_operations_may_be_awaited(self):
        store = self.store
        await store.create_bucket("h", history=5)
        revision = await store.put("h", "k", "v", attempt=3, load=0.5)
        await store.update("h", "k", "v", revision, attempt=4)
        async with store.kv_transaction("h") as transaction:
            await transaction.add_operation("put", "k", "v", attempt=5)
        self.assertEqual([entry.headers for entry in await store.history("h", "k")],
                         [{"attempt": "3", "load": "0.5"}, {"attempt": "4"}, {"attempt": "5"}])

    async def test_the_health_of_a_bucket_always_has_the_same_members(self):
        health = await self.store.health_check("missing")
        self.assertIn("create_bucket", health.pop("error"))
        self.assertEqual(health, {"bucket": "missing", "values": None, "history": None, "ttl": None,
                                  "max_value_size": None, "replicas": None, "healthy": False})

    async def test_a_manager_starts_again(self):
        store = self.store
        await store.create_bucket("again")
        await self.manager.stop()
        with self.assertRaises(ServiceError) as raised:
            await store.get("again", "k")
        self.assertEqual(raised.exception.code, "unavailable")
        await self.manager.start()
        self.assertGreater(await store.put("again", "k", "v"), 0)

    async def test_a_put_outlasts_a_restart(self):
        store = self.store
        await store.create_bucket("r")
        self.stop_daemon()
        task = asyncio.ensure_future(store.put_with_retry("r", "k", "v"))
        await asyncio.sleep(0)
        self.start_daemon()
        self.assertGreater(await task, 0)
        self.assertTrue(await self.manager.connection.is_healthy())
