#include "daemon/store/follow/filter_tree.h"

#include "daemon/base/table.h"
#include "daemon/store/follow/filter.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/*
 * A match looks at this number of nodes at most. Each '*' beside a literal token doubles the paths of a key, so that
 * one user's filters could have a match look at a million nodes, most of them not in the processor's cache.
 */
#define MATCH_NODES_MAX 1024u

struct filter_node {
    UT_hash_handle hh; /* of its parent's literals */
    struct filter_node *parent;
    struct filter_node *literals; /* uthash, by token */
    struct filter_node *any;      /* '*' */
    struct filter_ref *exact;     /* filters that end here */
    struct filter_ref *rest;      /* filters that end here with '>' */
    size_t token_length;
    char token[];
};

static struct filter_node *make_node(struct filter_node *parent, const char *token, size_t length)
{
    struct filter_node *node = calloc(1, sizeof(*node) + length);

    if (node == NULL)
        return NULL;
    node->parent = parent;
    node->token_length = length;
    if (length > 0)
        memcpy(node->token, token, length);
    return node;
}

static bool filter_tree_is_any(const char *token, size_t length)
{
    return length == 1 && token[0] == '*';
}

/* Return the child for a token; create it if there is none. NULL: out of memory. */
static struct filter_node *obtain_child(struct filter_node *node, const char *token, size_t length)
{
    struct filter_node *child = NULL;

    if (filter_tree_is_any(token, length)) {
        if (node->any == NULL)
            node->any = make_node(node, token, length);
        return node->any;
    }
    HASH_FIND(hh, node->literals, token, length, child);
    if (child != NULL)
        return child;
    child = make_node(node, token, length);
    if (child != NULL)
        HASH_ADD_KEYPTR(hh, node->literals, child->token, child->token_length, child);
    return child;
}

/* Free the node and its ancestors, as far as they are empty. */
static void prune(struct filter_tree *tree, struct filter_node *node)
{
    while (node != NULL && node->literals == NULL && node->any == NULL && node->exact == NULL && node->rest == NULL) {
        struct filter_node *parent = node->parent;
        if (parent == NULL)
            tree->root = NULL;
        else if (parent->any == node)
            parent->any = NULL;
        else
            HASH_DEL(parent->literals, node);
        free(node);
        node = parent;
    }
}

bool filter_tree_add(struct filter_tree *tree, struct filter_ref *ref, const char *filter, void *owner)
{
    if (tree->root == NULL)
        tree->root = make_node(NULL, "", 0);
    struct filter_node *node = tree->root;
    if (node == NULL)
        return false;

    ref->owner = owner;
    ref->has_rest = false;
    bool is_key = filter_is_key(filter);
    for (const char *token = filter;;) {
        size_t length = is_key ? strlen(token) : strcspn(token, ".");
        if (token[0] == '>') {
            ref->has_rest = true;
            break;
        }
        struct filter_node *child = obtain_child(node, token, length);
        if (child == NULL) {
            prune(tree, node);
            return false;
        }
        node = child;
        if (token[length] == '\0')
            break;
        token += length + 1;
    }
    ref->node = node;
    if (ref->has_rest)
        DL_APPEND2(node->rest, ref, previous, next);
    else
        DL_APPEND2(node->exact, ref, previous, next);
    return true;
}

void filter_tree_remove(struct filter_tree *tree, struct filter_ref *ref)
{
    struct filter_node *node = ref->node;

    if (node == NULL)
        return;
    ref->node = NULL;
    if (ref->has_rest)
        DL_DELETE2(node->rest, ref, previous, next);
    else
        DL_DELETE2(node->exact, ref, previous, next);
    prune(tree, node);
}

struct match {
    void (*visit)(void *arg, void *owner);
    void *arg;
    unsigned nodes_left;
};

static void visit_all(const struct match *match, struct filter_ref *refs)
{
    for (struct filter_ref *ref = refs; ref != NULL; ref = ref->next)
        match->visit(match->arg, ref->owner);
}

static bool match_node(struct match *match, const struct filter_node *node, const char *token);

/* Match what follows a token with a child that the token matches. */
static bool match_child(struct match *match, const struct filter_node *child, const char *token_end)
{
    if (child == NULL)
        return true;
    if (*token_end != '\0')
        return match_node(match, child, token_end + 1);
    visit_all(match, child->exact);
    return true;
}

/*
 * Match the rest of a key, from token on, with the children of a node. The depth is that of the filters with wildcards.
 * False: it looked at too many nodes.
 */
static bool match_node(struct match *match, const struct filter_node *node, const char *token)
{
    struct filter_node *child = NULL;
    size_t length = strcspn(token, ".");

    if (match->nodes_left-- == 0)
        return false;
    visit_all(match, node->rest);
    if (node->literals != NULL)
        HASH_FIND(hh, node->literals, token, length, child);
    return match_child(match, child, token + length) && match_child(match, node->any, token + length);
}

bool filter_tree_match(const struct filter_tree *tree, const char *key, void (*visit)(void *arg, void *owner),
                       void *arg)
{
    struct match match = {visit, arg, MATCH_NODES_MAX};
    struct filter_node *same = NULL;

    if (tree->root == NULL)
        return true;
    if (strchr(key, '.') != NULL) /* otherwise the key is one token, which match_node meets */
        HASH_FIND(hh, tree->root->literals, key, strlen(key), same);
    if (same != NULL)
        visit_all(&match, same->exact);
    return match_node(&match, tree->root, key);
}
