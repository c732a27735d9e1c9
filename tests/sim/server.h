/*
 * server: a simulated nats-server with JetStream.
 *
 * Its process can be killed and started, stopped for a while, and cut off. What it stores survives the process. A start
 * rebuilds the table of ids from that; consumers are gone. Requests to the API wait in a queue, and each takes some
 * time; the rest is served at once.
 */
#ifndef SIM_SERVER_H
#define SIM_SERVER_H

#include "tests/sim/link.h"
#include "tests/sim/stream.h"

#include <stdbool.h>
#include <stdint.h>

/* The subject of a ping; the answer goes to its reply subject. */
#define SERVER_PING "$SIM.PING"

struct server *server_new(const char *name);
void server_forget_all(void);

/* Return the server with this name, or NULL. */
struct server *server_find(const char *name);

/* The id of the process, which changes with each start. */
const char *server_id(const struct server *server);
bool server_is_up(const struct server *server);

/* Return whether a connection can be made. */
bool server_accepts(const struct server *server);

/* Return the time from which on packets reach the server, and from which on its packets reach the daemon. */
uint64_t server_hears_from_ns(const struct server *server);
uint64_t server_reaches_from_ns(const struct server *server);

/* Return whether the process is stopped. If so, happen is called with arg when it goes on. */
bool server_puts_off(const struct server *server, void (*happen)(void *arg), void *arg);

/* For link: serve a packet, and free it. */
void server_receive(struct server *server, struct link *link, struct packet *packet);

/* Return the list of streams. It includes deleted ones (is_gone), which the judges need. */
struct stream *server_streams(const struct server *server);

/* Return when streams were lost for the first time; UINT64_MAX: none was. See server_lose_store. */
uint64_t server_lost_ns(const struct server *server);

/* --- Clusters -------------------------------------------------------------------------------------- */

/*
 * The server stands for a cluster now, whose streams have a leader and followers. All of them have one order of
 * messages, but a follower is behind. Direct gets are answered by any of them, and consumers are on any of them.
 */
void server_make_cluster(struct server *server);
bool server_is_cluster(const struct server *server);

/* The name of the leader, since when it leads (by the server's clock), and whether there is one now. */
const char *server_leader(const struct server *server);
int64_t server_leader_since_ns(const struct server *server);
bool server_has_leader(const struct server *server);

/* Return the time as of which a follower has the streams. It never decreases. */
uint64_t server_follower_ns(struct server *server);

/* The followers are behind by ns until until_ns. */
void server_let_followers_lag(struct server *server, uint64_t ns, uint64_t until_ns);

/*
 * The leader fails: until fails_until_ns, a part of what is published is not stored, and a part not acknowledged. Then
 * there is no leader until leads_ns, when another one takes over.
 */
void server_change_leader(struct server *server, uint64_t fails_until_ns, uint64_t leads_ns);

/* --- Faults ---------------------------------------------------------------------------------------- */

void server_kill(struct server *server);
void server_start(struct server *server);

/*
 * Stop the process until until_ns: it reads nothing and does nothing, but what it has sent arrives. If it is stopped
 * for longer already, nothing changes. server_continue ends that.
 */
void server_stop_until(struct server *server, uint64_t until_ns);
void server_continue(struct server *server);

/* Let nothing pass between the server and any daemon until until_ns. */
void server_block_until(struct server *server, uint64_t until_ns);

void server_set_full(struct server *server, bool is_full);
bool server_store_is_full(const struct server *server);

/* The store is full after this number of further messages. */
void server_fill_after(struct server *server, unsigned messages);

/* For publish: a message takes room. */
void server_use_room(struct server *server);

/*
 * Until until_ns, others fill the queue of the API: a request that finds it full is dropped, with all that wait in it,
 * and nobody gets an answer.
 */
void server_overflow_until(struct server *server, uint64_t until_ns);

/* Of 1,000 numbers of pending messages that consumers report, this many are wrong. */
void server_set_wrong_estimates(struct server *server, unsigned per_mille);
unsigned server_wrong_estimates(const struct server *server);

/* Copy the store. After server_set_back, the server has that copy at its next start. */
void server_back_up(struct server *server);
void server_set_back(struct server *server);

/* The store is gone: at its next start, the server has no streams. */
void server_lose_store(struct server *server);

/* Return whether the server came back older than it was, or empty. */
bool server_was_set_back(const struct server *server);

#endif
