/* A plugin of QEMU's: the instructions that a program has executed, each time that it enters one function.
 *
 *     cc -O2 -fPIC -shared calls_counted.c -o calls_counted.so
 *     qemu-aarch64 -plugin calls_counted.so,at=nestling_layer_done,out=counts program
 *
 * What it takes of QEMU's qemu-plugin.h (which Debian does not package) is declared here. QEMU executes blocks of instructions that
 * are entered at the top alone and left at the end: adding up their lengths is exact.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t plugin_id;
typedef struct qemu_plugin_tb block;
typedef struct qemu_plugin_insn instruction;
typedef void on_block(plugin_id id, block *translated);
typedef void on_execution(unsigned cpu, void *data);
enum { READS_NO_REGISTERS };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, on_block *called);
void qemu_plugin_register_vcpu_tb_exec_cb(block *translated, on_execution *called, int flags, void *data);
size_t qemu_plugin_tb_n_insns(const block *translated);
uint64_t qemu_plugin_tb_vaddr(const block *translated);
instruction *qemu_plugin_tb_get_insn(const block *translated, size_t number);
const char *qemu_plugin_insn_symbol(const instruction *of); /* the function that it stands in */

#define EXPORTED __attribute__((visibility("default")))

EXPORTED int qemu_plugin_version = 1;

static uint64_t count, watched; /* watched: where the function begins */
static const char *name;
static FILE *out;

static void tell(unsigned cpu, void *data)
{
    (void)cpu, (void)data;
    fprintf(out, "%llu\n", (unsigned long long)count);
    fflush(out); /* how a program ends is no matter */
}

static void add(unsigned cpu, void *data)
{
    (void)cpu;
    count += (uintptr_t)data;
}

static void translated(plugin_id id, block *it)
{
    (void)id;
    const char *function = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(it, 0));
    if (!watched && function && strcmp(function, name) == 0)
        watched = qemu_plugin_tb_vaddr(it);
    if (qemu_plugin_tb_vaddr(it) == watched)
        qemu_plugin_register_vcpu_tb_exec_cb(it, tell, READS_NO_REGISTERS, 0);
    qemu_plugin_register_vcpu_tb_exec_cb(it, add, READS_NO_REGISTERS, (void *)(uintptr_t)qemu_plugin_tb_n_insns(it));
}

EXPORTED int qemu_plugin_install(plugin_id id, const void *info, int words, char **word)
{
    (void)info;
    for (int i = 0; i < words; i++) {
        if (strncmp(word[i], "at=", 3) == 0)
            name = word[i] + 3;
        if (strncmp(word[i], "out=", 4) == 0)
            out = fopen(word[i] + 4, "w");
    }
    if (!out || !name)
        return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
