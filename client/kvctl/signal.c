#include "client/kvctl/kvctl.h"

#include <signal.h>

static bool signal_is_ignored(int number)
{
    struct sigaction action;

    return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

void signals_handle(const int *numbers, size_t count, const struct sigaction *action)
{
    for (size_t i = 0; i < count; i++) {
        if (!signal_is_ignored(numbers[i]))
            sigaction(numbers[i], action, NULL);
    }
}

void signals_add(sigset_t *set, const int *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!signal_is_ignored(numbers[i]))
            sigaddset(set, numbers[i]);
    }
}
