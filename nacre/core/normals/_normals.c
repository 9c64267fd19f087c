/* Random bits to normals, and sums with noise rounded to a grid, at the speed of memory.
 *
 * `nacre/core/normals/plain.py` says what these two functions give, one array operation after the other, and
 * a test holds both to the same bits: there is no operation here but those that IEEE 754 rounds
 * correctly, in the same order, none fused (-ffp-contract=off). So numbers do not depend on the
 * compiler, nor on how wide the processor's vectors are. Errors are bounded in `box_muller.py`.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <math.h>
#include <stdint.h>

/* Loops are compiled for three generations of x86 processors; the right one is chosen at load. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDE
#endif

#define LEAST 0x40000     /* as in plain.py */
#define MOST 0xfffff000u
#define AHEAD 1024 /* elements: processors look no further than a page for what comes next */
#define CHUNK 128 /* elements that are judged together before any is looked at */

typedef union {
    float value;
    uint32_t bits;
} Word;

static inline float as_float(uint32_t bits) {
    Word word = {.bits = bits};
    return word.value;
}

static inline uint32_t as_bits(float value) {
    Word word = {.value = value};
    return word.bits;
}

/* 2 h normals, cosines first, of h words (their radius) and h angles; NaN where a word is rare. */
WIDE static void normals(const uint32_t *restrict words, const uint32_t *restrict angles, Py_ssize_t h,
                         float *restrict out, float *restrict after) {
    for (Py_ssize_t i = 0; i < h; i++) {
        /* -ln U for U = word / 2^32 = 2^(k - 32) (1 + f), with f as small as it can be */
        uint32_t word = words[i] | 1;
        int32_t bits = (int32_t)as_bits((float)word);
        int32_t k = ((bits + (0x3f800000 - 0x3f3504f3)) >> 23) - 127;
        uint32_t power = k < 32 ? (uint32_t)1 << (k & 31) : 0;
        float f = (float)(int32_t)(word - power) * as_float((uint32_t)(127 - k) << 23);
        float s = f / (2.0f + f);
        float z = s * s;
        float tail = z * (1.0f / 3 + z * (1.0f / 5 + z * (1.0f / 7 + z * (1.0f / 9))));
        float twice = s + s;
        float minus_log = (float)(32 - k) * 0.693147180559945f - (twice + twice * tail);
        float square = minus_log + minus_log;
        float radius = __builtin_sqrtf(square);
        radius = words[i] - LEAST < MOST - LEAST ? radius : as_float(0x7fc00000);
        /* the angle 2 pi a / 2^32, as a quarter turn and what is left of it */
        uint32_t turned = angles[i] + 0x20000000;
        uint32_t quarter = turned >> 30;
        float x = (float)((int32_t)(turned & 0x3fffffff) - 0x20000000) * 1.46291807926716e-9f;
        float y = x * x;
        float sine = y * (-1.0f / 6 + y * (1.0f / 120 + y * (-1.0f / 5040 + y * (1.0f / 362880))));
        float cosine = -0.5f + y * (1.0f / 24 + y * (-1.0f / 720 + y * (1.0f / 40320)));
        sine = x + x * sine;
        cosine = 1.0f + y * cosine;
        float first = quarter & 1 ? sine : cosine;
        float second = quarter & 1 ? cosine : sine;
        uint32_t flip = ((quarter + 1) & 2) << 30;
        out[i] = radius * as_float(as_bits(first) ^ flip);
        after[i] = radius * as_float(as_bits(second) ^ ((quarter & 2) << 30));
    }
}

/* One chunk of `rounded`: the results, for each whether it is certain, and whether all are. */
WIDE static int judge(const float *noise, const float *value, int n, float spread, float step,
                      float inverse, float most, float *out, int32_t *certain) {
    int32_t all = -1;
    for (int i = 0; i < n; i++) {
        float x = value[i] * inverse;
        float whole = __builtin_rintf(x);
        float t = (x - whole) + spread * noise[i];
        float nearest = __builtin_rintf(t);
        float beside = t - nearest;
        float result = (whole + nearest + 0.0f) * step; /* never -0, which tells of the sum */
        float finite = value[i] - value[i];
        certain[i] = -(__builtin_fabsf(beside) < most) | -(finite != 0.0f);
        all &= certain[i];
        out[i] = certain[i] && finite == 0.0f ? result : value[i];
    }
    return all;
}

/* One of a pair, from 96 bits of U and of A: as `refined.doubles` has it, to within 1e-12. */
static double fine_normal(uint32_t word, uint32_t angle, int second, uint64_t more, uint64_t turn) {
    double part = ((double)more + 0.5) * 0x1p-64, rest = ((double)turn + 0.5) * 0x1p-64;
    double below = (double)word + part, above = (0x1p32 - 1 - word) + (1 - part);
    double half = word < 0x80000000u ? -log(below * 0x1p-32) : -log1p(-above * 0x1p-32);
    uint32_t turned = angle + 0x20000000;
    uint32_t quarter = ((turned >> 30) + (second ? 3 : 0)) & 3;
    double x = ((double)(turned & 0x3fffffff) - 0x20000000 + rest) * (3.14159265358979323846 * 0x1p-31);
    double value = sqrt(2 * half) * (quarter & 1 ? sin(x) : cos(x));
    return quarter == 1 || quarter == 2 ? -value : value;
}

static int buffer(PyObject *from, Py_buffer *to, int writable, Py_ssize_t bytes) {
    int flags = writable ? PyBUF_WRITABLE : PyBUF_SIMPLE;
    if (PyObject_GetBuffer(from, to, flags) < 0) return -1;
    if (to->len >= bytes) return 0;
    PyBuffer_Release(to);
    PyErr_SetString(PyExc_ValueError, "a buffer is too short");
    return -1;
}

PyDoc_STRVAR(normals_doc,
             "normals(words, angles, out): 2 h float32 normals of h + h words of 32 bits.");

static PyObject *call_normals(PyObject *self, PyObject *args) {
    PyObject *given[3];
    Py_buffer words, angles, out;
    if (!PyArg_ParseTuple(args, "OOO", &given[0], &given[1], &given[2])) return NULL;
    if (buffer(given[0], &words, 0, 0) < 0) return NULL;
    Py_ssize_t h = words.len / 4;
    if (buffer(given[1], &angles, 0, 4 * h) < 0) goto words;
    if (buffer(given[2], &out, 1, 8 * h) < 0) goto angles;
    Py_BEGIN_ALLOW_THREADS
    normals(words.buf, angles.buf, h, out.buf, (float *)out.buf + h);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&out);
    PyBuffer_Release(&angles);
    PyBuffer_Release(&words);
    Py_RETURN_NONE;
angles:
    PyBuffer_Release(&angles);
words:
    PyBuffer_Release(&words);
    return NULL;
}

PyDoc_STRVAR(rounded_doc,
             "rounded(noise, value, spread, step, margin, out, uncertain) -> how many uncertain.\n\n"
             "out = step * round(value / step + spread * noise); the places (int32) whose rounding\n"
             "the margin leaves open are written into `uncertain`, which has room for all.");

static PyObject *call_rounded(PyObject *self, PyObject *args) {
    PyObject *given[4];
    Py_buffer noise, value, out, uncertain;
    float spread, step, margin;
    int32_t certain[CHUNK];
    Py_ssize_t count = 0;
    if (!PyArg_ParseTuple(args, "OOfffOO", &given[0], &given[1], &spread, &step, &margin, &given[2],
                          &given[3]))
        return NULL;
    if (buffer(given[1], &value, 0, 0) < 0) return NULL;
    Py_ssize_t n = value.len / 4;
    if (buffer(given[0], &noise, 0, 4 * n) < 0) goto value;
    if (buffer(given[2], &out, 1, 4 * n) < 0) goto noise;
    if (buffer(given[3], &uncertain, 1, 4 * n) < 0) goto out;
    Py_BEGIN_ALLOW_THREADS
    const float *from = noise.buf, *sum = value.buf;
    float *to = out.buf;
    int32_t *places = uncertain.buf;
    for (Py_ssize_t start = 0; start < n; start += CHUNK) {
        for (int i = 0; i < CHUNK && start + i + AHEAD < n; i += 16) {
            __builtin_prefetch(sum + start + i + AHEAD);
            __builtin_prefetch(to + start + i + AHEAD, 1);
        }
        int some = n - start < CHUNK ? (int)(n - start) : CHUNK;
        if (judge(from + start, sum + start, some, spread, step, 1.0f / step, 0.5f - margin,
                  to + start, certain))
            continue;
        for (int i = 0; i < some; i++)
            if (!certain[i]) places[count++] = (int32_t)(start + i);
    }
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&uncertain);
    PyBuffer_Release(&out);
    PyBuffer_Release(&noise);
    PyBuffer_Release(&value);
    return PyLong_FromSsize_t(count);
out:
    PyBuffer_Release(&out);
noise:
    PyBuffer_Release(&noise);
value:
    PyBuffer_Release(&value);
    return NULL;
}

PyDoc_STRVAR(doubles_doc,
             "doubles(words, angles, second, fine, out): n float64 normals of n words, n angles, n\n"
             "bytes that choose cosine or sine, and n pairs of 64 bits more.");

static PyObject *call_doubles(PyObject *self, PyObject *args) {
    PyObject *given[5], *result = NULL;
    Py_buffer held[5];
    static const Py_ssize_t size[5] = {4, 4, 1, 16, 8};
    int open = 0;
    if (!PyArg_ParseTuple(args, "OOOOO", &given[0], &given[1], &given[2], &given[3], &given[4]))
        return NULL;
    for (; open < 5; open++)
        if (buffer(given[open], &held[open], open == 4, open ? held[0].len / 4 * size[open] : 0) < 0)
            goto done;
    const uint32_t *words = held[0].buf, *angles = held[1].buf;
    const uint8_t *second = held[2].buf;
    const uint64_t *fine = held[3].buf;
    double *out = held[4].buf;
    for (Py_ssize_t i = 0; i < held[0].len / 4; i++)
        out[i] = fine_normal(words[i], angles[i], second[i], fine[2 * i], fine[2 * i + 1]);
    result = Py_None;
    Py_INCREF(result);
done:
    while (open) PyBuffer_Release(&held[--open]);
    return result;
}

static PyMethodDef methods[] = {
    {"normals", call_normals, METH_VARARGS, normals_doc},
    {"rounded", call_rounded, METH_VARARGS, rounded_doc},
    {"doubles", call_doubles, METH_VARARGS, doubles_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_normals", "Compiled twins of nacre.core.normals.plain.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__normals(void) { return PyModule_Create(&module); }
