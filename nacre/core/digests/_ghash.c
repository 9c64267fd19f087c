/* GHASH, the polynomial hash of AES-GCM, at the speed of memory.
 *
 * `nacre/core/digests/ghash.py` says what it gives and a test holds it to the tags that OpenSSL makes, bit
 * for bit. It is a product in GF(2^128) and no cipher: keys are expanded, and blocks encrypted, by
 * OpenSSL alone. There is no table and no branch that depends on what is hashed.
 *
 * Source: NIST SP 800-38D, section 6.4; Gueron & Kounavis 2010, "Intel carry-less multiplication
 * instruction and its usage for computing the GCM mode": several blocks under powers of the key
 * share one reduction.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define CARRYLESS 1
#define WIDE __attribute__((target("avx2,pclmul,vpclmulqdq")))
#else
#define CARRYLESS 0
#endif

#define AHEAD 4096 /* bytes: processors look no further than a page for what comes next */
#define TOGETHER 16 /* blocks that share a reduction */

/* Lies in a `bytearray` of Python's, so it may stand at any address. */
typedef struct {
    uint8_t powers[TOGETHER][16]; /* of the key, the highest first, each times x */
    uint8_t sum[16];              /* bytes in reverse, as `powers` */
    uint8_t rest[16];             /* of a block that is not full yet */
    uint64_t length;              /* bytes so far */
} State;

#if CARRYLESS

/* A block's first bit is the coefficient of 1 (SP 800-38D, 6.3): bytes are reversed on entry, so
 * that the numbers are those of the field read from the other end. A product of two such numbers
 * is one bit short, which one factor times x makes good. */

/* The 256 bits low + high x^128, read from the other end, modulo x^128 + x^7 + x^2 + x + 1: twice
 * 64 bits are folded away by x^63 + x^62 + x^57. */
WIDE static inline __m128i reduced(__m128i low, __m128i high) {
    const __m128i fold = _mm_set_epi64x(0, (long long)0xc200000000000000ull);
    for (int i = 0; i < 2; i++)
        low = _mm_xor_si128(_mm_shuffle_epi32(low, 0x4e), _mm_clmulepi64_si128(low, fold, 0x00));
    return _mm_xor_si128(low, high);
}

WIDE static inline __m128i product(__m128i a, __m128i b) {
    __m128i middle = _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x01), _mm_clmulepi64_si128(a, b, 0x10));
    __m128i low = _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x00), _mm_slli_si128(middle, 8));
    __m128i high = _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x11), _mm_srli_si128(middle, 8));
    return reduced(low, high);
}

WIDE static inline __m128i reversed(__m128i block) {
    return _mm_shuffle_epi8(block, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

/* One bit further from 1: a factor x. */
WIDE static inline __m128i times_x(__m128i a) {
    uint64_t words[2];
    memcpy(words, &a, 16);
    uint64_t out = words[1] >> 63;
    words[1] = words[1] << 1 | words[0] >> 63;
    words[0] = words[0] << 1;
    words[1] ^= -out & 0xc200000000000000ull;
    words[0] ^= out;
    memcpy(&a, words, 16);
    return a;
}

WIDE static void begin(State *state, const uint8_t *key) {
    __m128i first = times_x(reversed(_mm_loadu_si128((const __m128i *)key))), power = first;
    memset(state, 0, sizeof *state);
    for (int i = TOGETHER - 1; i >= 0; i--) {
        _mm_storeu_si128((__m128i *)state->powers[i], power);
        power = product(power, first);
    }
}

/* `count` whole blocks. */
WIDE static void blocks(State *state, const uint8_t *data, size_t count) {
    const __m256i turn = _mm256_broadcastsi128_si256(
        _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    __m128i sum = _mm_loadu_si128((const __m128i *)state->sum);
    for (; count >= TOGETHER; count -= TOGETHER, data += 16 * TOGETHER) {
        __m256i low = _mm256_setzero_si256(), middle = low, high = low;
        __m256i before = _mm256_castsi128_si256(sum);
        before = _mm256_inserti128_si256(before, _mm_setzero_si128(), 1);
        for (int i = 0; i < 256; i += 64) _mm_prefetch((const char *)data + AHEAD + i, _MM_HINT_T0);
#pragma GCC unroll 8
        for (int i = 0; i < TOGETHER; i += 2) {
            __m256i two = _mm256_loadu_si256((const __m256i *)(data + 16 * i));
            __m256i by = _mm256_loadu_si256((const __m256i *)state->powers[i]);
            two = _mm256_shuffle_epi8(two, turn);
            if (i == 0) two = _mm256_xor_si256(two, before);
            __m256i crossed = _mm256_xor_si256(two, _mm256_shuffle_epi32(two, 0x4e));
            __m256i mixed = _mm256_xor_si256(by, _mm256_shuffle_epi32(by, 0x4e));
            low = _mm256_xor_si256(low, _mm256_clmulepi64_epi128(two, by, 0x00));
            high = _mm256_xor_si256(high, _mm256_clmulepi64_epi128(two, by, 0x11));
            middle = _mm256_xor_si256(middle, _mm256_clmulepi64_epi128(crossed, mixed, 0x00));
        }
        middle = _mm256_xor_si256(middle, _mm256_xor_si256(low, high)); /* Karatsuba's */
        low = _mm256_xor_si256(low, _mm256_slli_si256(middle, 8));
        high = _mm256_xor_si256(high, _mm256_srli_si256(middle, 8));
        sum = reduced(_mm_xor_si128(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)),
                      _mm_xor_si128(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1)));
    }
    __m128i by = _mm_loadu_si128((const __m128i *)state->powers[TOGETHER - 1]);
    for (; count; count--, data += 16)
        sum = product(_mm_xor_si128(sum, reversed(_mm_loadu_si128((const __m128i *)data))), by);
    _mm_storeu_si128((__m128i *)state->sum, sum);
}

/* The hash of all bytes so far, filled up with zeros, and of their number in bits. */
WIDE static void finish(const State *given, uint8_t *out) {
    State state = *given;
    uint8_t last[32] = {0};
    size_t held = state.length % 16, whole = held ? 16 : 0;
    memcpy(last, state.rest, held);
    for (int i = 0; i < 8; i++) last[whole + i] = (uint8_t)(8 * state.length >> (56 - 8 * i));
    blocks(&state, last, whole / 16 + 1);
    _mm_storeu_si128((__m128i *)out, reversed(_mm_loadu_si128((const __m128i *)state.sum)));
}

static int supported(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("pclmul") &&
           __builtin_cpu_supports("vpclmulqdq");
}

#else

static void begin(State *state, const uint8_t *key) { (void)state, (void)key; }
static void blocks(State *state, const uint8_t *data, size_t n) { (void)state, (void)data, (void)n; }
static void finish(const State *given, uint8_t *out) { (void)given, (void)out; }
static int supported(void) { return 0; }

#endif

static void update(State *state, const uint8_t *data, size_t size) {
    size_t held = state->length % 16;
    state->length += size;
    if (held) {
        size_t some = size < 16 - held ? size : 16 - held;
        memcpy(state->rest + held, data, some);
        data += some, size -= some;
        if (held + some < 16) return;
        blocks(state, state->rest, 1);
    }
    blocks(state, data, size / 16);
    memcpy(state->rest, data + size / 16 * 16, size % 16);
}

/* The state that a `bytearray` holds; NULL where it is no such state. */
static State *held_in(PyObject *object) {
    if (PyByteArray_Check(object) && PyByteArray_Size(object) == sizeof(State))
        return (State *)PyByteArray_AsString(object);
    PyErr_SetString(PyExc_TypeError, "a state is what `begin` gives");
    return NULL;
}

PyDoc_STRVAR(begin_doc, "begin(key): the state of an empty hash under 16 bytes, a bytearray.");

static PyObject *call_begin(PyObject *self, PyObject *key) {
    char *bytes;
    Py_ssize_t size;
    State state;
    if (PyBytes_AsStringAndSize(key, &bytes, &size) < 0) return NULL;
    if (size != 16 || !supported()) {
        PyErr_SetString(PyExc_ValueError, "a key of 16 bytes, on a processor that is supported");
        return NULL;
    }
    begin(&state, (const uint8_t *)bytes);
    return PyByteArray_FromStringAndSize((const char *)&state, sizeof state);
}

PyDoc_STRVAR(update_doc, "update(state, data): takes in the bytes of a contiguous buffer.");

static PyObject *call_update(PyObject *self, PyObject *args) {
    PyObject *given, *from;
    Py_buffer data;
    if (!PyArg_ParseTuple(args, "OO", &given, &from)) return NULL;
    State *state = held_in(given);
    if (state == NULL || PyObject_GetBuffer(from, &data, PyBUF_SIMPLE) < 0) return NULL;
    update(state, data.buf, (size_t)data.len);
    PyBuffer_Release(&data);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(finish_doc, "finish(state): the 16 bytes of the hash; the state stays as it is.");

static PyObject *call_finish(PyObject *self, PyObject *given) {
    uint8_t out[16];
    State *state = held_in(given);
    if (state == NULL) return NULL;
    finish(state, out);
    return PyBytes_FromStringAndSize((const char *)out, 16);
}

PyDoc_STRVAR(supported_doc, "supported(): whether this processor has the instructions.");

static PyObject *call_supported(PyObject *self, PyObject *unused) {
    return PyBool_FromLong(supported());
}

static PyMethodDef methods[] = {
    {"begin", call_begin, METH_O, begin_doc},
    {"update", call_update, METH_VARARGS, update_doc},
    {"finish", call_finish, METH_O, finish_doc},
    {"supported", call_supported, METH_NOARGS, supported_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_ghash", "The hash of AES-GCM.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__ghash(void) { return PyModule_Create(&module); }
