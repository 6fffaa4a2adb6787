/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-python-decoder.h"
#include "ferry-python-encoder.h"

#include "fuzz.h"

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

/* Any message gives an object or an error, without pickle; an object is encoded and decoded again. */
int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  g_autoptr (FerryBuffer) buffer = NULL;
  g_autoptr (GError) error = NULL;
  PyObject *object;
  FerryPythonEncoder *encoder;

  if (!Py_IsInitialized ())
    Py_InitializeEx (0);

  buffer = ferry_buffer_new_take ((gpointer) data, size, FALSE, NULL, NULL);
  object = ferry_python_decode (buffer, FALSE, &error);
  g_assert_null (PyErr_Occurred ());
  if (object == NULL)
    {
      g_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
      return 0;
    }
  look_at (object);

  encoder = ferry_python_encoder_encode (object, FALSE, &error);
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
          PyObject *again = ferry_python_decode (buffer_again, FALSE, &error);

          g_assert_no_error (error);
          g_assert_nonnull (again);
          Py_DECREF (again);
        }
      ferry_python_encoder_free (encoder);
    }
  Py_DECREF (object);
  return 0;
}
