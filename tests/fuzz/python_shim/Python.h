/* The few names of Python's C interface that _rans.c uses, for fuzzing without Python.
 *
 * A `bytes` object here is one malloc of exactly its bytes, so that AddressSanitizer sees the
 * first byte before or behind it that is touched; those of Python have a head and a NUL there.
 * Objects are counted, so that a leak or a double release is seen at once.
 */
#ifndef CWIC_PYTHON_SHIM_H
#define CWIC_PYTHON_SHIM_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

typedef ssize_t Py_ssize_t;
#define PY_SSIZE_T_MAX INTPTR_MAX

/* An argument or a result: bytes, an integer, or a tuple of up to six of them. */
typedef struct PyObject {
    enum { SHIM_BYTES, SHIM_INT, SHIM_TUPLE } kind;
    Py_ssize_t len; /* of bytes and tuples; the value of an integer */
    char *data;
    struct PyObject *items[6];
} PyObject;

static Py_ssize_t shim_alive; /* objects not yet released */
static const char *shim_error; /* the exception that is set */
static const char PyExc_ValueError[] = "ValueError", PyExc_EOFError[] = "EOFError";

static inline PyObject *shim_new(int kind, Py_ssize_t len)
{
    PyObject *object = calloc(1, sizeof *object);
    object->kind = kind;
    object->len = len;
    shim_alive++;
    return object;
}

static inline PyObject *PyBytes_FromStringAndSize(const char *data, Py_ssize_t len)
{
    PyObject *object = shim_new(SHIM_BYTES, len);
    object->data = malloc((size_t)len);
    if (data && len)
        memcpy(object->data, data, (size_t)len);
    return object;
}

static inline char *PyBytes_AsString(PyObject *object)
{
    return object->data;
}

static inline Py_ssize_t PyBytes_Size(PyObject *object)
{
    return object->len;
}

static inline void Py_DECREF(PyObject *object)
{
    if (object->kind == SHIM_TUPLE)
        for (Py_ssize_t i = 0; i < object->len; i++)
            Py_DECREF(object->items[i]);
    free(object->data);
    free(object);
    shim_alive--;
}

static inline void PyErr_SetString(const char *type, const char *why)
{
    (void)why;
    shim_error = type;
}

static inline PyObject *PyErr_NoMemory(void)
{
    shim_error = "MemoryError";
    return NULL;
}

/* As Python's for the formats of _rans.c: S bytes, n Py_ssize_t, i int. */
static inline int PyArg_ParseTuple(PyObject *args, const char *format, ...)
{
    va_list targets;
    int ok = 1;
    Py_ssize_t i = 0;
    va_start(targets, format);
    for (; ok && *format != ':'; format++, i++) {
        PyObject *const item = args->items[i];
        if (*format == 'S') {
            *va_arg(targets, PyObject **) = item;
            ok = item->kind == SHIM_BYTES;
        } else if (*format == 'n') {
            *va_arg(targets, Py_ssize_t *) = item->len;
            ok = item->kind == SHIM_INT;
        } else {
            *va_arg(targets, int *) = (int)item->len;
            ok = item->kind == SHIM_INT && item->len == (int)item->len;
        }
    }
    va_end(targets);
    if (!ok)
        shim_error = "TypeError";
    return ok;
}

/* As Python's for the one format "Nny#". */
static inline PyObject *Py_BuildValue(const char *format, ...)
{
    va_list values;
    PyObject *tuple = shim_new(SHIM_TUPLE, 3);
    if (strcmp(format, "Nny#"))
        abort();
    va_start(values, format);
    tuple->items[0] = va_arg(values, PyObject *);
    tuple->items[1] = shim_new(SHIM_INT, va_arg(values, Py_ssize_t));
    const char *data = va_arg(values, const char *);
    tuple->items[2] = PyBytes_FromStringAndSize(data, va_arg(values, Py_ssize_t));
    va_end(values);
    return tuple;
}

#define Py_BEGIN_ALLOW_THREADS {
#define Py_END_ALLOW_THREADS }

/* The module's table is compiled and never used. */
#define METH_VARARGS 1
#define PyModuleDef_HEAD_INIT 0
#define PyMODINIT_FUNC PyObject *
typedef struct {
    const char *name;
    PyObject *(*function)(PyObject *, PyObject *);
    int flags;
    const char *doc;
} PyMethodDef;
struct PyModuleDef {
    int base;
    const char *name, *doc;
    Py_ssize_t size;
    PyMethodDef *methods;
    void *slots, *traverse, *clear, *free;
};

static inline PyObject *PyModuleDef_Init(struct PyModuleDef *module)
{
    (void)module;
    return NULL;
}

#endif
