/* An Edge TPU that is none: a TFLite delegate that claims nodes "edgetpu-custom-op" and answers
 * byte i of each output with (sum of all input bytes + i) mod 256.
 *
 * Options: "device" is one of DEVICES below (absent: the first), any other is not plugged in;
 * "takes_ms" is how long a run takes;
 * "claims" is "nothing" for a device that takes no node.
 * Says on stderr what it does, and in the end how many runs went on at once at most. The structures are those of tensorflow/lite/core/c/common.h.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK, ERROR };
enum { ALLOW_DYNAMIC_TENSORS = 1 };

typedef struct { int size; int data[]; } Ints;

typedef struct {
    int type;
    unsigned char *data;
    Ints *dims;
    float scale;
    int32_t zero_point;
    int allocation_type;
    size_t bytes;
    const void *allocation;
    const char *name;
    void *delegate;
    int buffer_handle;
    bool stale, variable;
    struct { int type; void *parameters; } quantization;
    void *sparsity;
    const Ints *dims_signature;
} Tensor;

typedef struct {
    Ints *inputs, *outputs, *intermediates, *temporaries;
    void *user_data, *builtin_data;
    const void *custom_data;
    int custom_data_size;
    struct Delegate *delegate;
    bool side_effects;
} Node;

struct Context;
typedef struct {
    void *(*init)(struct Context *, const char *buffer, size_t length);
    void (*free)(struct Context *, void *user_data);
    int (*prepare)(struct Context *, Node *);
    int (*invoke)(struct Context *, Node *);
    const char *(*profiling_string)(const struct Context *, const Node *);
    int32_t builtin_code;
    const char *custom_name;
    int version;
    void *external, *async_kernel;
    uint64_t inplace;
} Registration;

typedef struct Context {
    size_t tensors_size;
    int (*get_execution_plan)(struct Context *, Ints **plan);
    Tensor *tensors;
    void *impl;
    int (*resize_tensor)(struct Context *, Tensor *, Ints *);
    void (*report_error)(struct Context *, const char *format, ...);
    int (*add_tensors)(struct Context *, int, int *);
    int (*get_node)(struct Context *, int, Node **, Registration **);
    int (*replace_nodes)(struct Context *, Registration, const Ints *, struct Delegate *);
} Context;

typedef struct Delegate {
    void *data;
    int (*prepare)(Context *, struct Delegate *);
    void *copy_from, *copy_to, *free_handle;
    int64_t flags;
    void *builder;
    char device[32];
    int takes_ms;
    bool claims_nothing;
} Delegate;

typedef struct { Delegate *delegate; } Parameters;

static const char *const DEVICES[] = {"usb:0", "usb:1", "usb", "pci:0", "pci", ":0", ":1"};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int inside, most;

static void enter(void) {
    pthread_mutex_lock(&lock);
    if (++inside > most) most = inside;
    pthread_mutex_unlock(&lock);
}

static void leave(void) {
    pthread_mutex_lock(&lock);
    inside--;
    pthread_mutex_unlock(&lock);
}

static void *init(Context *context, const char *buffer, size_t length) {
    (void)context, (void)length;
    return ((const Parameters *)buffer)->delegate;
}

static int prepare_kernel(Context *context, Node *node) {
    (void)context, (void)node;
    return OK;
}

static int invoke(Context *context, Node *node) {
    Delegate *self = node->user_data;
    enter();
    usleep(1000 * self->takes_ms);
    unsigned char sum = 0;
    for (int i = 0; i < node->inputs->size; i++) {
        Tensor *in = &context->tensors[node->inputs->data[i]];
        for (size_t at = 0; at < in->bytes; at++) sum += in->data[at];
    }
    for (int i = 0; i < node->outputs->size; i++) {
        Tensor *out = &context->tensors[node->outputs->data[i]];
        for (size_t at = 0; at < out->bytes; at++) out->data[at] = sum + at;
    }
    leave();
    fprintf(stderr, "ran on %s\n", self->device);
    return OK;
}

static int prepare(Context *context, Delegate *self) {
    Ints *plan;
    if (context->get_execution_plan(context, &plan) != OK) return ERROR;
    Ints *claimed = calloc(1, sizeof(Ints) + plan->size * sizeof(int));
    for (int i = 0; i < plan->size && !self->claims_nothing; i++) {
        Node *node;
        Registration *op;
        if (context->get_node(context, plan->data[i], &node, &op) != OK) return ERROR;
        if (op->custom_name && !strcmp(op->custom_name, "edgetpu-custom-op"))
            claimed->data[claimed->size++] = plan->data[i];
    }
    Registration kernel = {.init = init, .prepare = prepare_kernel, .invoke = invoke,
                           .custom_name = "EdgeTpuDelegateForCustomOp", .version = 1};
    int status = OK;
    if (claimed->size) status = context->replace_nodes(context, kernel, claimed, self);
    fprintf(stderr, "claimed %d on %s\n", claimed->size, self->device);
    free(claimed);
    return status;
}

Delegate *tflite_plugin_create_delegate(
    char **keys, char **values, size_t count, void (*report)(const char *)) {
    Delegate *made = calloc(1, sizeof(Delegate));
    const char *device = DEVICES[0];
    for (size_t i = 0; i < count; i++) {
        if (!strcmp(keys[i], "device")) device = values[i];
        if (!strcmp(keys[i], "takes_ms")) made->takes_ms = atoi(values[i]);
        if (!strcmp(keys[i], "claims")) made->claims_nothing = !strcmp(values[i], "nothing");
    }
    bool there = false;
    for (size_t i = 0; i < sizeof DEVICES / sizeof *DEVICES; i++)
        there |= !strcmp(device, DEVICES[i]);
    if (!there) {
        report("no Edge TPU at /dev/bus/usb");
        free(made);
        return NULL;
    }
    snprintf(made->device, sizeof made->device, "%s", device);
    made->prepare = prepare;
    made->flags = ALLOW_DYNAMIC_TENSORS;
    return made;
}

void tflite_plugin_destroy_delegate(Delegate *made) {
    if (made) fprintf(stderr, "destroyed %s, %d at once\n", made->device, most);
    free(made);
}
