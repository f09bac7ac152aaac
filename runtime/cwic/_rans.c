/* The loops of rans.py in C: rANS over interleaved lanes (rans.py defines the coder).
 *
 *     encode(starts, freqs, pass_sizes, lanes) -> stream
 *     decode_bits(words, offset, states, p1) -> (bits, offset, states)
 *     decode_symbols(words, offset, states, cumulative, width, rows) -> (symbols, offset, states)
 *
 * The functions keep no state. Arrays travel as `bytes` in native byte order, because the stable
 * ABI of Python 3.10 has no buffer protocol and an immutable object stays valid while the GIL is
 * released; a state has 8 bytes there. The stream alone is little endian: `words` is what follows
 * its states, and `offset` counts those that are read.
 *
 * Nothing is trusted: a bad argument raises ValueError or TypeError, and a stream that ends early
 * raises EOFError.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A state between two symbols is LOW .. HIGH - 1. */
#define LOW ((uint64_t)1 << 24)
#define HIGH ((uint64_t)1 << 40)
#define TOTAL 65536u
#define MAX_LANES 64
#define MAX_SYMBOLS 256

typedef struct {
    const uint8_t *at;
    Py_ssize_t len;
} Bytes;

/* memcpy: a bytes object promises no alignment. */
static inline uint16_t u16(Bytes b, Py_ssize_t i)
{
    uint16_t v;
    memcpy(&v, b.at + 2 * i, 2);
    return v;
}

static inline uint32_t u32(Bytes b, Py_ssize_t i)
{
    uint32_t v;
    memcpy(&v, b.at + 4 * i, 4);
    return v;
}

static inline int64_t i64(Bytes b, Py_ssize_t i)
{
    int64_t v;
    memcpy(&v, b.at + 8 * i, 8);
    return v;
}

static inline void put_le16(uint8_t *at, uint32_t v)
{
    at[0] = (uint8_t)v;
    at[1] = (uint8_t)(v >> 8);
}

static Bytes bytes_of(PyObject *object) /* `bytes`, as PyArg_ParseTuple has checked */
{
    Bytes b = {(const uint8_t *)PyBytes_AsString(object), PyBytes_Size(object)};
    return b;
}

static PyObject *refuse(const char *why)
{
    PyErr_SetString(PyExc_ValueError, why);
    return NULL;
}

static int valid_lanes(Py_ssize_t lanes)
{
    return lanes >= 1 && lanes <= MAX_LANES && (lanes & (lanes - 1)) == 0;
}

static PyObject *encode(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *starts_, *freqs_, *sizes_;
    int lanes;
    if (!PyArg_ParseTuple(args, "SSSi:encode", &starts_, &freqs_, &sizes_, &lanes))
        return NULL;
    const Bytes starts = bytes_of(starts_), freqs = bytes_of(freqs_), sizes = bytes_of(sizes_);
    if (!valid_lanes(lanes))
        return refuse("lanes is not a power of two from 1 to 64");
    if (starts.len % 2 || starts.len != freqs.len || sizes.len % 8)
        return refuse("starts, freqs and pass_sizes do not fit each other");
    if (starts.len > PY_SSIZE_T_MAX - 5 * MAX_LANES)
        return refuse("too many symbols");
    const Py_ssize_t total = starts.len / 2, passes = sizes.len / 8;
    Py_ssize_t left = total;
    for (Py_ssize_t p = 0; p < passes; p++) {
        if (i64(sizes, p) < 0 || i64(sizes, p) > left)
            return refuse("pass_sizes do not add up to the number of symbols");
        left -= (Py_ssize_t)i64(sizes, p);
    }
    if (left)
        return refuse("pass_sizes do not add up to the number of symbols");

    /* A symbol emits one word at most, so there is always room. The words grow downwards from the
     * end; every symbol writes one and keeps it or not, as a branch could not be predicted. */
    const size_t room = 2 * (size_t)total;
    uint8_t *const words = malloc(room ? room : 1);
    if (!words)
        return PyErr_NoMemory();
    uint8_t *head = words + room;
    uint64_t x[MAX_LANES];
    uint32_t bad = 0;
    for (int lane = 0; lane < lanes; lane++)
        x[lane] = LOW;
    Py_BEGIN_ALLOW_THREADS
    Py_ssize_t end = total;
    for (Py_ssize_t p = passes; p-- > 0 && !bad;) {
        const Py_ssize_t first = end - (Py_ssize_t)i64(sizes, p);
        for (Py_ssize_t i = end; i-- > first;) {
            const uint32_t start = u16(starts, i), freq = u16(freqs, i);
            if (freq == 0 || start + freq > TOTAL) {
                bad = 1;
                break;
            }
            uint64_t *const lane = &x[(i - first) & (lanes - 1)];
            const uint32_t emit = *lane >= (uint64_t)freq << 24;
            put_le16(head - 2, (uint32_t)*lane);
            head -= 2 * emit;
            const uint64_t v = *lane >> (16 * emit);
            *lane = (v / freq << 16) + v % freq + start;
        }
        end = first;
    }
    Py_END_ALLOW_THREADS

    PyObject *stream = NULL;
    if (bad)
        refuse("an interval is empty or ends above 65536");
    else
        stream = PyBytes_FromStringAndSize(NULL, 5 * (Py_ssize_t)lanes + (words + room - head));
    if (stream) {
        uint8_t *out = (uint8_t *)PyBytes_AsString(stream);
        for (int lane = 0; lane < lanes; lane++)
            for (int shift = 0; shift < 40; shift += 8)
                *out++ = (uint8_t)(x[lane] >> shift);
        memcpy(out, head, (size_t)(words + room - head));
    }
    free(words);
    return stream;
}

typedef struct {
    Bytes words;
    Py_ssize_t at, end; /* the next word, and their number */
    Py_ssize_t lanes;
    uint64_t x[MAX_LANES];
} Decoder;

static int open_decoder(Decoder *d, PyObject *words, Py_ssize_t offset, PyObject *states)
{
    const Bytes s = bytes_of(states);
    d->words = bytes_of(words);
    d->end = d->words.len / 2;
    d->at = offset;
    d->lanes = s.len / 8;
    if (s.len % 8 || !valid_lanes(d->lanes) || offset < 0 || offset > d->end)
        return 0;
    memcpy(d->x, s.at, (size_t)s.len);
    for (Py_ssize_t lane = 0; lane < d->lanes; lane++)
        if (d->x[lane] < LOW || d->x[lane] >= HIGH)
            return 0;
    return 1;
}

/* Leaves the interval that holds `slot`; returns 0 where no word is left. Whatever the words are,
 * the state stays in its range: freq <= 65535 and slot - start < freq, so x < 65535 * 2^24 before
 * the refill, and 2^8 <= freq * 2^8 <= x. */
static inline int advance(Decoder *d, uint64_t *lane, uint32_t slot, uint32_t start, uint32_t freq)
{
    uint64_t x = freq * (*lane >> 16) + (slot - start);
    if (x < LOW) {
        if (d->at >= d->end)
            return 0;
        const uint8_t *word = d->words.at + 2 * d->at++;
        x = x << 16 | (uint32_t)word[0] | (uint32_t)word[1] << 8;
    }
    *lane = x;
    return 1;
}

static PyObject *close_decoder(const Decoder *d, PyObject *symbols, int exhausted)
{
    if (exhausted) {
        Py_DECREF(symbols);
        PyErr_SetString(PyExc_EOFError, "the stream has no word left");
        return NULL;
    }
    return Py_BuildValue("Nny#", symbols, d->at, (const char *)d->x, 8 * d->lanes);
}

static PyObject *decode_bits(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *words, *states, *p1_;
    Py_ssize_t offset;
    Decoder d;
    if (!PyArg_ParseTuple(args, "SnSS:decode_bits", &words, &offset, &states, &p1_))
        return NULL;
    if (!open_decoder(&d, words, offset, states))
        return refuse("states or offset are not those of a decoder");
    const Bytes p1 = bytes_of(p1_);
    const Py_ssize_t total = p1.len / 2;
    uint32_t zero_p = 0;
    for (Py_ssize_t i = 0; i < total; i++)
        zero_p |= u16(p1, i) == 0;
    if (p1.len % 2 || zero_p)
        return refuse("p1 is not 16-bit numbers of 1 or more");
    PyObject *bits = PyBytes_FromStringAndSize(NULL, total);
    if (!bits)
        return NULL;
    uint8_t *const out = (uint8_t *)PyBytes_AsString(bits);
    Py_ssize_t i;
    Py_BEGIN_ALLOW_THREADS
    for (i = 0; i < total; i++) {
        uint64_t *const lane = &d.x[i & (d.lanes - 1)];
        const uint32_t one = u16(p1, i), zero = TOTAL - one, slot = *lane & 0xffff;
        const uint32_t bit = slot >= zero;
        if (!advance(&d, lane, slot, bit ? zero : 0, bit ? one : zero))
            break;
        out[i] = (uint8_t)bit;
    }
    Py_END_ALLOW_THREADS
    return close_decoder(&d, bits, i < total);
}

static int valid_tables(Bytes cumulative, Py_ssize_t width)
{
    for (Py_ssize_t t = 0; t < cumulative.len / 4; t += width) {
        if (u32(cumulative, t) != 0 || u32(cumulative, t + width - 1) != TOTAL)
            return 0;
        for (Py_ssize_t s = t; s < t + width - 1; s++)
            if (u32(cumulative, s + 1) - u32(cumulative, s) >= TOTAL) /* or falls: wraps */
                return 0;
    }
    return 1;
}

static PyObject *decode_symbols(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *words, *states, *cumulative_, *rows_;
    Py_ssize_t offset, width;
    Decoder d;
    if (!PyArg_ParseTuple(args, "SnSSnS:decode_symbols", &words, &offset, &states,
                          &cumulative_, &width, &rows_))
        return NULL;
    if (!open_decoder(&d, words, offset, states))
        return refuse("states or offset are not those of a decoder");
    const Bytes cumulative = bytes_of(cumulative_), rows = bytes_of(rows_);
    if (width < 2 || width > MAX_SYMBOLS + 1 || cumulative.len % (4 * width) ||
        !valid_tables(cumulative, width))
        return refuse("a table does not rise from 0 to 65536 in steps of at most 65535");
    const Py_ssize_t total = rows.len / 4, tables = cumulative.len / (4 * width);
    uint32_t outside = 0;
    for (Py_ssize_t i = 0; i < total; i++)
        outside |= (uint64_t)u32(rows, i) >= (uint64_t)tables;
    if (rows.len % 4 || outside)
        return refuse("rows name a table that is not there");
    PyObject *symbols = PyBytes_FromStringAndSize(NULL, total);
    if (!symbols)
        return NULL;
    uint8_t *const out = (uint8_t *)PyBytes_AsString(symbols);
    Py_ssize_t i;
    Py_BEGIN_ALLOW_THREADS
    for (i = 0; i < total; i++) {
        uint64_t *const lane = &d.x[i & (d.lanes - 1)];
        const uint32_t slot = *lane & 0xffff;
        const Py_ssize_t table = (Py_ssize_t)u32(rows, i) * width;
        /* The last symbol that starts at or before the slot: never one of zero width. */
        Py_ssize_t s = table;
        for (Py_ssize_t n = width - 1; n > 1; n -= n / 2)
            s = u32(cumulative, s + n / 2) <= slot ? s + n / 2 : s;
        const uint32_t start = u32(cumulative, s);
        if (!advance(&d, lane, slot, start, u32(cumulative, s + 1) - start))
            break;
        out[i] = (uint8_t)(s - table);
    }
    Py_END_ALLOW_THREADS
    return close_decoder(&d, symbols, i < total);
}

static PyMethodDef methods[] = {
    {"encode", encode, METH_VARARGS, NULL},
    {"decode_bits", decode_bits, METH_VARARGS, NULL},
    {"decode_symbols", decode_symbols, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_rans", NULL, 0, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__rans(void)
{
    return PyModuleDef_Init(&module);
}
