"""The code of the documents."""
import contextlib
import io
import os
import pydoc
import re
import unittest

import kvstored
from own_daemon import ROOT, DaemonTest


class Documents(DaemonTest):
    """The blocks of docs/guides/python.md are one program."""

    def test_the_guide_prints_what_its_comments_say(self):
        text = (ROOT / "docs/guides/python.md").read_text()
        program = "".join(re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S))
        wanted = re.findall(r"^ *print\(.*\) +# (.*)$", program, re.M)
        self.assertEqual(len(wanted), program.count("print("))
        os.environ["KVSTORED_SOCKET"] = self.path
        self.addCleanup(os.environ.pop, "KVSTORED_SOCKET")
        with self.new_client() as client:  # what the README has done before
            client.bucket_create("demo")
            client.put("demo", "greeting", "hello again")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(program, "python.md", "exec"), {"__name__": "guide"})  # pylint: disable=exec-used
        self.assertEqual(printed.getvalue().splitlines(), wanted)


class Names(unittest.TestCase):
    """The package and the library have one version."""

    def test_the_help_of_the_blocking_client_does_not_mention_asyncio(self):
        for documented in (kvstored.Client, kvstored.Bucket, kvstored.Lock, kvstored.Transaction, kvstored.Watch):
            text = pydoc.plain(pydoc.render_doc(documented))
            self.assertIsNone(re.search(r"\b(async|await|asyncio)\b", text), documented)
            self.assertNotIn("Every method takes", text)

    def test_the_version_is_that_of_the_library(self):
        header = (ROOT / "client/lib/kvstore.h").read_text()
        version = ".".join(re.search(rf"KVS_VERSION_{part} (\d+)", header)[1] for part in ("MAJOR", "MINOR", "PATCH"))
        self.assertEqual(kvstored.__version__, version)
