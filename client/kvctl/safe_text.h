/*
 * safe_text: bytes of others on a terminal. Control characters and what is not UTF-8 are written as escapes, so that a
 * value or a name cannot control the terminal, and widths are counted in columns.
 */
#ifndef KVCTL_SAFE_TEXT_H
#define KVCTL_SAFE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Return the columns of the terminal on standard output; SIZE_MAX: it is none. */
size_t safe_text_terminal_columns(void);

/*
 * Return any bytes as text of one line that takes at most so many columns; text that does not fit is cut, with "..." at
 * the end. Backslashes are doubled, so that the bytes can be told from the text. Free it. NULL: out of memory.
 */
char *safe_text_of_bytes(const char *bytes, size_t size, size_t columns);

/* The same of a text that is for people already: its backslashes stay. It may be the result of this function. */
char *safe_text_of_text(const char *text, size_t columns);

/* Return how many columns a text takes that one of these functions has made. */
size_t safe_text_columns(const char *text);

/* Print a text as a string of JSON; what is not UTF-8 as U+FFFD. */
void safe_text_write_json(FILE *file, const char *text);

#endif
