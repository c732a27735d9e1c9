#include "daemon/rpc/access.h"

#include "daemon/base/glob.h"
#include "daemon/base/usergroup.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Groups of a peer that need no memory of their own. People have a few; the kernel allows 65,536. */
#define GROUPS_USUAL 64

struct access_rule {
    uid_t *users;
    size_t user_count;
    gid_t *groups;
    size_t group_commit_count;
    const struct conf_access_rule *conf;
};

/* --- Names into numbers ---------------------------------------------------------------------------- */

static unsigned *translate(const struct conf_strings *names, bool (*find)(const char *name, unsigned *id),
                           const char *what, char error[CONF_ERROR_BYTES])
{
    unsigned *ids = calloc(names->count + 1, sizeof(*ids));

    if (ids == NULL) {
        snprintf(error, CONF_ERROR_BYTES, "out of memory");
        return NULL;
    }
    for (size_t i = 0; i < names->count; i++) {
        if (!find(names->items[i], &ids[i])) {
            snprintf(error, CONF_ERROR_BYTES, "access: there is no %s \"%s\"", what, names->items[i]);
            free(ids);
            return NULL;
        }
    }
    return ids;
}

static void free_rules(struct access_rule *rules, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(rules[i].users);
        free(rules[i].groups);
    }
    free(rules);
}

int access_set_rules(struct access *access, const struct conf *conf, char error[CONF_ERROR_BYTES])
{
    size_t count = conf->access.count;
    struct access_rule *rules = calloc(count + 1, sizeof(*rules));

    if (rules == NULL || count > ACCESS_RULES_MAX) {
        snprintf(error, CONF_ERROR_BYTES, "access: there may be up to %u rules", ACCESS_RULES_MAX);
        free(rules);
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        const struct conf_access_rule *from = &conf->access.rules[i];
        rules[i].conf = from;
        rules[i].users = translate(&from->users, names_find_user, "user", error);
        rules[i].groups = translate(&from->groups, names_find_group, "group", error);
        if (rules[i].users == NULL || rules[i].groups == NULL) {
            free_rules(rules, i + 1);
            return -1;
        }
        rules[i].user_count = from->users.count;
        rules[i].group_commit_count = from->groups.count;
    }
    free_rules(access->rules, access->count);
    access->rules = rules;
    access->count = count;
    access->generation++;
    return 0;
}

void access_free(struct access *access)
{
    free_rules(access->rules, access->count);
    access->rules = NULL;
    access->count = 0;
}

/* --- Peers ----------------------------------------------------------------------------------------- */

static bool contains(const unsigned *ids, size_t count, unsigned id)
{
    for (size_t i = 0; i < count; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

/* A peer's groups. is_complete: all of them are known. */
struct peer_groups {
    gid_t usual[GROUPS_USUAL];
    gid_t *ids; /* usual, or allocated */
    size_t count;
    bool is_complete;
};

/* As they were when the peer connected: unix(7), SO_PEERGROUPS. If there is no room the kernel says how much is needed.
 */
static void read_groups(int socket, struct peer_groups *groups)
{
    socklen_t bytes = sizeof(groups->usual);

    groups->ids = groups->usual;
    int failed = getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups->ids, &bytes);
    if (failed != 0 && errno == ERANGE) {
        groups->ids = malloc(bytes);
        failed = groups->ids == NULL || getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups->ids, &bytes) != 0;
    }
    groups->is_complete = failed == 0;
    groups->count = groups->is_complete ? bytes / sizeof(groups->ids[0]) : 0;
}

static void free_groups(struct peer_groups *groups)
{
    if (groups->ids != groups->usual)
        free(groups->ids);
}

static bool names_peer(const struct access_rule *rule, const struct ucred *credentials,
                       const struct peer_groups *groups)
{
    if (rule->user_count == 0 && rule->group_commit_count == 0)
        return true;
    if (contains(rule->users, rule->user_count, credentials->uid) ||
        contains(rule->groups, rule->group_commit_count, credentials->gid))
        return true;
    for (size_t i = 0; i < groups->count; i++) {
        if (contains(rule->groups, rule->group_commit_count, groups->ids[i]))
            return true;
    }
    return false;
}

/* Finds out which rules name the peer. What could not be read is tried again at the next call. */
static void match_peer(const struct access *access, struct access_peer *peer, int socket)
{
    struct ucred credentials = {0};
    struct peer_groups groups;
    socklen_t bytes = sizeof(credentials);

    peer->rules = 0;
    peer->doubtful = 0;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &bytes) != 0)
        return;
    read_groups(socket, &groups);
    for (size_t i = 0; i < access->count; i++) {
        if (names_peer(&access->rules[i], &credentials, &groups))
            peer->rules |= UINT64_C(1) << i;
        else if (!groups.is_complete && access->rules[i].group_commit_count > 0)
            peer->doubtful |= UINT64_C(1) << i;
    }
    if (groups.is_complete)
        peer->generation = access->generation;
    free_groups(&groups);
}

static bool names_bucket(const struct access_rule *rule, const char *bucket)
{
    for (size_t i = 0; i < rule->conf->buckets.count; i++) {
        if (glob_matches(rule->conf->buckets.items[i], bucket))
            return true;
    }
    return false;
}

/* A rule that may name the peer can only take rights away: it holds as far as it allows less than what follows it. */
enum conf_access access_of(const struct access *access, struct access_peer *peer, int socket, const char *bucket)
{
    enum conf_access most = CONF_ACCESS_ADMIN;

    if (access->count == 0)
        return CONF_ACCESS_ADMIN;
    if (peer->generation != access->generation)
        match_peer(access, peer, socket);
    for (size_t i = 0; i < access->count; i++) {
        const struct access_rule *rule = &access->rules[i];
        if (((peer->rules | peer->doubtful) >> i & 1) == 0 || !names_bucket(rule, bucket))
            continue;
        if (rule->conf->allow < most)
            most = rule->conf->allow;
        if (peer->rules >> i & 1)
            return most;
    }
    return CONF_ACCESS_NONE;
}
