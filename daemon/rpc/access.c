#include "daemon/rpc/access.h"

#include "daemon/base/glob.h"
#include "daemon/base/usergroup.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* A peer with more groups needs memory for them. Most have a few; the kernel allows 65,536. */
#define GROUPS_USUAL 64

struct access_rule {
    uid_t *users;
    size_t user_count;
    gid_t *groups;
    size_t group_count;
    bool is_for_all_buckets;
    const struct conf_access_rule *conf;
};

/* --- Names into numbers ---------------------------------------------------------------------------- */

static unsigned *access_translate(const struct conf_strings *names, bool (*find)(const char *name, unsigned *id),
                                  const char *what, char error[CONF_ERROR_BYTES])
{
    unsigned *ids = calloc(names->count + 1, sizeof(*ids));

    if (ids == NULL) {
        snprintf(error, CONF_ERROR_BYTES, "out of memory");
        return NULL;
    }
    for (size_t i = 0; i < names->count; i++) {
        if (!find(names->items[i], &ids[i])) {
            snprintf(error, CONF_ERROR_BYTES, "access: unknown %s \"%s\"", what, names->items[i]);
            free(ids);
            return NULL;
        }
    }
    return ids;
}

static bool access_has_all_buckets(const struct conf_access_rule *rule)
{
    for (size_t i = 0; i < rule->buckets.count; i++) {
        const char *pattern = rule->buckets.items[i];
        if (pattern[0] != '\0' && pattern[strspn(pattern, "*")] == '\0')
            return true;
    }
    return false;
}

static void access_free_rules(struct access_rule *rules, size_t count)
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
        snprintf(error, CONF_ERROR_BYTES, "access: there may be at most %u rules", ACCESS_RULES_MAX);
        free(rules);
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        const struct conf_access_rule *from = &conf->access.rules[i];
        rules[i].conf = from;
        rules[i].is_for_all_buckets = access_has_all_buckets(from);
        rules[i].users = access_translate(&from->users, usergroup_find_user, "user", error);
        rules[i].groups = access_translate(&from->groups, usergroup_find_group, "group", error);
        if (rules[i].users == NULL || rules[i].groups == NULL) {
            access_free_rules(rules, i + 1);
            return -1;
        }
        rules[i].user_count = from->users.count;
        rules[i].group_count = from->groups.count;
    }
    access_free_rules(access->rules, access->count);
    access->rules = rules;
    access->count = count;
    access->generation++;
    return 0;
}

void access_replace(struct access *access, struct access *fresh)
{
    fresh->generation += access->generation;
    access_free(access);
    *access = *fresh;
    memset(fresh, 0, sizeof(*fresh));
}

void access_free(struct access *access)
{
    access_free_rules(access->rules, access->count);
    access->rules = NULL;
    access->count = 0;
}

/* --- Peers ----------------------------------------------------------------------------------------- */

static bool access_contains(const unsigned *ids, size_t count, unsigned id)
{
    for (size_t i = 0; i < count; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

/* A peer's groups; is_complete: all of them are known. */
struct peer_groups {
    gid_t usual[GROUPS_USUAL];
    gid_t *ids; /* usual, or allocated */
    size_t count;
    bool is_complete;
};

/* Read the groups that the peer had when it connected: unix(7), SO_PEERGROUPS. */
static void access_read_groups(int socket, struct peer_groups *groups)
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

static void access_free_groups(struct peer_groups *groups)
{
    if (groups->ids != groups->usual)
        free(groups->ids);
}

static bool access_rule_names_peer(const struct access_rule *rule, const struct ucred *credentials,
                                   const struct peer_groups *groups)
{
    if (rule->user_count == 0 && rule->group_count == 0)
        return true;
    if (access_contains(rule->users, rule->user_count, credentials->uid) ||
        access_contains(rule->groups, rule->group_count, credentials->gid))
        return true;
    for (size_t i = 0; i < groups->count; i++) {
        if (access_contains(rule->groups, rule->group_count, groups->ids[i]))
            return true;
    }
    return false;
}

/* Find the rules that name the peer. If its groups could not be read, the next call tries again. */
static void access_match_peer(const struct access *access, struct access_peer *peer, int socket)
{
    struct ucred credentials = {0};
    struct peer_groups groups;
    socklen_t bytes = sizeof(credentials);

    peer->rules = 0;
    peer->doubtful = 0;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &bytes) != 0)
        return;
    access_read_groups(socket, &groups);
    for (size_t i = 0; i < access->count; i++) {
        if (access_rule_names_peer(&access->rules[i], &credentials, &groups))
            peer->rules |= UINT64_C(1) << i;
        else if (!groups.is_complete && access->rules[i].group_count > 0)
            peer->doubtful |= UINT64_C(1) << i;
    }
    if (groups.is_complete)
        peer->generation = access->generation;
    access_free_groups(&groups);
}

static bool access_rule_names_bucket(const struct access_rule *rule, const char *bucket)
{
    for (size_t i = 0; i < rule->conf->buckets.count; i++) {
        if (glob_matches(rule->conf->buckets.items[i], bucket))
            return true;
    }
    return false;
}

/*
 * Return what the first rule allows that names the peer and that matches the bucket (NULL: all buckets; then the least
 * of what the rules before it allow for some). A rule that may name the peer can only take rights away.
 */
static enum conf_access access_apply_rules(const struct access *access, struct access_peer *peer, int socket,
                                           const char *bucket)
{
    enum conf_access most = CONF_ACCESS_ADMIN;

    if (access->count == 0)
        return CONF_ACCESS_ADMIN;
    if (peer->generation != access->generation)
        access_match_peer(access, peer, socket);
    for (size_t i = 0; i < access->count; i++) {
        const struct access_rule *rule = &access->rules[i];
        bool is_sure = (peer->rules >> i & 1) != 0;
        if ((!is_sure && (peer->doubtful >> i & 1) == 0) || (bucket != NULL && !access_rule_names_bucket(rule, bucket)))
            continue;
        if (rule->conf->allow < most)
            most = rule->conf->allow;
        if (is_sure && (bucket != NULL || rule->is_for_all_buckets))
            return most;
    }
    return CONF_ACCESS_NONE;
}

enum conf_access access_of(const struct access *access, struct access_peer *peer, int socket, const char *bucket)
{
    return access_apply_rules(access, peer, socket, bucket);
}

enum conf_access access_of_all(const struct access *access, struct access_peer *peer, int socket)
{
    return access_apply_rules(access, peer, socket, NULL);
}
