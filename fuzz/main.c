/* A fuzzer with Python inside: the target that FUZZ_TARGET names, of the compiled modules below FUZZ_SITE. */
#include <Python.h>
#include <frameobject.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static int (*target)(const uint8_t *, size_t);

/* Lines of Python that were run count as coverage, too: libFuzzer looks at this section as at its own counters. */
__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t lines[1 << 12];

static int ran(PyObject *self, PyFrameObject *frame, int what, PyObject *argument) {
    if (what == PyTrace_LINE) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        lines[((uintptr_t)code / 16 * 31 + (unsigned)PyFrame_GetLineNumber(frame)) % sizeof lines]++;
        Py_DECREF(code);
    }
    return 0;
}

static void must(int fine) {
    if (!fine) {
        PyErr_Print();
        abort();
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    PyObject *path, *site, *module, *address;
    Py_InitializeEx(0);
    must((path = PySys_GetObject("path")) && (site = PyUnicode_FromString(getenv("FUZZ_SITE"))));
    must(PyList_Insert(path, 0, site) == 0 && (module = PyImport_ImportModule("fixer._fuzz")) != NULL);
    must((address = PyObject_CallMethod(module, "target", "s", getenv("FUZZ_TARGET"))) != NULL);
    target = (int (*)(const uint8_t *, size_t))PyLong_AsSize_t(address);
    must(!PyErr_Occurred());
    PyEval_SetTrace(ran, NULL);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    must(target(data, size) >= 0);
    return 0;
}
