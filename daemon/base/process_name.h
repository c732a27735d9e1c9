/*
 * process_name: the name of the program that a process runs, to be shown.
 *
 * Used by session. The name is what the kernel calls comm: at most 15 bytes. The process may choose it, so it grants no
 * permission.
 */
#ifndef DAEMON_PROCESS_NAME_H
#define DAEMON_PROCESS_NAME_H

#include <sys/types.h>

/* Size of a name with its NUL: TASK_COMM_LEN of the kernel. */
#define PROCESS_NAME_BYTES 16

/*
 * Write the name of a process, with '?' for each control character and each byte above 0x7e: the result is ASCII.
 * "" if it cannot be read. The kernel answers from memory, and waits for nobody: unlike cmdline, comm needs no lock
 * of the process's address space.
 */
void process_name_read(pid_t pid, char name[PROCESS_NAME_BYTES]);

#endif
