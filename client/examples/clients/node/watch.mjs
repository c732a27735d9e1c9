// Watches of kvstored: see docs/clients.md.
import { createConnection } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { decodeMultiStream, encode } from "@msgpack/msgpack";
import { DECODE, DEFAULT_PATH, ENCODE, KvError, toEntry } from "./kvstored.mjs";

// Watch the keys that match a filter, for ever, also across restarts of the daemon. Yield
//   { type: "entry", entry }      the contents of the bucket, then each change once and in order
//   { type: "ready", revision }   the contents are complete: they are what the bucket held at this revision
//   { type: "reset" }             changes are no longer available: forget the contents, they come again
// A watch has its own connection. It reads only when the program asks for the next event, so a slow program holds up
// neither its calls nor the daemon.
export async function* watch(bucket, { filter = ">", path = DEFAULT_PATH } = {}) {
  let next = 0n; // the first revision that was not delivered; 0: begin with the contents
  let isReady = false;
  for (let pause = 10; ; pause = Math.min(2 * pause, 1000)) {
    const socket = createConnection(path);
    socket.on("error", () => {}); // handled below; a later one must not end the process
    try {
      const options = { filter, snapshot: true, from_revision: next || null };
      socket.write(encode([0, 1, "watch.start", [bucket, options]], ENCODE));
      for await (const message of decodeMultiStream(socket, DECODE)) {
        if (message[0] === 1) { // the answer to watch.start, or about the session, which ends
          if (message[2]) throw new KvError(message[2]);
          continue;
        }
        const [method, [, content]] = message.slice(1);
        pause = 10;
        if (method === "watch.entries") {
          for (const entry of content.map(toEntry)) {
            next = entry.revision + 1n;
            yield { type: "entry", entry };
          }
        } else if (method === "watch.ready") {
          const revision = BigInt(content);
          // The bucket was recreated, or restored from a backup: it has not reached what was delivered.
          if (revision + 1n < next) throw new KvError({ code: "revision_gone", message: "the bucket is older" });
          next = revision + 1n;
          if (!isReady) yield { type: "ready", revision };
          isReady = true;
        } else if (method === "watch.ended") {
          throw new KvError(content);
        }
      }
    } catch (error) {
      if (error.code === "revision_gone") {
        next = 0n;
        isReady = false;
        yield { type: "reset" };
      } else if (error.revision) { // the program was too slow
        next = error.revision;
      } else if (error instanceof KvError && !error.retryable) {
        throw error; // such as bucket_not_found
      } else if (!(error instanceof KvError) && !error.syscall) {
        throw error; // not about the connection
      }
    } finally {
      socket.destroy();
    }
    await sleep(pause);
  }
}
