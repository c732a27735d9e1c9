#include "tests/sim/differential/real.h"

#include "tests/sim/differential/requests.h"

#include <fcntl.h>
#include <jansson.h>
#include <nats/nats.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *program, *directory;
static pid_t process;
static natsConnection *connection;
static natsSubscription *inbox;

static void need(natsStatus status, const char *what)
{
    if (status == NATS_OK)
        return;
    fprintf(stderr, "differential: %s: %s\n", what, natsStatus_GetText(status));
    exit(1);
}

static void need_call(bool is_well, const char *what)
{
    if (is_well)
        return;
    perror(what);
    exit(1);
}

/* --- The process ----------------------------------------------------------------------------------- */

static void real_write_configuration(const char *path)
{
    FILE *file = fopen(path, "w");

    need_call(file != NULL, path);
    fprintf(file, "listen: \"127.0.0.1:-1\"\nports_file_dir: \"%s\"\njetstream { store_dir: \"%s/store\" }\n",
            directory, directory);
    fclose(file);
}

/* It ends with this process. */
static void real_execute(const char *configuration)
{
    char log[512];

    snprintf(log, sizeof(log), "%s/nats.log", directory);
    int descriptor = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    need_call(descriptor >= 0, log);
    dup2(descriptor, STDOUT_FILENO);
    dup2(descriptor, STDERR_FILENO);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execl(program, program, "-c", configuration, (char *)NULL);
    perror(program);
    _exit(1);
}

/* The server writes the file when it is ready. Return the first URL in it, or NULL: not yet. */
static char *real_read_url(void)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/nats-server_%d.ports", directory, (int)process);
    json_t *ports = json_load_file(path, 0, NULL);
    const char *url = json_string_value(json_array_get(json_object_get(ports, "nats"), 0));
    char *copy = url != NULL ? strdup(url) : NULL;
    json_decref(ports);
    return copy;
}

static void real_connect(void)
{
    static const struct timespec pause = {.tv_nsec = 20000000};
    char *url;

    while ((url = real_read_url()) == NULL) {
        if (waitpid(process, NULL, WNOHANG) != 0) {
            fprintf(stderr, "differential: %s has ended; see nats.log in %s\n", program, directory);
            exit(1);
        }
        nanosleep(&pause, NULL);
    }
    need(natsConnection_ConnectTo(&connection, url), url);
    free(url);
    need(natsConnection_SubscribeSync(&inbox, connection, REQUESTS_INBOX), "natsConnection_SubscribeSync");
    need(natsConnection_Flush(connection), "natsConnection_Flush");
}

static void real_run(void)
{
    char configuration[512];

    snprintf(configuration, sizeof(configuration), "%s/nats.conf", directory);
    real_write_configuration(configuration);
    process = fork();
    need_call(process >= 0, "fork");
    if (process == 0)
        real_execute(configuration);
    real_connect();
}

static void real_end(void)
{
    natsSubscription_Destroy(inbox);
    natsConnection_Destroy(connection);
    kill(process, SIGTERM);
    need_call(waitpid(process, NULL, 0) == process, "waitpid");
}

void real_start(const char *server_program, const char *server_directory)
{
    program = server_program;
    directory = server_directory;
    real_run();
}

void real_restart(void)
{
    real_end();
    real_run();
}

void real_stop(void)
{
    real_end();
    nats_Close();
}

/* --- Messages -------------------------------------------------------------------------------------- */

static struct packet *packet_of(natsMsg *message)
{
    const char **names = NULL, *value;
    int count = 0;
    struct packet *packet = packet_new(natsMsg_GetSubject(message), natsMsg_GetReply(message), natsMsg_GetData(message),
                                       (size_t)natsMsg_GetDataLength(message));

    natsMsgHeader_Keys(message, &names, &count);
    for (int i = 0; i < count; i++) {
        if (natsMsgHeader_Get(message, names[i], &value) != NATS_OK)
            continue;
        if (strcmp(names[i], "Status") == 0)
            packet->status = (unsigned)strtoul(value, NULL, 10);
        else if (strcmp(names[i], "Description") != 0)
            packet_add_header(packet, names[i], "%s", value);
    }
    free(names);
    return packet;
}

void real_send(const struct packet *request)
{
    natsMsg *message = NULL;

    need(natsMsg_Create(&message, request->subject, request->reply, request->payload, (int)request->payload_bytes),
         "natsMsg_Create");
    for (size_t i = 0; i < request->header_count; i++)
        need(natsMsgHeader_Add(message, request->headers[i].name, request->headers[i].value), "natsMsgHeader_Add");
    need(natsConnection_PublishMsg(connection, message), "natsConnection_PublishMsg");
    natsMsg_Destroy(message);
}

struct packet *real_receive(int64_t wait_ms)
{
    natsMsg *message = NULL;
    natsStatus status = natsSubscription_NextMsg(&message, inbox, wait_ms);

    if (status == NATS_TIMEOUT)
        return NULL;
    if (status == NATS_NO_RESPONDERS)
        return packet_new_status(REQUESTS_INBOX, 503, "");
    need(status, "natsSubscription_NextMsg");
    struct packet *packet = packet_of(message);
    natsMsg_Destroy(message);
    return packet;
}
