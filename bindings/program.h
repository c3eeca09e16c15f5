/* program.h - what the files of the program sagan-lua share; not part of the module sagan.core. */
#ifndef SAGAN_PROGRAM_H
#define SAGAN_PROGRAM_H

#include <stdbool.h>

#include "bindings/lsag.h"

/* interrupt.c: adds call, interrupted and stay_alive to the table on top of the stack; coroutine.resume and wrap become ones
 * that Ctrl-C reaches into. */
void program_add_interrupts(lua_State *L);

/*
 * Between the calls with true and with false Ctrl-C only leaves a mark, and SIGINT, SIGWINCH and SIGCONT are held back: they
 * arrive in program_wait_input alone, so that none of them is lost between a look at its mark and a read.
 */
void program_reading(bool on);
typedef enum program_event { PROGRAM_INPUT, PROGRAM_INTERRUPT, PROGRAM_RESIZE, PROGRAM_CONTINUE } program_event;
program_event program_wait_input(int fd); /* until there is something to read (or its end), or one of the signals */

/* prompt.c: adds read_line, add_history, set_completer and isatty. */
void program_add_prompt(lua_State *L);

/* line_editor.c: lines with libedit. false: there is no terminal for it, or no libedit in this build; then the others do
 * nothing. */
bool program_open_editor(lua_State *L);
/* Pushes the line; nil at the end of input; false after Ctrl-C. */
void program_edit_line(lua_State *L, const char *prompt);
void program_add_history(lua_State *L, const char *text);
void program_set_completer(lua_State *L); /* takes the function on top of the stack */

#endif
