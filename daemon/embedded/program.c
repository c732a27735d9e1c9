#include "daemon/embedded/program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- Finding it ------------------------------------------------------------------------------------ */

/* Return whether path is an executable file; if not, errno says why. A directory is executable too. */
static bool is_program(const char *path)
{
    struct stat status;

    if (access(path, X_OK) != 0 || stat(path, &status) != 0)
        return false;
    errno = EACCES;
    return S_ISREG(status.st_mode);
}

bool embedded_program_find(struct embedded_program *program, const char *name, char error[EMBEDDED_ERROR_BYTES])
{
    const char *path = getenv("PATH");
    char places[8192];

    if (strchr(name, '/') != NULL) {
        if (realpath(name, program->path) != NULL && is_program(program->path))
            return true;
        snprintf(error, EMBEDDED_ERROR_BYTES,
                 "nats.server_binary %s cannot be run: %s; install nats-server or change the path", name,
                 strerror(errno));
        return false;
    }
    /* Debian installs it in /usr/sbin, which is not on every PATH. */
    snprintf(places, sizeof(places), "%s:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", path != NULL ? path : "");
    char *rest = places, *place;
    while ((place = strsep(&rest, ":")) != NULL) {
        if (place[0] == '\0')
            continue;
        snprintf(program->path, sizeof(program->path), "%s/%s", place, name);
        if (is_program(program->path))
            return true;
    }
    snprintf(error, EMBEDDED_ERROR_BYTES,
             "the program %s is not found: install nats-server %u.%u or later, or set nats.server_binary to its path",
             name, EMBEDDED_PROGRAM_MAJOR, EMBEDDED_PROGRAM_MINOR);
    return false;
}

/* --- Running it ------------------------------------------------------------------------------------ */

/* Between fork and exec: only async-signal-safe calls, because the process has threads. */
static void execute_child(const char *path, char *const *arguments, int output, pid_t parent)
{
    sigset_t none;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(126); /* the daemon died before the line above */
    setpgid(0, 0);  /* a Ctrl-C at the terminal reaches only the daemon */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (nothing >= 0)
        dup2(nothing, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    execv(path, arguments);
    _exit(127);
}

pid_t embedded_program_run(const char *path, char *const *arguments, int output)
{
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid == 0)
        execute_child(path, arguments, output, parent);
    return pid;
}

/* --- Its version ----------------------------------------------------------------------------------- */

bool embedded_program_is_checked(const struct embedded_program *program)
{
    struct stat now;

    return program->passed.st_ino != 0 && stat(program->path, &now) == 0 && now.st_dev == program->passed.st_dev &&
           now.st_ino == program->passed.st_ino && now.st_size == program->passed.st_size &&
           now.st_mtim.tv_sec == program->passed.st_mtim.tv_sec &&
           now.st_mtim.tv_nsec == program->passed.st_mtim.tv_nsec;
}

bool embedded_program_start_check(struct embedded_program *program, char error[EMBEDDED_ERROR_BYTES])
{
    char *arguments[] = {program->path, "--version", NULL};
    int ends[2];

    memset(&program->checked, 0, sizeof(program->checked));
    stat(program->path, &program->checked); /* if it fails, so does the check */
    if (pipe2(ends, O_CLOEXEC) != 0) {
        snprintf(error, EMBEDDED_ERROR_BYTES, "cannot make a pipe: %s", strerror(errno));
        return false;
    }
    pid_t pid = embedded_program_run(program->path, arguments, ends[1]);
    int failed = errno;
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        snprintf(error, EMBEDDED_ERROR_BYTES, "cannot start %s: %s", program->path, strerror(failed));
        return false;
    }
    /* It is read once, after the process has ended: its own children may hold the pipe open. */
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    program->check_pid = pid;
    program->check_output = ends[0];
    return true;
}

enum embedded_program_verdict embedded_program_end_check(struct embedded_program *program, int status,
                                                         char error[EMBEDDED_ERROR_BYTES])
{
    char text[256];
    unsigned major, minor, patch = 0;

    ssize_t length = read(program->check_output, text, sizeof(text) - 1);
    text[length > 0 ? length : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    close(program->check_output);
    program->check_pid = 0;

    const char *version = strstr(text, "nats-server: v");
    if (version != NULL && sscanf(version, "nats-server: v%u.%u.%u", &major, &minor, &patch) >= 2) {
        if (major > EMBEDDED_PROGRAM_MAJOR || (major == EMBEDDED_PROGRAM_MAJOR && minor >= EMBEDDED_PROGRAM_MINOR)) {
            program->passed = program->checked;
            program->version = (struct embedded_version){major, minor, patch};
            return EMBEDDED_PROGRAM_USABLE;
        }
        snprintf(error, EMBEDDED_ERROR_BYTES,
                 "nats.server_binary %.200s: nats-server %.64s is too old: %u.%u or later is needed", program->path,
                 version + strlen("nats-server: v"), EMBEDDED_PROGRAM_MAJOR, EMBEDDED_PROGRAM_MINOR);
        return EMBEDDED_PROGRAM_UNUSABLE;
    }
    if (WIFSIGNALED(status)) {
        snprintf(error, EMBEDDED_ERROR_BYTES, "%.200s --version was ended by signal %d", program->path,
                 WTERMSIG(status));
        return EMBEDDED_PROGRAM_KILLED;
    }
    if (text[0] == '\0')
        snprintf(
            error, EMBEDDED_ERROR_BYTES,
            "nats.server_binary %.200s is not a nats-server: with --version it prints nothing and exits with status %d",
            program->path, WEXITSTATUS(status));
    else
        snprintf(error, EMBEDDED_ERROR_BYTES,
                 "nats.server_binary %.200s is not a nats-server: with --version it prints \"%.100s\"", program->path,
                 text);
    return EMBEDDED_PROGRAM_UNUSABLE;
}

void embedded_program_kill_check(const struct embedded_program *program)
{
    /* The group includes children of a script. It does not exist yet if the child has not called setpgid. */
    if (program->check_pid != 0 && kill(-program->check_pid, SIGKILL) != 0)
        kill(program->check_pid, SIGKILL);
}
