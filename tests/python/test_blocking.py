"""The blocking client."""
import asyncio
import concurrent.futures
import contextlib
import dataclasses
import datetime
import gc
import itertools
import os
import pathlib
import queue
import signal
import sys
import threading
import time
import unittest

import kvstored
import kvstored.aio
from daemon_process import PATIENCE_S
from fake_daemon import FakeDaemon, measured_memory, packing_memory
from kvstored import daemon
from kvstored._core import Request
from kvstored.errors import error_of
from own_daemon import DaemonTest


class Calls(DaemonTest):
    """Each method, its result and its errors."""

    def setUp(self):
        self.client = self.new_client()
        self.addCleanup(self.client.close)
        self.bucket = self.id().rpartition(".")[2]
        self.client.bucket_create(self.bucket, history=5)

    def test_values_come_back_as_bytes_text_and_json(self):
        client, bucket = self.client, self.bucket
        client.put(bucket, "text", "grün")
        client.put(bucket, "bytes", b"\0\xff")
        client.put(bucket, "view", memoryview(b"xyz"))
        client.put(bucket, "tree", {"a": [1, None, 2.5, True]})
        self.assertEqual(client.get(bucket, "text").text, "grün")
        self.assertEqual(client.get(bucket, "bytes").value, b"\0\xff")
        self.assertEqual(client.get(bucket, "view").value, b"xyz")
        self.assertEqual(client.get(bucket, "tree").json(), {"a": [1, None, 2.5, True]})
        self.assertEqual(client.get_json(bucket, "tree"), {"a": [1, None, 2.5, True]})
        revision = client.get(bucket, "tree").revision
        client.put(bucket, "tree", {})
        self.assertEqual(client.get_json(bucket, "tree", revision=revision), {"a": [1, None, 2.5, True]})
        self.assertIsNone(client.get(bucket, "missing"))
        self.assertIsNone(client.get_json(bucket, "missing"))

    def test_an_entry_has_its_members(self):
        revision = self.client.put(self.bucket, "k", "v", ttl=datetime.timedelta(hours=1), headers={"By": "me"})
        entry = self.client.get(self.bucket, "k")
        self.assertEqual((entry.key, entry.revision, entry.headers, entry.ttl), ("k", revision, {"By": "me"}, 3600))
        self.assertEqual((entry.expires - entry.created).total_seconds(), 3600)
        self.assertEqual(entry.created.tzinfo, datetime.timezone.utc)
        self.assertFalse(entry.is_deleted)

    def test_writes_have_conditions(self):
        client, bucket = self.client, self.bucket
        first = client.create(bucket, "k", "1")
        with self.assertRaises(kvstored.AlreadyExists) as raised:
            client.create(bucket, "k", "2")
        self.assertEqual((raised.exception.revision, raised.exception.outcome), (first, "none"))
        second = client.update(bucket, "k", "2", first)
        with self.assertRaises(kvstored.Conflict) as raised:
            client.update(bucket, "k", "3", first)
        error = raised.exception
        self.assertEqual((error.bucket, error.key, error.revision, error.code), (bucket, "k", second, "conflict"))
        self.assertIn("revision", str(error))
        with self.assertRaises(kvstored.Conflict):
            client.delete(bucket, "k", revision=first)
        self.assertGreater(client.delete(bucket, "k", revision=second), second)
        self.assertIsNone(client.delete(bucket, "k", if_exists=True))
        self.assertEqual([entry.operation for entry in client.history(bucket, "k")], ["put", "put", "delete"])
        client.purge(bucket, "k")
        self.assertEqual([entry.operation for entry in client.history(bucket, "k")], ["purge"])

    def test_numbers_are_counted(self):
        client, bucket = self.client, self.bucket
        self.assertEqual(client.increment(bucket, "n").value, 1)
        self.assertEqual(client.increment(bucket, "n", -5).value, -4)
        self.assertEqual(client.increment(bucket, "m", 2, initial=40, ttl=60).value, 42)
        self.assertEqual(client.get(bucket, "m").ttl, 60)
        client.put(bucket, "text", "x")
        with self.assertRaises(kvstored.NotAnInteger):
            client.increment(bucket, "text")
        client.put(bucket, "large", str(2**63 - 1))
        with self.assertRaises(kvstored.OutOfRange):
            client.increment(bucket, "large")

    def test_ttls_are_touched_and_kept(self):
        client, bucket = self.client, self.bucket
        client.put(bucket, "k", "v")
        self.assertGreater(client.touch(bucket, "k", 60), 0)
        client.put(bucket, "k", "w", keep_ttl=True)
        self.assertIsNotNone(client.get(bucket, "k").expires)
        client.touch(bucket, "k", 0)
        self.assertIsNone(client.get(bucket, "k").expires)
        self.assertIsNone(client.touch(bucket, "missing", 60))

    def test_many_keys_are_read_and_written_together(self):
        client, bucket = self.client, self.bucket
        results = client.bulk_put(bucket, {"a": "1", "b": "2", "a..b": "3"})
        self.assertIsInstance(results["a..b"], kvstored.InvalidArgument)
        entries = client.bulk_get(bucket, ["a", "b", "c"])
        self.assertEqual((entries["a"].text, entries["b"].text, entries["c"]), ("1", "2", None))
        self.assertEqual(entries["a"].revision, results["a"])
        client.bulk_delete(bucket, ["a"])
        self.assertEqual(client.keys(bucket), ["b"])

    def test_text_is_no_list_of_keys(self):
        client, bucket = self.client, self.bucket
        client.bulk_put(bucket, {"a": "1", "b": "2"})
        for method in (client.bulk_get, client.bulk_delete, client.transaction(bucket).get_many):
            arguments = () if method.__name__ == "get_many" else (bucket,)
            for keys in ("ab", b"ab"):
                with self.assertRaisesRegex(TypeError, "keys: a list of keys, not"):
                    method(*arguments, keys)
        self.assertEqual(client.keys(bucket), ["a", "b"])
        for values in (["a", "b"], ["ab", "cd"], "ab"):
            for method in (client.bulk_put, lambda name, values: client.bucket(name).update(values)):
                with self.assertRaisesRegex(TypeError, "values: a dict of keys and their values, not a (list|str)"):
                    method(bucket, values)

    def test_a_value_of_another_type_is_refused(self):
        client, bucket = self.client, self.bucket
        transaction = client.transaction(bucket)
        for value in (datetime.datetime.now(), {1}, object(), None):
            for name, use in (
                    ("value", lambda v: client.put(bucket, "k", v)), ("value", lambda v: client.create(bucket, "k", v)),
                    ("value", lambda v: client.update(bucket, "k", v, 1)), ("value", lambda v: transaction.put("k", v)),
                    ("value", lambda v: transaction.create("k", v)), ("value", lambda v: transaction.update("k", v, 1)),
                    ("value of 'k'", lambda v: client.bulk_put(bucket, {"k": v})),
                    ("argument 3 of kv.put", lambda v: client.put(bucket, "k", {"a": [v or object()]})),
                    ("option headers of kv.put", lambda v: client.put(bucket, "k", "v", headers={"a": v or object()}))):
                with self.assertRaisesRegex(TypeError, f"^{name}: .*: pass bytes or str, or what JSON can express"):
                    use(value)
        with self.assertRaisesRegex(TypeError, "^value: "):
            client.lock(bucket, "l", value=object())
        endless = []
        endless.append(endless)
        with self.assertRaisesRegex(ValueError, "nested too deeply"):
            client.put(bucket, "k", endless)
        self.assertIsNone(client.get(bucket, "k"))

    def test_an_integer_of_more_than_64_bits_is_refused(self):
        client, bucket = self.client, self.bucket
        for name, use in (("argument 3 of kv.put", lambda: client.put(bucket, "k", 1 << 70)),
                          ("argument 3 of kv.put", lambda: client.put(bucket, "k", {"a": [-1 << 70]})),
                          ("argument 2 of bulk.put", lambda: client.bulk_put(bucket, {"k": 1 << 70})),
                          ("option revision of kv.delete", lambda: client.delete(bucket, "k", revision=1 << 64))):
            with self.assertRaisesRegex(kvstored.InvalidArgument, f"^{name}: an integer must fit into 64") as raised:
                use()
            self.assertEqual(raised.exception.outcome, "none")
        self.assertIsNone(client.get(bucket, "k"))

    def test_a_value_that_is_not_json_is_named(self):
        client, bucket = self.client, self.bucket
        client.put(bucket, "k", "{no JSON")
        client.put(bucket, "l", b"\xff")
        view = client.bucket(bucket, kvstored.JSON)
        with client.watch(bucket) as watch:
            watched = list(watch.initial())
        for key in ("k", "l"):
            for use in (lambda key: client.get_json(bucket, key), lambda key: client.get(bucket, key).json(),
                        lambda key: view[key], view.get, view.pop, lambda key: view.setdefault(key, 1),
                        lambda key: client.history(bucket, key)[0].json(),
                        lambda key: client.bulk_get(bucket, [key])[key].json(),
                        lambda key: [entry for entry in client.entries(bucket) if entry.key == key][0].json(),
                        lambda key: [entry for entry in watched if entry.key == key][0].json()):
                for kind in (kvstored.NotJson, kvstored.KvstoredError, ValueError):
                    with self.assertRaisesRegex(kind, f"^{bucket}/{key}: the value is not JSON: "):
                        use(key)
        self.assertEqual(client.keys(bucket), ["k", "l"])  # pop has deleted nothing

    def test_a_codec_is_no_text(self):
        with self.assertRaisesRegex(TypeError, "^codec: kvstored.TEXT, kvstored.JSON or "):
            self.client.bucket(self.bucket, "json")

    def test_the_function_of_a_transaction_is_not_async(self):
        async def put(transaction):
            transaction.put("k", "v")

        with self.assertRaisesRegex(TypeError, "kvstored.aio.Client"):
            self.client.run_transaction(self.bucket, put)
        self.assertIsNone(self.client.get(self.bucket, "k"))

    def test_advice_names_the_methods_of_python(self):
        client = self.client
        for advice, use in (
                ("bucket_info shows them, bucket_update changes them",
                 lambda: client.bucket_create(self.bucket, history=7)),
                ("does not exist; bucket_create creates it", lambda: client.get("nobucket", "k")),
                ("does not exist; bucket_create creates it", lambda: client.bucket_info("nobucket"))):
            with self.assertRaisesRegex(kvstored.KvstoredError, advice):
                use()
        for message, wanted in (
                ("call kv.get.", "call get."), ("kv.get_json", "get_json"), ("a.kv.get kv.get.b kv.gets", None),
                ('"bucket.create" is', None), ("watch.start returned it", "watch returned it")):
            error = error_of({"code": "internal", "message": message, "retryable": False})
            self.assertEqual(error.message, wanted or message)

    def test_times_are_seconds_or_timedeltas(self):
        client, bucket = self.client, self.bucket
        five = datetime.timedelta(minutes=5)
        for info in (client.bucket_create(bucket + "2", ttl=five, limit_marker_ttl=five),
                     client.bucket_update(bucket, ttl=five, limit_marker_ttl=five, marker_ttl=five)):
            self.assertEqual((info.ttl, info.settings["limit_marker_ttl"]), (300, 300))
        self.assertEqual(info.settings["marker_ttl"], 300)
        for name, use in (
                ("timeout", lambda: kvstored.Client(timeout="5")), ("timeout", lambda: kvstored.Client(timeout=None)),
                ("timeout", lambda: client.get(bucket, "k", timeout="5")),
                ("wait", lambda: client.lock(bucket, "l", wait="10")),
                ("ttl", lambda: client.put(bucket, "k", "v", ttl="60")),
                ("marker_ttl", lambda: client.bucket_update(bucket, marker_ttl="60"))):
            with self.assertRaisesRegex(TypeError, f"^{name}: seconds or a timedelta, not "):
                use()
        with self.assertRaisesRegex(ValueError, "^wait: "):
            client.lock(bucket, "l", wait=-1)

    def test_the_path_can_be_a_path_object(self):
        with kvstored.Client(pathlib.Path(self.path), timeout=PATIENCE_S) as client:
            self.assertIsNone(client.get(self.bucket, "k"))
        with self.assertRaises(TypeError):
            kvstored.Client(5)

    def test_keys_and_entries_come_in_pages(self):
        client, bucket = self.client, self.bucket
        client.bulk_put(bucket, {f"k{i:04}": str(i) for i in range(2500)})
        self.assertEqual(client.keys(bucket, limit=2, after="k0100"), ["k0101", "k0102"])
        self.assertEqual([entry.text for entry in client.iterate(bucket)], [str(i) for i in range(2500)])
        self.assertEqual(client.delete_matching(bucket, ">"), 2500)
        self.assertEqual(client.entries(bucket), [])

    def test_a_filter_that_is_none_matches_no_key(self):
        client, bucket = self.client, self.bucket
        client.put(bucket, "k", "v")
        for use in (client.delete_matching, client.purge_matching):
            with self.assertRaisesRegex(TypeError, "^filter: "):
                use(bucket, None)
            self.assertEqual(client.keys(bucket), ["k"])
        self.assertEqual(client.purge_matching(bucket, ">"), 1)

    def test_buckets_are_made_changed_and_listed(self):
        client = self.client
        name = self.bucket + "2"
        info = client.bucket_create(name, history=3, description="x")
        self.assertEqual((info.bucket, info.history, info.settings["description"]), (name, 3, "x"))
        with self.assertRaises(kvstored.AlreadyExists):
            client.bucket_create(name, history=4)
        self.assertEqual(client.bucket_create(name, history=4, update=True).history, 4)
        self.assertEqual(client.bucket_update(name, ttl=60).ttl, 60)
        self.assertEqual(client.bucket_list(self.bucket + "*"), [self.bucket, name])
        client.put(name, "k", "v")
        client.bucket_purge(name)
        self.assertEqual(client.bucket_info(name).values, 0)
        client.bucket_delete(name)
        with self.assertRaises(kvstored.BucketNotFound):
            client.bucket_info(name)

    def test_the_infos_of_buckets_are_listed(self):
        client = self.client
        names = [f"{self.bucket}-{i}" for i in range(3)]
        for history, name in enumerate(names, 1):
            client.bucket_create(name, history=history)
        infos = client.bucket_infos(self.bucket + "-*")
        self.assertEqual([(name, info.bucket, info.history) for name, info in infos.items()],
                         [(name, name, history) for history, name in enumerate(names, 1)])
        self.assertEqual(list(client.bucket_infos(self.bucket + "-*", limit=1, after=names[0])), [names[1]])
        self.assertEqual(client.bucket_infos(self.bucket + "-*", after=names[2]), {})

    def test_the_daemon_tells_about_itself(self):
        client = self.client
        health = client.health()
        self.assertEqual((health.healthy, health.error, health.nats.connected), (True, None, True))
        self.assertGreater(health.store.disk_free, 0)
        self.assertEqual(client.health(self.bucket).details["history"], 5)
        info = client.info()
        self.assertEqual((info.pid, info.nats.mode, info.limits["frame_depth"]),
                         (self.daemon.process.pid, "embedded", 32))
        self.assertIn("kv.get", info.methods)
        self.assertIs(info.details["methods"], info.methods)
        client.get(self.bucket, "k")
        stats = client.stats()
        self.assertGreater(stats.uptime, 0)
        self.assertEqual((stats.nats.version, stats.store.disk_reserve), (info.nats.version, health.store.disk_reserve))
        self.assertGreaterEqual(stats.methods["kv.get"].calls, 1)
        self.assertGreaterEqual(stats.methods["kv.get"].max_us, stats.methods["kv.get"].p50_us)
        with self.assertRaises(kvstored.Conflict):
            client.update(self.bucket, "k", "v", 7)
        self.assertGreaterEqual(client.stats().errors["conflict"], 1)
        metrics = client.metrics()
        self.assertIn("kvstored_calls", metrics)
        self.assertTrue(metrics.endswith("# EOF\n"))
        self.assertEqual(client.call("kv.keys", self.bucket, filter="x.>"), [])

    def test_each_member_of_the_daemons_answers_has_an_attribute(self):
        """A member that is not in the protocol yet is in `details` only: add it to client/python/kvstored/daemon.py."""
        client = self.client
        client.put(self.bucket, "k", "v")

        def check(record):
            self.assertIsInstance(record, daemon.Record)
            names = {field.name for field in dataclasses.fields(record)} - {"details"}
            known = {"items": "list", "sessions": "list", "origin": "from"} if not isinstance(
                record, daemon.Stats) else {}
            self.assertLessEqual(set(record.details), {known.get(name, name) for name in names}, type(record))
            for name in names:
                member = getattr(record, name)
                members = member if isinstance(member, list) else \
                    member.values() if isinstance(member, dict) else [member]
                for one in members:
                    if isinstance(one, daemon.Record):
                        check(one)

        for record in (client.health(), client.info(), client.stats(), client.config(), client.sessions()):
            check(record)

    def test_what_the_daemon_does_is_dumped(self):
        dump = self.client.dump(limit=1)
        self.assertEqual([(call["method"], call["state"]) for call in dump["calls"].items],
                         [("daemon.dump", "running")])
        self.assertGreaterEqual(dump["sessions"].count, 1)
        self.assertIn("idle", dump["sessions"].details)

    def test_the_configuration_has_values_and_their_origins(self):
        config = self.client.config()
        self.assertTrue(config.file.endswith("kvstored.yaml"))
        self.assertEqual(config.access, [])
        interval, path = config.settings["nats.sync_interval"], config.settings["listen.path"]
        self.assertEqual((interval.origin, path.origin, path.secret), ("file", "file", False))
        self.assertTrue(path.value.endswith("socket"))
        self.assertGreater(path.line, 0)
        self.assertEqual((config.settings["listen.owner"].value, config.settings["listen.owner"].origin),
                         (None, "default"))

    def test_a_session_is_listed_and_ended(self):
        with self.new_client(reconnect=False) as other:
            sessions = other.sessions(sort="age", limit=1000)
            self.assertEqual(sessions.count, len(sessions.sessions))
            own = [session for session in sessions.sessions if session.id == sessions.own]
            self.assertEqual([(session.pid, session.uid) for session in own], [(os.getpid(), os.getuid())])
            with self.assertRaises(kvstored.InvalidArgument) as raised:
                other.kill_session(sessions.own)
            self.assertNotIn("daemon.", str(raised.exception))
            self.client.kill_session(sessions.own)
            with self.assertRaisesRegex(kvstored.Unavailable, "with kill_session"):
                other.get(self.bucket, "k")
        with self.assertRaises(kvstored.InvalidArgument):
            self.client.sessions(sort="name")

    def test_errors_can_be_texts(self):
        self.assertEqual(self.client.session_configure(), {"errors": "map"})
        self.assertEqual(self.client.session_configure(errors="text"), {"errors": "text"})
        with self.assertRaises(kvstored.Conflict) as raised:
            self.client.update(self.bucket, "k", "v", 77)
        self.assertEqual((raised.exception.outcome, raised.exception.revision), ("none", None))

    def test_wrong_calls_are_errors_and_the_connection_stays(self):
        client, bucket = self.client, self.bucket
        with self.assertRaises(ValueError):
            client.get(bucket, "a..b")
        with self.assertRaises(kvstored.InvalidArgument):
            client.call("kv.nothing")
        with self.assertRaises(TypeError):
            client.put(bucket, "k", object())
        with self.assertRaises(kvstored.TooLarge):
            client.put(bucket, "k", bytes(2_000_000))
        self.assertIsNone(client.get(bucket, "k"))

    def test_a_get_waits_for_a_change(self):
        client, bucket = self.client, self.bucket
        revision = client.put(bucket, "k", "1")
        results = []
        thread = threading.Thread(
            target=lambda: results.append(client.get(bucket, "k", wait_above=revision, timeout=PATIENCE_S)))
        thread.start()
        while client.stats().watches.open == 0 and not results:
            pass
        client.put(bucket, "k", "2")
        thread.join(PATIENCE_S)
        self.assertEqual(results[0].text, "2")

    def test_a_transaction_is_done_as_a_whole(self):
        client, bucket = self.client, self.bucket
        client.bulk_put(bucket, {"alice": "100", "bob": "0"})

        def move(transaction):
            entries = transaction.get_many(["alice", "bob"])
            transaction.put("alice", str(int(entries["alice"].text) - 30))
            transaction.put("bob", str(int(entries["bob"].text) + 30))
            return "moved"

        self.assertEqual(client.run_transaction(bucket, move), "moved")
        with client.transaction(bucket) as transaction:
            transaction.delete("alice")
            transaction.create("carol", "1", ttl=60)
        self.assertEqual(len(transaction.revisions), 2)
        self.assertEqual(client.keys(bucket), ["bob", "carol"])

    def test_a_transaction_whose_reads_have_changed_is_refused(self):
        client, bucket = self.client, self.bucket
        client.put(bucket, "k", "1")
        with self.assertRaises(kvstored.Conflict):
            with client.transaction(bucket) as transaction:
                transaction.get("k")
                client.put(bucket, "k", "2")
                transaction.put("k", "3")
        self.assertEqual(client.get(bucket, "k").text, "2")

    def test_an_exception_in_the_body_commits_nothing(self):
        with self.assertRaises(ZeroDivisionError):
            with self.client.transaction(self.bucket) as transaction:
                transaction.put("k", "1")
                raise ZeroDivisionError
        self.assertIsNone(self.client.get(self.bucket, "k"))

    def test_run_transaction_repeats_until_it_succeeds(self):
        """Threads that all change one key lose nothing."""
        client, bucket = self.client, self.bucket
        client.put(bucket, "n", "0")

        def add(transaction):
            transaction.put("n", str(int(transaction.get("n").text) + 1))

        def work():
            for _ in range(10):
                client.run_transaction(bucket, add)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(client.get(bucket, "n").text, "40")


class Views(DaemonTest):
    """A bucket as a mapping."""

    def test_a_view_looks_like_a_dict(self):
        with self.new_client() as client:
            client.bucket_create("b")
            view = client.bucket("b", kvstored.JSON)
            view["a"] = {"x": 1}
            view.update({"b": 2, "c": None})
            self.assertEqual((view["a"], view["b"], view["c"]), ({"x": 1}, 2, None))
            self.assertEqual((list(view), len(view), "a" in view, "z" in view), (["a", "b", "c"], 3, True, False))
            self.assertEqual(dict(view.items()), {"a": {"x": 1}, "b": 2, "c": None})
            self.assertEqual(view.values(), [{"x": 1}, 2, None])
            self.assertEqual((view.get("z"), view.get("z", 5), view.setdefault("z", 6), view.setdefault("z", 7)),
                             (None, 5, 6, 6))
            self.assertEqual((view.pop("z"), view.pop("z", 8), view.pop("z", None)), (6, 8, None))
            with self.assertRaisesRegex(KeyError, "^'z'$"):
                view.pop("z")
            self.assertEqual(("no key" in view, "" in view, 5 in view, list(reversed(view))),
                             (False, False, False, ["c", "b", "a"]))
            with self.assertRaises(kvstored.InvalidArgument):
                _ = "a" in client.bucket("no bucket")
            view.update(c=3, d=4)
            view.update({"c": None}, d=5, ttl=60)
            self.assertEqual((view["c"], view.pop("d")), (None, 5))
            del view["a"]
            with self.assertRaises(KeyError):
                del view["a"]
            with self.assertRaises(KeyError):
                view["a"]  # pylint: disable=pointless-statement
            self.assertEqual(client.bucket("b", kvstored.TEXT)["b"], "2")
            self.assertEqual(client.bucket("b")["b"], b"2")


class LargeViews(unittest.TestCase):
    """A bucket whose keys exceed what the daemon sends in one message."""

    def test_its_keys_are_read_in_pages(self):
        names = [f"k{i:04}" for i in range(3000)]

        def answer(_method, arguments):
            options = arguments[-1]
            if options.get("limit", len(names)) > 300:
                return {"code": "too_large", "message": "m", "retryable": False}, None
            begin = names.index(options["after"]) + 1 if "after" in options else 0
            return None, names[begin:begin + options["limit"]]

        daemon = FakeDaemon(answer)
        self.addCleanup(daemon.close)
        with kvstored.Client(daemon.path, timeout=PATIENCE_S) as client:
            view = client.bucket("b")
            self.assertEqual((list(view), list(reversed(view)), len(view)), (names, names[::-1], len(names)))
            self.assertEqual(view.keys("*"), names)


class Threads(DaemonTest):
    """Many threads and processes."""

    def test_many_threads_share_a_client(self):
        with self.new_client() as client:
            client.bucket_create("b", history=1)
            failures = []

            def work(number):
                try:
                    for i in range(200):
                        client.put("b", f"k{number}", f"{number}.{i}")
                        assert client.get("b", f"k{number}").text == f"{number}.{i}"
                except BaseException as error:  # pylint: disable=broad-except
                    failures.append(error)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(failures, [])

    def test_a_client_that_is_dropped_keeps_no_descriptor(self):
        """Also before the garbage collector runs."""
        def use_client():
            with self.new_client() as client:
                client.bucket_create("dropped")
                with client.lock("dropped", "l"), client.watch("dropped") as watch:
                    self.assertEqual(len(list(watch.initial())), 1)
                client.put("dropped", "k", "v", ephemeral=True)
                try:  # assertRaises would clear the frames
                    client.get("dropped", "a..b")
                except kvstored.InvalidArgument:
                    pass
                channel = client._channel  # pylint: disable=protected-access
                return channel._alarm_in, channel._alarm_out  # pylint: disable=protected-access

        self.addCleanup(gc.enable)
        gc.disable()
        for descriptor in use_client():
            with self.assertRaises(OSError):
                os.fstat(descriptor)

    def test_a_thread_waits_for_a_watch_while_others_make_calls(self):
        with self.new_client() as client:
            client.bucket_create("w", history=64)
            seen = []

            def follow(watch):
                for entry in watch:
                    seen.append(entry.text)
                    if len(seen) == 50:
                        return

            with client.watch("w", updates_only=True) as watch:
                thread = threading.Thread(target=follow, args=(watch,))
                thread.start()
                for i in range(50):
                    client.put("w", "k", str(i))
                thread.join(PATIENCE_S)
            self.assertEqual(seen, [str(i) for i in range(50)])

    def test_closing_a_watch_ends_iteration_in_another_thread(self):
        with self.new_client() as client:
            client.bucket_create("w2")
            watch = client.watch("w2")
            self.assertEqual(list(watch.initial()), [])
            thread = threading.Thread(target=lambda: list(watch))
            thread.start()
            watch.close()
            thread.join(PATIENCE_S)
            self.assertFalse(thread.is_alive())

    def test_closing_the_client_ends_calls_of_other_threads(self):
        client = self.new_client()
        client.bucket_create("c")
        errors = []

        def wait():
            try:
                client.get("c", "k", wait_above=1, timeout=PATIENCE_S)
            except kvstored.Unavailable as error:
                errors.append(error)

        threads = [threading.Thread(target=wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        with self.new_client() as other:
            while other.stats().watches.open < 3:
                pass
        client.close()
        for thread in threads:
            thread.join(PATIENCE_S)
        self.assertEqual(len(errors), 3)

    def test_a_forked_process_gets_a_connection_of_its_own(self):
        with self.new_client() as client:
            client.bucket_create("f")
            client.put("f", "k", "parent")
            pid = os.fork()
            if pid == 0:
                try:
                    ok = client.get("f", "k").text == "parent" and client.put("f", "child", "1") > 0
                    os._exit(0 if ok else 1)
                finally:
                    os._exit(2)
            self.assertEqual(client.get("f", "k").text, "parent")
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
            self.assertEqual(client.get("f", "child").text, "1")

    def test_a_forked_process_does_not_touch_what_its_parent_has(self):
        with self.new_client() as client:
            client.bucket_create("p", history=64)
            with client.lock("p", "lock", wait=0) as lock, client.watch("p", "k") as watch:
                self.assertEqual(list(watch.initial()), [])
                pid = os.fork()
                if pid == 0:
                    status = 1
                    try:
                        with self.assertRaises(kvstored.NotHeld):
                            lock.check()
                        with self.assertRaises(kvstored.Unavailable):
                            next(watch)
                        self.assertEqual(lock.valid_for(), 0)
                        lock.__exit__(None, None, None)
                        with self.assertRaises(kvstored.Locked):
                            lock.acquire()
                        watch.close()
                        status = 0
                    finally:
                        os._exit(status)
                self.assertEqual(os.waitpid(pid, 0)[1], 0)
                client.put("p", "k", "1")
                self.assertEqual(next(watch).text, "1")
                self.assertGreater(lock.check(), 0)

    def check_lock_ends_with_process(self, hold):
        """A process that holds a lock forks a child that never uses the client. The lock is free when it has ended."""
        bucket = self.id().rpartition(".")[2]
        with self.new_client() as client:
            client.bucket_create(bucket)
            may_end, parent_has_ended = os.pipe()
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    os.close(parent_has_ended)
                    self.kept = hold(bucket)
                    if os.fork() == 0:
                        os.read(may_end, 1)
                    status = 0
                finally:
                    os._exit(status)
            os.close(may_end)
            self.addCleanup(os.close, parent_has_ended)
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
            with client.lock(bucket, "l", wait=PATIENCE_S / 2):
                pass

    def test_a_session_ends_with_its_process_although_a_forked_one_lives(self):
        def hold(bucket):
            client = self.new_client(reconnect=False)
            client.lock(bucket, "l").acquire()
            return client

        self.check_lock_ends_with_process(hold)

    def test_a_session_of_asyncio_ends_with_its_process_although_a_forked_one_lives(self):
        async def acquire(client, bucket):
            await client.lock(bucket, "l").acquire()

        def hold(bucket):
            client = kvstored.aio.Client(self.path, timeout=PATIENCE_S, reconnect=False)
            loop = asyncio.new_event_loop()
            loop.run_until_complete(acquire(client, bucket))
            return client, loop

        self.check_lock_ends_with_process(hold)

    def test_a_call_times_out_while_another_thread_waits_for_a_watch(self):
        with self.new_client() as client, self.new_client() as other:
            client.bucket_create("t")
            watch = client.watch("t")
            self.assertEqual(list(watch.initial()), [])
            reader = threading.Thread(target=lambda: list(watch))
            reader.start()
            while client._channel._reader != reader.ident:  # pylint: disable=protected-access
                time.sleep(0.001)
            self.daemon.process.send_signal(signal.SIGSTOP)
            try:
                with self.assertRaises(kvstored.DeadlineExceeded):
                    client.put("t", "k", "v", timeout=0.1)
            finally:
                self.daemon.process.send_signal(signal.SIGCONT)
            self.assertIsNotNone(other.info(timeout=PATIENCE_S))
            watch.close()
            reader.join(PATIENCE_S)
            self.assertFalse(reader.is_alive())


class SilentDaemon(unittest.TestCase):
    """A daemon that reads nothing."""

    def setUp(self):
        self.daemon = FakeDaemon(lambda method, _: (None, 1))
        self.addCleanup(self.daemon.close)
        self.client = kvstored.Client(self.daemon.path, timeout=PATIENCE_S)
        self.addCleanup(self.client.close)

    def test_calls_wait_until_their_timeout_and_are_not_packed(self):
        """One value of 1 MB is in memory few times, however many calls write it."""
        client, value, errors = self.client, bytes(1_000_000), []
        self.daemon.may_read.clear()

        def work(_):
            for _ in range(2):
                begin = time.monotonic()
                with self.assertRaises(kvstored.DeadlineExceeded) as raised:
                    client.put("b", "k", value, timeout=1)
                self.assertGreaterEqual(time.monotonic() - begin, 1)
                errors.append(raised.exception)

        with measured_memory() as peak, concurrent.futures.ThreadPoolExecutor(50) as pool:
            list(pool.map(work, range(50)))
        self.assertLess(peak(), 20_000_000)
        unsent = [error for error in errors if error.outcome == "none"]
        self.assertGreater(len(unsent), 90)
        for error in unsent:
            self.assertRegex(str(error), "^the daemon reads nothing: the call was not sent$")
        self.daemon.may_read.set()
        self.assertEqual(client.put("b", "l", "v"), 1)
        self.assertLessEqual(len(self.daemon.calls), 100 - len(unsent) + 1)  # those are not sent later

    def test_a_value_is_not_copied_while_it_waits_for_the_socket(self):
        """But by MessagePack."""
        client, value = self.client, bytes(8_000_000)
        client.connect()
        self.daemon.may_read.clear()
        limit = packing_memory(value) + 4_000_000  # a copy has 8 MB
        with measured_memory() as peak, concurrent.futures.ThreadPoolExecutor(1) as pool:
            with self.assertRaises(kvstored.DeadlineExceeded):
                pool.submit(client.put, "b", "k", value, timeout=0.1).result()
        self.assertLess(peak(), limit)
        self.daemon.may_read.set()
        self.assertEqual(client.put("b", "k", value), 1)
        self.assertEqual([len(arguments[2]) for _, arguments in self.daemon.calls], [8_000_000] * 2)

    def test_calls_are_sent_when_it_reads_again(self):
        self.daemon.may_read.clear()
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            puts = [pool.submit(self.client.put, "b", f"k{i}", bytes(1_000_000)) for i in range(20)]
            while not self.client._channel.core._held:  # pylint: disable=protected-access
                time.sleep(0.001)
            self.daemon.may_read.set()
            self.assertEqual([put.result() for put in puts], [1] * 20)
        self.assertEqual({arguments[1] for _, arguments in self.daemon.calls}, {f"k{i}" for i in range(20)})

    def test_closing_the_client_does_not_wait_for_it(self):
        self.daemon.may_read.clear()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            put = pool.submit(self.client.put, "b", "k", bytes(5_000_000))
            while not self.daemon.connections:
                time.sleep(0.001)
            self.client.close()
            with self.assertRaises(kvstored.Unavailable):
                put.result()


class Signals(DaemonTest):
    """Exceptions of signal handlers, which can interrupt the client anywhere."""

    class Interruption(Exception):
        """Raised by the handler."""

    def interrupt_in(self, owner, name, error):
        """Let a signal arrive when the function begins, once."""
        original = getattr(owner, name)

        def handler(_number, _frame):
            raise error

        def interrupted(*arguments):
            setattr(owner, name, original)
            signal.raise_signal(signal.SIGALRM)
            return original(*arguments)

        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, handler))
        setattr(owner, name, interrupted)

    def interrupt_at(self, number):
        """Let this thread be interrupted once, at the end of the number-th function call of the package: signal
        handlers run at such moments. Return a list of the functions that were active at such moments so far."""
        functions = []

        def profile(frame, event, _):
            if event in ("call", "c_return") and frame.f_globals.get("__name__", "").startswith("kvstored.") and \
                    frame.f_code.co_name != "<genexpr>":  # it may be ended by its destruction, which raises nothing
                functions.append(frame.f_code.co_name)
                if len(functions) == number:
                    raise self.Interruption

        sys.setprofile(profile)
        return functions

    @contextlib.contextmanager
    def sleeping_call(self, client, other, bucket, key):
        """Let another thread make a call that waits, and let this one be the reader. At the end, the call must end."""
        # pylint: disable=protected-access
        channel = client._channel
        thread = threading.Thread(target=client.get, args=(bucket, key),
                                  kwargs={"wait_above": 0, "timeout": PATIENCE_S})
        channel._reader = -1
        thread.start()
        while other.stats().watches.open < 1 or not channel._sleeping:
            pass
        channel._reader = None
        yield
        other.put(bucket, key, "v")
        thread.join(PATIENCE_S)
        self.assertFalse(thread.is_alive())

    def test_they_can_interrupt_a_call_at_each_moment(self):
        # pylint: disable=protected-access
        with self.new_client() as client, self.new_client() as other:
            client.bucket_create("each")
            self.addCleanup(sys.setprofile, None)
            for number in itertools.count(1):
                with self.sleeping_call(client, other, "each", f"k{number}"):
                    functions = self.interrupt_at(number)
                    try:
                        client.get("each", "n")
                    except self.Interruption:
                        pass
                    sys.setprofile(None)
                    with self.subTest(functions=functions[-5:]):
                        self.assertNotEqual(client._channel._reader, threading.get_ident())
                    if "_read_until" not in functions:  # it was not the reader, and the other one is not yet
                        self.assertIsNone(client.get("each", "n"))
                if len(functions) < number:
                    break
            self.assertGreater(number, 50)

    def test_they_reach_the_caller_and_no_call_hangs(self):
        # pylint: disable=protected-access
        for error in (self.Interruption(), TimeoutError()):
            for where in ("_on_answer", "receive", "run_timers", "take_output", "connected"):
                with self.subTest(where=where, error=error), self.new_client() as client, self.new_client() as other:
                    client.bucket_create("s")
                    key = f"{where}.{type(error).__name__}"
                    # Only the thread that waits for the socket comes to these functions: let it be this one.
                    with self.sleeping_call(client, other, "s", key):
                        if where == "connected":
                            self.restart()
                        self.interrupt_in(client._channel.core, where, error)
                        with self.assertRaises(type(error)):
                            client.get("s", "n")
                        self.assertIsNone(client.get("s", "n"))

    def test_an_iteration_that_is_interrupted_before_the_watch_has_begun_can_go_on(self):
        with self.new_client() as client:
            client.bucket_create("w")
            client.put("w", "k", "v")
            watch = client.watch("w")
            self.interrupt_in(client._channel, "_stop_waiting", self.Interruption())  # pylint: disable=protected-access
            with self.assertRaises(self.Interruption):
                next(watch)
            self.assertEqual(next(watch).text, "v")

    def test_a_lock_that_is_acquired_at_that_moment_is_released(self):
        with self.new_client() as client, self.new_client() as other:
            client.bucket_create("l")
            channel = client._channel  # pylint: disable=protected-access
            lock = client.lock("l", "one")
            for owner, name in ((channel, "_pass_reading_on"), (Request, "decoded"), (lock, "_watch_loss")):
                with self.subTest(name=name):
                    self.interrupt_in(owner, name, KeyboardInterrupt())
                    with self.assertRaises(KeyboardInterrupt):
                        lock.acquire()
                    self.assertEqual(lock.token, 0)
                    with other.lock("l", "one", wait=PATIENCE_S / 2):
                        pass


class Restarts(DaemonTest):
    """The daemon ends and comes back."""

    def test_calls_in_flight_survive_restarts_and_are_done_once(self):
        with self.new_client() as client:
            client.bucket_create("n", history=1)
            done = []
            stop = threading.Event()

            def work():
                while not stop.is_set():
                    done.append(client.increment("n", "k", timeout=PATIENCE_S).value)

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for kill in (False, True, False, True):
                count = len(done)
                while len(done) < count + 50:
                    time.sleep(0.001)
                self.restart(kill)
            count = len(done)
            while len(done) < count + 50:
                time.sleep(0.001)
            stop.set()
            for thread in threads:
                thread.join()
            self.assertEqual(sorted(done), list(range(1, len(done) + 1)))

    def test_a_watch_continues_after_its_last_entry(self):
        with self.new_client() as client:
            client.bucket_create("w", history=64)
            with client.watch("w", updates_only=True) as watch:
                for i in range(40):
                    if i in (10, 20, 30):
                        self.restart(kill=i == 20)
                    client.put("w", "k", str(i), timeout=PATIENCE_S)
                self.assertEqual([entry.text for _, entry in zip(range(40), watch)], [str(i) for i in range(40)])

    def test_without_reconnect_every_call_fails_then(self):
        client = self.new_client(reconnect=False)
        client.bucket_create("o")
        self.restart()
        for _ in range(2):
            with self.assertRaises(kvstored.Unavailable):
                client.get("o", "k")
        client.close()

    def test_without_a_daemon_the_first_call_fails_at_once(self):
        with self.assertRaises(kvstored.Unavailable) as raised:
            kvstored.Client("build/python/nothing").get("b", "k")
        self.assertEqual(raised.exception.outcome, "none")
        self.assertIn("build/python/nothing", str(raised.exception))

    def test_a_daemon_that_stays_away_is_named(self):
        with self.new_client() as client:
            client.bucket_create("away")
            self.stop_daemon()
            self.addCleanup(lambda: (self.start_daemon(), self.daemon.connect().close()))
            message = f"^cannot connect to {self.path} for [0-9.]+ s .*: is kvstored running\\?$"
            for _ in range(2):
                for use in (lambda: client.put("away", "k", "v", timeout=0.3), lambda: client.increment(
                        "away", "n", timeout=0.3)):
                    with self.assertRaisesRegex(kvstored.Unavailable, message) as raised:
                        use()
                    self.assertEqual((raised.exception.outcome, raised.exception.retryable), ("none", True))
                with self.assertRaisesRegex(kvstored.Unavailable, message) as raised:
                    client.get("away", "k", timeout=0.3)
                self.assertTrue(raised.exception.retryable)

    def test_a_function_is_called_after_a_reconnect(self):
        with self.new_client() as client:
            client.bucket_create("e")
            client.put("e", "me", "1", ephemeral=True)
            again = threading.Event()

            def write_again():
                client.put("e", "me", "2", ephemeral=True, timeout=PATIENCE_S)
                again.set()

            client.on_reconnected(write_again)
            self.restart()
            self.assertIsNotNone(client.info(timeout=PATIENCE_S))
            self.assertTrue(again.wait(PATIENCE_S))
            self.assertEqual(client.get("e", "me").text, "2")

    def test_a_lost_ephemeral_key_is_reported(self):
        with self.new_client() as client:
            client.bucket_create("x")
            lost = queue.Queue()
            client.on_ephemeral_lost(lambda bucket, key, error: lost.put((bucket, key, error.code)))
            client.put("x", "me", "1", ephemeral=True)
            client.delete("x", "me")
            while lost.empty():
                client.info()
            self.assertEqual(lost.get(), ("x", "me", "conflict"))


class Watches(DaemonTest):
    """Watches."""

    def test_a_snapshot_is_of_one_revision(self):
        with self.new_client() as client:
            client.bucket_create("s")
            results = client.bulk_put("s", {"a": "1", "b": "2"})
            with client.watch("s", snapshot=True) as watch:
                self.assertEqual({entry.key: entry.text for entry in watch.initial()}, {"a": "1", "b": "2"})
                self.assertGreaterEqual(watch.ready_revision, max(results.values()))
                self.assertTrue(watch.is_ready)

    def test_a_slow_consumer_misses_nothing(self):
        """It is stopped at 8 MB, and resumed when its consumer has caught up."""
        with self.new_client() as client:
            client.bucket_create("slow", history=1)
            with client.watch("slow", updates_only=True) as watch:
                for i in range(200):
                    client.put("slow", f"k{i}", bytes(100_000))
                self.assertEqual([entry.key for _, entry in zip(range(200), watch)], [f"k{i}" for i in range(200)])

    def test_an_iteration_that_is_left_ends_its_watch(self):
        """More often than a session may have watches."""
        with self.new_client() as client:
            client.bucket_create("left")
            client.put("left", "k", "v")
            for _ in range(1100):
                for entry in client.watch("left"):
                    self.assertEqual(entry.text, "v")
                    break
            while client.stats().watches.open:
                pass
            core = client._channel.core  # pylint: disable=protected-access
            self.assertFalse(core._watches)  # pylint: disable=protected-access

    def test_a_dropped_watch_ends_while_another_thread_waits(self):
        """No further call is made: the thread that waits ends the watch."""
        with self.new_client() as client, self.new_client() as other, \
                concurrent.futures.ThreadPoolExecutor(1) as pool:
            client.bucket_create("dropped")
            watch = client.watch("dropped")
            with watch:
                waiting = pool.submit(client.get, "dropped", "k", wait_above=0)
                while other.stats().watches.open < 2:
                    pass
            dropped = client.watch("dropped")
            dropped.__enter__()  # pylint: disable=unnecessary-dunder-call
            while other.stats().watches.open != 2:
                pass
            del dropped
            while other.stats().watches.open != 1:
                pass
            other.put("dropped", "k", "v")
            self.assertEqual(waiting.result().text, "v")

    def test_a_watch_of_no_bucket_is_an_error(self):
        with self.new_client() as client:
            with self.assertRaises(kvstored.BucketNotFound):
                next(client.watch("missing"))

    def test_a_watch_ends_with_its_bucket(self):
        with self.new_client() as client:
            client.bucket_create("gone")
            with client.watch("gone") as watch:
                self.assertEqual(list(watch.initial()), [])
                client.bucket_delete("gone")
                with self.assertRaises(kvstored.BucketNotFound):
                    next(watch)


class Locks(DaemonTest):
    """Locks."""

    def setUp(self):
        self.client = self.new_client()
        self.other = self.new_client()
        self.addCleanup(self.client.close)
        self.addCleanup(self.other.close)
        self.client.bucket_create("l")

    def test_one_client_has_it_at_a_time(self):
        with self.client.lock("l", "one", value="me") as lock:
            self.assertGreater(lock.valid_for(), 0)
            self.assertGreater(lock.check(), 0)
            with self.assertRaises(kvstored.Locked) as raised:
                self.other.lock("l", "one", wait=0).acquire()
            self.assertEqual(raised.exception.value, b"me")
            with self.client.transaction("l") as transaction:
                transaction.check(lock.name, lock.token)
                transaction.put("data", "1")
        with self.other.lock("l", "one", wait=0) as other:
            self.assertGreater(other.token, lock.token)

    def test_a_waiting_client_gets_it(self):
        lock = self.client.lock("l", "two")
        lock.acquire()
        tokens = []
        thread = threading.Thread(target=lambda: tokens.append(self.other.lock("l", "two").acquire()))
        thread.start()
        while self.client.stats().locks.waiting == 0:
            pass
        lock.release()
        thread.join(PATIENCE_S)
        self.assertEqual(len(tokens), 1)

    def test_a_lost_lock_is_reported(self):
        with self.assertRaises(kvstored.LockLost):
            with self.client.lock("l", "three") as lock:
                self.other.delete("l", "three")
                while lock.valid_for():
                    self.client.info()
        with self.assertRaises(kvstored.NotHeld):
            self.client.lock("l", "three").check()

    def test_it_survives_a_restart(self):
        with self.client.lock("l", "four") as lock:
            token = lock.token
            self.restart()
            self.assertGreater(lock.check(), 0)
            self.assertEqual(lock.token, token)
        self.assertIsNone(self.client.get("l", "four"))

    def test_the_same_owner_continues_it_on_another_session(self):
        owner = "worker-1-of-this-test"
        with self.new_client(reconnect=False) as ended:
            token = ended.lock("l", "own", owner=owner).acquire()
        with self.assertRaises(kvstored.Locked):
            self.other.lock("l", "own", wait=0, owner="worker-2-of-this-test").acquire()
        with self.client.lock("l", "own", wait=0, owner=owner) as lock:
            self.assertEqual(lock.token, token)
        with self.assertRaises(kvstored.InvalidArgument):
            self.client.lock("l", "own", owner="short").acquire()

    def test_threads_that_find_a_new_session_acquire_it_once(self):
        with self.client.lock("l", "five") as lock:
            token = lock.token
            self.restart()
            with concurrent.futures.ThreadPoolExecutor(10) as pool:
                for check in [pool.submit(lock.check) for _ in range(20)]:
                    check.result()
            self.assertEqual(lock.token, token)
