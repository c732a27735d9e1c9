// kvstored and a client of NATS KV on the same buckets: what either writes the other reads right.
// Run by tests/with_daemon --external, in the directory that has the packages of package.json.
import assert from "node:assert/strict";
import { createConnection } from "node:net";
import { decodeMultiStream, encode } from "@msgpack/msgpack";
import { Kvm } from "@nats-io/kv";
import { connect } from "@nats-io/transport-node";

class Failure extends Error {
  constructor(error) {
    super(`${error.code}: ${error.message}`);
    this.code = error.code;
    this.revision = error.revision;
  }
}

// A session with the daemon: call() answers the result or throws the error.
class Daemon {
  #socket = createConnection(process.env.KVSTORED_SOCKET);
  #waiting = new Map();
  #last = 0;

  constructor() {
    this.#receive().catch((error) => { console.error(error); process.exit(1); });
  }
  async #receive() {
    for await (const [, msgid, error, result] of decodeMultiStream(this.#socket)) {
      const { resolve, reject } = this.#waiting.get(msgid);
      this.#waiting.delete(msgid);
      error ? reject(new Failure(error)) : resolve(result);
    }
  }
  call(method, ...params) {
    const msgid = ++this.#last;
    this.#socket.write(encode([0, msgid, method, params]));
    return new Promise((resolve, reject) => this.#waiting.set(msgid, { resolve, reject }));
  }
  close() { this.#socket.end(); }
}

const text = (bytes) => new TextDecoder().decode(bytes);
const list = async (iterator) => { const all = []; for await (const one of await iterator) all.push(one); return all; };
const until = async (what, condition) => {
  for (const end = Date.now() + 60000; !(await condition());) {
    assert(Date.now() < end, `${what} does not happen`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

const daemon = new Daemon();
const nats = await connect({ servers: process.env.NATS_URL });
const kvm = new Kvm(nats);
const promises = [];
const promise = (name, keep) => promises.push([name, keep]);

promise("a bucket that they make is read and written", async () => {
  const kv = await kvm.create("theirs", { history: 5 });
  const revision = await kv.put("color", "blue");
  const entry = await daemon.call("kv.get", "theirs", "color");
  assert.equal(text(entry.value), "blue");
  assert.equal(entry.revision, revision);
  const next = await daemon.call("kv.update", "theirs", "color", "red", revision);
  assert.equal((await kv.get("color")).string(), "red");
  assert.equal((await kv.get("color")).revision, next);
  assert.deepEqual(await daemon.call("kv.keys", "theirs"), ["color"]);
});

promise("a bucket that the daemon makes is read and written by them", async () => {
  await daemon.call("bucket.create", "ours", { history: 5, description: "what for", ttl: 3600, max_value_size: 1000 });
  const kv = await kvm.open("ours");
  const status = await kv.status();
  assert.equal(status.history, 5);
  assert.equal(status.ttl, 3600 * 1000);
  await daemon.call("kv.put", "ours", "color", "blue");
  assert.equal((await kv.get("color")).string(), "blue");
  const revision = await kv.update("color", "red", 1);
  assert.equal((await daemon.call("kv.get", "ours", "color")).revision, revision);
  await assert.rejects(kv.update("color", "green", 1));
  await assert.rejects(daemon.call("kv.update", "ours", "color", "green", 1), { code: "conflict", revision });
  assert((await list(kvm.list())).some((one) => one.bucket === "ours"));
  assert((await daemon.call("bucket.list")).includes("theirs"));
});

promise("both hold to create once", async () => {
  const kv = await kvm.open("ours");
  await kv.create("lock.a", "they");
  await assert.rejects(daemon.call("kv.create", "ours", "lock.a", "we"), { code: "already_exists" });
  await daemon.call("kv.create", "ours", "lock.b", "we");
  await assert.rejects(kv.create("lock.b", "they"));
});

promise("markers of either hide the key from both, and a create goes over them", async () => {
  const kv = await kvm.open("ours");
  for (const [remove, operation] of [["delete", "delete"], ["purge", "purge"]]) {
    await kv.put("gone.a", "v");
    await kv[remove]("gone.a");
    assert.equal(await daemon.call("kv.get", "ours", "gone.a"), null);
    const history = await daemon.call("kv.history", "ours", "gone.a");
    assert.equal(history.at(-1).operation, operation);
    if (remove === "purge") assert.equal(history.length, 1);
    await daemon.call("kv.create", "ours", "gone.a", "again");

    await daemon.call("kv.put", "ours", "gone.b", "v");
    await daemon.call(`kv.${remove}`, "ours", "gone.b");
    const entry = await kv.get("gone.b");
    assert.equal(entry.operation, remove === "delete" ? "DEL" : "PURGE");
    await kv.create("gone.b", "again");
    assert.equal(text((await daemon.call("kv.get", "ours", "gone.b")).value), "again");
  }
  const keys = (await list(kv.keys())).sort();
  assert.deepEqual(await daemon.call("kv.keys", "ours"), keys);
});

promise("both tell the same history", async () => {
  const kv = await kvm.open("ours");
  for (let i = 0; i < 4; i++) {
    await kv.put("n", `they ${i}`);
    await daemon.call("kv.put", "ours", "n", `we ${i}`);
  }
  const theirs = await list(kv.history({ key: "n" }));
  const ours = await daemon.call("kv.history", "ours", "n");
  assert.equal(ours.length, 5);
  assert.deepEqual(ours.map((entry) => [entry.revision, text(entry.value)]),
                   theirs.map((entry) => [entry.revision, entry.string()]));
  for (let i = 0; i < ours.length; i++)
    assert(Math.abs(ours[i].created / 1000 - theirs[i].created.getTime()) < 2);
});

promise("bytes pass unchanged", async () => {
  const kv = await kvm.open("ours");
  const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
  await kv.put("bytes", bytes);
  assert.deepEqual(Uint8Array.from((await daemon.call("kv.get", "ours", "bytes")).value), bytes);
  await daemon.call("kv.put", "ours", "bytes", bytes);
  assert.deepEqual(Uint8Array.from((await kv.get("bytes")).value), bytes);
  await daemon.call("kv.put", "ours", "map", { a: [1, true, null], b: "x" });
  assert.deepEqual((await kv.get("map")).json(), { a: [1, true, null], b: "x" });
});

promise("a TTL of either ends the value for both", async () => {
  const kv = await kvm.create("expiry", { history: 3, markerTTL: 2000 });
  await daemon.call("kv.put", "expiry", "ours", "old");
  const start = Date.now();
  await daemon.call("kv.put", "expiry", "ours", "new", { ttl: 2 });
  await kv.create("theirs", "v", "2s");
  const [ours, theirs] = [await kv.get("ours"), await daemon.call("kv.get", "expiry", "theirs")];
  if (Date.now() < start + 2000) { // they cannot have expired
    assert.equal(ours.string(), "new");
    assert.equal(text(theirs.value), "v");
  }
  const isGone = (entry) => entry === null || entry.operation !== "PUT";
  await until("the end of our value", async () => isGone(await kv.get("ours")));
  await until("the end of their value", async () => (await daemon.call("kv.get", "expiry", "theirs")) === null);
  assert.equal(await daemon.call("kv.get", "expiry", "ours"), null);
  assert(isGone(await kv.get("theirs")));
  await daemon.call("kv.create", "expiry", "theirs", "again");
});

promise("their watch sees what the daemon writes", async () => {
  const kv = await kvm.open("ours");
  const watch = await kv.watch({ key: "seen.>", include: "updates" });
  const seen = [];
  (async () => { for await (const entry of watch) seen.push([entry.key, entry.operation, entry.string()]); })();
  await daemon.call("kv.put", "ours", "seen.a", "1");
  await daemon.call("kv.put", "ours", "seen.a", "2", { headers: { Color: "blue" } });
  await daemon.call("kv.delete", "ours", "seen.a");
  await until("the watch", () => seen.length >= 3);
  assert.deepEqual(seen, [["seen.a", "PUT", "1"], ["seen.a", "PUT", "2"], ["seen.a", "DEL", ""]]);
  watch.stop();
});

let failed = 0;
for (const [name, keep] of promises) {
  try {
    await keep();
  } catch (error) {
    failed++;
    console.error(`interop: NOT kept: ${name}\n${error.stack}`);
  }
}
await nats.close();
daemon.close();
console.log(`interop: ${promises.length - failed} of ${promises.length} kept`);
process.exit(failed === 0 ? 0 : 1);
