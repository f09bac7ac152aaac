/* libFuzzer harness of _rans.c: any arguments, any streams, and encode against decode.
 *
 * README.md has the commands. The first byte of an input chooses
 *
 *     0  round trip     passes of bits and symbols, encoded and decoded: the same symbols come
 *                       back, every word is used and every state ends at LOW
 *     1  any stream     states in range, then any words, under the same kinds of passes; a stream
 *                       that ends well is the one that its symbols encode to
 *     2  any arguments  each function with bytes, numbers and lengths as they come
 *
 * In all of them: no sanitizer report, an exception exactly where there is no result, of the
 * kinds that rans.py knows, and every object released.
 */
#include "../../runtime/cwic/_rans.c"

#define MOST_PASSES 8
#define MOST_SYMBOLS 400 /* per pass */
#define MOST_TABLES 3

#define REQUIRE(condition)                                                                        \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                               \
            abort();                                                                              \
        }                                                                                         \
    } while (0)

/* ---- Input: numbers from the bytes, zeros behind their end ---------------------------------- */

static const uint8_t *input, *input_end;

static uint32_t take(int bytes)
{
    uint32_t value = 0;
    for (int i = 0; i < bytes && input < input_end; i++)
        value |= (uint32_t)*input++ << 8 * i;
    return value;
}

static PyObject *take_bytes(Py_ssize_t most)
{
    const Py_ssize_t left = input_end - input, len = left < most ? left : most;
    PyObject *object = PyBytes_FromStringAndSize((const char *)input, len);
    input += len;
    return object;
}

/* ---- Calls ------------------------------------------------------------------------------------ */

static PyObject *integer(Py_ssize_t value)
{
    return shim_new(SHIM_INT, value);
}

static PyObject *bytes(const void *data, size_t len)
{
    return PyBytes_FromStringAndSize(data, (Py_ssize_t)len);
}

/* Calls and releases the arguments; a result or an exception of the function, never both. */
static PyObject *call(PyObject *(*function)(PyObject *, PyObject *), int count, ...)
{
    va_list arguments;
    PyObject *tuple = shim_new(SHIM_TUPLE, count);
    va_start(arguments, count);
    for (int i = 0; i < count; i++)
        tuple->items[i] = va_arg(arguments, PyObject *);
    va_end(arguments);
    shim_error = NULL;
    PyObject *result = function(NULL, tuple);
    REQUIRE((result == NULL) == (shim_error != NULL));
    REQUIRE(result || shim_error == PyExc_EOFError || shim_error == PyExc_ValueError);
    Py_DECREF(tuple);
    return result;
}

/* ---- Passes ----------------------------------------------------------------------------------- */

typedef struct {
    int by_table; /* symbols of tables, else bits */
    int size;
    uint16_t p1[MOST_SYMBOLS];
    uint32_t rows[MOST_SYMBOLS];
    uint8_t values[MOST_SYMBOLS];
} Pass;

static Pass passes[MOST_PASSES];
static int pass_count;
static uint32_t tables[MOST_TABLES][MAX_SYMBOLS + 1];
static int table_count, width;

static int by_number(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Tables that rise from 0 to TOTAL, some steps zero, none of TOTAL. */
static void take_tables(void)
{
    width = 3 + (int)(take(1) % (MAX_SYMBOLS - 1));
    table_count = 1 + (int)(take(1) % MOST_TABLES);
    for (int t = 0; t < table_count; t++) {
        tables[t][0] = 0;
        tables[t][width - 1] = TOTAL;
        for (int s = 1; s < width - 1; s++)
            tables[t][s] = take(2);
        qsort(tables[t] + 1, (size_t)width - 2, sizeof(uint32_t), by_number);
        if (tables[t][width - 2] == 0) /* the last symbol would have all of it */
            tables[t][width - 2] = 1;
    }
}

/* The kinds, sizes and probabilities of passes; and values, each of them with an interval. */
static void take_passes(void)
{
    pass_count = (int)(take(1) % (MOST_PASSES + 1));
    for (int k = 0; k < pass_count; k++) {
        Pass *pass = &passes[k];
        const uint32_t head = take(2);
        pass->by_table = head & 1;
        pass->size = (int)((head >> 1) % (MOST_SYMBOLS + 1));
        for (int i = 0; i < pass->size; i++) {
            if (pass->by_table) {
                const uint32_t row = pass->rows[i] = take(1) % (uint32_t)table_count;
                int s = (int)(take(1) % (uint32_t)(width - 1));
                while (tables[row][s] == tables[row][s + 1])
                    s = (s + 1) % (width - 1);
                pass->values[i] = (uint8_t)s;
            } else {
                const uint32_t p1 = take(2);
                pass->p1[i] = (uint16_t)(p1 ? p1 : 1);
                pass->values[i] = (uint8_t)(take(1) & 1);
            }
        }
    }
}

static PyObject *encode_passes(int lanes)
{
    static uint16_t starts[MOST_PASSES * MOST_SYMBOLS], freqs[MOST_PASSES * MOST_SYMBOLS];
    int64_t sizes[MOST_PASSES];
    size_t total = 0;
    for (int k = 0; k < pass_count; k++) {
        const Pass *pass = &passes[k];
        sizes[k] = pass->size;
        for (int i = 0; i < pass->size; i++, total++) {
            const uint32_t value = pass->values[i], zero = TOTAL - pass->p1[i];
            const uint32_t *const table = tables[pass->rows[i]];
            starts[total] = (uint16_t)(pass->by_table ? table[value] : value ? zero : 0);
            freqs[total] = (uint16_t)(pass->by_table ? table[value + 1] - table[value]
                                      : value        ? TOTAL - zero
                                                     : zero);
        }
    }
    return call(encode, 4, bytes(starts, 2 * total), bytes(freqs, 2 * total),
                bytes(sizes, 8 * (size_t)pass_count), integer(lanes));
}

/* A decoder as rans.py holds it between two calls. */
static PyObject *words;
static int64_t states[MAX_LANES];
static Py_ssize_t offset;

static PyObject *decode_pass(const Pass *pass, int lanes)
{
    PyObject *const copy = bytes(words->data, (size_t)words->len);
    PyObject *const lane = bytes(states, 8 * (size_t)lanes);
    if (!pass->by_table)
        return call(decode_bits, 4, copy, integer(offset), lane,
                    bytes(pass->p1, 2 * (size_t)pass->size));
    uint32_t packed[MOST_TABLES * (MAX_SYMBOLS + 1)];
    for (int t = 0; t < table_count; t++)
        memcpy(packed + t * width, tables[t], 4 * (size_t)width);
    return call(decode_symbols, 6, copy, integer(offset), lane,
                bytes(packed, 4 * (size_t)(table_count * width)), integer(width),
                bytes(pass->rows, 4 * (size_t)pass->size));
}

/* What a decoder promises of (symbols, offset, states), whatever it was given. */
static void require_valid(const PyObject *result, Py_ssize_t count, Py_ssize_t lanes,
                          const PyObject *data)
{
    int64_t state;
    REQUIRE(result->items[0]->len == count && result->items[2]->len == 8 * lanes);
    REQUIRE(result->items[1]->len >= 0 && 2 * result->items[1]->len <= data->len);
    for (Py_ssize_t lane = 0; lane < lanes; lane++) {
        memcpy(&state, result->items[2]->data + 8 * lane, 8);
        REQUIRE(state >= (int64_t)LOW && state < (int64_t)HIGH);
    }
}

/* Decodes all passes into their values; 0 where the words end too early. */
static int decode_passes(int lanes)
{
    for (int k = 0; k < pass_count; k++) {
        PyObject *const result = decode_pass(&passes[k], lanes);
        if (!result) {
            REQUIRE(shim_error == PyExc_EOFError);
            return 0;
        }
        require_valid(result, passes[k].size, lanes, words);
        memcpy(passes[k].values, result->items[0]->data, (size_t)passes[k].size);
        offset = result->items[1]->len;
        memcpy(states, result->items[2]->data, 8 * (size_t)lanes);
        Py_DECREF(result);
    }
    return 1;
}

/* Splits a stream as Decoder.__init__ does. */
static void open_stream(const PyObject *stream, int lanes)
{
    offset = 0;
    memset(states, 0, sizeof states);
    for (int lane = 0; lane < lanes; lane++)
        for (int byte = 0; byte < 5; byte++)
            states[lane] |= (int64_t)(uint8_t)stream->data[5 * lane + byte] << 8 * byte;
    words = bytes(stream->data + 5 * lanes, (size_t)(stream->len - 5 * lanes));
}

static int ends_well(int lanes)
{
    int well = 2 * offset == words->len;
    for (int lane = 0; lane < lanes; lane++)
        well &= states[lane] == (int64_t)LOW;
    return well;
}

/* ---- The three kinds of input ----------------------------------------------------------------- */

static void round_trip(void)
{
    static uint8_t wanted[MOST_PASSES][MOST_SYMBOLS];
    const int lanes = 1 << take(1) % 7;
    take_tables();
    take_passes();
    PyObject *const stream = encode_passes(lanes);
    REQUIRE(stream && stream->len >= 5 * lanes && (stream->len - 5 * lanes) % 2 == 0);
    open_stream(stream, lanes);
    for (int k = 0; k < pass_count; k++) {
        memcpy(wanted[k], passes[k].values, (size_t)passes[k].size);
        memset(passes[k].values, 0xff, (size_t)passes[k].size);
    }
    REQUIRE(decode_passes(lanes) && ends_well(lanes));
    for (int k = 0; k < pass_count; k++)
        REQUIRE(!memcmp(wanted[k], passes[k].values, (size_t)passes[k].size));
    Py_DECREF(words);
    Py_DECREF(stream);
}

static void any_stream(void)
{
    const int lanes = 1 << take(1) % 7;
    take_tables();
    take_passes();
    PyObject *stream = take_bytes(4096);
    /* A state below LOW is refused by Decoder.__init__; give it its lowest bit above. */
    if (stream->len >= 5 * lanes && (stream->len - 5 * lanes) % 2 == 0) {
        for (int lane = 0; lane < lanes; lane++)
            if (!stream->data[5 * lane + 3] && !stream->data[5 * lane + 4])
                stream->data[5 * lane + 3] = 1;
        open_stream(stream, lanes);
        if (decode_passes(lanes) && ends_well(lanes)) {
            PyObject *const again = encode_passes(lanes);
            REQUIRE(again && again->len == stream->len &&
                    !memcmp(again->data, stream->data, (size_t)stream->len));
            Py_DECREF(again);
        }
        Py_DECREF(words);
    }
    Py_DECREF(stream);
}

/* Mostly small, sometimes at the edge of its type. */
static PyObject *take_integer(void)
{
    const uint32_t head = take(1);
    const Py_ssize_t edges[] = {INT32_MAX, INT32_MIN, PY_SSIZE_T_MAX, -PY_SSIZE_T_MAX - 1,
                                PY_SSIZE_T_MAX / 4, PY_SSIZE_T_MAX / 8};
    return integer(head < 240 ? (Py_ssize_t)head - 3 : edges[head % 6]);
}

static void any_arguments(void)
{
    const uint32_t which = take(1) % 3;
    PyObject *part[4], *number[2];
    for (int i = 0; i < 4; i++)
        part[i] = take_bytes((Py_ssize_t)(take(2) % 2048));
    for (int i = 0; i < 2; i++)
        number[i] = take_integer();
    /* `call` releases the arguments; what they say of the result is needed afterwards. */
    PyObject *const data = bytes(part[0]->data, (size_t)part[0]->len);
    const Py_ssize_t lanes = part[1]->len / 8, width = number[1]->len;
    const Py_ssize_t count = which == 1 ? part[2]->len / 2 : part[3]->len / 4;
    PyObject *result;
    if (which == 0)
        result = call(encode, 4, part[0], part[1], part[2], integer((int)number[0]->len));
    else if (which == 1)
        result = call(decode_bits, 4, part[0], integer(number[0]->len), part[1], part[2]);
    else
        result = call(decode_symbols, 6, part[0], integer(number[0]->len), part[1], part[2],
                      integer(width), part[3]);
    if (result && which)
        require_valid(result, count, lanes, data);
    if (result && which == 2)
        for (Py_ssize_t i = 0; i < count; i++)
            REQUIRE((uint8_t)result->items[0]->data[i] < width - 1);
    if (result)
        Py_DECREF(result);
    if (which != 2)
        Py_DECREF(part[3]);
    Py_DECREF(data);
    Py_DECREF(number[0]);
    Py_DECREF(number[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const kinds[])(void) = {round_trip, any_stream, any_arguments};
    input = data;
    input_end = data + size;
    kinds[take(1) % 3]();
    REQUIRE(shim_alive == 0);
    return 0;
}
