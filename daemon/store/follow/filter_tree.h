/*
 * filter_tree: finds the filters that match a key.
 *
 * Used by watch_set. A tree of tokens: a token that filters have in common is compared with a key once, so that filters
 * that do not match cost nearly nothing, however many they are. A filter without wildcards, which may have hundreds of
 * tokens, is one child of the root, found by the hash of the whole key.
 */
#ifndef DAEMON_STORE_FILTER_TREE_H
#define DAEMON_STORE_FILTER_TREE_H

#include <stdbool.h>

struct filter_node;

/* Zeroed: an empty tree. */
struct filter_tree {
    struct filter_node *root; /* NULL: there is no filter */
};

/* One filter in the tree. The owner allocates it, zeroed, for as long as it is there. */
struct filter_ref {
    struct filter_ref *next, *previous; /* filters that end at the same node */
    struct filter_node *node;
    bool has_rest; /* ends in '>' */
    void *owner;
};

/* Add a filter, in the form that kv_check_filter allows. False: out of memory. */
bool filter_tree_add(struct filter_tree *tree, struct filter_ref *ref, const char *filter, void *owner);

/* Remove a filter. Does nothing if it is not in the tree. */
void filter_tree_remove(struct filter_tree *tree, struct filter_ref *ref);

/*
 * Call visit with the owner of each filter that matches the key, once for each filter. The tree must not change
 * meanwhile. False: the match looked at too many nodes and stopped, so some filters were not looked at.
 */
bool filter_tree_match(const struct filter_tree *tree, const char *key, void (*visit)(void *arg, void *owner),
                       void *arg);

#endif
