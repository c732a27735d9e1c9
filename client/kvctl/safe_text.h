/*
 * safe_text: shows bytes of other clients on a terminal. Control characters and bytes that are not UTF-8 are written as
 * escapes, so that a value or a name cannot control the terminal. Widths are counted in columns.
 *
 * Used by all verbs that print.
 */
#ifndef KVCTL_SAFE_TEXT_H
#define KVCTL_SAFE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Return the columns of the terminal on standard output; SIZE_MAX: standard output is not a terminal. */
size_t safe_text_terminal_columns(void);

/*
 * Return any bytes as one line of text of at most this number of columns. Text that does not fit is cut, with "..." at
 * the end. Backslashes are doubled, so that each text stands for one sequence of bytes. Free it. NULL: out of memory.
 */
char *safe_text_of_bytes(const char *bytes, size_t size, size_t columns);

/* The same for a message or a cell of a table: backslashes stay, so its own results do not change. */
char *safe_text_of_text(const char *text, size_t columns);

/* Return the number of columns of the first bytes of a result of these functions. */
size_t safe_text_columns(const char *text, size_t size);

/* Return how many bytes at the beginning of a result fit into this number of columns. */
size_t safe_text_fit(const char *text, size_t columns);

/* Print a text as a string of JSON; what is not UTF-8 as U+FFFD. */
void safe_text_write_json(FILE *file, const char *text);

#endif
