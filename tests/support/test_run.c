#include "tests/support/test_run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUNS_DIRECTORY "build/tests"

/* Held while directories of runs are made and removed. */
#define ALL_RUNS_LOCK RUNS_DIRECTORY "/lock"

static struct {
    char daemon[PATH_MAX];
    char nats_server[PATH_MAX];
    char directory[64]; /* of this run, relative to the root of the tree */
    const char *name;
} test_run;

/* Check's assertions do not work before the first test, and not every program has Check. */
static void __attribute__((noreturn)) test_run_give_up(const char *path)
{
    fprintf(stderr, "%s: %s: %s\n", test_run.name, path, strerror(errno));
    exit(EXIT_FAILURE);
}

static int test_run_remove_one(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status;
    (void)type;
    (void)where;
    remove(path);
    return 0;
}

static void test_run_remove_tree(const char *path)
{
    nftw(path, test_run_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Lock a file for as long as this program, or a test that it has started, runs. Return -1 if another one holds it. */
static int test_run_lock_file(const char *path, int how)
{
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (file < 0)
        test_run_give_up(path);
    if (flock(file, how) == 0)
        return file;
    close(file);
    return -1;
}

/* Remove the directories of earlier runs of this program, except of those that still run. */
static void test_run_remove_ended_runs(const char *prefix)
{
    DIR *runs = opendir(RUNS_DIRECTORY);
    struct dirent *run;
    char path[PATH_MAX], lock_path[PATH_MAX];

    while (runs != NULL && (run = readdir(runs)) != NULL) {
        if (strncmp(run->d_name, prefix, strlen(prefix)) != 0)
            continue;
        snprintf(path, sizeof(path), RUNS_DIRECTORY "/%.255s", run->d_name);
        snprintf(lock_path, sizeof(lock_path), RUNS_DIRECTORY "/%.255s/lock", run->d_name);
        int lock = test_run_lock_file(lock_path, LOCK_EX | LOCK_NB);
        if (lock < 0)
            continue;
        test_run_remove_tree(path);
        close(lock);
    }
    if (runs != NULL)
        closedir(runs);
}

/*
 * Make build/tests/PROGRAM.NUMBER. The path is short and relative to the root of the tree, where all programs run: a
 * socket's path has at most 107 bytes, and the tree's own may be long.
 */
static void test_run_make_run_directory(const char *program)
{
    char prefix[32], lock_path[sizeof(test_run.directory) + 8];
    const char *build = "build/";

    if (strncmp(program, build, strlen(build)) == 0)
        program += strlen(build);
    snprintf(prefix, sizeof(prefix), "%.30s.", program);
    for (char *c = prefix; *c != '\0'; c++) {
        if (*c == '/')
            *c = '-';
    }
    if (mkdir(RUNS_DIRECTORY, 0777) != 0 && errno != EEXIST)
        test_run_give_up(RUNS_DIRECTORY);
    int all_runs = test_run_lock_file(ALL_RUNS_LOCK, LOCK_EX);
    if (getenv("KVSTORED_TEST_KEEP") == NULL)
        test_run_remove_ended_runs(prefix);
    for (unsigned number = 1;; number++) {
        snprintf(test_run.directory, sizeof(test_run.directory), RUNS_DIRECTORY "/%s%u", prefix, number);
        if (mkdir(test_run.directory, 0777) == 0)
            break;
        if (errno != EEXIST)
            test_run_give_up(test_run.directory);
    }
    snprintf(lock_path, sizeof(lock_path), "%s/lock", test_run.directory);
    test_run_lock_file(lock_path, LOCK_EX);
    close(all_runs);
}

void test_run_begin(const char *self, const char *name)
{
    char absolute[PATH_MAX], root[PATH_MAX];

    test_run.name = name;
    if (realpath(self, absolute) == NULL || realpath(".", root) == NULL)
        test_run_give_up(self);
    size_t root_length = strlen(root);
    if (strncmp(absolute, root, root_length) != 0 || absolute[root_length] != '/' ||
        access("tests/support/test_run.h", F_OK) != 0) {
        fprintf(stderr, "%s: it must be run at the root of the tree that it was built in\n", name);
        exit(EXIT_FAILURE);
    }
    test_run_make_run_directory(absolute + root_length + 1);
    *strrchr(absolute, '/') = '\0';
    snprintf(test_run.daemon, sizeof(test_run.daemon), "%.*s/kvstored", PATH_MAX - 16, absolute);
}

void test_run_find_programs(void)
{
    FILE *server = fopen("build/nats-server.path", "re");

    if (server != NULL && fgets(test_run.nats_server, sizeof(test_run.nats_server), server) != NULL)
        test_run.nats_server[strcspn(test_run.nats_server, "\n")] = '\0';
    if (server != NULL)
        fclose(server);
    if (access(test_run.daemon, X_OK) != 0 || access(test_run.nats_server, X_OK) != 0) {
        fprintf(stderr, "%s: %s and the nats-server of build/nats-server.path must be there: make check\n",
                test_run.name, test_run.daemon);
        exit(EXIT_FAILURE);
    }
}

void test_run_end(bool keep_directory)
{
    if (keep_directory) {
        printf("%s: logs and data of this run are in %s until the next run\n", test_run.name, test_run.directory);
        return;
    }
    int all_runs = test_run_lock_file(ALL_RUNS_LOCK, LOCK_EX); /* another run must not find a part of it */
    test_run_remove_tree(test_run.directory);
    close(all_runs);
}

void test_run_skip(const char *what, const char *why)
{
    printf("SKIPPED: %s: %s\n", what, why);
    fflush(stdout);
}

const char *test_run_kvstored(void)
{
    return test_run.daemon;
}

const char *test_run_nats_server(void)
{
    return test_run.nats_server;
}

void test_run_make_directory(char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s/XXXXXX", test_run.directory);
    if (mkdtemp(path) == NULL)
        test_run_give_up(path);
}

/* --- Leaks ----------------------------------------------------------------------------------------- */

static bool checks_leaks;

void test_run_check_leaks(void)
{
    checks_leaks = true;
}

#ifdef __SANITIZE_ADDRESS__
/* LeakSanitizer asks at the end of the process. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return !checks_leaks;
}
#endif
