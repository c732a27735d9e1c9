#include "tests/integration/load.h"

static void load_pack_write(msgpack_sbuffer *buffer, const struct load *load, unsigned session, unsigned i)
{
    static const char *const methods[] = {"kv.put", "kv.create", "kv.update"};

    pack_request(buffer, i, methods[i % 3], "['%s', 's%u.k%u', 'v%u'%s]", load->bucket, session, i, i,
                 i % 3 == 2 ? ", 0" : "");
}

void load_begin(struct load *load, const struct daemon *daemon, unsigned writes)
{
    msgpack_sbuffer buffer;

    memset(load, 0, sizeof(*load));
    load->daemon = daemon;
    load->writes = writes;
    for (unsigned session = 0; session < LOAD_SESSIONS; session++)
        load->sessions[session] = client_open(daemon);
    load->bucket = client_new_bucket(load->sessions[0], "'history': 10");
    for (unsigned session = 0; session < LOAD_SESSIONS; session++) {
        msgpack_sbuffer_init(&buffer);
        for (unsigned i = 0; i < writes; i++)
            load_pack_write(&buffer, load, session, i);
        client_write(load->sessions[session], buffer.data, buffer.size);
        msgpack_sbuffer_destroy(&buffer);
    }
}

static void load_take_answers(struct load *load, unsigned session, unsigned count)
{
    for (; count > 0; count--) {
        struct answer *answer = client_receive(load->sessions[session]);
        ck_assert_msg(answer->error.type == MSGPACK_OBJECT_NIL, "write %u of session %u: %s", answer->msgid, session,
                      answer_text(answer));
    }
}

void load_wait_for_some(struct load *load, unsigned answers)
{
    for (unsigned session = 0; session < LOAD_SESSIONS; session++)
        load_take_answers(load, session, answers);
    load->answered += answers;
}

void load_finish(struct load *load)
{
    uint64_t total = (uint64_t)load->writes * LOAD_SESSIONS;

    for (unsigned session = 0; session < LOAD_SESSIONS; session++)
        load_take_answers(load, session, load->writes - load->answered);
    struct client *client = client_open(load->daemon);
    struct answer *answer = client_call(client, "kv.keys", "['%s']", load->bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), total);
    answer = client_call(client, "bucket.info", "['%s']", load->bucket);
    assert_ok(answer);
    /* Each key has one value, and no other was ever written. */
    ck_assert_uint_eq(number_at(&answer->result, "values"), total);
    ck_assert_uint_eq(number_at(&answer->result, "last_revision"), total);
}
