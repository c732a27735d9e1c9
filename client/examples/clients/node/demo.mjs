// What a program does with the client: node demo.mjs VERB ARGUMENT... Before: kvctl add demo
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "./kvstored.mjs";
import { acquire } from "./lock.mjs";
import { watch } from "./watch.mjs";

const print = console.log;
const TIMEOUT_S = 50; // long, because a call also waits while the daemon restarts
const readLine = () => new Promise((resolve) =>
  createInterface({ input: process.stdin }).once("line", resolve).once("close", resolve));

const verbs = {
  // Reads, writes and a transaction in this bucket.
  async tour(bucket) {
    const client = new Client({ timeout: TIMEOUT_S });
    const revision = await client.put(bucket, "greeting", "hello");
    const entry = await client.get(bucket, "greeting");
    print(`get: ${entry.value} ${entry.revision === revision} ${await client.get(bucket, "nothing") === null}`);

    await client.update(bucket, "greeting", Buffer.from([0, 255]), revision);
    const error = await client.update(bucket, "greeting", "late", revision).catch((failure) => failure);
    print(`update: ${error.code} ${error.revision === revision + 1n} ${error.retryable} ${error.outcome}`);
    print(`bytes: ${(await client.get(bucket, "greeting")).value.toString("hex")}`);

    const [number] = await client.call("kv.increment", [bucket, "number", 2n ** 62n + 1n]);
    print(`increment: ${number}`);

    const written = await client.bulkPut(bucket, { a: "1", b: "2", "c..d": "3" });
    const read = await client.bulkGet(bucket, ["a", "b", "x"]);
    print(`bulk: ${written.get("a") > 0} ${written.get("c..d").code} ${read.get("b").value} ${read.get("x") === null}`);

    // Another client changes an account after the first attempt has read it.
    await client.bulkPut(bucket, { alice: "100", bob: "100" });
    let attempts = 0;
    await client.transaction(bucket, async (txn) => {
      const [alice, bob] = [await txn.get("alice"), await txn.get("bob")];
      if (++attempts === 1) await client.put(bucket, "alice", "50");
      txn.put("alice", `${alice.value - 30}`);
      txn.put("bob", `${+bob.value + 30}`);
    });
    const after = await client.bulkGet(bucket, ["alice", "bob"]);
    print(`transaction: ${attempts} attempts, ${after.get("alice").value} ${after.get("bob").value}`);

    // A thousand calls in flight on one connection.
    const keys = Array.from({ length: 1000 }, (_, i) => `many.${i}`);
    const revisions = await Promise.all(keys.map((key) => client.put(bucket, key, "v")));
    print(`in flight: ${new Set(revisions).size} revisions`);
  },

  // Write keys, 100 at a time, until a line is read. Restarts of the daemon do not disturb it.
  async write(bucket) {
    const client = new Client({ timeout: TIMEOUT_S });
    let next = 0, written = 0, isEnough = false;
    readLine().then(() => (isEnough = true));
    await Promise.all(Array.from({ length: 100 }, async () => {
      while (!isEnough) {
        const key = `key.${next++}`;
        try {
          await client.put(bucket, key, "v");
          if (++written % 1000 === 0) print(`written ${written}`);
        } catch (error) {
          print(`failed ${error.message} (${error.outcome})`);
        }
      }
    }));
    print(`done ${written}`);
  },

  // Print the contents and the changes of the bucket.
  async watch(bucket, filter) {
    for await (const { type, entry } of watch(bucket, { filter }))
      print(type === "entry" ? `${entry.operation} ${entry.key} ${entry.revision}` : type);
  },

  // Hold a lock until it is lost, or until a line is read.
  async lock(bucket, name, wait) {
    const client = new Client({ timeout: TIMEOUT_S });
    const lock = await acquire(client, bucket, name, { wait: Number(wait), value: "the demo" });
    print(`acquired ${lock.token} ${await lock.check() > 0}`);
    lock.signal.addEventListener("abort", () => {
      print(`lost ${lock.signal.reason.code}`);
      process.exit();
    });
    await readLine();
    await lock.release();
    print("released");
  },

  // Close the client while calls wait for a daemon that is away.
  async close(bucket) {
    const client = new Client({ timeout: TIMEOUT_S });
    const calls = [client.get(bucket, "key"), acquire(client, bucket, "job", { wait: TIMEOUT_S })];
    await sleep(100);
    client.close();
    for (const { reason } of await Promise.allSettled(calls)) print(`closed: ${reason.code}`);
  },
};

const usage = `usage: node demo.mjs tour BUCKET
       node demo.mjs write BUCKET
       node demo.mjs watch BUCKET FILTER
       node demo.mjs lock BUCKET NAME SECONDS    (how long to wait for the lock)
       node demo.mjs close BUCKET`;

const [verb, ...words] = process.argv.slice(2);
const isSeconds = (text) => /^\d+$/.test(text);
if (!Object.hasOwn(verbs, verb) || words.length !== verbs[verb].length || (verb === "lock" && !isSeconds(words[2]))) {
  console.error(usage);
  process.exit(2);
}
try {
  await verbs[verb](...words);
  process.exit(); // standard input may be open
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
