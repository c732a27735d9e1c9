/* Attacks with calls about many keys of a bucket. */
#include "tests/support/attack_runs.h"
#include "tests/support/flood.h"

#include <stdlib.h>
#include <string.h>

#define KEYS_PER_CALL 1000u

/* Pages that are full, and pages for which all keys must be looked at in vain. */
void attack_run_entries(struct attack *attack)
{
    struct calls calls;

    calls_begin(&calls);
    for (unsigned i = 0; i < 200; i++) {
        calls_add(&calls, i % 4 == 3 ? "kv.keys" : "kv.entries", i % 2 == 0 ? 1 : 2, ATTACK_BUCKET);
        if (i % 2 == 0)
            continue;
        msgpack_pack_map(&calls.packer, 1);
        calls_add_text(&calls, "filter");
        calls_add_text(&calls, "*.nothing.*");
    }
    flood_run(attack, 4, FLOOD_REPEAT, &calls);
}

/* As JSON, the texts would be six times as long. */
void attack_run_long_metadata(struct attack *attack)
{
    enum { BYTES = 4000000 };
    struct calls calls;
    char *text = malloc(BYTES + 1);

    if (text == NULL)
        abort();
    memset(text, '\x01', BYTES);
    text[BYTES] = '\0';
    calls_begin(&calls);
    for (unsigned i = 0; i < 4; i++) {
        calls_add(&calls, i % 2 == 0 ? "bucket.create" : "bucket.update", 2, ATTACK_BUCKET);
        msgpack_pack_map(&calls.packer, 1);
        calls_add_text(&calls, "metadata");
        msgpack_pack_map(&calls.packer, 1);
        calls_add_text(&calls, "name");
        calls_add_text(&calls, text);
    }
    free(text);
    flood_run(attack, 4, FLOOD_REPEAT, &calls);
}

/* The keys are written again and again meanwhile, so that there is always something to delete. */
void attack_run_deletions(struct attack *attack)
{
    struct calls calls;
    char key[64];

    calls_begin(&calls);
    for (unsigned i = 0; i < 8; i++) {
        calls_add(&calls, i % 2 == 0 ? "bulk.delete" : "bulk.put", 2, ATTACK_BUCKET);
        msgpack_pack_map(&calls.packer, i % 2 == 0 ? 1 : KEYS_PER_CALL);
        for (unsigned n = 0; n < KEYS_PER_CALL && i % 2 != 0; n++) {
            calls_add_text(&calls, calls_numbered(key, "k", n));
            calls_add_zeros(&calls, 8);
        }
        if (i % 2 == 0) {
            calls_add_text(&calls, "filter");
            calls_add_text(&calls, ">");
        }
    }
    flood_run(attack, 8, FLOOD_REPEAT, &calls);
}
