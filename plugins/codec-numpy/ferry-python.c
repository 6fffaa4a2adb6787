/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-python.h"

#include <string.h>

/* Where PyObject_HEAD is, and what follows it in ours. */
typedef struct
{
  PyObject head;
  FerryBuffer *buffer;
} FerryPythonMessage;

/* Needs no GIL: both functions only read what is set once (https://docs.python.org/3/c-api/init.html). */
gboolean
ferry_python_available (GError **error)
{
  static int same_version; /* 1 or -1 when it is known */
  int known = g_atomic_int_get (&same_version);

  if (Py_IsInitialized == NULL || !Py_IsInitialized ())
    {
      g_set_error_literal (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
                           "no Python interpreter in this process; Python objects need one");
      return FALSE;
    }

  if (G_UNLIKELY (known == 0))
    {
      const char *version = Py_GetVersion ();
      const char *compiled = G_STRINGIFY (PY_MAJOR_VERSION) "." G_STRINGIFY (PY_MINOR_VERSION) ".";

      known = g_str_has_prefix (version, compiled) ? 1 : -1;
      g_atomic_int_set (&same_version, known);
    }
  if (known < 0)
    {
      g_set_error (
          error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
          "this process runs Python %.16s, but Ferry was compiled for Python %d.%d; use that, or rebuild Ferry",
          Py_GetVersion (), PY_MAJOR_VERSION, PY_MINOR_VERSION);
      return FALSE;
    }
  return TRUE;
}

GType
ferry_python_get_object_type (void)
{
  static gsize cached;
  gsize type = (gsize) g_atomic_pointer_get (&cached);

  if (G_UNLIKELY (type == 0))
    {
      type = g_type_from_name ("PyObject");
      g_atomic_pointer_set (&cached, type);
    }
  return type;
}

/* No PyGILState_STATE. */
#define HAD_GIL (-1)

int
ferry_python_enter (void)
{
  return PyGILState_Check () ? HAD_GIL : (int) PyGILState_Ensure ();
}

void
ferry_python_leave (int entered)
{
  if (entered != HAD_GIL)
    PyGILState_Release ((PyGILState_STATE) entered);
}

void
ferry_python_take_exception (GError **error, FerryError code, const char *prefix)
{
  PyObject *type = NULL;
  PyObject *value = NULL;
  PyObject *traceback = NULL;
  PyObject *text = NULL;
  const char *message = NULL;

  PyErr_Fetch (&type, &value, &traceback);
  if (error != NULL)
    {
      text = value != NULL ? PyObject_Str (value) : NULL;
      message = text != NULL ? PyUnicode_AsUTF8 (text) : NULL;
      g_set_error (error, FERRY_ERROR, (int) code, "%s: %s: %s", prefix,
                   type != NULL ? ((PyTypeObject *) type)->tp_name : "error", message != NULL ? message : "");
    }
  Py_XDECREF (text);
  Py_XDECREF (type);
  Py_XDECREF (value);
  Py_XDECREF (traceback);
  PyErr_Clear ();
}

static void
message_dealloc (PyObject *object)
{
  FerryPythonMessage *self = (FerryPythonMessage *) object;
  PyTypeObject *type = Py_TYPE (object);

  ferry_buffer_unref (self->buffer);
  PyObject_Free (self);
  Py_DECREF (type); /* of heap types each instance holds one */
}

static int
message_getbuffer (PyObject *object, Py_buffer *view, int flags)
{
  FerryPythonMessage *self = (FerryPythonMessage *) object;
  gsize size;
  const guint8 *data = ferry_buffer_get_data (self->buffer, &size);

  return PyBuffer_FillInfo (view, object, (gpointer) data, (Py_ssize_t) size, !ferry_buffer_is_writable (self->buffer),
                            flags);
}

/* The GIL is what makes this happen once. */
static PyTypeObject *
get_message_type (GError **error)
{
  static PyTypeObject *type;
  PyType_Slot slots[] = {
    { Py_tp_dealloc, message_dealloc },
    { Py_bf_getbuffer, message_getbuffer },
    { Py_tp_doc, "A received message, as long as something refers to it." },
    { 0, NULL },
  };
  PyType_Spec spec = {
    .name = "ferry.Message",
    .basicsize = sizeof (FerryPythonMessage),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
  };

  if (G_LIKELY (type != NULL))
    return type;
  type = (PyTypeObject *) PyType_FromSpec (&spec);
  if (type == NULL)
    ferry_python_take_exception (error, FERRY_ERROR_FAILED, "can't make the type of messages");
  return type;
}

PyObject *
ferry_python_new_message (FerryBuffer *buffer, GError **error)
{
  PyTypeObject *type = get_message_type (error);
  FerryPythonMessage *self;

  if (type == NULL)
    return NULL;
  self = PyObject_New (FerryPythonMessage, type);
  if (self == NULL)
    {
      ferry_python_take_exception (error, FERRY_ERROR_NO_SPACE, "can't make a message object");
      return NULL;
    }
  self->buffer = ferry_buffer_ref (buffer);
  return (PyObject *) self;
}
