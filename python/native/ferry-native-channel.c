/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-native-store.h"

#include <stddef.h>

#define NPY_NO_DEPRECATED_API NPY_1_20_API_VERSION
#include <numpy/ndarraytypes.h>
#include <string.h>

#define SELF(object) ((FerryNativeChannel *) (object))

/* Where codec-numpy has the shape in its header, see docs/wire-formats.md. */
#define FERRY_NATIVE_NUMPY_SHAPE (16)

/* ---- values: Python objects travel in GValues of PyGObject's boxed type ---- */

static GType
object_type (void)
{
  static GType type = G_TYPE_INVALID;

  if (G_UNLIKELY (type == G_TYPE_INVALID))
    type = g_type_from_name ("PyObject");
  return type;
}

/* A reference of ours is not taken: the value lives no longer than the call. */
static inline void
value_borrow (GValue *value, PyObject *object)
{
  memset (value, 0, sizeof *value);
  value->g_type = object_type ();
  value->data[0].v_pointer = object;
  value->data[1].v_uint = G_VALUE_NOCOPY_CONTENTS;
}

static PyObject *
bytes_from_gbytes (const GValue *value)
{
  GBytes *bytes = g_value_get_boxed (value);
  gsize size = 0;
  gconstpointer data = bytes != NULL ? g_bytes_get_data (bytes, &size) : NULL;

  return ferry_native_bytes_new (data, size);
}

/* What is no Python object, for instance a GVariant, goes the way of gi; slow is fine. */
static PyObject *
object_from_value (const GValue *value)
{
  PyObject *module = PyImport_ImportModule ("ferry._values");
  PyObject *result = NULL;

  if (module == NULL)
    return NULL;
  if (G_VALUE_HOLDS_VARIANT (value))
    {
      g_autofree char *text = g_variant_print (g_value_get_variant (value), TRUE);

      result = PyObject_CallMethod (module, "from_variant_text", "s", text);
    }
  else if (G_VALUE_HOLDS (value, FERRY_TYPE_STORE_REFERENCE))
    {
      result = ferry_native_object_for_reference (g_value_get_boxed (value));
    }
  else
    {
      PyErr_Format (PyExc_TypeError, "the message is a %s, which has no counterpart in Python",
                    G_VALUE_TYPE_NAME (value));
    }
  Py_DECREF (module);
  return result;
}

/* The object of a value, which is empty afterwards. */
static inline PyObject *
value_steal (GValue *value)
{
  PyObject *object;

  if (G_LIKELY (value->g_type == object_type ()))
    {
      object = value->data[0].v_pointer;
      if (value->data[1].v_uint & G_VALUE_NOCOPY_CONTENTS)
        Py_XINCREF (object);
      if (object == NULL)
        object = Py_NewRef (Py_None);
      return object;
    }
  object = G_VALUE_HOLDS (value, G_TYPE_BYTES) ? bytes_from_gbytes (value) : object_from_value (value);
  g_value_unset (value);
  return object;
}

/* ---- which codec ---- */

static gboolean
is_plain_array (PyObject *object)
{
  static PyTypeObject *array_type;
  PyTypeObject *type = Py_TYPE (object);

  if (G_UNLIKELY (array_type == NULL))
    {
      /* There is no array as long as nobody imported numpy. */
      if (PyType_HasFeature (type, Py_TPFLAGS_HEAPTYPE) || strcmp (type->tp_name, "numpy.ndarray") != 0)
        return FALSE;
      array_type = (PyTypeObject *) Py_NewRef ((PyObject *) type);
    }
  return type == array_type && !PyDataType_REFCHK (PyArray_DESCR ((PyArrayObject *) object));
}

#define BUILT_IN                                                                                                       \
  (Py_TPFLAGS_LONG_SUBCLASS | Py_TPFLAGS_LIST_SUBCLASS | Py_TPFLAGS_TUPLE_SUBCLASS | Py_TPFLAGS_BYTES_SUBCLASS         \
   | Py_TPFLAGS_UNICODE_SUBCLASS | Py_TPFLAGS_DICT_SUBCLASS)

static inline const FerryNativeCodec *
codec_for (FerryNativeChannel *self, PyObject *object, gboolean *array_found)
{
  static const FerryNativeCodec *any[2];
  static const FerryNativeCodec *array;

  if (self->fixed.codec != NULL)
    return &self->fixed;
  if (!PyType_HasFeature (Py_TYPE (object), BUILT_IN) && is_plain_array (object))
    {
      if (array == NULL)
        array = ferry_native_get_codec ("numpy", FALSE);
      *array_found = TRUE;
      return array;
    }
  if (G_UNLIKELY (any[self->pickle] == NULL))
    any[self->pickle] = ferry_native_get_codec ("python", self->pickle);
  return any[self->pickle];
}

/* What is live goes as a reference, and with a store of the channel's what can be made live there. NULL: it is neither.
 * FALSE with an exception. */
static inline gboolean
reference_for (FerryNativeChannel *self, PyObject *object, FerryStoreReference **reference)
{
  *reference = NULL;
  if (!self->sends_live || (self->store == NULL && PyType_HasFeature (Py_TYPE (object), BUILT_IN)))
    return TRUE;
  return ferry_native_store_reference_for (object, (FerryNativeStore *) self->store, reference);
}

static void
value_borrow_reference (GValue *value, FerryStoreReference *reference)
{
  memset (value, 0, sizeof *value);
  value->g_type = FERRY_TYPE_STORE_REFERENCE;
  value->data[0].v_pointer = reference;
  value->data[1].v_uint = G_VALUE_NOCOPY_CONTENTS;
}

/* ---- life ---- */

static GQueue all_channels = G_QUEUE_INIT; /* under the GIL */

void
ferry_native_channels_forked (void)
{
  for (GList *link = all_channels.head; link != NULL; link = link->next)
    {
      FerryNativeChannel *self = link->data;

      self->n_inside = 0;
      self->is_opening = FALSE;
    }
}

FerryNativeChannel *
ferry_native_channel_create (PyTypeObject *type, const char *description, FerryRole role, const char *codec,
                             gboolean pickle)
{
  g_autoptr (GError) error = NULL;
  FerryNativeChannel *self;
  FerryChannel *channel = ferry_channel_new_from_description (description, role, &error);

  if (channel == NULL)
    {
      ferry_native_raise (&error);
      return NULL;
    }
  self = (FerryNativeChannel *) type->tp_alloc (type, 0);
  if (self == NULL)
    {
      g_object_unref (channel);
      return NULL;
    }
  self->channel = channel;
  self->link.data = self;
  g_queue_push_tail_link (&all_channels, &self->link);
  self->pickle = pickle;
  self->timeout = FERRY_WAIT_FOREVER;
  if (codec != NULL)
    g_object_set (channel, "codec", codec, NULL);
  return self;
}

static gboolean
described_pickle (FerryChannel *channel)
{
  FerryCodec *codec = ferry_channel_get_codec_object (channel);
  gboolean pickle = FALSE;

  if (codec != NULL && g_object_class_find_property (G_OBJECT_GET_CLASS (codec), "pickle") != NULL)
    g_object_get (codec, "pickle", &pickle, NULL);
  return pickle;
}

/* Without a word about pickles it is as the description says. */
static PyObject *
channel_new (PyTypeObject *type, PyObject *args, PyObject *keywords)
{
  static char *names[] = { "description", "role", "codec", "pickle", NULL };
  const char *description;
  int role;
  const char *codec = NULL;
  PyObject *pickle = Py_None;
  int may_pickle = FALSE;
  FerryNativeChannel *self;

  if (!PyArg_ParseTupleAndKeywords (args, keywords, "si|zO", names, &description, &role, &codec, &pickle)
      || (pickle != Py_None && (may_pickle = PyObject_IsTrue (pickle)) < 0))
    return NULL;
  if (role < FERRY_ROLE_SENDER || role > FERRY_ROLE_OBSERVER)
    {
      PyErr_SetString (PyExc_ValueError, "role must be sender, receiver or observer");
      return NULL;
    }
  self = ferry_native_channel_create (type, description, (FerryRole) role, codec, may_pickle != 0);
  if (self != NULL && pickle == Py_None)
    self->pickle = described_pickle (self->channel);
  return (PyObject *) self;
}

static void
channel_dealloc (PyObject *object)
{
  FerryNativeChannel *self = SELF (object);

  if (self->weakrefs != NULL)
    PyObject_ClearWeakRefs (object);
  if (self->link.data != NULL)
    g_queue_unlink (&all_channels, &self->link);
  if (self->channel != NULL)
    {
      ferry_channel_close (self->channel, NULL);
      g_clear_object (&self->channel);
    }
  g_clear_object (&self->fixed.codec);
  Py_CLEAR (self->store);
  Py_TYPE (object)->tp_free (object);
}

static gboolean
value_from_object (GValue *value, GParamSpec *spec, PyObject *object)
{
  g_value_init (value, spec->value_type);
  if (G_VALUE_HOLDS_ENUM (value) && PyUnicode_Check (object))
    {
      const char *nick = PyUnicode_AsUTF8 (object);
      GEnumValue *entry = nick != NULL ? g_enum_get_value_by_nick (G_PARAM_SPEC_ENUM (spec)->enum_class, nick) : NULL;

      if (entry == NULL)
        {
          if (!PyErr_Occurred ())
            PyErr_Format (PyExc_ValueError, "%s: no such value '%s'", spec->name, nick);
          return FALSE;
        }
      g_value_set_enum (value, entry->value);
    }
  else if (G_VALUE_HOLDS_STRING (value))
    {
      if (object != Py_None && !PyUnicode_Check (object))
        {
          PyErr_Format (PyExc_TypeError, "%s must be a string, not %s", spec->name, Py_TYPE (object)->tp_name);
          return FALSE;
        }
      g_value_set_string (value, object != Py_None ? PyUnicode_AsUTF8 (object) : NULL);
    }
  else
    {
      g_auto (GValue) number = G_VALUE_INIT;
      PyObject *index = PyNumber_Index (object);

      if (index == NULL)
        return FALSE;
      if (spec->value_type == G_TYPE_UINT64)
        {
          g_value_init (&number, G_TYPE_UINT64);
          g_value_set_uint64 (&number, PyLong_AsUnsignedLongLong (index));
        }
      else
        {
          g_value_init (&number, G_TYPE_INT64);
          g_value_set_int64 (&number, PyLong_AsLongLong (index));
        }
      Py_DECREF (index);
      if (PyErr_Occurred ())
        return FALSE;
      if (G_VALUE_HOLDS_ENUM (value))
        g_value_set_enum (value, (int) g_value_get_int64 (&number));
      else if (G_VALUE_HOLDS_BOOLEAN (value))
        g_value_set_boolean (value, g_value_get_int64 (&number) != 0);
      else if (!g_value_type_transformable (G_VALUE_TYPE (&number), spec->value_type)
               || (spec->value_type == G_TYPE_UINT
                   && g_value_get_int64 (&number) != (guint) g_value_get_int64 (&number))
               || !g_value_transform (&number, value))
        {
          PyErr_Format (PyExc_ValueError, "%s: %S is out of range", spec->name, object);
          return FALSE;
        }
    }
  return !PyErr_Occurred ();
}

/* NULL with an exception. */
static char *
property_name (PyObject *key)
{
  const char *text = PyUnicode_AsUTF8 (key);

  return text != NULL ? g_strdelimit (g_strdup (text), "_", '-') : NULL;
}

/* A property of the channel, else of the transport. */
int
ferry_native_channel_set (FerryNativeChannel *self, PyObject *key, PyObject *value)
{
  g_auto (GValue) converted = G_VALUE_INIT;
  g_autofree char *name = property_name (key);
  g_autoptr (FerryChannel) channel = NULL;
  GObject *object;
  GParamSpec *spec;

  if (name == NULL)
    return -1;
  if (self->channel == NULL || self->is_open)
    {
      PyErr_Format (PyExc_ValueError, "the channel is open or closed: its property '%s' can't be changed any more",
                    name);
      return -1;
    }
  channel = g_object_ref (self->channel); /* the value may be made by Python code, which may close */
  object = G_OBJECT (channel);
  spec = g_object_class_find_property (G_OBJECT_GET_CLASS (object), name);
  if (spec == NULL)
    {
      object = G_OBJECT (ferry_channel_get_transport_object (channel));
      spec = object != NULL ? g_object_class_find_property (G_OBJECT_GET_CLASS (object), name) : NULL;
    }
  if (spec == NULL)
    {
      PyErr_Format (PyExc_TypeError, "neither channels nor this transport have a property '%s'", name);
      return -1;
    }
  if (!value_from_object (&converted, spec, value))
    return -1;
  if (g_param_value_validate (spec, &converted))
    {
      PyErr_Format (PyExc_ValueError, "%s: %R is out of range", name, value);
      return -1;
    }
  g_object_set_property (object, name, &converted);
  return 0;
}

static void
channel_exit (FerryNativeChannel *self)
{
  /* In a fork child it may be 0 already. */
  if (self->n_inside > 0)
    self->n_inside--;
  if (self->n_inside == 0 && self->is_closed)
    g_clear_object (&self->channel);
}

static int
channel_raise_closed (void)
{
  ferry_native_raise_code (FERRY_ERROR_CLOSED, "the channel was closed; make another object");
  return -1;
}

/* What depends on the transport and on the codec, once it is open. */
static void
channel_opened (FerryNativeChannel *self)
{
  FerryOverflow overflow;
  FerryCodec *codec = ferry_channel_get_codec_object (self->channel);

  if (codec == NULL)
    {
      /* What arrives is decoded as this end allows; without the plugin there is nothing to decode so. */
      const FerryNativeCodec *any = ferry_native_get_codec ("python", self->pickle);

      if (any != NULL)
        ferry_channel_add_codec (self->channel, any->codec);
      else
        PyErr_Clear ();
      /* So that the first array need not wait until its codec is found. */
      any = PyMapping_HasKeyString (PyImport_GetModuleDict (), "numpy") ? ferry_native_get_codec ("numpy", FALSE)
                                                                        : NULL;
      if (any != NULL)
        ferry_channel_add_codec (self->channel, any->codec);
      else
        PyErr_Clear ();
    }
  g_object_get (self->channel, "overflow", &overflow, NULL);
  self->waits_for_room = overflow == FERRY_OVERFLOW_BLOCK || overflow == FERRY_OVERFLOW_ERROR;
  if (codec != NULL && self->fixed.codec == NULL)
    {
      if (g_object_class_find_property (G_OBJECT_GET_CLASS (codec), "pickle") != NULL)
        g_object_set (codec, "pickle", self->pickle, NULL);
      self->fixed.iface = FERRY_CODEC_GET_IFACE (codec);
      self->is_raw = strcmp (ferry_codec_get_wire_name (codec), "raw") == 0;
      self->fixed.codec = g_object_ref (codec);
    }
  self->sends_live = codec == NULL || ferry_codec_accepts (codec, FERRY_TYPE_STORE_REFERENCE);
}

int
ferry_native_channel_open (FerryNativeChannel *self)
{
  g_autoptr (GError) error = NULL;
  gboolean ok;

  if (self->channel == NULL || self->is_closed)
    return channel_raise_closed ();
  if (self->is_opening)
    {
      ferry_native_raise_code (FERRY_ERROR_INVALID_ARGUMENT, "another thread is opening the channel");
      return -1;
    }
  self->is_opening = TRUE;
  self->n_inside++;
  Py_BEGIN_ALLOW_THREADS
  ok = ferry_channel_open (self->channel, NULL, &error);
  Py_END_ALLOW_THREADS
  if (ok)
    channel_opened (self);
  self->is_opening = FALSE;
  if (ok && self->is_closed)
    {
      /* Another thread did not want it any more; then there was nothing to be closed yet. */
      Py_BEGIN_ALLOW_THREADS
      ferry_channel_close (self->channel, NULL);
      Py_END_ALLOW_THREADS
    }
  else if (ok)
    {
      self->is_open = TRUE;
    }
  if (self->is_closed)
    channel_raise_closed ();
  else if (!ok)
    ferry_native_raise (&error);
  ok = self->is_open;
  channel_exit (self);
  return ok && !PyErr_Occurred () ? 0 : -1;
}

/* Who waits in other threads is told; the last one out frees. */
void
ferry_native_channel_close (FerryNativeChannel *self)
{
  if (self->is_closed || self->channel == NULL)
    return;
  self->is_closed = TRUE;
  self->is_open = FALSE;
  self->n_inside++;
  Py_BEGIN_ALLOW_THREADS
  ferry_channel_close (self->channel, NULL);
  Py_END_ALLOW_THREADS
  channel_exit (self);
}

static gboolean
channel_check_open (FerryNativeChannel *self)
{
  if (G_LIKELY (self->is_open))
    return TRUE;
  ferry_native_raise_code (FERRY_ERROR_CLOSED, self->is_closed ? "the channel was closed"
                                                               : "the channel is not open yet; call open() first");
  return FALSE;
}

gboolean
ferry_native_channel_enter (FerryNativeChannel *self)
{
  if (!channel_check_open (self))
    return FALSE;
  self->n_inside++;
  Py_INCREF (self);
  return TRUE;
}

void
ferry_native_channel_leave (FerryNativeChannel *self)
{
  channel_exit (self);
  Py_DECREF (self);
}

/* ---- sending ---- */

/* The end of a slice: whether to go on. */
static inline FerryNativeStatus
slice_ended (FerryNativeWait *wait, GError **error)
{
  if (!g_error_matches (*error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT)
      && !g_error_matches (*error, FERRY_ERROR, FERRY_ERROR_EMPTY)
      && !g_error_matches (*error, FERRY_ERROR, FERRY_ERROR_FULL))
    {
      if (g_error_matches (*error, FERRY_ERROR, FERRY_ERROR_END_OF_STREAM))
        {
          g_clear_error (error);
          return FERRY_NATIVE_ENDED;
        }
      ferry_native_raise (error);
      return FERRY_NATIVE_FAILED;
    }
  /* With overflow=error full is the answer, however long one would wait. */
  if (g_error_matches (*error, FERRY_ERROR, FERRY_ERROR_FULL))
    wait->deadline = 0;
  g_clear_error (error);
  if (PyErr_CheckSignals () < 0)
    return FERRY_NATIVE_FAILED;
  return ferry_native_wait_slice (wait, 1) > 0 ? FERRY_NATIVE_OK : FERRY_NATIVE_TIMED_OUT;
}

/* @codec NULL: raw. The bytes stay as they are: nobody else has them, or their owner is locked. */
static FerryNativeStatus
send_slowly (FerryNativeChannel *self, FerryCodec *codec, const guint8 *data, gsize size, gint64 timeout)
{
  FerryNativeWait wait = ferry_native_wait_begin (timeout);
  FerryNativeStatus status = FERRY_NATIVE_OK;

  self->n_inside++;
  while (status == FERRY_NATIVE_OK)
    {
      g_autoptr (GError) error = NULL;
      gint64 slice
          = timeout == FERRY_NO_WAIT ? FERRY_NO_WAIT : MAX (ferry_native_wait_slice (&wait, FERRY_NATIVE_SLICE_US), 1);
      gboolean ok;

      Py_BEGIN_ALLOW_THREADS
      ok = codec != NULL ? ferry_channel_send_encoded (self->channel, codec, data, size, slice, NULL, &error)
                         : ferry_channel_send (self->channel, data, size, slice, NULL, &error);
      Py_END_ALLOW_THREADS
      if (ok)
        break;
      status = slice_ended (&wait, &error);
    }
  channel_exit (self);
  return status;
}

FerryNativeStatus
ferry_native_channel_put_bytes (FerryNativeChannel *self, const guint8 *data, gsize size, gint64 timeout)
{
  if (G_UNLIKELY (!channel_check_open (self)))
    return FERRY_NATIVE_FAILED;
  if (size <= FERRY_NATIVE_STACK && ferry_channel_send (self->channel, data, size, FERRY_NO_WAIT, NULL, NULL))
    return FERRY_NATIVE_OK;
  return send_slowly (self, NULL, data, size, timeout);
}

FerryNativeStatus
ferry_native_channel_put_buffer (FerryNativeChannel *self, FerryBuffer *buffer, gint64 timeout)
{
  FerryNativeWait wait;
  FerryNativeStatus status = FERRY_NATIVE_OK;

  if (G_UNLIKELY (!channel_check_open (self)))
    return FERRY_NATIVE_FAILED;
  if (ferry_channel_send_buffer (self->channel, buffer, FERRY_NO_WAIT, NULL, NULL))
    return FERRY_NATIVE_OK;
  wait = ferry_native_wait_begin (timeout);
  self->n_inside++;
  while (status == FERRY_NATIVE_OK)
    {
      g_autoptr (GError) error = NULL;
      gint64 slice
          = timeout == FERRY_NO_WAIT ? FERRY_NO_WAIT : MAX (ferry_native_wait_slice (&wait, FERRY_NATIVE_SLICE_US), 1);
      gboolean ok;

      Py_BEGIN_ALLOW_THREADS
      ok = ferry_channel_send_buffer (self->channel, buffer, slice, NULL, &error);
      Py_END_ALLOW_THREADS
      if (ok)
        break;
      status = slice_ended (&wait, &error);
    }
  channel_exit (self);
  return status;
}

/* Nothing is copied only to find the ring full then. */
static FerryNativeStatus
wait_for_room (FerryNativeChannel *self, FerryNativeWait *wait, gint64 timeout)
{
  FerryNativeStatus status = FERRY_NATIVE_OK;

  if (!self->waits_for_room || ferry_channel_wait (self->channel, G_IO_OUT, FERRY_NO_WAIT, NULL, NULL))
    return FERRY_NATIVE_OK;
  if (timeout == FERRY_NO_WAIT)
    return FERRY_NATIVE_TIMED_OUT;
  self->n_inside++;
  while (status == FERRY_NATIVE_OK)
    {
      g_autoptr (GError) error = NULL;
      gint64 slice = MAX (ferry_native_wait_slice (wait, FERRY_NATIVE_SLICE_US), 1);
      gboolean ok;

      Py_BEGIN_ALLOW_THREADS
      ok = ferry_channel_wait (self->channel, G_IO_OUT, slice, NULL, &error);
      Py_END_ALLOW_THREADS
      if (ok)
        break;
      status = slice_ended (wait, &error);
    }
  channel_exit (self);
  return status;
}

FerryNativeStatus
ferry_native_channel_wait_for_room (FerryNativeChannel *self, FerryNativeWait *wait, gint64 timeout, gboolean *waited)
{
  if (!channel_check_open (self))
    return FERRY_NATIVE_FAILED;
  *waited = self->waits_for_room && !ferry_channel_wait (self->channel, G_IO_OUT, FERRY_NO_WAIT, NULL, NULL);
  return *waited ? wait_for_room (self, wait, timeout) : FERRY_NATIVE_OK;
}

static FerryNativeStatus
loan (FerryNativeChannel *self, gsize size, FerryNativeWait *wait, gint64 timeout, FerryBuffer **buffer)
{
  FerryNativeStatus status = FERRY_NATIVE_OK;

  self->n_inside++;
  while (status == FERRY_NATIVE_OK)
    {
      g_autoptr (GError) error = NULL;
      gint64 slice
          = timeout == FERRY_NO_WAIT ? FERRY_NO_WAIT : MAX (ferry_native_wait_slice (wait, FERRY_NATIVE_SLICE_US), 1);

      Py_BEGIN_ALLOW_THREADS
      *buffer = ferry_channel_loan (self->channel, size, slice, NULL, &error);
      Py_END_ALLOW_THREADS
      if (*buffer != NULL)
        break;
      status = slice_ended (wait, &error);
    }
  channel_exit (self);
  return status;
}

/* The measured state refers to objects that other threads may change while we wait: what waits measures again. */
static FerryNativeStatus
put_large (FerryNativeChannel *self, const FerryNativeCodec *codec, const GValue *value, gsize size, gpointer state,
           gint64 timeout)
{
  FerryNativeWait wait = ferry_native_wait_begin (timeout);
  g_autoptr (FerryBuffer) buffer = NULL;
  g_autoptr (GError) error = NULL;
  FerryNativeStatus status;
  gboolean ok;

  if (size < FERRY_NATIVE_PATIENT_SIZE
      && (!self->waits_for_room || ferry_channel_wait (self->channel, G_IO_OUT, FERRY_NO_WAIT, NULL, NULL)))
    buffer = ferry_channel_loan (self->channel, size, FERRY_NO_WAIT, NULL, NULL);
  while (buffer == NULL)
    {
      gsize had = size;

      if (state != NULL && codec->iface->free_state != NULL)
        codec->iface->free_state (codec->codec, state);
      state = NULL;
      status = wait_for_room (self, &wait, timeout);
      if (status == FERRY_NATIVE_OK)
        status = loan (self, size, &wait, timeout, &buffer);
      if (status != FERRY_NATIVE_OK)
        return status;
      if (!channel_check_open (self))
        return FERRY_NATIVE_FAILED;
      if (!codec->iface->measure (codec->codec, value, &size, &state, &error))
        {
          ferry_native_raise (&error);
          return FERRY_NATIVE_FAILED;
        }
      if (size > had)
        g_clear_pointer (&buffer, ferry_buffer_unref);
      else if (size < had)
        ferry_buffer_set_size (buffer, size);
    }
  self->n_inside++; /* the codec may release the GIL while it copies */
  ok = codec->iface->encode (codec->codec, value, ferry_buffer_get_writable_data (buffer, NULL), size, state, &error);
  if (state != NULL && codec->iface->free_state != NULL)
    codec->iface->free_state (codec->codec, state);
  if (!ok)
    {
      ferry_native_raise (&error);
      status = FERRY_NATIVE_FAILED;
    }
  else
    {
      ferry_buffer_set_wire_name (buffer, ferry_codec_get_wire_name (codec->codec),
                                  ferry_codec_get_wire_version (codec->codec));
      status = ferry_native_channel_put_buffer (
          self, buffer, timeout <= 0 ? timeout : MAX (ferry_native_wait_slice (&wait, timeout), 1));
    }
  channel_exit (self);
  return status;
}

/* The array that loan() returned, as it was: its block becomes the message. NULL: it is another, to be copied. */
static FerryNativeBuffer *
loaned_block (PyObject *object)
{
  PyArrayObject *array = (PyArrayObject *) object;
  FerryNativeBuffer *block = (FerryNativeBuffer *) PyArray_BASE (array);
  npy_intp n_bytes = PyArray_ITEMSIZE (array);
  const guint8 *data;
  gsize size;
  gint64 shape[NPY_MAXDIMS];

  if (G_LIKELY (block == NULL || !Py_IS_TYPE (block, &FerryNativeBuffer_Type)) || block->buffer == NULL
      || block->array_dtype == NULL || (PyObject *) PyArray_DESCR (array) != block->array_dtype)
    return NULL;
  data = ferry_buffer_get_data (block->buffer, &size);
  for (int i = 0; i < PyArray_NDIM (array); i++)
    {
      shape[i] = GINT64_TO_LE ((gint64) PyArray_DIM (array, i));
      n_bytes *= PyArray_DIM (array, i);
    }
  return PyArray_IS_C_CONTIGUOUS (array) && PyArray_BYTES (array) == (const char *) data + block->array_offset
                 && block->array_offset + (gsize) n_bytes == size && data[1] == PyArray_NDIM (array)
                 && memcmp (data + FERRY_NATIVE_NUMPY_SHAPE, shape, (gsize) PyArray_NDIM (array) * sizeof *shape) == 0
             ? block
             : NULL;
}

static FerryNativeStatus
put_loaned_array (FerryNativeChannel *self, FerryNativeBuffer *block, PyObject *array, gint64 timeout)
{
  FerryNativeStatus status;
  g_autoptr (FerryBuffer) held = ferry_buffer_ref (block->buffer);
  PyObject *dtype = g_steal_pointer (&block->array_dtype); /* no other thread sends it meanwhile */

  status = ferry_native_channel_put_buffer (self, held, timeout);
  if (status != FERRY_NATIVE_OK)
    {
      block->array_dtype = dtype;
      return status;
    }
  Py_DECREF (dtype);
  /* The memory is another's now. The block object goes on holding the mapping, so that looking at it is no crash. */
  PyArray_CLEARFLAGS ((PyArrayObject *) array, NPY_ARRAY_WRITEABLE);
  return status;
}

/* With codec raw objects are what their buffers contain. */
static FerryNativeStatus
put_contents (FerryNativeChannel *self, PyObject *object, gint64 timeout)
{
  FerryNativeStatus status;
  Py_buffer view;

  if (PyObject_GetBuffer (object, &view, PyBUF_SIMPLE) < 0)
    return FERRY_NATIVE_FAILED;
  status = ferry_native_channel_put_bytes (self, view.buf, (gsize) view.len, timeout);
  PyBuffer_Release (&view);
  return status;
}

gboolean
ferry_native_channel_set_store (FerryNativeChannel *self, PyObject *store)
{
  if (store != Py_None && !PyObject_TypeCheck (store, &FerryNativeStore_Type))
    {
      PyErr_Format (PyExc_TypeError, "store must be a ferry.Store, not %.200s", Py_TYPE (store)->tp_name);
      return FALSE;
    }
  Py_XSETREF (self->store, store != Py_None ? Py_NewRef (store) : NULL);
  return TRUE;
}

static PyObject *
channel_set_store (PyObject *object, PyObject *store)
{
  if (!ferry_native_channel_set_store (SELF (object), store))
    return NULL;
  Py_RETURN_NONE;
}

static FerryNativeStatus
put_reference (FerryNativeChannel *self, FerryStoreReference *reference, gint64 timeout)
{
  guint8 message[FERRY_STORE_REFERENCE_SIZE] __attribute__ ((aligned (64)));
  FerryCodec *codec = self->fixed.codec;
  GError *error = NULL;
  GValue value;

  if (codec == NULL)
    {
      const FerryNativeCodec *found = ferry_native_get_codec ("store", FALSE);

      if (found == NULL)
        return FERRY_NATIVE_FAILED;
      codec = found->codec;
    }
  value_borrow_reference (&value, reference);
  if (!ferry_codec_encode (codec, &value, message, sizeof message, NULL, &error))
    {
      ferry_native_raise (&error);
      return FERRY_NATIVE_FAILED;
    }
  if (!channel_check_open (self))
    return FERRY_NATIVE_FAILED;
  if (ferry_channel_send_encoded (self->channel, codec, message, sizeof message, FERRY_NO_WAIT, NULL, NULL))
    return FERRY_NATIVE_OK;
  return send_slowly (self, codec, message, sizeof message, timeout);
}

/* Who is inside stays: encoding may release the GIL, and another thread close the channel. */
static FerryNativeStatus
put_inside (FerryNativeChannel *self, PyObject *object, gint64 timeout)
{
  guint8 small[FERRY_NATIVE_STACK] __attribute__ ((aligned (64)));
  const FerryNativeCodec *codec;
  GError *error = NULL;
  GValue value;
  gpointer state = NULL;
  gsize size = 0;
  gboolean is_array = FALSE;
  gboolean ok;
  FerryStoreReference *reference;

  if (G_UNLIKELY (self->is_raw))
    return put_contents (self, object, timeout);
  if (G_UNLIKELY (!reference_for (self, object, &reference)))
    return FERRY_NATIVE_FAILED;
  if (reference != NULL)
    {
      FerryNativeStatus status = put_reference (self, reference, timeout);

      ferry_store_reference_unref (reference);
      return status;
    }
  codec = codec_for (self, object, &is_array);
  if (G_UNLIKELY (codec == NULL))
    return FERRY_NATIVE_FAILED;
  if (is_array)
    {
      FerryNativeBuffer *block = loaned_block (object);

      if (block != NULL)
        return put_loaned_array (self, block, object, timeout);
    }
  value_borrow (&value, object);
  if (G_UNLIKELY (!codec->iface->measure (codec->codec, &value, &size, &state, &error)))
    {
      ferry_native_raise (&error);
      return FERRY_NATIVE_FAILED;
    }
  /* Measuring may have run Python code. */
  if (G_UNLIKELY (!self->is_open) || size > sizeof small)
    {
      if (channel_check_open (self))
        return put_large (self, codec, &value, size, state, timeout);
      if (state != NULL && codec->iface->free_state != NULL)
        codec->iface->free_state (codec->codec, state);
      return FERRY_NATIVE_FAILED;
    }
  ok = codec->iface->encode (codec->codec, &value, small, size, state, &error);
  if (state != NULL && codec->iface->free_state != NULL)
    codec->iface->free_state (codec->codec, state);
  if (G_UNLIKELY (!ok))
    {
      ferry_native_raise (&error);
      return FERRY_NATIVE_FAILED;
    }
  if (G_LIKELY (ferry_channel_send_encoded (self->channel, codec->codec, small, size, FERRY_NO_WAIT, NULL, NULL)))
    return FERRY_NATIVE_OK;
  return send_slowly (self, codec->codec, small, size, timeout);
}

FerryNativeStatus
ferry_native_channel_put (FerryNativeChannel *self, PyObject *object, gint64 timeout)
{
  FerryNativeStatus status;

  if (G_UNLIKELY (!channel_check_open (self)))
    return FERRY_NATIVE_FAILED;
  self->n_inside++;
  status = put_inside (self, object, timeout);
  channel_exit (self);
  return status;
}

/* The message in memory of this process, to be sent later. */
PyObject *
ferry_native_channel_encode (FerryNativeChannel *self, PyObject *object)
{
  const FerryNativeCodec *codec;
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) bytes = NULL;
  g_auto (GValue) value = G_VALUE_INIT;
  g_autoptr (FerryStoreReference) reference = NULL;
  FerryBuffer *buffer;
  PyObject *result;
  gboolean is_array = FALSE;

  if (!reference_for (self, object, &reference))
    return NULL;
  codec = reference != NULL && self->fixed.codec == NULL ? ferry_native_get_codec ("store", FALSE)
                                                         : codec_for (self, object, &is_array);
  if (codec == NULL)
    return NULL;
  if (self->is_raw)
    {
      Py_buffer view;

      if (PyObject_GetBuffer (object, &view, PyBUF_SIMPLE) < 0)
        return NULL;
      bytes = g_bytes_new (view.buf, (gsize) view.len);
      PyBuffer_Release (&view);
    }
  else
    {
      g_value_init (&value, reference != NULL ? FERRY_TYPE_STORE_REFERENCE : object_type ());
      g_value_set_boxed (&value, reference != NULL ? (gpointer) reference : object);
      bytes = ferry_codec_encode_bytes (codec->codec, &value, &error);
      if (bytes == NULL)
        return ferry_native_raise (&error);
    }
  buffer = ferry_buffer_new_bytes (bytes);
  ferry_buffer_set_wire_name (buffer, ferry_codec_get_wire_name (codec->codec),
                              ferry_codec_get_wire_version (codec->codec));
  result = ferry_native_buffer_new (buffer);
  if (result != NULL)
    ((FerryNativeBuffer *) result)->reference = g_steal_pointer (&reference);
  return result;
}

/* Memory to be filled in place: for the caller it is a buffer, for the codec raw bytes. */
PyObject *
ferry_native_channel_loan (FerryNativeChannel *self, gsize size, gint64 timeout)
{
  FerryNativeWait wait = ferry_native_wait_begin (timeout);
  FerryBuffer *buffer = NULL;
  FerryNativeStatus status;

  if (!channel_check_open (self))
    return NULL;
  status = loan (self, size, &wait, timeout, &buffer);
  if (status == FERRY_NATIVE_OK)
    return ferry_native_buffer_new (buffer);
  if (status == FERRY_NATIVE_TIMED_OUT)
    ferry_native_raise_code (timeout == FERRY_NO_WAIT ? FERRY_ERROR_FULL : FERRY_ERROR_TIMED_OUT,
                             "no memory could be loaned in time: messages and held views take all of max-bytes");
  return NULL;
}

/* ---- receiving ---- */

static FerryNativeStatus
take_slowly (FerryNativeChannel *self, gint64 timeout, FerryBuffer **buffer)
{
  FerryNativeWait wait = ferry_native_wait_begin (timeout);
  FerryNativeStatus status = FERRY_NATIVE_OK;

  self->n_inside++;
  while (status == FERRY_NATIVE_OK)
    {
      g_autoptr (GError) error = NULL;
      gint64 slice
          = timeout == FERRY_NO_WAIT ? FERRY_NO_WAIT : MAX (ferry_native_wait_slice (&wait, FERRY_NATIVE_SLICE_US), 1);

      Py_BEGIN_ALLOW_THREADS
      *buffer = ferry_channel_receive (self->channel, slice, NULL, &error);
      Py_END_ALLOW_THREADS
      if (*buffer != NULL)
        break;
      status = slice_ended (&wait, &error);
    }
  channel_exit (self);
  return status;
}

FerryNativeStatus
ferry_native_channel_take (FerryNativeChannel *self, gint64 timeout, FerryBuffer **buffer)
{
  if (G_UNLIKELY (!channel_check_open (self)))
    return FERRY_NATIVE_FAILED;
  *buffer = ferry_channel_receive (self->channel, FERRY_NO_WAIT, NULL, NULL);
  return G_LIKELY (*buffer != NULL) ? FERRY_NATIVE_OK : take_slowly (self, timeout, buffer);
}

PyObject *
ferry_native_channel_decode (FerryNativeChannel *self, FerryBuffer *buffer, gboolean copy, gboolean *was_raw)
{
  FerryChannel *channel = self->channel;
  GError *error = NULL;
  GValue value = G_VALUE_INIT;
  PyObject *object;
  gboolean is_array = FALSE;
  gboolean ok;
  int is_reference;

  self->n_inside++; /* what is looked for, and the codec, may release the GIL, or run Python code */
  is_reference = ferry_native_store_prepare_reference (buffer, self->fixed.codec, self->pickle);
  if (G_UNLIKELY (is_reference < 0))
    {
      channel_exit (self);
      ferry_buffer_unref (buffer);
      return NULL;
    }
  if (copy && is_reference == 0)
    {
      guint version;
      g_autofree char *name = ferry_buffer_dup_wire_name (buffer, &version);

      is_array = g_str_equal (name, "numpy");
      if (!is_array)
        {
          /* Arrays may be anywhere inside: they become views on a copy of the message. */
          gsize size;
          const guint8 *data = ferry_buffer_get_data (buffer, &size);
          FerryBuffer *twin = ferry_buffer_new (size);

          ferry_buffer_fill (twin, 0, data, size);
          ferry_buffer_set_wire_name (twin, name, version);
          ferry_buffer_unref (buffer);
          buffer = twin;
        }
    }
  ok = ferry_channel_decode (channel, buffer, &value, &error);
  channel_exit (self);
  ferry_buffer_unref (buffer);
  if (G_UNLIKELY (!ok))
    return ferry_native_raise (&error);
  if (was_raw != NULL)
    *was_raw = G_VALUE_HOLDS (&value, G_TYPE_BYTES);
  object = value_steal (&value);
  if (G_UNLIKELY (is_array) && object != NULL)
    Py_SETREF (object, PyObject_CallMethod (object, "copy", "s", "K"));
  return object;
}

FerryNativeStatus
ferry_native_channel_get (FerryNativeChannel *self, gint64 timeout, gboolean copy, PyObject **object)
{
  FerryBuffer *buffer;
  FerryNativeStatus status;

  self->n_inside++; /* what was taken is decoded, although another thread closes the channel in between */
  status = ferry_native_channel_take (self, timeout, &buffer);
  if (G_LIKELY (status == FERRY_NATIVE_OK))
    {
      *object = ferry_native_channel_decode (self, buffer, copy, NULL);
      if (G_UNLIKELY (*object == NULL))
        status = FERRY_NATIVE_FAILED;
    }
  channel_exit (self);
  return status;
}

/* ---- looking ---- */

Py_ssize_t
ferry_native_channel_count_waiting (FerryNativeChannel *self)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryStatistics) statistics = NULL;

  if (!channel_check_open (self))
    return -1;
  statistics = ferry_channel_get_statistics (self->channel, &error);
  if (statistics == NULL)
    {
      ferry_native_raise (&error);
      return -1;
    }
  return (Py_ssize_t) statistics->in_flight;
}

gboolean
ferry_native_channel_get_descriptors (FerryNativeChannel *self, int *control_fd, int *data_fd)
{
  GObject *transport = self->channel != NULL ? G_OBJECT (ferry_channel_get_transport_object (self->channel)) : NULL;

  if (transport == NULL || g_object_class_find_property (G_OBJECT_GET_CLASS (transport), "control-fd") == NULL)
    return FALSE;
  g_object_get (transport, "control-fd", control_fd, "data-fd", data_fd, NULL);
  return *control_fd >= 0 && *data_fd >= 0;
}

/* ---- methods ---- */

/* The exception for a call of a channel that did not succeed. */
static PyObject *
channel_raise (FerryNativeStatus status, gboolean sending, gint64 timeout)
{
  if (status == FERRY_NATIVE_ENDED)
    return ferry_native_raise_code (FERRY_ERROR_END_OF_STREAM,
                                    "every sender has ended its stream and all messages are taken");
  if (status == FERRY_NATIVE_TIMED_OUT && timeout == FERRY_NO_WAIT)
    return ferry_native_raise_code (sending ? FERRY_ERROR_FULL : FERRY_ERROR_EMPTY,
                                    sending ? "the channel is full" : "no message waits");
  if (status == FERRY_NATIVE_TIMED_OUT)
    return ferry_native_raise_code (FERRY_ERROR_TIMED_OUT, sending ? "no room came within the time-out"
                                                                   : "no message came within the time-out");
  return NULL;
}

static gboolean
parse_own_timeout (FerryNativeChannel *self, PyObject *value, gint64 *timeout)
{
  if (value == NULL)
    {
      *timeout = self->timeout;
      return TRUE;
    }
  return ferry_native_parse_timeout (value, timeout);
}

static PyObject *
channel_open (PyObject *object, PyObject *unused)
{
  return ferry_native_channel_open (SELF (object)) < 0 ? NULL : Py_NewRef (Py_None);
}

static PyObject *
channel_close (PyObject *object, PyObject *unused)
{
  ferry_native_channel_close (SELF (object));
  Py_RETURN_NONE;
}

static PyObject *
channel_set (PyObject *object, PyObject *const *args, Py_ssize_t n_args)
{
  if (n_args != 2 || !PyUnicode_Check (args[0]))
    {
      PyErr_SetString (PyExc_TypeError, "_set() takes a name and a value");
      return NULL;
    }
  return ferry_native_channel_set (SELF (object), args[0], args[1]) < 0 ? NULL : Py_NewRef (Py_None);
}

static PyObject *
channel_get (PyObject *object, PyObject *name)
{
  FerryNativeChannel *self = SELF (object);
  g_autofree char *key = property_name (name);
  g_auto (GValue) value = G_VALUE_INIT;
  GObject *from = (GObject *) self->channel;
  GParamSpec *spec;

  if (key == NULL)
    return NULL;
  if (from == NULL)
    {
      PyErr_SetString (PyExc_ValueError, "the channel was closed");
      return NULL;
    }
  spec = g_object_class_find_property (G_OBJECT_GET_CLASS (from), key);
  if (spec == NULL && ferry_channel_get_transport_object (self->channel) != NULL)
    {
      from = G_OBJECT (ferry_channel_get_transport_object (self->channel));
      spec = g_object_class_find_property (G_OBJECT_GET_CLASS (from), key);
    }
  if (spec == NULL)
    {
      PyErr_SetObject (PyExc_KeyError, name);
      return NULL;
    }
  g_value_init (&value, spec->value_type);
  g_object_get_property (from, key, &value);
  if (G_VALUE_HOLDS_STRING (&value))
    return Py_BuildValue ("z", g_value_get_string (&value));
  if (G_VALUE_HOLDS_ENUM (&value))
    {
      GEnumValue *entry = g_enum_get_value (G_PARAM_SPEC_ENUM (spec)->enum_class, g_value_get_enum (&value));

      return entry != NULL ? PyUnicode_FromString (entry->value_nick) : PyLong_FromLong (g_value_get_enum (&value));
    }
  if (G_VALUE_HOLDS_BOOLEAN (&value))
    return PyBool_FromLong (g_value_get_boolean (&value));
  if (G_VALUE_HOLDS_UINT64 (&value))
    return PyLong_FromUnsignedLongLong (g_value_get_uint64 (&value));
  if (G_VALUE_HOLDS_INT64 (&value))
    return PyLong_FromLongLong (g_value_get_int64 (&value));
  if (G_VALUE_HOLDS_UINT (&value))
    return PyLong_FromUnsignedLong (g_value_get_uint (&value));
  if (G_VALUE_HOLDS_INT (&value))
    return PyLong_FromLong (g_value_get_int (&value));
  PyErr_Format (PyExc_TypeError, "property '%s' has a type that Python can't show", key);
  return NULL;
}

static PyObject *
channel_send (PyObject *object, PyObject *const *args, Py_ssize_t n_args, PyObject *keywords)
{
  static FerryNativeSignature signature = { "send", { "obj", "timeout" }, 1 };
  PyObject *values[2] = { NULL, NULL };
  FerryNativeStatus status;
  gint64 timeout;

  if (!ferry_native_parse (&signature, args, n_args, keywords, values)
      || !parse_own_timeout (SELF (object), values[1], &timeout))
    return NULL;
  if (Py_IS_TYPE (values[0], &FerryNativeBuffer_Type))
    {
      FerryNativeBuffer *buffer = (FerryNativeBuffer *) values[0];
      g_autoptr (FerryBuffer) held = NULL;

      if (buffer->buffer == NULL)
        {
          PyErr_SetString (PyExc_ValueError, "the buffer was released or sent");
          return NULL;
        }
      if (buffer->n_exports > 0)
        {
          PyErr_Format (PyExc_BufferError, "%zd views on the buffer exist; delete them before it is sent",
                        buffer->n_exports);
          return NULL;
        }
      held = g_steal_pointer (&buffer->buffer); /* no other thread sends, reads or releases it meanwhile */
      status = ferry_native_channel_put_buffer (SELF (object), held, timeout);
      /* a loan is spent; what was received and sent on stays readable */
      if (status != FERRY_NATIVE_OK || ferry_buffer_get_size (held) != 0)
        buffer->buffer = g_steal_pointer (&held);
    }
  else
    {
      status = ferry_native_channel_put (SELF (object), values[0], timeout);
    }
  if (G_LIKELY (status == FERRY_NATIVE_OK))
    Py_RETURN_NONE;
  return channel_raise (status, TRUE, timeout);
}

static PyObject *
channel_send_bytes (PyObject *object, PyObject *const *args, Py_ssize_t n_args, PyObject *keywords)
{
  static FerryNativeSignature signature = { "send_bytes", { "data", "timeout" }, 1 };
  PyObject *values[2] = { NULL, NULL };
  FerryNativeStatus status;
  Py_buffer view;
  gint64 timeout;

  if (!ferry_native_parse (&signature, args, n_args, keywords, values)
      || !parse_own_timeout (SELF (object), values[1], &timeout))
    return NULL;
  if (PyBytes_CheckExact (values[0]))
    {
      status = ferry_native_channel_put_bytes (SELF (object), (const guint8 *) PyBytes_AS_STRING (values[0]),
                                               (gsize) PyBytes_GET_SIZE (values[0]), timeout);
    }
  else
    {
      if (PyObject_GetBuffer (values[0], &view, PyBUF_SIMPLE) < 0)
        return NULL;
      status = ferry_native_channel_put_bytes (SELF (object), view.buf, (gsize) view.len, timeout);
      PyBuffer_Release (&view);
    }
  if (G_LIKELY (status == FERRY_NATIVE_OK))
    Py_RETURN_NONE;
  return channel_raise (status, TRUE, timeout);
}

static PyObject *
channel_receive (PyObject *object, PyObject *const *args, Py_ssize_t n_args, PyObject *keywords)
{
  static FerryNativeSignature signature = { "receive", { "timeout", "copy" }, 0 };
  PyObject *values[2] = { NULL, NULL };
  PyObject *result = NULL;
  FerryNativeStatus status;
  gint64 timeout;
  int copy = FALSE;

  if (!ferry_native_parse (&signature, args, n_args, keywords, values)
      || !parse_own_timeout (SELF (object), values[0], &timeout)
      || (values[1] != NULL && (copy = PyObject_IsTrue (values[1])) < 0))
    return NULL;
  status = ferry_native_channel_get (SELF (object), timeout, copy, &result);
  if (G_LIKELY (status == FERRY_NATIVE_OK))
    return result;
  return channel_raise (status, FALSE, timeout);
}

static FerryBuffer *
channel_take (PyObject *object, const char *function, PyObject *const *args, Py_ssize_t n_args, PyObject *keywords)
{
  static FerryNativeSignature signature = { "receive_buffer", { "timeout" }, 0 };
  PyObject *values[1] = { NULL };
  FerryNativeStatus status;
  FerryBuffer *buffer;
  gint64 timeout;

  if (!ferry_native_parse (&signature, args, n_args, keywords, values)
      || !parse_own_timeout (SELF (object), values[0], &timeout))
    return NULL;
  status = ferry_native_channel_take (SELF (object), timeout, &buffer);
  if (G_LIKELY (status == FERRY_NATIVE_OK))
    return buffer;
  channel_raise (status, FALSE, timeout);
  return NULL;
}

static PyObject *
channel_receive_bytes (PyObject *object, PyObject *const *args, Py_ssize_t n_args, PyObject *keywords)
{
  g_autoptr (FerryBuffer) buffer = channel_take (object, "receive_bytes", args, n_args, keywords);
  const guint8 *data;
  gsize size;

  if (buffer == NULL)
    return NULL;
  data = ferry_buffer_get_data (buffer, &size);
  return ferry_native_bytes_new (data, size);
}

static PyObject *
channel_receive_buffer (PyObject *object, PyObject *const *args, Py_ssize_t n_args, PyObject *keywords)
{
  FerryBuffer *buffer = channel_take (object, "receive_buffer", args, n_args, keywords);

  return buffer != NULL ? ferry_native_buffer_new (buffer) : NULL;
}

static PyObject *
channel_decode (PyObject *object, PyObject *argument)
{
  FerryNativeBuffer *buffer = (FerryNativeBuffer *) argument;

  if (!Py_IS_TYPE (argument, &FerryNativeBuffer_Type) || buffer->buffer == NULL)
    {
      PyErr_SetString (PyExc_TypeError, "decode() takes a ferry.Buffer that was received and not released");
      return NULL;
    }
  return channel_check_open (SELF (object))
             ? ferry_native_channel_decode (SELF (object), ferry_buffer_ref (buffer->buffer), FALSE, NULL)
             : NULL;
}

static PyObject *
channel_loan (PyObject *object, PyObject *const *args, Py_ssize_t n_args, PyObject *keywords)
{
  static FerryNativeSignature signature = { "loan_buffer", { "size", "timeout" }, 1 };
  PyObject *values[2] = { NULL, NULL };
  Py_ssize_t size;
  gint64 timeout;

  if (!ferry_native_parse (&signature, args, n_args, keywords, values)
      || !parse_own_timeout (SELF (object), values[1], &timeout))
    return NULL;
  size = PyNumber_AsSsize_t (values[0], PyExc_OverflowError);
  if (size < 0)
    {
      if (!PyErr_Occurred ())
        PyErr_SetString (PyExc_ValueError, "size must not be negative");
      return NULL;
    }
  return ferry_native_channel_loan (SELF (object), (gsize) size, timeout);
}

/* ferry_channel_wait(), in slices: whether the condition came. */
static PyObject *
channel_wait (PyObject *object, PyObject *const *args, Py_ssize_t n_args, PyObject *keywords)
{
  static FerryNativeSignature signature = { "wait", { "timeout" }, 0 };
  FerryNativeChannel *self = SELF (object);
  PyObject *values[1] = { NULL };
  FerryNativeStatus status = FERRY_NATIVE_OK;
  FerryNativeWait wait;
  FerryRole role;
  gint64 timeout;

  if (!ferry_native_parse (&signature, args, n_args, keywords, values) || !parse_own_timeout (self, values[0], &timeout)
      || !channel_check_open (self))
    return NULL;
  g_object_get (self->channel, "role", &role, NULL);
  wait = ferry_native_wait_begin (timeout);
  self->n_inside++;
  while (status == FERRY_NATIVE_OK)
    {
      g_autoptr (GError) error = NULL;
      gint64 slice
          = timeout == FERRY_NO_WAIT ? FERRY_NO_WAIT : MAX (ferry_native_wait_slice (&wait, FERRY_NATIVE_SLICE_US), 1);
      gboolean ok;

      Py_BEGIN_ALLOW_THREADS
      ok = ferry_channel_wait (self->channel, role == FERRY_ROLE_SENDER ? G_IO_OUT : G_IO_IN, slice, NULL, &error);
      Py_END_ALLOW_THREADS
      if (ok)
        break;
      status = slice_ended (&wait, &error);
    }
  channel_exit (self);
  return status == FERRY_NATIVE_FAILED ? NULL : PyBool_FromLong (status == FERRY_NATIVE_OK);
}

static PyObject *
channel_flush (PyObject *object, PyObject *const *args, Py_ssize_t n_args, PyObject *keywords)
{
  static FerryNativeSignature signature = { "flush", { "timeout" }, 0 };
  FerryNativeChannel *self = SELF (object);
  PyObject *values[1] = { NULL };
  FerryNativeStatus status = FERRY_NATIVE_OK;
  g_autoptr (GError) no_mark = NULL;
  FerryNativeWait wait;
  gint64 timeout;
  guint64 mark;

  if (!ferry_native_parse (&signature, args, n_args, keywords, values) || !parse_own_timeout (self, values[0], &timeout)
      || !channel_check_open (self))
    return NULL;
  if (!ferry_channel_mark (self->channel, &mark, &no_mark))
    return ferry_native_raise (&no_mark);
  wait = ferry_native_wait_begin (timeout);
  self->n_inside++;
  while (status == FERRY_NATIVE_OK)
    {
      g_autoptr (GError) error = NULL;
      gint64 slice
          = timeout == FERRY_NO_WAIT ? FERRY_NO_WAIT : MAX (ferry_native_wait_slice (&wait, FERRY_NATIVE_SLICE_US), 1);
      gboolean ok;

      Py_BEGIN_ALLOW_THREADS
      ok = ferry_channel_flush_mark (self->channel, mark, slice, NULL, &error);
      Py_END_ALLOW_THREADS
      if (ok)
        break;
      status = slice_ended (&wait, &error);
    }
  channel_exit (self);
  if (status == FERRY_NATIVE_OK)
    Py_RETURN_NONE;
  if (status == FERRY_NATIVE_TIMED_OUT)
    ferry_native_raise_code (FERRY_ERROR_TIMED_OUT, "not everything that was sent was taken within the time-out");
  return NULL;
}

static PyObject *
channel_end_of_stream (PyObject *object, PyObject *unused)
{
  g_autoptr (GError) error = NULL;

  if (!channel_check_open (SELF (object)))
    return NULL;
  if (!ferry_channel_end_of_stream (SELF (object)->channel, &error))
    return ferry_native_raise (&error);
  Py_RETURN_NONE;
}

static PyObject *
channel_shut_down (PyObject *object, PyObject *unused)
{
  g_autoptr (GError) error = NULL;

  if (!channel_check_open (SELF (object)))
    return NULL;
  if (!ferry_channel_shut_down (SELF (object)->channel, &error))
    return ferry_native_raise (&error);
  Py_RETURN_NONE;
}

static PyObject *
channel_fileno (PyObject *object, PyObject *unused)
{
  g_autoptr (GError) error = NULL;
  int fd;

  if (!channel_check_open (SELF (object)))
    return NULL;
  fd = ferry_channel_get_fd (SELF (object)->channel, &error);
  return fd >= 0 ? PyLong_FromLong (fd) : ferry_native_raise (&error);
}

static PyObject *
channel_check (PyObject *object, PyObject *unused)
{
  if (!channel_check_open (SELF (object)))
    return NULL;
  return PyBool_FromLong (ferry_channel_check (SELF (object)->channel, G_IO_IN | G_IO_OUT) != 0);
}

static PyObject *
channel_statistics (PyObject *object, PyObject *unused)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryStatistics) s = NULL;

  if (!channel_check_open (SELF (object)))
    return NULL;
  s = ferry_channel_get_statistics (SELF (object)->channel, &error);
  if (s == NULL)
    return ferry_native_raise (&error);
#define U(field) #field, (unsigned long long) s->field
  return Py_BuildValue ("{sK sK sK sK sK sK sK sK sK sK sK sK sK sK sK sK}", U (messages_sent), U (bytes_sent),
                        U (messages_received), U (bytes_received), U (messages_dropped), U (send_waits),
                        U (receive_waits), U (in_flight), U (in_flight_peak), U (capacity), U (bytes_committed),
                        U (bytes_committed_peak), U (max_bytes), U (senders), U (receivers), U (repairs));
#undef U
}

static PyObject *
channel_participants (PyObject *object, PyObject *unused)
{
  static const char *const roles[] = { "sender", "receiver", "observer" };
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) list = NULL;
  PyObject *result;

  if (!channel_check_open (SELF (object)))
    return NULL;
  list = ferry_channel_list_participants (SELF (object)->channel, &error);
  if (list == NULL)
    return ferry_native_raise (&error);
  result = PyList_New ((Py_ssize_t) list->len);
  for (guint i = 0; result != NULL && i < list->len; i++)
    {
      FerryParticipant *p = g_ptr_array_index (list, i);
      PyObject *item
          = Py_BuildValue ("{sI sI ss sL sI sN sK sK sK sK sI}", "id", p->id, "incarnation", p->incarnation, "role",
                           (guint) p->role < G_N_ELEMENTS (roles) ? roles[p->role] : "unknown", "pid",
                           (long long) p->pid, "uid", p->uid, "alive", PyBool_FromLong (p->alive), "messages",
                           (unsigned long long) p->messages, "bytes", (unsigned long long) p->bytes, "waits",
                           (unsigned long long) p->waits, "dropped", (unsigned long long) p->dropped, "held", p->held);

      if (item == NULL)
        Py_CLEAR (result);
      else
        PyList_SET_ITEM (result, i, item);
    }
  return result;
}

static PyObject *
channel_trim (PyObject *object, PyObject *unused)
{
  return channel_check_open (SELF (object)) ? PyLong_FromSize_t (ferry_channel_trim (SELF (object)->channel)) : NULL;
}

static PyObject *
channel_verify (PyObject *object, PyObject *unused)
{
  g_autoptr (GError) error = NULL;

  if (!channel_check_open (SELF (object)))
    return NULL;
  if (!ferry_channel_verify (SELF (object)->channel, &error))
    return ferry_native_raise (&error);
  Py_RETURN_NONE;
}

/* What is sent in place of arrays, see codec-python; for a channel that has a codec object of its own. */
static PyObject *
channel_set_array_reducer (PyObject *object, PyObject *reducer)
{
  FerryNativeChannel *self = SELF (object);

  if (!channel_check_open (self))
    return NULL;
  if (self->fixed.codec == NULL
      || g_object_class_find_property (G_OBJECT_GET_CLASS (self->fixed.codec), "array-reducer") == NULL)
    {
      PyErr_SetString (PyExc_ValueError, "only channels with codec=python have a reducer of arrays");
      return NULL;
    }
  g_object_set (self->fixed.codec, "array-reducer", reducer == Py_None ? NULL : reducer, NULL);
  Py_RETURN_NONE;
}

static PyObject *
channel_description (PyObject *object, PyObject *unused)
{
  g_autofree char *text = NULL;

  if (SELF (object)->channel == NULL)
    return ferry_native_raise_code (FERRY_ERROR_CLOSED, "the channel was closed");
  text = ferry_channel_to_description (SELF (object)->channel);
  return PyUnicode_FromString (text);
}

static PyObject *
channel_address (PyObject *object, PyObject *unused)
{
  return PyLong_FromVoidPtr (SELF (object)->channel);
}

static Py_ssize_t
channel_length (PyObject *object)
{
  return ferry_native_channel_count_waiting (SELF (object));
}

static PyObject *
channel_iternext (PyObject *object)
{
  PyObject *result = NULL;
  FerryNativeStatus status = ferry_native_channel_get (SELF (object), SELF (object)->timeout, FALSE, &result);

  if (G_LIKELY (status == FERRY_NATIVE_OK))
    return result;
  return status == FERRY_NATIVE_ENDED ? NULL : channel_raise (status, FALSE, SELF (object)->timeout);
}

static PyObject *
channel_get_pickle (PyObject *object, void *closure)
{
  return PyBool_FromLong (SELF (object)->pickle);
}

static PyObject *
channel_get_is_open (PyObject *object, void *closure)
{
  return PyBool_FromLong (SELF (object)->is_open);
}

static PyObject *
channel_get_timeout (PyObject *object, void *closure)
{
  gint64 timeout = SELF (object)->timeout;

  return timeout < 0 ? Py_NewRef (Py_None) : PyFloat_FromDouble ((double) timeout / G_USEC_PER_SEC);
}

static int
channel_set_timeout (PyObject *object, PyObject *value, void *closure)
{
  return ferry_native_parse_timeout (value, &SELF (object)->timeout) ? 0 : -1;
}

#define FAST(function) ((PyCFunction) (void (*) (void)) (function)), METH_FASTCALL | METH_KEYWORDS

static PyMethodDef channel_methods[] = {
  { "open", channel_open, METH_NOARGS,
    "open($self, /)\n--\n\nJoin the channel, or create it, as the property `open_mode` says." },
  { "close", channel_close, METH_NOARGS,
    "close($self, /)\n--\n\n"
    "Leave the channel. What waits in other threads raises; views that are held stay valid." },
  { "send", FAST (channel_send),
    "send($self, /, obj, timeout=...)\n--\n\n"
    "Send an object, or a buffer that was loaned.\n\n"
    "Parameters\n----------\n"
    "obj : object\n    What to send. A `ferry.Buffer` of `loan_buffer()` is sent without a copy.\n"
    "timeout : float or None, optional\n    Seconds to wait for room; None: for ever; 0: not at all. The channel's\n"
    "    attribute `timeout` if left out.\n\n"
    "Raises\n------\n"
    "queue.Full\n    There is no room, and `timeout` is 0.\n"
    "TimeoutError\n    No room came in time.\n"
    "ferry.CodecError\n    The object can't be encoded." },
  { "send_bytes", FAST (channel_send_bytes),
    "send_bytes($self, /, data, timeout=...)\n--\n\n"
    "Send the bytes of anything with the buffer protocol, copied once, with codec `raw`." },
  { "receive", FAST (channel_receive),
    "receive($self, /, timeout=..., copy=False)\n--\n\n"
    "Take the next message.\n\n"
    "Parameters\n----------\n"
    "timeout : float or None, optional\n    Seconds to wait; None: for ever; 0: not at all.\n"
    "copy : bool, default False\n    Whether arrays get memory of their own instead of being views on the message.\n\n"
    "Returns\n-------\nobject\n    What was sent.\n\n"
    "Raises\n------\n"
    "queue.Empty\n    No message waits, and `timeout` is 0.\n"
    "TimeoutError\n    None came in time.\n"
    "EOFError\n    Every sender has ended its stream." },
  { "receive_bytes", FAST (channel_receive_bytes),
    "receive_bytes($self, /, timeout=...)\n--\n\nTake the next message and copy its bytes, whatever its codec." },
  { "receive_buffer", FAST (channel_receive_buffer),
    "receive_buffer($self, /, timeout=...)\n--\n\n"
    "Take the next message as a `ferry.Buffer`: a view on its bytes, whatever its codec." },
  { "decode", channel_decode, METH_O, "decode($self, buffer, /)\n--\n\nDecode what `receive_buffer()` returned." },
  { "loan_buffer", FAST (channel_loan),
    "loan_buffer($self, /, size, timeout=...)\n--\n\n"
    "Borrow shared memory, to be filled in place and sent without a copy.\n\n"
    "Parameters\n----------\nsize : int\n    Bytes.\n\nReturns\n-------\nferry.Buffer\n    Writable; its contents are "
    "undefined." },
  { "wait", FAST (channel_wait),
    "wait($self, /, timeout=...)\n--\n\n"
    "Wait until the next call has something to tell: a message, the end, room. Returns False when the\n"
    "time-out came first." },
  { "flush", FAST (channel_flush),
    "flush($self, /, timeout=...)\n--\n\n"
    "Wait until everything that was sent so far, by whatever sender, is taken: by a receiver, in broadcast by\n"
    "each of them. What is sent meanwhile does not count.\n\n"
    "Parameters\n----------\n"
    "timeout : float or None, optional\n    Seconds to wait; None: for ever; 0: not at all.\n\n"
    "Raises\n------\n"
    "TimeoutError\n    Not everything was taken in time." },
  { "end_of_stream", channel_end_of_stream, METH_NOARGS,
    "end_of_stream($self, /)\n--\n\n"
    "Declare that this sender sends no more. When all live senders have, receivers get EOFError, and\n"
    "iteration ends." },
  { "shut_down", channel_shut_down, METH_NOARGS, "shut_down($self, /)\n--\n\nClose the channel for everybody." },
  { "fileno", channel_fileno, METH_NOARGS,
    "fileno($self, /)\n--\n\n"
    "A descriptor for select, poll, epoll or asyncio; it belongs to the channel. Call `check()` before\n"
    "each poll, and again when it is readable; it may be a false alarm." },
  { "check", channel_check, METH_NOARGS,
    "check($self, /)\n--\n\n"
    "Whether the next call has something to tell now; if not, `fileno()` will become readable." },
  { "trim", channel_trim, METH_NOARGS,
    "trim($self, /)\n--\n\nGive idle memory back to the system now. Returns the number of bytes." },
  { "verify", channel_verify, METH_NOARGS,
    "verify($self, /)\n--\n\nCheck the invariants of a channel at rest; for tests and bug reports." },
  { "_set", (PyCFunction) (void (*) (void)) channel_set, METH_FASTCALL, NULL },
  { "_set_store", channel_set_store, METH_O, NULL },
  { "_get", channel_get, METH_O, NULL },
  { "_statistics", channel_statistics, METH_NOARGS, NULL },
  { "_participants", channel_participants, METH_NOARGS, NULL },
  { "_description", channel_description, METH_NOARGS, NULL },
  { "_set_array_reducer", channel_set_array_reducer, METH_O, NULL },
  { "_address", channel_address, METH_NOARGS, NULL },
  { NULL },
};

static PyGetSetDef channel_getset[] = {
  { "_pickle", channel_get_pickle, NULL, NULL, NULL },
  { "is_open", channel_get_is_open, NULL, "bool: whether this end is open", NULL },
  { "timeout", channel_get_timeout, channel_set_timeout,
    "float or None: the time-out in seconds of calls that name none; None, the default: for ever", NULL },
  { NULL },
};

/* An open channel is true, whether messages wait or not. */
static int
channel_bool (PyObject *object)
{
  return SELF (object)->is_open;
}

static PyNumberMethods channel_number = { .nb_bool = channel_bool };

static PySequenceMethods channel_sequence = { .sq_length = channel_length };

PyTypeObject FerryNativeChannel_Type = {
  PyVarObject_HEAD_INIT (NULL, 0).tp_name = "ferry._native.Channel",
  .tp_basicsize = sizeof (FerryNativeChannel),
  .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
  .tp_new = channel_new,
  .tp_dealloc = channel_dealloc,
  .tp_as_number = &channel_number,
  .tp_as_sequence = &channel_sequence,
  .tp_iter = PyObject_SelfIter,
  .tp_iternext = channel_iternext,
  .tp_methods = channel_methods,
  .tp_getset = channel_getset,
  .tp_weaklistoffset = offsetof (FerryNativeChannel, weakrefs),
};
