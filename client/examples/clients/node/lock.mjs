// Locks of kvstored: see docs/clients.md.
import { setTimeout as sleep } from "node:timers/promises";
import { KvError } from "./kvstored.mjs";

// A lock counts its time also while the machine is suspended, and performance.now() does not. Date.now() may jump back.
const now = () => [performance.now(), Date.now()];
const secondsSince = ([monotonic, wall]) => Math.max(performance.now() - monotonic, Date.now() - wall) / 1000;

// Acquire a lock, and wait for it for this many seconds at most.
export async function acquire(client, bucket, name, { wait = 0, value } = {}) {
  const begin = now();
  for (;;) {
    const left = Math.max(0, wait - secondsSince(begin));
    try {
      // The lock is made before the next message is read: that may be its lock.lost.
      const lock = await client.call("lock.acquire", [bucket, name], { wait: left, value },
        ({ token }) => new Lock(client, bucket, name, BigInt(token)));
      try {
        await lock.check(); // the valid_for of the answer counts from before the wait
        return lock;
      } catch (error) {
        lock.release().catch(() => {}); // if the session holds it
        throw error;
      }
    } catch (error) { // a daemon that shuts down keeps neither the calls that wait nor the locks
      if ((error.code !== "unavailable" && error.code !== "not_held") || left === 0 || client.isClosed) throw error;
    }
    await sleep(100);
  }
}

const expired = () => new KvError({ code: "unavailable", message: "kvstored does not answer", retryable: true });

class Lock {
  #client;
  #timers = [];
  #lost = new AbortController();

  constructor(client, bucket, name, token) {
    Object.assign(this, { bucket, name, token }); // the token belongs into the checks of transactions
    this.#client = client;
    client.locks.set(`${bucket} ${token}`, this);
  }

  // It is aborted when the lock is lost. Its reason is the error.
  get signal() { return this.#lost.signal; }

  // Ask the daemon. Return for how many seconds the lock is valid; throw if it is lost.
  async check() {
    this.signal.throwIfAborted();
    const begin = now(); // valid_for counts from before the call
    try {
      const { valid_for } = await this.#client.call("lock.check", [this.bucket, this.name, this.token]);
      this.signal.throwIfAborted();
      const left = valid_for - secondsSince(begin);
      this.#stopTimers();
      this.#timers = [
        setTimeout(() => this.check().catch(() => {}), left * 500), // in time, so that the lock stays valid
        setTimeout(() => this.lose(expired()), left * 1000),
      ];
      return left;
    } catch (error) {
      if (error.code === "not_held") this.lose(error);
      throw error;
    }
  }

  async release() {
    this.signal.throwIfAborted();
    this.#forget();
    await this.#client.call("lock.release", [this.bucket, this.name, this.token]);
  }

  // Called by the client: lock.lost has arrived, or the session has ended.
  lose(error) {
    this.#forget();
    this.#lost.abort(error);
  }

  #forget() {
    this.#stopTimers();
    this.#client.locks.delete(`${this.bucket} ${this.token}`);
  }
  #stopTimers() {
    for (const timer of this.#timers) clearTimeout(timer);
  }
}
