#include "tests/fault/scene.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct {
    char daemon[PATH_MAX];
    char nats_server[PATH_MAX];
    char directory[64];
} scene;

/* --- The run --------------------------------------------------------------------------------------- */

void scene_begin(const char *self)
{
    char absolute[PATH_MAX];

    if (realpath(self, absolute) == NULL) {
        perror(self);
        exit(EXIT_FAILURE);
    }
    *strrchr(absolute, '/') = '\0';
    snprintf(scene.daemon, sizeof(scene.daemon), "%.*s/kvstored", PATH_MAX - 16, absolute);

    FILE *server = fopen("build/nats-server.path", "re");
    if (server != NULL && fgets(scene.nats_server, sizeof(scene.nats_server), server) != NULL)
        scene.nats_server[strcspn(scene.nats_server, "\n")] = '\0';
    if (server != NULL)
        fclose(server);
    if (access(scene.daemon, X_OK) != 0 || access(scene.nats_server, X_OK) != 0) {
        fprintf(stderr, "fault: %s and the nats-server of build/nats-server.path must be there: make check\n",
                scene.daemon);
        exit(EXIT_FAILURE);
    }
    /* Short: a socket's path has 107 bytes. */
    const char *place = getenv("TMPDIR");
    bool is_short = place != NULL && strlen(place) < 40;
    snprintf(scene.directory, sizeof(scene.directory), "%s/kvstored-fault-XXXXXX", is_short ? place : "/tmp");
    if (mkdtemp(scene.directory) == NULL) {
        perror(scene.directory);
        exit(EXIT_FAILURE);
    }
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status;
    (void)type;
    (void)where;
    remove(path);
    return 0;
}

void scene_end(bool keep_directory)
{
    if (keep_directory)
        printf("fault: logs and data of this run are in %s\n", scene.directory);
    else
        nftw(scene.directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *scene_daemon(void)
{
    return scene.daemon;
}

const char *scene_nats_server(void)
{
    return scene.nats_server;
}

void scene_make_directory(char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s/XXXXXX", scene.directory);
    ck_assert_ptr_nonnull(mkdtemp(path));
}

unsigned scene_free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(bind(probe, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(getsockname(probe, (struct sockaddr *)&address, &size), 0);
    close(probe);
    return ntohs(address.sin_port);
}

int scene_dial(unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(made, (struct sockaddr *)&address, sizeof(address)) == 0)
        return made;
    close(made);
    return -1;
}

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t now_ms(void)
{
    return now_ns() / 1000000u;
}

void pause_shortly(void)
{
    usleep(1000);
}

/* --- Memory and files ------------------------------------------------------------------------------ */

/* Linked, so that nothing of it counts as leaked: the process ends with the test. */
struct kept {
    struct kept *next;
    void *block;
};
static struct kept *all_kept;
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;

void *keep(void *block)
{
    struct kept *kept = malloc(sizeof(*kept));

    ck_assert_ptr_nonnull(block);
    ck_assert_ptr_nonnull(kept);
    pthread_mutex_lock(&kept_lock);
    *kept = (struct kept){all_kept, block};
    all_kept = kept;
    pthread_mutex_unlock(&kept_lock);
    return block;
}

char *format_text(const char *format, ...)
{
    char *text = NULL;
    va_list args;

    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    ck_assert_int_ge(length, 0);
    return keep(text);
}

void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");

    ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
    fputs(text, file);
    ck_assert_int_eq(fclose(file), 0);
}

char *read_file(const char *path)
{
    FILE *file = fopen(path, "re"), *text;
    char block[4096], *whole = NULL;
    size_t size = 0, length;

    text = open_memstream(&whole, &size);
    while (file != NULL && (length = fread(block, 1, sizeof(block), file)) > 0)
        fwrite(block, 1, length, text);
    if (file != NULL)
        fclose(file);
    fclose(text);
    return keep(whole);
}

/* --- Processes ------------------------------------------------------------------------------------- */

static void become(const struct process *process, char *const *arguments, pid_t parent)
{
    sigset_t none;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(126);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int log = open(process->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(nothing, STDIN_FILENO);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    execv(arguments[0], arguments);
    _exit(127);
}

void process_start(struct process *process, char *const *arguments)
{
    pid_t parent = getpid();

    ck_assert_int_eq(process->pid, 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        become(process, arguments, parent);
    ck_assert_int_gt(pid, 0);
    process->pid = pid;
}

bool process_has_ended(struct process *process)
{
    if (process->pid != 0 && waitpid(process->pid, &process->status, WNOHANG) == process->pid)
        process->pid = 0;
    return process->pid == 0;
}

void process_wait(struct process *process)
{
    uint64_t end = now_ms() + PATIENCE_MS;
    pid_t pid = process->pid;

    while (!process_has_ended(process)) {
        ck_assert_msg(now_ms() < end, "pid %d does not end; its log:\n%s", (int)pid, read_file(process->log_path));
        pause_shortly();
    }
}

void process_kill(struct process *process)
{
    if (process_has_ended(process))
        return;
    kill(process->pid, SIGKILL);
    process_wait(process);
}
