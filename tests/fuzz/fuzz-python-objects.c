/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-python-decoder.h"
#include "ferry-python-encoder.h"

#include "fuzz.h"

/* Where pickles are allowed a sender may call whatever it can name. Here that is this module only: harmless classes and
 * functions, one for each form that an object may have. */
#define MODULE "ferry_fuzz"

static const char module_source[] = "import collections, enum\n"
                                    "class Plain:\n"
                                    "    pass\n"
                                    "class Slots:\n"
                                    "    __slots__ = ('a', 'b')\n"
                                    "class Arguments:\n"
                                    "    def __new__(cls, *args, **keywords):\n"
                                    "        self = super().__new__(cls)\n"
                                    "        self.args, self.keywords = args, keywords\n"
                                    "        return self\n"
                                    "    def __getnewargs_ex__(self):\n"
                                    "        return self.args, self.keywords\n"
                                    "class State:\n"
                                    "    def __getstate__(self):\n"
                                    "        return self.state\n"
                                    "    def __setstate__(self, state):\n"
                                    "        self.state = state\n"
                                    "class List(list):\n"
                                    "    pass\n"
                                    "class Dict(dict):\n"
                                    "    pass\n"
                                    "class Colour(enum.Enum):\n"
                                    "    RED = 1\n"
                                    "Pair = collections.namedtuple('Pair', 'a b', module=__name__)\n"
                                    "class Made:\n"
                                    "    def __init__(self, args):\n"
                                    "        self.args = args\n"
                                    "    def __reduce__(self):\n"
                                    "        return make, (), self.args, None, None, set_state\n"
                                    "def make(*args):\n"
                                    "    return Made(args)\n"
                                    "def set_state(made, state):\n"
                                    "    made.args = state\n";

static const char *const findable[]
    = { "Plain", "Slots", "Arguments", "State", "List", "Dict", "Colour", "Pair", "Made", "make", "set_state" };

/* What must not happen, whatever the bytes are. Importing executes code too, so that "exec" is none of them. */
static const char *const deadly[] = { "ctypes.dlopen",  "os.exec",   "os.fork",        "os.remove",       "os.rename",
                                      "os.posix_spawn", "os.system", "socket.__new__", "subprocess.Popen" };

static gboolean pickles_are_read;

/* https://docs.python.org/3/library/audit_events.html */
static int
audit_cb (const char *event, PyObject *args, void *unused)
{
  PyObject *module;
  PyObject *name;

  if (!pickles_are_read)
    return 0;
  for (guint i = 0; i < G_N_ELEMENTS (deadly); i++)
    if (g_str_equal (event, deadly[i]))
      g_error ("a message has led to %s", event);
  if (!g_str_equal (event, "pickle.find_class"))
    return 0;

  module = PyTuple_GET_ITEM (args, 0);
  name = PyTuple_GET_ITEM (args, 1);
  if (PyUnicode_Check (module) && PyUnicode_Check (name) && PyUnicode_CompareWithASCIIString (module, MODULE) == 0)
    for (guint i = 0; i < G_N_ELEMENTS (findable); i++)
      if (PyUnicode_CompareWithASCIIString (name, findable[i]) == 0)
        return 0;
  PyErr_SetString (PyExc_ImportError, "not to be found here");
  return -1;
}

static void
start (void)
{
  PyObject *dict;
  PyObject *result;

  PySys_AddAuditHook (audit_cb, NULL);
  Py_InitializeEx (0);
  dict = PyModule_GetDict (PyImport_AddModule (MODULE));
  result = PyRun_String (module_source, Py_file_input, dict, dict);
  if (result == NULL)
    {
      PyErr_Print ();
      g_error ("the module " MODULE " can't be made");
    }
  Py_DECREF (result);
}

/* Reads the elements of arrays and the like as well as what is in containers. */
static void
look_at (PyObject *object)
{
  static PyObject *pickle_dumps;
  PyObject *text = PyObject_Repr (object);
  PyObject *pickled;

  Py_XDECREF (text);
  PyErr_Clear ();
  if (pickle_dumps == NULL)
    {
      PyObject *module = PyImport_ImportModule ("pickle");

      g_assert_nonnull (module);
      pickle_dumps = PyObject_GetAttrString (module, "dumps");
      Py_DECREF (module);
    }
  pickled = PyObject_CallOneArg (pickle_dumps, object);
  Py_XDECREF (pickled);
  PyErr_Clear ();
}

/* Any message gives an object or an error; an object is encoded and decoded again. */
static void
check (const guint8 *data, gsize size, gboolean pickle)
{
  g_autoptr (FerryBuffer) buffer = ferry_buffer_new_take ((gpointer) data, size, FALSE, NULL, NULL);
  g_autoptr (GError) error = NULL;
  PyObject *object;
  FerryPythonEncoder *encoder;

  object = ferry_python_decode (buffer, pickle, &error);
  g_assert_null (PyErr_Occurred ());
  if (object == NULL)
    {
      g_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
      return;
    }
  look_at (object);

  encoder = ferry_python_encoder_encode (object, pickle, NULL, &error);
  g_assert_null (PyErr_Occurred ());
  if (encoder != NULL)
    {
      gsize needed = 0;
      gpointer message;

      g_assert_true (ferry_python_output_get_size (&encoder->output, &needed, &error));
      message = g_aligned_alloc (1, needed, 64);
      if (ferry_python_output_write (&encoder->output, message, needed, &error))
        {
          g_autoptr (FerryBuffer) buffer_again = ferry_buffer_new_take (message, needed, TRUE, g_aligned_free, message);
          PyObject *again = ferry_python_decode (buffer_again, pickle, &error);

          /* With pickles an object may say that it is made in a way that fails. */
          g_assert_true (again != NULL || pickle);
          g_assert_true ((again == NULL) == (error != NULL));
          Py_XDECREF (again);
        }
      ferry_python_encoder_free (encoder);
    }
  Py_DECREF (object);
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  if (!Py_IsInitialized ())
    start ();

  check (data, size, FALSE);
  pickles_are_read = TRUE;
  check (data, size, TRUE);
  pickles_are_read = FALSE;
  return 0;
}
