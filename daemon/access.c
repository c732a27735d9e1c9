#include "daemon/access.h"

#include "daemon/glob.h"
#include "daemon/names.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Groups of one peer that are looked at; the kernel allows 65,536, people have a few. */
#define GROUPS_MAX 4096

struct access_rule {
    uid_t *users;
    size_t user_count;
    gid_t *groups;
    size_t group_count;
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
        rules[i].group_count = from->groups.count;
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

static bool names_peer(const struct access_rule *rule, const struct ucred *peer, const gid_t *groups,
                       size_t group_count)
{
    if (rule->user_count == 0 && rule->group_count == 0)
        return true;
    if (contains(rule->users, rule->user_count, peer->uid) || contains(rule->groups, rule->group_count, peer->gid))
        return true;
    for (size_t i = 0; i < group_count; i++) {
        if (contains(rule->groups, rule->group_count, groups[i]))
            return true;
    }
    return false;
}

/* Both are as the peer was when it connected: unix(7), SO_PEERCRED and SO_PEERGROUPS. */
static uint64_t match_peer(const struct access *access, int socket)
{
    struct ucred peer = {0};
    gid_t groups[GROUPS_MAX];
    socklen_t peer_bytes = sizeof(peer), groups_bytes = sizeof(groups);
    uint64_t matched = 0;

    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &peer_bytes) != 0)
        return 0;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups, &groups_bytes) != 0)
        groups_bytes = 0;
    for (size_t i = 0; i < access->count; i++) {
        if (names_peer(&access->rules[i], &peer, groups, groups_bytes / sizeof(groups[0])))
            matched |= UINT64_C(1) << i;
    }
    return matched;
}

enum conf_access access_of(const struct access *access, struct access_peer *peer, int socket, const char *bucket)
{
    if (access->count == 0)
        return CONF_ACCESS_ADMIN;
    if (peer->generation != access->generation) {
        peer->rules = match_peer(access, socket);
        peer->generation = access->generation;
    }
    for (size_t i = 0; i < access->count; i++) {
        const struct conf_strings *buckets = &access->rules[i].conf->buckets;
        if ((peer->rules >> i & 1) == 0)
            continue;
        for (size_t k = 0; k < buckets->count; k++) {
            if (glob_matches(buckets->items[k], bucket))
                return access->rules[i].conf->allow;
        }
    }
    return CONF_ACCESS_NONE;
}
