/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-native.h"


#define SELF(object) ((FerryNativeBuffer *) (object))

PyObject *
ferry_native_buffer_new (FerryBuffer *buffer)
{
  FerryNativeBuffer *self = PyObject_New (FerryNativeBuffer, &FerryNativeBuffer_Type);

  if (self == NULL)
    {
      ferry_buffer_unref (buffer);
      return NULL;
    }
  self->buffer = buffer;
  self->n_exports = 0;
  self->array_dtype = NULL;
  self->reference = NULL;
  self->array_offset = 0;
  self->weakrefs = NULL;
  return (PyObject *) self;
}

static void
buffer_dealloc (PyObject *object)
{
  FerryNativeBuffer *self = SELF (object);

  if (self->weakrefs != NULL)
    PyObject_ClearWeakRefs (object);
  g_clear_pointer (&self->buffer, ferry_buffer_unref);
  Py_CLEAR (self->array_dtype);
  g_clear_pointer (&self->reference, ferry_store_reference_unref);
  PyObject_Free (object);
}

static FerryBuffer *
buffer_check (PyObject *object)
{
  if (SELF (object)->buffer == NULL)
    PyErr_SetString (PyExc_ValueError, "the buffer was released or sent");
  return SELF (object)->buffer;
}

static int
buffer_getbuffer (PyObject *object, Py_buffer *view, int flags)
{
  FerryBuffer *buffer = buffer_check (object);
  gsize size;
  const guint8 *data;

  view->obj = NULL;
  if (buffer == NULL)
    return -1;
  data = ferry_buffer_get_data (buffer, &size);
  if (PyBuffer_FillInfo (view, object, (void *) data, (Py_ssize_t) size, !ferry_buffer_is_writable (buffer), flags) < 0)
    return -1;
  SELF (object)->n_exports++;
  return 0;
}

static void
buffer_releasebuffer (PyObject *object, Py_buffer *view)
{
  SELF (object)->n_exports--;
}

static Py_ssize_t
buffer_length (PyObject *object)
{
  return SELF (object)->buffer != NULL ? (Py_ssize_t) ferry_buffer_get_size (SELF (object)->buffer) : 0;
}

static PyObject *
buffer_release (PyObject *object, PyObject *unused)
{
  if (SELF (object)->n_exports > 0)
    {
      PyErr_Format (PyExc_BufferError, "%zd views on the buffer exist; delete them first", SELF (object)->n_exports);
      return NULL;
    }
  g_clear_pointer (&SELF (object)->buffer, ferry_buffer_unref);
  Py_RETURN_NONE;
}

static PyObject *
buffer_enter (PyObject *object, PyObject *unused)
{
  return buffer_check (object) != NULL ? Py_NewRef (object) : NULL;
}

static PyObject *
buffer_exit (PyObject *object, PyObject *const *args, Py_ssize_t n_args)
{
  return buffer_release (object, NULL);
}

static PyObject *
buffer_resize (PyObject *object, PyObject *argument)
{
  FerryBuffer *buffer = buffer_check (object);
  Py_ssize_t size = PyLong_AsSsize_t (argument);

  if (buffer == NULL || (size == -1 && PyErr_Occurred ()))
    return NULL;
  if (SELF (object)->n_exports > 0)
    {
      PyErr_SetString (PyExc_BufferError, "views on the buffer exist; delete them before its size changes");
      return NULL;
    }
  if (size < 0 || !ferry_buffer_set_size (buffer, (gsize) size))
    {
      PyErr_Format (PyExc_ValueError, "a size of %zd bytes is more than was loaned, or the buffer is read only", size);
      return NULL;
    }
  Py_RETURN_NONE;
}

/* An array lies in it from now on, behind the header that is written already. */
static PyObject *
buffer_set_array (PyObject *object, PyObject *args)
{
  const FerryNativeCodec *codec = ferry_native_get_codec ("numpy", FALSE);
  FerryBuffer *buffer;
  PyObject *dtype;
  Py_ssize_t offset;

  if (codec == NULL || !PyArg_ParseTuple (args, "On", &dtype, &offset))
    return NULL;
  buffer = buffer_check (object);
  if (buffer == NULL)
    return NULL;
  ferry_buffer_set_wire_name (buffer, ferry_codec_get_wire_name (codec->codec),
                              ferry_codec_get_wire_version (codec->codec));
  Py_XSETREF (SELF (object)->array_dtype, Py_NewRef (dtype));
  SELF (object)->array_offset = (gsize) offset;
  Py_RETURN_NONE;
}

static PyObject *
buffer_get_data (PyObject *object, void *closure)
{
  return buffer_check (object) != NULL ? PyMemoryView_FromObject (object) : NULL;
}

static PyObject *
buffer_get_size (PyObject *object, void *closure)
{
  FerryBuffer *buffer = buffer_check (object);

  return buffer != NULL ? PyLong_FromSize_t (ferry_buffer_get_size (buffer)) : NULL;
}

static PyObject *
buffer_get_sequence (PyObject *object, void *closure)
{
  FerryBuffer *buffer = buffer_check (object);

  return buffer != NULL ? PyLong_FromUnsignedLongLong (ferry_buffer_get_sequence (buffer)) : NULL;
}

static PyObject *
buffer_get_timestamp (PyObject *object, void *closure)
{
  FerryBuffer *buffer = buffer_check (object);

  return buffer != NULL ? PyLong_FromLongLong (ferry_buffer_get_timestamp (buffer)) : NULL;
}

static int
buffer_set_timestamp (PyObject *object, PyObject *value, void *closure)
{
  FerryBuffer *buffer;
  gint64 timestamp;

  if (value == NULL)
    {
      PyErr_SetString (PyExc_AttributeError, "timestamp can't be deleted");
      return -1;
    }
  timestamp = PyLong_AsLongLong (value);
  if (timestamp == -1 && PyErr_Occurred ())
    return -1;
  buffer = buffer_check (object); /* after the number, which may be made by Python code */
  if (buffer == NULL)
    return -1;
  ferry_buffer_set_timestamp (buffer, timestamp);
  return 0;
}

static PyObject *
buffer_get_sender (PyObject *object, void *closure)
{
  FerryBuffer *buffer = buffer_check (object);

  return buffer != NULL ? PyLong_FromUnsignedLong (ferry_buffer_get_sender (buffer)) : NULL;
}

static PyObject *
buffer_get_writable (PyObject *object, void *closure)
{
  FerryBuffer *buffer = buffer_check (object);

  return buffer != NULL ? PyBool_FromLong (ferry_buffer_is_writable (buffer)) : NULL;
}

static PyObject *
buffer_get_released (PyObject *object, void *closure)
{
  return PyBool_FromLong (SELF (object)->buffer == NULL);
}

static PyObject *
buffer_get_codec (PyObject *object, void *closure)
{
  FerryBuffer *buffer = buffer_check (object);
  g_autofree char *name = NULL;

  if (buffer == NULL)
    return NULL;
  name = ferry_buffer_dup_wire_name (buffer, NULL);
  return PyUnicode_FromString (name);
}

static PyObject *
buffer_repr (PyObject *object)
{
  FerryBuffer *buffer = SELF (object)->buffer;

  if (buffer == NULL)
    return PyUnicode_FromString ("<ferry.Buffer, released>");
  return PyUnicode_FromFormat ("<ferry.Buffer, %zu bytes, %s>", ferry_buffer_get_size (buffer),
                               ferry_buffer_is_writable (buffer) ? "writable" : "read only");
}

static PyMethodDef buffer_methods[] = {
  { "release", buffer_release, METH_NOARGS,
    "release($self, /)\n--\n\n"
    "Give the memory back to the channel; done also when the object is deleted.\n\n"
    "Raises\n------\nBufferError\n    While views on the buffer exist." },
  { "resize", buffer_resize, METH_O,
    "resize($self, size, /)\n--\n\n"
    "Make a loaned buffer shorter before it is sent, or longer again up to what was loaned.\n\n"
    "Parameters\n----------\nsize : int\n    Bytes." },
  { "_set_array", buffer_set_array, METH_VARARGS, NULL },
  { "__enter__", buffer_enter, METH_NOARGS, NULL },
  { "__exit__", (PyCFunction) (void (*) (void)) buffer_exit, METH_FASTCALL, NULL },
  { NULL },
};

static PyGetSetDef buffer_getset[] = {
  { "data", buffer_get_data, NULL, "memoryview: the contents, without a copy", NULL },
  { "size", buffer_get_size, NULL, "int: bytes", NULL },
  { "sequence", buffer_get_sequence, NULL, "int: position in the channel, counted over all senders", NULL },
  { "timestamp", buffer_get_timestamp, buffer_set_timestamp,
    "int: what the sender set, or monotonic microseconds with the property timestamps; 0: none", NULL },
  { "sender", buffer_get_sender, NULL, "int: the id of the participant that sent it", NULL },
  { "writable", buffer_get_writable, NULL, "bool: whether the contents may be written", NULL },
  { "released", buffer_get_released, NULL, "bool: whether it was released or sent", NULL },
  { "codec", buffer_get_codec, NULL, "str: the wire name of the codec of the message", NULL },
  { NULL },
};

static PyBufferProcs buffer_procs = { buffer_getbuffer, buffer_releasebuffer };

static PySequenceMethods buffer_sequence = { .sq_length = buffer_length };

PyTypeObject FerryNativeBuffer_Type = {
  PyVarObject_HEAD_INIT (NULL, 0).tp_name = "ferry.Buffer",
  .tp_doc = "A block of a channel: received, or loaned to be filled and sent.\n\n"
            "It offers its bytes by the buffer protocol, so `memoryview(buffer)`, `bytes(buffer)` and\n"
            "`numpy.frombuffer(buffer, dtype)` work, the last without a copy. Whoever has a view on it\n"
            "keeps the block; nothing else is held. Read only where the mode is broadcast.",
  .tp_basicsize = sizeof (FerryNativeBuffer),
  .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
  .tp_dealloc = buffer_dealloc,
  .tp_repr = buffer_repr,
  .tp_as_buffer = &buffer_procs,
  .tp_as_sequence = &buffer_sequence,
  .tp_methods = buffer_methods,
  .tp_getset = buffer_getset,
  .tp_weaklistoffset = offsetof (FerryNativeBuffer, weakrefs),
};
