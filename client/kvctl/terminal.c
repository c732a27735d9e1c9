/* The terminal while a verb shows a screen: without echo, and with its former contents restored at the end. */
#include "client/kvctl/kvctl.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* The alternate screen, without a cursor, and without a second line for text that is too long. */
#define ENTER "\033[?1049h\033[?25l\033[?7l\033[H\033[2J"
#define LEAVE "\033[?7h\033[?25h\033[?1049l"

static struct termios kept; /* the settings before */
static bool has_kept, is_entered;

/* Also called by a signal's handler: it uses only functions that may be. */
void terminal_leave(void)
{
    if (!is_entered)
        return;
    is_entered = false;
    ssize_t ignored = write(STDOUT_FILENO, LEAVE, sizeof(LEAVE) - 1);
    (void)ignored;
    if (has_kept)
        tcsetattr(STDIN_FILENO, TCSANOW, &kept);
}

/* Ctrl-C is the usual end. A signal from elsewhere ends the program as if it was not caught. */
static void terminal_on_signal(int number)
{
    terminal_leave();
    if (number == SIGINT)
        _exit(STATUS_OK);
    signal(number, SIG_DFL);
    raise(number);
}

/* Only interrupts the wait: the next screen has the new size. */
static void terminal_on_resize(int number)
{
    (void)number;
}

void terminal_enter(void)
{
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct sigaction action = {.sa_handler = terminal_on_signal};
    struct termios raw;

    /* Without a terminal for its input, a program has no keys. */
    has_kept = tcgetattr(STDIN_FILENO, &kept) == 0;
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
        sigaction(ends[i], &action, NULL);
    action.sa_handler = terminal_on_resize;
    sigaction(SIGWINCH, &action, NULL);
    is_entered = true;
    if (has_kept) {
        raw = kept;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        /* Ctrl-Z would leave the shell with this screen. */
        raw.c_cc[VSUSP] = _POSIX_VDISABLE;
        raw.c_cc[VMIN] = 1;
        raw.c_cc[VTIME] = 0;
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    fputs(ENTER, stdout);
    fflush(stdout);
}

struct terminal_size terminal_size(void)
{
    struct terminal_size size = {.rows = 24, .columns = 80};
    struct winsize window;

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_row > 0 && window.ws_col > 0)
        size = (struct terminal_size){.rows = window.ws_row, .columns = window.ws_col};
    return size;
}

enum terminal_event terminal_wait(int wait_ms, char *key)
{
    struct pollfd waited[] = {{.fd = has_kept ? STDIN_FILENO : -1, .events = POLLIN}, {.fd = STDOUT_FILENO}};
    int count = poll(waited, 2, wait_ms);

    if (count < 0)
        return errno == EINTR ? TERMINAL_RESIZED : TERMINAL_GONE;
    if (count == 0)
        return TERMINAL_TIME_OVER;
    if ((waited[1].revents & (POLLERR | POLLHUP)) != 0)
        return TERMINAL_GONE;
    return read(STDIN_FILENO, key, 1) == 1 ? TERMINAL_KEY : TERMINAL_GONE;
}
