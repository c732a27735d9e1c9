/* The Python package, and redis-py. */
#include "tests/bench/bench.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#define PYTHON "/usr/bin/python3"

/* python_client.py lies in the tree whose build is measured. */
static FILE *run_client(const struct bench *bench, const char *side, const char *socket_path, const char *operation)
{
    char command[1024];
    const char *build = strstr(bench->kvstored, "/build/");

    snprintf(command, sizeof(command), "%s -B '%.*s/tests/bench/python_client.py' %s '%s' %s", PYTHON,
             (int)(build != NULL ? build - bench->kvstored : 0), bench->kvstored, side, socket_path, operation);
    FILE *output = popen(command, "r");
    if (output == NULL)
        bench_die("cannot run %s", command);
    return output;
}

static double python_per_s(const struct bench *bench, bool is_ours, const char *socket_path, const char *operation)
{
    FILE *output = run_client(bench, is_ours ? "kvstored" : "redis", socket_path, operation);
    double per_s = 0;

    bool has_figure = fscanf(output, "%lf", &per_s) == 1;
    int status = pclose(output);
    if (status != 0 || !has_figure)
        bench_die("the Python client has failed: its wait status is 0x%x", (unsigned)status);
    return per_s;
}

bool python_is_installed(void)
{
    FILE *output = popen(PYTHON " -c 'import msgpack, redis.asyncio' 2>/dev/null", "r");

    return output != NULL && pclose(output) == 0;
}

double python_get_per_s(const struct bench *bench, bool is_ours)
{
    return python_per_s(bench, is_ours, is_ours ? bench->embedded.socket_path : bench->redis.socket_path, "get");
}

double python_put_per_s(const struct bench *bench, bool is_ours)
{
    static struct bench_servers unsynced = {.syncs_seldom = true};

    if (unsynced.daemon == 0)
        bench_start_embedded(bench, &unsynced, "embedded-unsynced", NULL);
    return python_per_s(bench, is_ours, is_ours ? unsynced.socket_path : bench->redis.socket_path, "put");
}

double python_put_durable_per_s(const struct bench *bench, bool is_ours)
{
    return python_per_s(bench, is_ours, is_ours ? bench->embedded.socket_path : bench->redis_durable.socket_path,
                        "put");
}
