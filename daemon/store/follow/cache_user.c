#include "daemon/store/follow/cache_user.h"

#include "daemon/store/follow/cache.h"

#include <stdlib.h>
#include <utlist.h>

static unsigned cache_class_of(const struct cache *cache)
{
    return cache->value_bytes > 0 ? 64u - (unsigned)__builtin_clzll(cache->value_bytes) : 0;
}

static struct cache_user *cache_user_obtain(struct cache_budget *budget, uint64_t id)
{
    struct cache_user *user;

    if (id == 0)
        return &budget->nobody;
    HASH_FIND(hh, budget->users, &id, sizeof(id), user);
    if (user != NULL)
        return user;
    user = calloc(1, sizeof(*user));
    if (user == NULL)
        return &budget->nobody;
    user->id = id;
    HASH_ADD(hh, budget->users, id, sizeof(user->id), user);
    return user;
}

static void cache_user_link(struct cache *cache)
{
    cache->value_class = cache_class_of(cache);
    DL_APPEND2(cache->user->by_values[cache->value_class], cache, previous, next);
}

static void cache_user_unlink(struct cache *cache)
{
    DL_DELETE2(cache->user->by_values[cache->value_class], cache, previous, next);
}

void cache_user_join(struct cache *cache, uint64_t id)
{
    struct cache_user *user = cache_user_obtain(cache->budget, id);

    if (user == cache->user)
        return;
    cache_user_leave(cache);
    cache->user = user;
    user->cache_count++;
    user->bytes += cache->bytes;
    cache_user_link(cache);
}

void cache_user_leave(struct cache *cache)
{
    struct cache_user *user = cache->user;

    if (user == NULL)
        return;
    cache_user_unlink(cache);
    user->bytes -= cache->bytes;
    cache->user = NULL;
    if (--user->cache_count > 0 || user == &cache->budget->nobody)
        return;
    HASH_DEL(cache->budget->users, user);
    free(user);
}

void cache_user_note_values(struct cache *cache)
{
    if (cache_class_of(cache) == cache->value_class)
        return;
    cache_user_unlink(cache);
    cache_user_link(cache);
}

struct cache_user *cache_user_largest(struct cache_budget *budget)
{
    struct cache_user *largest = &budget->nobody, *user, *next;

    HASH_ITER(hh, budget->users, user, next)
    {
        if (user->bytes > largest->bytes)
            largest = user;
    }
    return largest;
}

struct cache_user *cache_user_who_gives(struct cache_budget *budget)
{
    struct cache_user *largest = cache_user_largest(budget), *giver = &budget->nobody, *user, *next;
    const struct cache *cache = cache_user_largest_cache(largest);

    if (cache == NULL || cache->keeps_values || cache_user_most_values(largest) != NULL)
        return largest;
    HASH_ITER(hh, budget->users, user, next)
    {
        bool has_values = cache_user_most_values(user) != NULL;
        if (has_values && (user->bytes > giver->bytes || cache_user_most_values(giver) == NULL))
            giver = user;
    }
    return cache_user_most_values(giver) != NULL ? giver : largest;
}

struct cache *cache_user_most_values(const struct cache_user *user)
{
    for (unsigned class = CACHE_CLASSES - 1; class > 0; class --) {
        if (user->by_values[class] != NULL)
            return user->by_values[class];
    }
    return NULL;
}

struct cache *cache_user_largest_cache(const struct cache_user *user)
{
    struct cache *largest = NULL, *cache;

    for (unsigned class = 0; class < CACHE_CLASSES; class ++) {
        DL_FOREACH(user->by_values[class], cache)
        {
            if (cache->bytes > (largest != NULL ? largest->bytes : 0))
                largest = cache;
        }
    }
    return largest;
}
