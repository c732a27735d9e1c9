#include "daemon/nats/wire.h"
#include "tests/unit/suites.h"

#include <check.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_PAYLOAD 4096u
#define TOLD_BYTES  8192u

/* A wire, the server's end of its socket, and the wire's events as text. */
struct line {
    struct wire wire;
    int server;
    bool closes;   /* at the next message */
    bool is_hasty; /* never has time for more than the wire has just read */
    char told[TOLD_BYTES];
};

static void tell(struct line *line, const char *text)
{
    size_t length = strlen(line->told);

    snprintf(line->told + length, sizeof(line->told) - length, "%s", text);
}

static bool tell_header(void *arg, const char *name, const char *value)
{
    tell(arg, " ");
    tell(arg, name);
    tell(arg, "=");
    tell(arg, value);
    return true;
}

static void on_message(void *arg, struct message *message)
{
    struct line *line = arg;

    tell(line, message->subject);
    tell(line, " reply=");
    tell(line, message->reply != NULL ? message->reply : "none");
    message_each_header(message, tell_header, line);
    if (message_status(message) != 0) {
        tell(line, " status ");
        tell(line, message->status);
        tell(line, " ");
        tell(line, message_status_text(message));
    }
    tell(line, " [");
    ck_assert_uint_eq(strlen(message->payload), message->payload_bytes);
    tell(line, message->payload);
    tell(line, "]\n");
    if (line->closes)
        wire_close(&line->wire);
}

static void on_server_error(void *arg, const char *text)
{
    tell(arg, "error ");
    tell(arg, text);
    tell(arg, "\n");
}

static bool is_enough(void *arg)
{
    return ((struct line *)arg)->is_hasty;
}

static void line_begin(struct line *line)
{
    const struct wire_events events = {on_message, on_server_error, is_enough, line};
    int ends[2];

    memset(line, 0, sizeof(*line));
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    line->server = ends[1];
    ck_assert(wire_open(&line->wire, ends[0], NULL, MAX_PAYLOAD, &events));
}

static void line_end(struct line *line)
{
    close(line->server);
    wire_close(&line->wire);
}

/* Send what the server sends. Return whether the connection is still up. */
static bool say(struct line *line, const char *bytes, size_t length)
{
    ck_assert_int_eq(send(line->server, bytes, length, MSG_NOSIGNAL), (ssize_t)length);
    return wire_read(&line->wire);
}

/* Return what the wire has sent. */
static void heard(struct line *line, char *text, size_t size)
{
    ck_assert(wire_write(&line->wire));
    ssize_t length = recv(line->server, text, size - 1, MSG_DONTWAIT);
    text[length > 0 ? length : 0] = '\0';
}

static const char conversation[] = "INFO {\"server_id\":\"x\"}\r\n"
                                   "PING\r\n"
                                   "MSG a.b 1 5\r\nhello\r\n"
                                   "MSG a.b 1 $JS.ACK.1 0\r\n\r\n"
                                   "HMSG in.box 1 28 33\r\nNATS/1.0\r\nA: b\r\nC:  d e \r\n\r\nworld\r\n"
                                   "HMSG in.box 1 re.ply 34 34\r\nNATS/1.0 404 Message Not Found\r\n\r\n\r\n"
                                   "-ERR 'Permissions Violation'\r\n"
                                   "+OK\r\n"
                                   "HMSG x 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
                                   "HMSG y 1 25 25\r\nNATS/1.0\r\nStatus: 503\r\n\r\n\r\n";
static const char told[] = "a.b reply=none [hello]\n"
                           "a.b reply=$JS.ACK.1 []\n"
                           "in.box reply=none A=b C=d e [world]\n"
                           "in.box reply=re.ply status 404 Message Not Found []\n"
                           "error Permissions Violation\n"
                           "x reply=none status 503  []\n"
                           "y reply=none Status=503 []\n";

START_TEST(messages_are_the_same_in_whatever_pieces_they_come)
{
    struct line line;
    char answer[64];
    size_t size = (size_t)_i + 1;

    line_begin(&line);
    for (size_t at = 0; at < sizeof(conversation) - 1; at += size) {
        size_t left = sizeof(conversation) - 1 - at;
        ck_assert_msg(say(&line, conversation + at, left < size ? left : size), "%s", line.wire.lost);
    }
    ck_assert_str_eq(line.told, told);
    heard(&line, answer, sizeof(answer));
    ck_assert_str_eq(answer, "PONG\r\n");
    line_end(&line);
}
END_TEST

START_TEST(an_empty_header_value_is_empty_and_of_one_name_the_first_counts)
{
    static const char bytes[] = "HMSG x 1 33 33\r\nNATS/1.0\r\nA:\r\nB: 1\r\nB: 2\r\nC: \r\n\r\n\r\n";
    struct line line;

    line_begin(&line);
    ck_assert(say(&line, bytes, sizeof(bytes) - 1));
    ck_assert_str_eq(line.told, "x reply=none A= B=1 C= []\n");
    line_end(&line);
}
END_TEST

/* The error names a subject, and the waiting request must be found by it. */
START_TEST(a_long_error_of_the_server_is_complete)
{
    char subject[1500], text[1600];
    struct line line;

    memset(subject, 's', sizeof(subject) - 1);
    subject[sizeof(subject) - 1] = '\0';
    int length =
        snprintf(text, sizeof(text), "-ERR 'Permissions Violation for Publish to \"%s\"'\r\nPING\r\n", subject);
    line_begin(&line);
    ck_assert(say(&line, text, (size_t)length));
    snprintf(text, sizeof(text), "error Permissions Violation for Publish to \"%s\"\n", subject);
    ck_assert_str_eq(line.told, text);
    line_end(&line);
}
END_TEST

/* The server stores any bytes as headers. A message that ends the connection would be delivered again and again. */
START_TEST(malformed_headers_are_skipped_and_the_message_is_delivered)
{
    static const char bytes[] = "HMSG a 1 2 3\r\nXXv\r\n"
                                "HMSG b 1 6 7\r\nXX\r\n\r\nv\r\n"
                                "HMSG c 1 17 17\r\nHTTP/1.0\r\nA:1\r\n\r\n\r\n"
                                "HMSG d 1 12 13\r\nNATS/1.0\nA:1v\r\n"
                                "HMSG e 1 0 1\r\nv\r\n";
    struct line line;

    line_begin(&line);
    ck_assert_msg(say(&line, bytes, sizeof(bytes) - 1), "%s", line.wire.lost);
    ck_assert_str_eq(line.told, "a reply=none [v]\n"
                                "b reply=none [v]\n"
                                "c reply=none A=1 []\n"
                                "d reply=none [v]\n"
                                "e reply=none [v]\n");
    line_end(&line);
}
END_TEST

START_TEST(invalid_protocol_ends_the_connection)
{
    static const char *const wrong[] = {"HELLO\r\n",
                                        "MSG a 1\r\n",
                                        "MSG a 1 x\r\n",
                                        "MSG a 1 -1\r\n",
                                        "MSG a 1 9999999999\r\n",
                                        "MSG a 1 b c 5\r\n",
                                        "HMSG a 1 10 5\r\nNATS/1.0\r\n\r\n",
                                        "HMSG a 1 5\r\n",
                                        "\n",
                                        "MSG a 1 5\nhello\r\n",
                                        "\x16\x03\x01\x02\n"};
    struct line line;

    line_begin(&line);
    ck_assert(!say(&line, wrong[_i], strlen(wrong[_i])));
    ck_assert_str_ne(line.wire.lost, "");
    ck_assert_str_eq(line.told, "");
    line_end(&line);
}
END_TEST

START_TEST(a_server_that_closes_is_lost_with_its_reason)
{
    static const char bytes[] = "-ERR 'Stale Connection'\r\n";
    struct line line;

    line_begin(&line);
    ck_assert(say(&line, bytes, sizeof(bytes) - 1));
    shutdown(line.server, SHUT_WR);
    ck_assert(!wire_read(&line.wire));
    ck_assert_str_eq(line.wire.lost, "Stale Connection");
    line_end(&line);
}
END_TEST

START_TEST(publishes_have_the_form_of_the_protocol)
{
    const struct message_header headers[] = {{"Nats-Msg-Id", "7"}, {"A", "b c"}};
    struct line line;
    char sent[512];

    line_begin(&line);
    ck_assert(wire_subscribe(&line.wire, "_INBOX.x.>", 1));
    ck_assert_int_eq(wire_publish(&line.wire, "a", NULL, NULL, 0, "", 0), WIRE_DONE);
    ck_assert_int_eq(wire_publish(&line.wire, "a", "r", NULL, 0, "hello", 5), WIRE_DONE);
    ck_assert_int_eq(wire_publish(&line.wire, "a", "r", headers, 2, "hello", 5), WIRE_DONE);
    heard(&line, sent, sizeof(sent));
    ck_assert_str_eq(sent, "SUB _INBOX.x.> 1\r\n"
                           "PUB a 0\r\n\r\n"
                           "PUB a r 5\r\nhello\r\n"
                           "HPUB a r 36 41\r\nNATS/1.0\r\nNats-Msg-Id: 7\r\nA: b c\r\n\r\nhello\r\n");
    ck_assert_uint_eq(wire_unwritten_bytes(&line.wire), 0);
    line_end(&line);
}
END_TEST

START_TEST(more_than_the_server_takes_is_refused_headers_counted)
{
    static const char payload[MAX_PAYLOAD + 1];
    const struct message_header header = {"A", "b"};
    struct line line;

    line_begin(&line);
    ck_assert_int_eq(wire_publish(&line.wire, "a", NULL, NULL, 0, payload, MAX_PAYLOAD), WIRE_DONE);
    ck_assert_int_eq(wire_publish(&line.wire, "a", NULL, NULL, 0, payload, MAX_PAYLOAD + 1), WIRE_TOO_LARGE);
    ck_assert_int_eq(wire_publish(&line.wire, "a", NULL, &header, 1, payload, MAX_PAYLOAD - 8), WIRE_TOO_LARGE);
    line_end(&line);
}
END_TEST

START_TEST(a_callback_may_close_the_wire)
{
    struct line line;

    line_begin(&line);
    int own_end = line.wire.socket;
    line.closes = true;
    ck_assert(say(&line, conversation, sizeof(conversation) - 1));
    ck_assert_str_eq(line.told, "a.b reply=none [hello]\n");
    ck_assert(!line.wire.is_open);
    ck_assert_ptr_null(line.wire.in);
    close(own_end);
    close(line.server);
}
END_TEST

/* Unsent pongs are not kept without limit. */
START_TEST(a_server_that_pings_and_does_not_read_takes_no_memory)
{
    static char pings[6 * 1024];
    struct line line;

    for (size_t i = 0; i < sizeof(pings); i++)
        pings[i] = "PING\r\n"[i % 6];
    line_begin(&line);
    for (unsigned i = 0; i < 4096; i++)
        ck_assert(say(&line, pings, sizeof(pings)));
    ck_assert_uint_le(wire_unwritten_bytes(&line.wire), 9u * 1024 * 1024);
    line_end(&line);
}
END_TEST

/* Whatever comes, the wire reads within its buffers (the sanitizers check that), and either continues or is lost. */
START_TEST(corrupted_bytes_do_no_harm)
{
    struct line line;
    char bytes[sizeof(conversation)];

    srand((unsigned)_i + 1);
    for (unsigned round = 0; round < 2000; round++) {
        memcpy(bytes, conversation, sizeof(bytes));
        for (unsigned i = 0; i < 1 + round % 4; i++)
            bytes[(size_t)rand() % (sizeof(bytes) - 1)] = (char)(1 + rand() % 255); /* reported as text: no NUL */
        line_begin(&line);
        size_t cut = (size_t)rand() % (sizeof(bytes) - 1);
        if (cut == 0 || say(&line, bytes, cut))
            say(&line, bytes + cut, sizeof(bytes) - 1 - cut);
        line_end(&line);
    }
}
END_TEST

/* --- TLS ------------------------------------------------------------------------------------------- */

/* An encrypted connection. The server's session writes into memory, so that a test can send it in pieces. */
struct tls_line {
    struct line line;
    SSL *server;
};

static SSL_CTX *make_server_context(const char *version)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    int number = strcmp(version, "1.2") == 0 ? TLS1_2_VERSION : TLS1_3_VERSION;

    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    ck_assert_int_gt(X509_sign(certificate, key, EVP_sha256()), 0);
    ck_assert_int_eq(SSL_CTX_use_certificate(context, certificate), 1);
    ck_assert_int_eq(SSL_CTX_use_PrivateKey(context, key), 1);
    ck_assert_int_eq(SSL_CTX_set_min_proto_version(context, number), 1);
    ck_assert_int_eq(SSL_CTX_set_max_proto_version(context, number), 1);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return context;
}

/* Send what the server's session has written: all, or its first bytes. */
static void tls_send(struct tls_line *line, size_t most)
{
    char *bytes;
    size_t size = (size_t)BIO_get_mem_data(SSL_get_wbio(line->server), &bytes);

    size = size < most ? size : most;
    ck_assert_int_eq(send(line->line.server, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT), (ssize_t)size);
    BIO_reset(SSL_get_wbio(line->server));
}

static void tls_receive(struct tls_line *line)
{
    char bytes[16384];
    ssize_t received = recv(line->line.server, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (received > 0)
        ck_assert_int_eq(BIO_write(SSL_get_rbio(line->server), bytes, (int)received), (int)received);
}

static void shake_hands(struct tls_line *line, SSL *client, int client_socket)
{
    int client_done = 0, server_done = 0;

    SSL_set_fd(client, client_socket);
    SSL_set_connect_state(client);
    for (unsigned i = 0; i < 10 && (client_done != 1 || server_done != 1); i++) {
        client_done = SSL_do_handshake(client);
        tls_receive(line);
        server_done = SSL_do_handshake(line->server);
        tls_send(line, SIZE_MAX);
    }
    ck_assert(client_done == 1 && server_done == 1);
}

static void tls_line_begin(struct tls_line *line, const char *version)
{
    const struct wire_events events = {on_message, on_server_error, is_enough, &line->line};
    SSL_CTX *server_context = make_server_context(version), *client_context = SSL_CTX_new(TLS_client_method());
    int ends[2], buffer_bytes = 1024 * 1024;

    ck_assert(tls_init());
    memset(line, 0, sizeof(*line));
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof(buffer_bytes));
    line->line.server = ends[1];
    line->server = SSL_new(server_context);
    SSL_set_bio(line->server, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_accept_state(line->server);
    SSL *client = SSL_new(client_context);
    shake_hands(line, client, ends[0]);
    ck_assert(tls_adopt(client, ends[0]));
    ck_assert(wire_open(&line->line.wire, ends[0], client, MAX_PAYLOAD, &events));
    SSL_CTX_free(server_context);
    SSL_CTX_free(client_context);
}

static void tls_line_end(struct tls_line *line)
{
    SSL_free(line->server);
    line_end(&line->line);
}

/* Read while the wire says that it has more, but at most so often. Return how often. */
static unsigned read_on(struct line *line, unsigned most)
{
    unsigned reads = 0;

    do
        ck_assert(wire_read(&line->wire));
    while (++reads < most && line->wire.has_more);
    return reads;
}

static void say_encrypted(struct tls_line *line, const char *text, size_t piece)
{
    for (size_t length = strlen(text); length > 0;) {
        size_t size = length < piece ? length : piece;
        ck_assert_int_eq(SSL_write(line->server, text, (int)size), (int)size);
        text += size;
        length -= size;
    }
}

static const char *const versions[] = {"1.2", "1.3"};

/* Records without data: with 1.2 the server asks to renegotiate, with 1.3 it changes its key. */
START_TEST(records_without_data_leave_the_reader_its_time)
{
    struct tls_line line;

    tls_line_begin(&line, versions[_i]);
    for (unsigned i = 0; i < 3000; i++) {
        if (_i == 0)
            SSL_renegotiate(line.server);
        else
            SSL_key_update(line.server, SSL_KEY_UPDATE_NOT_REQUESTED);
        SSL_do_handshake(line.server);
    }
    if (_i == 1)
        say_encrypted(&line, "MSG a.b 1 5\r\nhello\r\n", SIZE_MAX);
    tls_send(&line, SIZE_MAX);
    line.line.is_hasty = true;
    ck_assert_uint_eq(read_on(&line.line, 20), 20);
    ck_assert_str_eq(line.line.told, "");

    line.line.is_hasty = false;
    read_on(&line.line, 1000);
    ck_assert_str_eq(line.line.told, _i == 1 ? "a.b reply=none [hello]\n" : "");
    tls_line_end(&line);
}
END_TEST

/* A ticket of many records: OpenSSL may be reading it when something must be written. */
static int fill_ticket(SSL *session, void *arg)
{
    static const char data[20000];

    (void)arg;
    return SSL_SESSION_set1_ticket_appdata(SSL_get0_session(session), data, sizeof(data));
}

START_TEST(a_ticket_of_many_records_hinders_neither_direction)
{
    char bytes[64] = "";
    struct tls_line line;

    tls_line_begin(&line, "1.3");
    SSL_CTX_set_session_ticket_cb(SSL_get_SSL_CTX(line.server), fill_ticket, NULL, NULL);
    SSL_set_max_send_fragment(line.server, 512);
    SSL_new_session_ticket(line.server);
    say_encrypted(&line, "MSG a.b 1 5\r\nhello\r\n", SIZE_MAX);
    tls_send(&line, SIZE_MAX);
    line.line.is_hasty = true;
    ck_assert_uint_eq(read_on(&line.line, 2), 2);
    ck_assert(wire_subscribe(&line.line.wire, "x", 1));
    ck_assert(wire_write(&line.line.wire));
    read_on(&line.line, 1000);
    ck_assert_str_eq(line.line.told, "a.b reply=none [hello]\n");
    ck_assert(wire_write(&line.line.wire));
    tls_receive(&line);
    SSL_read(line.server, bytes, sizeof(bytes) - 1);
    ck_assert_str_eq(bytes, "SUB x 1\r\n");
    tls_line_end(&line);
}
END_TEST

/* OpenSSL reports a failed write as an end if it has read the server's end. */
START_TEST(writing_after_the_server_has_closed_ends_the_connection)
{
    static const char payload[MAX_PAYLOAD];
    char bytes[64];
    size_t length;
    struct tls_line line;

    tls_line_begin(&line, versions[_i]);
    SSL_shutdown(line.server);
    tls_send(&line, SIZE_MAX);
    tls_begin_reading(line.line.wire.tls);
    ck_assert_int_eq(tls_read(line.line.wire.tls, bytes, sizeof(bytes), &length), TLS_CLOSED);
    shutdown(line.line.server, SHUT_RDWR);
    for (unsigned i = 0; i < 64; i++)
        ck_assert_int_eq(wire_publish(&line.line.wire, "x", NULL, NULL, 0, payload, sizeof(payload)), WIRE_DONE);
    ck_assert(!wire_write(&line.line.wire));
    tls_line_end(&line);
}
END_TEST

START_TEST(tiny_records_leave_the_reader_its_time)
{
    static const char text[] = "MSG a.b 1 5\r\nhello\r\nMSG a.c 1 0\r\n\r\n";
    struct tls_line line;

    tls_line_begin(&line, versions[_i]);
    say_encrypted(&line, text, 1);
    tls_send(&line, SIZE_MAX);
    line.line.is_hasty = true;
    ck_assert_uint_eq(read_on(&line.line, 10), 10);
    ck_assert_str_eq(line.line.told, "");
    ck_assert_uint_le(read_on(&line.line, 1000), 2 * sizeof(text));
    ck_assert_str_eq(line.line.told, "a.b reply=none [hello]\na.c reply=none []\n");
    tls_line_end(&line);
}
END_TEST

Suite *wire_suite(void)
{
    Suite *suite = suite_create("wire");
    TCase *tests = tcase_create("wire");

    tcase_add_loop_test(tests, messages_are_the_same_in_whatever_pieces_they_come, 0, 64);
    tcase_add_test(tests, an_empty_header_value_is_empty_and_of_one_name_the_first_counts);
    tcase_add_test(tests, a_long_error_of_the_server_is_complete);
    tcase_add_loop_test(tests, invalid_protocol_ends_the_connection, 0, 11);
    tcase_add_test(tests, a_server_that_closes_is_lost_with_its_reason);
    tcase_add_test(tests, publishes_have_the_form_of_the_protocol);
    tcase_add_test(tests, malformed_headers_are_skipped_and_the_message_is_delivered);
    tcase_add_test(tests, more_than_the_server_takes_is_refused_headers_counted);
    tcase_add_test(tests, a_callback_may_close_the_wire);
    tcase_add_test(tests, a_server_that_pings_and_does_not_read_takes_no_memory);
    tcase_add_loop_test(tests, corrupted_bytes_do_no_harm, 0, 3);
    tcase_add_loop_test(tests, records_without_data_leave_the_reader_its_time, 0, 2);
    tcase_add_loop_test(tests, tiny_records_leave_the_reader_its_time, 0, 2);
    tcase_add_test(tests, a_ticket_of_many_records_hinders_neither_direction);
    tcase_add_loop_test(tests, writing_after_the_server_has_closed_ends_the_connection, 0, 2);
    suite_add_tcase(suite, tests);
    return suite;
}
