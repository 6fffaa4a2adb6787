/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-dlpack.h"
#include "ferry-ndarray.h"

#include "ferry-numpy-codec.h"

#include "ferry-numpy-header.h"

#include <string.h>

/*
 * A message is a header, zeros up to a multiple of FERRY_NUMPY_ALIGNMENT, and the elements; docs/wire-formats.md tells
 * the details. The C half knows tensors, the Python half ndarrays and what can be made one without a copy.
 */

struct _FerryNumpyCodec
{
  GObject parent_instance;

  int decode_to; /* a FerryNumpyDecodeTo, atomic */
};

typedef enum
{
  PROP_DECODE_TO = 1,
} FerryNumpyCodecProperty;

static GParamSpec *properties[PROP_DECODE_TO + 1];

/* What measuring of a Python object leaves for encoding. Of a tensor nothing is left. */
typedef struct
{
  FerryTensor *tensor; /* of an object that speaks DLPack */
  PyObject *array;     /* NULL if there is a tensor */
  FerryNdarrayPlan plan;
} PythonState;

static void ferry_numpy_codec_codec_init (FerryCodecInterface *iface);

G_DEFINE_ENUM_TYPE (FerryNumpyDecodeTo, ferry_numpy_decode_to, G_DEFINE_ENUM_VALUE (FERRY_NUMPY_DECODE_TO_AUTO, "auto"),
                    G_DEFINE_ENUM_VALUE (FERRY_NUMPY_DECODE_TO_TENSOR, "tensor"),
                    G_DEFINE_ENUM_VALUE (FERRY_NUMPY_DECODE_TO_OBJECT, "object"))

G_DEFINE_FINAL_TYPE_WITH_CODE (FerryNumpyCodec, ferry_numpy_codec, G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (FERRY_TYPE_CODEC, ferry_numpy_codec_codec_init))

static const char *
ferry_numpy_codec_get_wire_name (FerryCodec *codec)
{
  return FERRY_NUMPY_WIRE_NAME;
}

static guint
ferry_numpy_codec_get_wire_version (FerryCodec *codec)
{
  return FERRY_NUMPY_WIRE_VERSION;
}

static gboolean
is_python_type (GType type)
{
  return type != FERRY_TYPE_TENSOR && type == ferry_python_get_object_type () && type != G_TYPE_INVALID;
}

static gboolean
ferry_numpy_codec_accepts (FerryCodec *codec, GType type)
{
  return type == FERRY_TYPE_TENSOR || is_python_type (type);
}

/*
 * Encoding
 */

static gboolean
message_size (gsize header_size, gsize data_size, gsize *size, GError **error)
{
  gsize offset = ferry_numpy_align (header_size);

  if (data_size > G_MAXSSIZE - offset)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_TOO_BIG, "codec 'numpy': the array is too big to be encoded");
      return FALSE;
    }
  *size = offset + data_size;
  return TRUE;
}

static gboolean
check_size (gsize needed, gsize size, GError **error)
{
  if (needed == size)
    return TRUE;
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
               "codec 'numpy': the array takes %" G_GSIZE_FORMAT " bytes, but %" G_GSIZE_FORMAT
               " are to be written; don't change it while it is sent",
               needed, size);
  return FALSE;
}

static gboolean
tensor_measure (FerryTensor *tensor, FerryNumpyHeader *header, gsize *size, GError **error)
{
  const gint64 *shape = ferry_tensor_get_shape (tensor, &header->n_dimensions);

  /* That a tensor is read only tells whose its memory is, not what a receiver may do with a copy. */
  header->flags
      = !ferry_tensor_is_c_contiguous (tensor) && ferry_tensor_is_f_contiguous (tensor) ? FERRY_NUMPY_FORTRAN : 0;
  header->item_size = ferry_tensor_get_item_size (tensor);
  header->format_length = strlen (ferry_tensor_get_format (tensor));
  header->extension_length = 0;
  memcpy (header->shape, shape, header->n_dimensions * sizeof *shape);
  if (header->format_length > FERRY_NUMPY_FORMAT_MAX)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'numpy': the format of the tensor has %" G_GSIZE_FORMAT " bytes, at most %d are possible",
                   header->format_length, FERRY_NUMPY_FORMAT_MAX);
      return FALSE;
    }
  return message_size (ferry_numpy_header_size (header), ferry_tensor_get_size_bytes (tensor), size, error);
}

static void
write_padding (guint8 *data, gsize header_size)
{
  memset (data + header_size, 0, ferry_numpy_align (header_size) - header_size);
}

static void
tensor_write_header (FerryTensor *tensor, const FerryNumpyHeader *header, guint8 *data)
{
  guint8 *to = ferry_numpy_header_write (header, data);

  memcpy (to, ferry_tensor_get_format (tensor), header->format_length);
  write_padding (data, ferry_numpy_header_size (header));
}

static gboolean
tensor_encode (FerryTensor *tensor, guint8 *data, gsize size, GError **error)
{
  FerryNumpyHeader header;
  gsize data_size = ferry_tensor_get_size_bytes (tensor);
  gsize needed;
  guint8 *to;

  if (!tensor_measure (tensor, &header, &needed, error) || !check_size (needed, size, error))
    return FALSE;
  tensor_write_header (tensor, &header, data);
  to = data + size - data_size;
  if ((header.flags & FERRY_NUMPY_FORTRAN) == 0)
    ferry_tensor_store (tensor, to, data_size);
  else
    ferry_copy_memory (to, ferry_tensor_get_data (tensor), data_size);
  return TRUE;
}

static void
refuse_object (PyObject *object, const char *why, GError **error)
{
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
               "codec 'numpy': an object of type %.100s is %s; use codec python for it", Py_TYPE (object)->tp_name,
               why);
}

/* The array to be sent for an object, or the tensor. */
static gboolean
python_state_resolve (PythonState *state, PyObject *object, GError **error)
{
  GError *local = NULL;

  if (G_LIKELY (ferry_ndarray_check_exact (object)))
    {
      Py_INCREF (object);
      state->array = object;
      return TRUE;
    }
  if (ferry_ndarray_check (object))
    {
      refuse_object (object, "a subclass of ndarray", error);
      return FALSE;
    }
  state->array = ferry_ndarray_from_object (object, &local);
  if (state->array != NULL)
    return TRUE;
  if (PyObject_HasAttrString ((PyObject *) Py_TYPE (object), "__dlpack__"))
    {
      g_clear_error (&local);
      state->tensor = ferry_dlpack_import (object, error);
      if (state->tensor == NULL)
        g_prefix_error (error, "codec 'numpy': ");
      return state->tensor != NULL;
    }
  if (local != NULL)
    g_propagate_prefixed_error (error, local, "codec 'numpy': ");
  else
    refuse_object (object, "no array", error);
  return FALSE;
}

static void
python_state_clear (PythonState *state)
{
  g_clear_pointer (&state->tensor, ferry_tensor_unref);
  if (state->array != NULL)
    {
      if (state->plan.format != NULL)
        ferry_ndarray_plan_clear (&state->plan);
      Py_DECREF (state->array);
    }
}

/* With the GIL, as all of these. */
static gboolean
python_measure (const GValue *value, PythonState *state, gsize *size, GError **error)
{
  PyObject *object = g_value_get_boxed (value);
  FerryNumpyHeader header;

  memset (state, 0, sizeof *state);
  if (object == NULL)
    {
      g_set_error_literal (error, FERRY_ERROR, FERRY_ERROR_CODEC, "codec 'numpy': there is no object in the value");
      return FALSE;
    }
  if (!ferry_ndarray_load (TRUE, error))
    {
      if (error != NULL && *error != NULL)
        (*error)->code = FERRY_ERROR_CODEC;
      return FALSE;
    }

  if (python_state_resolve (state, object, error))
    {
      if (state->tensor != NULL)
        {
          if (tensor_measure (state->tensor, &header, size, error))
            return TRUE;
        }
      else if (!ferry_ndarray_plan (state->array, &state->plan, error))
        {
          state->plan.format = NULL;
          g_prefix_error (error, "codec 'numpy': ");
        }
      else if (message_size (state->plan.header_size, state->plan.data_size, size, error))
        {
          return TRUE;
        }
    }
  python_state_clear (state);
  return FALSE;
}

static gboolean
python_encode (PythonState *state, guint8 *data, gsize size, GError **error)
{
  gsize needed;

  if (state->tensor != NULL)
    return tensor_encode (state->tensor, data, size, error);
  if (!message_size (state->plan.header_size, state->plan.data_size, &needed, error)
      || !check_size (needed, size, error))
    return FALSE;
  ferry_ndarray_write_header (&state->plan, data);
  write_padding (data, state->plan.header_size);
  if (!ferry_ndarray_write_data (&state->plan, data + size - state->plan.data_size, error))
    {
      g_prefix_error (error, "codec 'numpy': ");
      return FALSE;
    }
  return TRUE;
}

static FerryTensor *
get_tensor (const GValue *value, GError **error)
{
  FerryTensor *tensor;

  if (!G_VALUE_HOLDS (value, FERRY_TYPE_TENSOR))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'numpy': can't encode a value of type %s; it encodes FerryTensor, and arrays in Python",
                   G_VALUE_TYPE_NAME (value));
      return NULL;
    }
  tensor = g_value_get_boxed (value);
  if (tensor == NULL)
    g_set_error_literal (error, FERRY_ERROR, FERRY_ERROR_CODEC, "codec 'numpy': there is no tensor in the value");
  return tensor;
}

static gboolean
ferry_numpy_codec_measure (FerryCodec *codec, const GValue *value, gsize *size, gpointer *state, GError **error)
{
  FerryNumpyHeader header;
  FerryTensor *tensor;

  if (is_python_type (G_VALUE_TYPE (value)) && ferry_python_available (NULL))
    {
      PythonState *python = g_new (PythonState, 1);
      int entered = ferry_python_enter ();
      gboolean ok = python_measure (value, python, size, error);

      ferry_python_leave (entered);
      if (ok)
        *state = python;
      else
        g_free (python);
      return ok;
    }

  tensor = get_tensor (value, error);
  return tensor != NULL && tensor_measure (tensor, &header, size, error);
}

static gboolean
ferry_numpy_codec_encode (FerryCodec *codec, const GValue *value, guint8 *data, gsize size, gpointer state,
                          GError **error)
{
  FerryTensor *tensor;

  if (is_python_type (G_VALUE_TYPE (value)) && ferry_python_available (NULL))
    {
      PythonState own;
      gsize needed;
      int entered = ferry_python_enter ();
      gboolean ok = state != NULL || python_measure (value, &own, &needed, error);

      if (ok)
        {
          ok = python_encode (state != NULL ? state : &own, data, size, error);
          if (state == NULL)
            python_state_clear (&own);
        }
      ferry_python_leave (entered);
      return ok;
    }

  tensor = get_tensor (value, error);
  return tensor != NULL && tensor_encode (tensor, data, size, error);
}

static void
ferry_numpy_codec_free_state (FerryCodec *codec, gpointer state)
{
  PythonState *python = state;
  int entered = ferry_python_enter ();

  python_state_clear (python);
  ferry_python_leave (entered);
  g_free (python);
}

static gboolean
ferry_numpy_codec_measure_tensor (FerryCodec *codec, FerryTensor *tensor, gsize *offset, GError **error)
{
  FerryNumpyHeader header;
  gsize size;

  if (!tensor_measure (tensor, &header, &size, error))
    return FALSE;
  *offset = size - ferry_tensor_get_size_bytes (tensor);
  return TRUE;
}

static gboolean
ferry_numpy_codec_begin_tensor (FerryCodec *codec, FerryTensor *tensor, guint8 *data, gsize offset, GError **error)
{
  FerryNumpyHeader header;
  gsize size;

  if (!tensor_measure (tensor, &header, &size, error)
      || !check_size (size - ferry_tensor_get_size_bytes (tensor), offset, error))
    return FALSE;
  tensor_write_header (tensor, &header, data);
  return TRUE;
}

/*
 * Decoding
 */

static gboolean
decode_tensor (FerryBuffer *buffer, const guint8 *data, const FerryNumpyHeader *header, gsize data_size, GValue *value,
               GError **error)
{
  gint64 strides[FERRY_TENSOR_MAX_DIMENSIONS];
  gint64 stride = (gint64) header->item_size;
  g_autofree char *format = NULL;
  gsize offset = ferry_numpy_align (ferry_numpy_header_size (header));
  FerryTensor *tensor;

  format = g_strndup ((const char *) data + FERRY_NUMPY_FIXED_SIZE + header->n_dimensions * sizeof (gint64),
                      header->format_length);
  for (guint i = 0; i < header->n_dimensions; i++)
    {
      strides[i] = stride;
      stride *= MAX (header->shape[i], 1); /* ferry_numpy_header_read() has checked it */
    }

  tensor = strlen (format) != header->format_length
               ? NULL
               : ferry_tensor_new_take (
                   format, header->shape, header->n_dimensions,
                   (header->flags & FERRY_NUMPY_FORTRAN) != 0 ? strides : NULL, (gpointer) data, offset + data_size,
                   offset, ferry_buffer_is_writable (buffer) && (header->flags & FERRY_NUMPY_READ_ONLY) == 0,
                   (GDestroyNotify) ferry_buffer_unref, buffer, error);
  if (tensor == NULL)
    {
      if (error != NULL && *error == NULL)
        g_set_error_literal (error, FERRY_ERROR, FERRY_ERROR_CODEC, "the format has a zero byte in it");
      else if (error != NULL)
        (*error)->code = FERRY_ERROR_CODEC;
      return FALSE;
    }
  ferry_buffer_ref (buffer);
  if (ferry_tensor_get_item_size (tensor) != header->item_size)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "elements of the array have %" G_GSIZE_FORMAT
                   " bytes, and those of format \"%.40s\" %" G_GSIZE_FORMAT,
                   header->item_size, ferry_tensor_get_format (tensor), ferry_tensor_get_item_size (tensor));
      ferry_tensor_unref (tensor);
      return FALSE;
    }
  g_value_init (value, FERRY_TYPE_TENSOR);
  g_value_take_boxed (value, tensor);
  return TRUE;
}

static gboolean
decode_object (FerryBuffer *buffer, const guint8 *data, const FerryNumpyHeader *header, gsize data_size, GValue *value,
               GError **error)
{
  gsize header_size = ferry_numpy_header_size (header);
  guint8 *elements = (guint8 *) data + ferry_numpy_align (header_size);
  PyObject *base = ferry_python_new_message (buffer, error);
  PyObject *array;

  if (base == NULL)
    return FALSE;
  array = ferry_ndarray_read (data, header_size, elements, data_size, base, ferry_buffer_is_writable (buffer), error);
  Py_DECREF (base);
  if (array == NULL)
    return FALSE;
  g_value_init (value, ferry_python_get_object_type ());
  g_value_take_boxed (value, array);
  return TRUE;
}

/* Whether to make an ndarray, and if so with the GIL. */
static gboolean
enter_object_mode (FerryNumpyDecodeTo decode_to, int *entered, gboolean *object, GError **error)
{
  *object = FALSE;
  if (decode_to == FERRY_NUMPY_DECODE_TO_TENSOR)
    return TRUE;
  if (decode_to == FERRY_NUMPY_DECODE_TO_AUTO)
    {
      /* Who holds the GIL is Python, or calls for it. */
      if (!ferry_python_available (NULL) || !PyGILState_Check () || ferry_python_get_object_type () == G_TYPE_INVALID
          || !ferry_ndarray_load (TRUE, NULL))
        return TRUE;
      *entered = ferry_python_enter ();
      *object = TRUE;
      return TRUE;
    }

  if (!ferry_python_available (error))
    return FALSE;
  if (ferry_python_get_object_type () == G_TYPE_INVALID)
    {
      g_set_error_literal (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
                           "there is no GType for Python objects; import gi first");
      return FALSE;
    }
  *entered = ferry_python_enter ();
  if (!ferry_ndarray_load (TRUE, error))
    {
      ferry_python_leave (*entered);
      return FALSE;
    }
  *object = TRUE;
  return TRUE;
}

static gboolean
ferry_numpy_codec_decode (FerryCodec *codec, FerryBuffer *buffer, guint version, GValue *value, GError **error)
{
  FerryNumpyCodec *self = FERRY_NUMPY_CODEC (codec);
  g_autoptr (GError) local = NULL;
  FerryNumpyHeader header;
  const guint8 *data;
  gsize size;
  gsize data_size;
  gsize offset;
  gboolean object;
  gboolean ok;
  int entered = 0;

  data = ferry_buffer_get_data (buffer, &size);
  if (!ferry_numpy_header_read (&header, data, size, &data_size, error))
    {
      g_prefix_error (error, "codec 'numpy': ");
      return FALSE;
    }
  offset = ferry_numpy_align (ferry_numpy_header_size (&header));
  if (size < offset || size - offset != data_size)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'numpy': the message has %" G_GSIZE_FORMAT
                   " bytes, but header and elements take %" G_GSIZE_FORMAT " and %" G_GSIZE_FORMAT "; was it cut?",
                   size, offset, data_size);
      return FALSE;
    }

  ok = enter_object_mode (g_atomic_int_get (&self->decode_to), &entered, &object, &local);
  if (ok && object)
    {
      ok = decode_object (buffer, data, &header, data_size, value, &local);
      ferry_python_leave (entered);
    }
  else if (ok)
    {
      ok = decode_tensor (buffer, data, &header, data_size, value, &local);
    }
  if (!ok)
    g_propagate_prefixed_error (error, g_steal_pointer (&local), "codec 'numpy': ");
  return ok;
}

static void
ferry_numpy_codec_get_property (GObject *object, guint prop_id, GValue *value, GParamSpec *pspec)
{
  FerryNumpyCodec *self = FERRY_NUMPY_CODEC (object);

  switch ((FerryNumpyCodecProperty) prop_id)
    {
    case PROP_DECODE_TO:
      g_value_set_enum (value, g_atomic_int_get (&self->decode_to));
      break;

    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
    }
}

static void
ferry_numpy_codec_set_property (GObject *object, guint prop_id, const GValue *value, GParamSpec *pspec)
{
  FerryNumpyCodec *self = FERRY_NUMPY_CODEC (object);

  switch ((FerryNumpyCodecProperty) prop_id)
    {
    case PROP_DECODE_TO:
      if (g_atomic_int_exchange (&self->decode_to, g_value_get_enum (value)) != g_value_get_enum (value))
        g_object_notify_by_pspec (object, properties[PROP_DECODE_TO]);
      break;

    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
    }
}

static void
ferry_numpy_codec_codec_init (FerryCodecInterface *iface)
{
  iface->get_wire_name = ferry_numpy_codec_get_wire_name;
  iface->get_wire_version = ferry_numpy_codec_get_wire_version;
  iface->accepts = ferry_numpy_codec_accepts;
  iface->measure = ferry_numpy_codec_measure;
  iface->encode = ferry_numpy_codec_encode;
  iface->free_state = ferry_numpy_codec_free_state;
  iface->decode = ferry_numpy_codec_decode;
  iface->measure_tensor = ferry_numpy_codec_measure_tensor;
  iface->begin_tensor = ferry_numpy_codec_begin_tensor;
}

static void
ferry_numpy_codec_class_init (FerryNumpyCodecClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);

  object_class->get_property = ferry_numpy_codec_get_property;
  object_class->set_property = ferry_numpy_codec_set_property;

  /*
   * FerryNumpyCodec:decode-to: what messages are decoded to. `auto` makes a numpy.ndarray when the thread that decodes
   * holds Python's GIL, and a FerryTensor otherwise.
   */
  properties[PROP_DECODE_TO]
      = g_param_spec_enum ("decode-to", NULL, NULL, FERRY_TYPE_NUMPY_DECODE_TO, FERRY_NUMPY_DECODE_TO_AUTO,
                           G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);
  g_object_class_install_properties (object_class, G_N_ELEMENTS (properties), properties);
}

static void
ferry_numpy_codec_init (FerryNumpyCodec *self)
{
  /* Not with the first message, which each child of a fork has anew. */
  if (ferry_python_available (NULL) && PyGILState_Check ())
    ferry_ndarray_load (FALSE, NULL);
}
