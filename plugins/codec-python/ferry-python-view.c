/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-python-view.h"

#include <string.h>

/* An object with the buffer protocol: what a memoryview refers to. */
typedef struct
{
  PyVarObject head;
  PyObject *base;
  guint8 *data;
  gsize size;
  gboolean readonly;
  char *format;
  gsize item_size;
  guint n_dimensions;
  gssize dimensions[]; /* the shape, then the strides */
} View;

static void
view_dealloc (PyObject *object)
{
  View *self = (View *) object;
  PyTypeObject *type = Py_TYPE (object);

  Py_DECREF (self->base);
  g_free (self->format);
  PyObject_Free (self);
  Py_DECREF (type); /* of heap types each instance holds one */
}

/* Consumers ask for less than everything, but may be told more: only who can't take what is there is refused. */
static int
view_getbuffer (PyObject *object, Py_buffer *buffer, int flags)
{
  View *self = (View *) object;

  if ((flags & PyBUF_WRITABLE) == PyBUF_WRITABLE && self->readonly)
    {
      PyErr_SetString (PyExc_BufferError, "the memory of this message is read-only");
      return -1;
    }
  buffer->buf = self->data;
  buffer->obj = Py_NewRef (object);
  buffer->len = (Py_ssize_t) self->size;
  buffer->readonly = self->readonly;
  buffer->itemsize = (Py_ssize_t) self->item_size;
  buffer->format = (flags & PyBUF_FORMAT) == PyBUF_FORMAT ? self->format : NULL;
  buffer->ndim = (int) self->n_dimensions;
  buffer->shape = (flags & PyBUF_ND) == PyBUF_ND ? self->dimensions : NULL;
  buffer->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? self->dimensions + self->n_dimensions : NULL;
  buffer->suboffsets = NULL;
  buffer->internal = NULL;
  return 0;
}

static PyTypeObject *
get_view_type (void)
{
  static PyTypeObject *type;
  PyType_Slot slots[] = {
    { Py_tp_dealloc, view_dealloc },
    { Py_bf_getbuffer, view_getbuffer },
    { Py_tp_doc, "The memory of a memoryview in a received message." },
    { 0, NULL },
  };
  PyType_Spec spec = {
    .name = "ferry.View",
    .basicsize = sizeof (View),
    .itemsize = sizeof (gssize),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
  };

  if (G_UNLIKELY (type == NULL))
    type = (PyTypeObject *) PyType_FromSpec (&spec);
  return type;
}

/*
 * memoryview reads items of the formats that it knows by itself without asking how large they are: a format that does not
 * go with the item size would let it read elsewhere. All others go through the module struct, which does compare.
 */
static gboolean
format_fits (const char *format, gsize item_size)
{
  static const struct
  {
    char format;
    guint8 size;
  } known[] = {
    { 'c', 1 },
    { 'b', sizeof (signed char) },
    { 'B', sizeof (unsigned char) },
    { 'h', sizeof (short) },
    { 'H', sizeof (unsigned short) },
    { 'i', sizeof (int) },
    { 'I', sizeof (unsigned int) },
    { 'l', sizeof (long) },
    { 'L', sizeof (unsigned long) },
    { 'q', sizeof (long long) },
    { 'Q', sizeof (unsigned long long) },
    { 'n', sizeof (gssize) },
    { 'N', sizeof (gsize) },
    { 'e', 2 },
    { 'f', sizeof (float) },
    { 'd', sizeof (double) },
    { 'g', sizeof (long double) },
    { 'F', 2 * sizeof (float) },
    { 'D', 2 * sizeof (double) },
    { 'G', 2 * sizeof (long double) },
    { 'u', sizeof (wchar_t) },
    { 'w', 4 },
    { '?', sizeof (_Bool) },
  };

  if (format[0] == '@')
    format++;
  if (format[0] == '\0')
    return FALSE;

  /* Pointers would be addresses of another process. */
  if (strchr (format, 'P') != NULL || strchr (format, 'O') != NULL)
    return FALSE;
  if (format[1] != '\0')
    return TRUE;
  for (guint i = 0; i < G_N_ELEMENTS (known); i++)
    if (known[i].format == format[0])
      return known[i].size == item_size;
  return strchr ("spx", format[0]) != NULL;
}

PyObject *
ferry_python_view_new (PyObject *base, guint8 *data, gsize size, gboolean readonly, const char *format, gsize item_size,
                       const gssize *shape, guint n_dimensions)
{
  PyTypeObject *type = get_view_type ();
  gsize product = item_size;
  gsize stride = item_size;
  gsize count = 1;
  View *self;
  PyObject *memoryview;

  if (type == NULL)
    return NULL;
  for (guint i = 0; i < n_dimensions; i++)
    {
      /* As everywhere: no overflow, even where another length is 0. */
      if (shape[i] < 0 || __builtin_mul_overflow (product, (gsize) MAX (shape[i], 1), &product) || product > G_MAXSSIZE)
        {
          PyErr_SetString (PyExc_ValueError, "the shape of a memoryview makes no sense");
          return NULL;
        }
      count *= (gsize) shape[i];
    }
  if (item_size == 0 || item_size > G_MAXSSIZE || count * item_size != size || n_dimensions > PyBUF_MAX_NDIM
      || !format_fits (format, item_size))
    {
      PyErr_Format (PyExc_ValueError, "no memoryview has %zu bytes and items of %zu bytes and format '%.20s'", size,
                    item_size, format);
      return NULL;
    }

  self = PyObject_NewVar (View, type, 2 * (Py_ssize_t) n_dimensions);
  if (self == NULL)
    return NULL;
  self->base = Py_NewRef (base);
  self->data = data;
  self->size = size;
  self->readonly = readonly;
  self->format = g_strdup (format);
  self->item_size = item_size;
  self->n_dimensions = n_dimensions;
  for (guint i = n_dimensions; i-- > 0;)
    {
      self->dimensions[i] = shape[i];
      self->dimensions[n_dimensions + i] = (gssize) stride;
      stride *= (gsize) MAX (shape[i], 1);
    }

  memoryview = PyMemoryView_FromObject ((PyObject *) self);
  Py_DECREF (self);
  return memoryview;
}
