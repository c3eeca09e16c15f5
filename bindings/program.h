/* program.h - what the two files of the program sagan-lua share; not part of the module sagan.core. */
#ifndef SAGAN_PROGRAM_H
#define SAGAN_PROGRAM_H

#include <stdbool.h>

#include "bindings/lsag.h"

/* prompt.c: adds read_line, add_history, load_history, save_history, set_completer and isatty to the table on top. */
void program_add_prompt(lua_State *L);

/* main.c: from now on (until the matching call with false) Ctrl-C at the prompt ends the line that is being read. */
void program_prompt_signals(bool on);
bool program_take_interrupt(void); /* true once after a Ctrl-C */

#endif
