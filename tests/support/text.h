/*
 * text: texts and memory that live until the test ends, and files as texts.
 *
 * May be used from several threads.
 */
#ifndef SUPPORT_TEXT_H
#define SUPPORT_TEXT_H

/* Keep a block that was allocated with malloc until the test ends, and return it. */
void *keep(void *block);

/* Return a text that is kept. */
char *format_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

void write_file(const char *path, const char *text);

/* Write a file that may be executed. */
void write_program(const char *path, const char *text);

/* Return the file's content, kept; "" if there is no file. */
char *read_file(const char *path);

#endif
