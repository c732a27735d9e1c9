// A client of kvstored for Node.js 18 and later: one session, which reconnects, with any number of calls in flight.
// docs/clients.md explains it. Watches are in watch.mjs, locks in lock.mjs.
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createConnection } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { DecodeError, decodeMultiStream, encode } from "@msgpack/msgpack";

export const DEFAULT_PATH = process.env.KVSTORED_SOCKET || "/run/kvstored/kvstored.sock";

// Without useBigInt64, integers above 2^53 lose digits. A key that is not UTF-8 arrives as bin, also as a key of a map.
export const ENCODE = { useBigInt64: true };
export const DECODE = {
  useBigInt64: true,
  mapKeyConverter: (key) => (typeof key === "string" ? key : Buffer.from(key).toString("latin1")),
};

// These methods can be repeated on the next session, because they change nothing or hold nothing that is lost with the
// session. Writes can be repeated because they have an id.
const REPEATABLE = new Set(["kv.get", "kv.get_json", "kv.history", "kv.keys", "kv.entries", "bulk.get", "bucket.info",
  "bucket.list", "health.check", "lock.acquire", "lock.check"]);

export class KvError extends Error {
  constructor(error) { // the map of the protocol; revision and value depend on the code
    super(`${error.code}: ${error.message}`);
    const { code, retryable, outcome, bucket, key, revision, value } = error;
    Object.assign(this, { code, retryable, outcome, bucket, key, value, revision: toRevision(revision) });
  }
}
const failure = (message, outcome, code = "unavailable") => new KvError({ code, message, retryable: true, outcome });

// The decoder makes a Number of a small integer and a BigInt of a large one. Revisions are always BigInt here.
export const toRevision = (integer) => (integer == null ? integer : BigInt(integer));
export const toEntry = (entry) => entry &&
  { ...entry, value: Buffer.from(entry.value), revision: BigInt(entry.revision), created: Number(entry.created) };
const toMap = (result, convert) => new Map(Object.entries(result).map(([key, item]) => [key, convert(item)]));

export class Client {
  locks = new Map(); // see lock.mjs
  #path;
  #timeout;
  #socket;
  #isConnected = false;
  #isClosed = false;
  #calls = new Map(); // the calls without an answer by msgid, the oldest first
  #lastId = 0;

  constructor({ path = DEFAULT_PATH, timeout = 5 } = {}) {
    this.#path = path;
    this.#timeout = timeout; // seconds
    this.#run();
  }

  get isClosed() { return this.#isClosed; }

  close() {
    this.#isClosed = true;
    this.#socket.destroy();
    this.#lose(failure("the client is closed", "unknown")); // now: there may be no session that ends
  }

  // Make a call, and return convert(result). convert is called before the next message is read.
  call(method, params, options = {}, convert = (result) => result) {
    return new Promise((resolve, reject) => {
      do this.#lastId = (this.#lastId + 1) % 2 ** 32; while (this.#calls.has(this.#lastId));
      const call = { id: this.#lastId, method, params, convert, resolve, reject };
      call.options = { timeout: this.#timeout, ...options };
      call.message = encode([0, call.id, method, [...params, call.options]], ENCODE); // throws if that is impossible
      this.#calls.set(call.id, call);
      if (this.#isClosed) return this.#finish(call.id, failure("the client is closed", "none"));
      // The daemon answers within the timeout, unless it is away or hangs. An acquired lock must be seen however late.
      const patience = (call.options.timeout + 1) * 1000;
      if (method !== "lock.acquire") call.timer = setTimeout(() => this.#expire(call), patience);
      if (this.#isConnected) this.#send(call);
    });
  }

  #send(call) {
    if (call.firstSent && call.options.id) { // a repetition
      const options = { ...call.options, first_sent: call.firstSent };
      call.message = encode([0, call.id, call.method, [...call.params, options]], ENCODE);
    }
    call.firstSent ??= process.hrtime.bigint() / 1000n; // microseconds of CLOCK_MONOTONIC
    call.isSent = true;
    this.#socket.write(call.message);
  }

  #expire(call) {
    const outcome = call.firstSent ? "unknown" : "none";
    this.#finish(call.id, failure("kvstored does not answer", outcome, "deadline_exceeded"));
  }

  #finish(id, error, result) {
    const call = this.#calls.get(id);
    if (!call) return; // it has expired
    this.#calls.delete(id);
    clearTimeout(call.timer);
    try {
      if (error) throw error;
      call.resolve(call.convert(result));
    } catch (reason) {
      call.reject(reason);
    }
  }

  // Connect and receive until the session ends, again and again until the client is closed.
  async #run() {
    for (let pause = 10; !this.#isClosed; pause = Math.min(2 * pause, 1000)) {
      let reason = failure("the session has ended", "unknown");
      this.#socket = createConnection(this.#path);
      this.#socket.on("error", () => {}); // handled below; a later one must not end the process
      try {
        await once(this.#socket, "connect");
        this.#isConnected = true;
        for (const call of this.#calls.values()) this.#send(call);
        for await (const [type, ...content] of decodeMultiStream(this.#socket, DECODE)) {
          pause = 10;
          if (type === 2) this.#notify(...content);
          else if (content[0] === null) reason = new KvError(content[1]); // about the session, which ends
          else this.#finish(content[0], content[1] && new KvError(content[1]), content[2]);
        }
      } catch (error) {
        if (error instanceof DecodeError) reason = error; // a repetition would have the same answer
      }
      this.#isConnected = false;
      this.#socket.destroy();
      this.#lose(reason);
      if (!this.#isClosed) await sleep(pause);
    }
  }

  #notify(method, params) {
    if (method !== "lock.lost") return;
    const [bucket, , token, error] = params;
    this.locks.get(`${bucket} ${token}`)?.lose(new KvError(error));
  }

  // The session has ended. Keep the calls that the next session can repeat, and fail the others.
  #lose(reason) {
    const isDismissed = reason.code === "unavailable" && reason.outcome === "none"; // the calls were not executed
    const isFinal = this.#isClosed || reason instanceof DecodeError;
    for (const call of [...this.#calls.values()]) {
      const mayRepeat = !call.isSent || isDismissed || call.options.id || REPEATABLE.has(call.method);
      call.isSent = false;
      if (isFinal || !mayRepeat) this.#finish(call.id, reason);
    }
    for (const lock of [...this.locks.values()]) lock.lose(reason);
  }

  // --- Reads and writes. Each write has an id of its own. ---------------------------------------------------------

  #write(method, params, options, convert = toRevision) {
    return this.call(method, params, { id: randomBytes(16), ...options }, convert);
  }
  get(bucket, key, options) { return this.call("kv.get", [bucket, key], options, toEntry); }
  put(bucket, key, value, options) { return this.#write("kv.put", [bucket, key, value], options); }
  update(bucket, key, value, revision, options) {
    return this.#write("kv.update", [bucket, key, value, revision], options);
  }
  delete(bucket, key, options) { return this.#write("kv.delete", [bucket, key], options); }

  // Return a Map of each key to its entry, or to null if the key does not exist.
  bulkGet(bucket, keys) {
    return this.call("bulk.get", [bucket, keys], {}, (result) => toMap(result, toEntry));
  }
  // Write the values of an object. Return a Map of each key to its revision, or to its KvError.
  bulkPut(bucket, values) {
    return this.#write("bulk.put", [bucket, values], {},
      (result) => toMap(result, ({ error, revision }) => (error ? new KvError(error) : BigInt(revision))));
  }

  // Call change(txn), and commit what it writes if what it reads is unchanged. Otherwise call it again.
  async transaction(bucket, change) {
    for (let pause = 1; ; pause = Math.min(2 * pause, 100)) {
      const checks = [], operations = [];
      const txn = {
        get: async (key) => {
          const entry = await this.get(bucket, key);
          checks.push([key, entry?.revision ?? 0]);
          return entry;
        },
        check: (key, revision) => checks.push([key, revision]), // the name and the token of a lock, for example
        put: (key, value) => operations.push(["put", key, value]),
        delete: (key) => operations.push(["delete", key]),
      };
      const result = await change(txn);
      try {
        if (operations.length > 0) await this.#write("txn.commit", [bucket, checks, operations], {}, () => {});
        return result;
      } catch (error) {
        if (error.code !== "conflict" && error.code !== "already_exists") throw error;
      }
      await sleep(Math.random() * pause); // so that many clients do not meet again
    }
  }
}
