/* fibers.cpp - stacks of their own and the switch between them. */
#include "tests/cuda_emulator/emulator.h"

#include <stdio.h>
#include <sys/mman.h>

#if defined(__x86_64__)
/* The registers that a callee keeps, on the stack; the stack pointer is the fiber. */
extern "C" void cuda_emulator_switch(void **save, void *to);
asm(".text\n"
    ".globl cuda_emulator_switch\n"
    ".hidden cuda_emulator_switch\n"
    ".type cuda_emulator_switch, @function\n"
    "cuda_emulator_switch:\n"
    "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
    "    ret\n"
    ".size cuda_emulator_switch, .-cuda_emulator_switch\n");
#define EMULATOR_SWITCH 1
static void *first_frame(char *top, void (*entry)())
{
    void **sp = (void **)top;
    *--sp = nullptr; /* keeps the alignment that a call leaves */
    *--sp = (void *)entry;
    for (int i = 0; i < 6; i++) *--sp = nullptr;
    return sp;
}
#elif defined(__aarch64__)
extern "C" void cuda_emulator_switch(void **save, void *to);
asm(".text\n"
    ".globl cuda_emulator_switch\n"
    ".hidden cuda_emulator_switch\n"
    ".type cuda_emulator_switch, %function\n"
    "cuda_emulator_switch:\n"
    "    sub sp, sp, #160\n"
    "    stp x19, x20, [sp, #0]\n    stp x21, x22, [sp, #16]\n    stp x23, x24, [sp, #32]\n    stp x25, x26, [sp, #48]\n"
    "    stp x27, x28, [sp, #64]\n    stp x29, x30, [sp, #80]\n"
    "    stp d8, d9, [sp, #96]\n    stp d10, d11, [sp, #112]\n    stp d12, d13, [sp, #128]\n    stp d14, d15, [sp, #144]\n"
    "    mov x9, sp\n    str x9, [x0]\n    mov sp, x1\n"
    "    ldp x19, x20, [sp, #0]\n    ldp x21, x22, [sp, #16]\n    ldp x23, x24, [sp, #32]\n    ldp x25, x26, [sp, #48]\n"
    "    ldp x27, x28, [sp, #64]\n    ldp x29, x30, [sp, #80]\n"
    "    ldp d8, d9, [sp, #96]\n    ldp d10, d11, [sp, #112]\n    ldp d12, d13, [sp, #128]\n    ldp d14, d15, [sp, #144]\n"
    "    add sp, sp, #160\n"
    "    ret\n"
    ".size cuda_emulator_switch, .-cuda_emulator_switch\n");
#define EMULATOR_SWITCH 1
static void *first_frame(char *top, void (*entry)())
{
    void **sp = (void **)top - 20;
    for (int i = 0; i < 20; i++) sp[i] = nullptr;
    sp[11] = (void *)entry;
    return sp;
}
#else
#include <ucontext.h>
#endif

namespace emulator {

void fiber_prepare(fiber *f, void (*entry)())
{
    if (!f->stack) {
        f->stack = (char *)mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (f->stack == (char *)MAP_FAILED) {
            fprintf(stderr, "cuda emulator: no memory for a thread's stack\n");
            abort();
        }
    }
    ASAN_UNPOISON_MEMORY_REGION(f->stack, STACK_BYTES);
    f->shadow = nullptr;
#ifdef EMULATOR_SWITCH
    f->stack_pointer = first_frame(f->stack + STACK_BYTES, entry);
#else
    ucontext_t *c = (ucontext_t *)f->stack; /* its lowest bytes */
    getcontext(c);
    c->uc_stack.ss_sp = f->stack + sizeof *c;
    c->uc_stack.ss_size = STACK_BYTES - sizeof *c;
    c->uc_link = nullptr;
    makecontext(c, entry, 0);
    f->stack_pointer = c;
#endif
}

#if EMULATOR_ASAN
/* The stack of the thread that launches: known from its first switch to a fiber. */
static const void *host_bottom;
static size_t host_size;
static bool from_host;
#endif

void fiber_arrived(fiber *f)
{
#if EMULATOR_ASAN
    const void *bottom = nullptr;
    size_t size = 0;
    __sanitizer_finish_switch_fiber(f->shadow, &bottom, &size);
    if (from_host) {
        host_bottom = bottom;
        host_size = size;
    }
#else
    (void)f;
#endif
}

void fiber_switch(fiber *from, fiber *to)
{
#if EMULATOR_ASAN
    from_host = from->stack == nullptr;
    __sanitizer_start_switch_fiber(&from->shadow, to->stack ? to->stack : host_bottom, to->stack ? STACK_BYTES : host_size);
#endif
#ifdef EMULATOR_SWITCH
    cuda_emulator_switch(&from->stack_pointer, to->stack_pointer);
#else
    static ucontext_t host;
    if (!from->stack) from->stack_pointer = &host;
    swapcontext((ucontext_t *)from->stack_pointer, (ucontext_t *)to->stack_pointer);
#endif
    fiber_arrived(from);
}

} // namespace emulator
