/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-python-codec.h"

#include "ferry-python-decoder.h"
#include "ferry-python-encoder.h"
#include "ferry-python-stream.h"
#include "ferry-python-types.h"
#include "ferry-python-variant.h"

/*
 * FerryPythonCodec: any object of Python.
 *
 * With an interpreter in the process values are Python objects, without one GVariants and tensors. Both read what the
 * other writes, as far as it has types for it. docs/wire-formats.md describes the messages.
 */

struct _FerryPythonCodec
{
  GObject parent_instance;

  gboolean pickle;
  FerryPythonDecodeTo decode_to;
  PyObject *array_reducer; /* a reference; under the GIL */
};

typedef enum
{
  PROP_PICKLE = 1,
  PROP_DECODE_TO,
  PROP_ARRAY_REDUCER,
} FerryPythonCodecProperty;

static GParamSpec *properties[PROP_ARRAY_REDUCER + 1];

static void ferry_python_codec_codec_init (FerryCodecInterface *iface);

G_DEFINE_ENUM_TYPE (FerryPythonDecodeTo, ferry_python_decode_to,
                    G_DEFINE_ENUM_VALUE (FERRY_PYTHON_DECODE_TO_AUTO, "auto"),
                    G_DEFINE_ENUM_VALUE (FERRY_PYTHON_DECODE_TO_VARIANT, "variant"),
                    G_DEFINE_ENUM_VALUE (FERRY_PYTHON_DECODE_TO_OBJECT, "object"))

G_DEFINE_FINAL_TYPE_WITH_CODE (FerryPythonCodec, ferry_python_codec, G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (FERRY_TYPE_CODEC, ferry_python_codec_codec_init))

static const char *
ferry_python_codec_get_wire_name (FerryCodec *codec)
{
  return FERRY_PYTHON_WIRE_NAME;
}

static guint
ferry_python_codec_get_wire_version (FerryCodec *codec)
{
  return FERRY_PYTHON_WIRE_VERSION;
}

static gboolean
is_object_type (GType type)
{
  return type == ferry_python_get_object_type () && type != G_TYPE_INVALID;
}

static gboolean
ferry_python_codec_accepts (FerryCodec *codec, GType type)
{
  return type == G_TYPE_VARIANT || type == FERRY_TYPE_TENSOR || is_object_type (type);
}

/* What measuring leaves for encoding is the message, all but its parts written. */
static FerryPythonOutput *
write_object (FerryPythonCodec *self, const GValue *value, GError **error)
{
  PyObject *object = value->data[0].v_pointer; /* the caller has looked at its type */
  PyObject *array_reducer = self->array_reducer;
  FerryPythonEncoder *encoder;

  /* Code that runs meanwhile may set another one. */
  Py_XINCREF (array_reducer);
  /* PyGObject sets a boxed None as NULL. */
  encoder = ferry_python_encoder_encode (object != NULL ? object : Py_None, g_atomic_int_get (&self->pickle),
                                         array_reducer, error);
  Py_XDECREF (array_reducer);
  return encoder != NULL ? &encoder->output : NULL;
}

static FerryPythonOutput *
write_variant (const GValue *value, GError **error)
{
  FerryPythonOutput *output = g_new0 (FerryPythonOutput, 1);

  if (ferry_python_variant_encode (value, output, error))
    return output;
  ferry_python_output_clear (output);
  g_free (output);
  return NULL;
}

static void
free_output (FerryPythonOutput *output)
{
  if (output->encoder != NULL)
    {
      int entered = ferry_python_enter ();

      ferry_python_encoder_free (output->encoder);
      ferry_python_leave (entered);
    }
  else
    {
      ferry_python_output_clear (output);
      g_free (output);
    }
}

static FerryPythonOutput *
write_value (FerryPythonCodec *self, const GValue *value, GError **error)
{
  if (is_object_type (G_VALUE_TYPE (value)))
    {
      FerryPythonOutput *output;
      int entered;

      if (!ferry_python_available (error))
        return NULL;
      entered = ferry_python_enter ();
      output = write_object (self, value, error);
      ferry_python_leave (entered);
      return output;
    }
  if (G_VALUE_HOLDS_VARIANT (value) || G_VALUE_HOLDS (value, FERRY_TYPE_TENSOR))
    return write_variant (value, error);
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
               "codec 'python': can't encode a value of type %s; it encodes Python objects, GVariant and FerryTensor",
               G_VALUE_TYPE_NAME (value));
  return NULL;
}

static gboolean
ferry_python_codec_measure (FerryCodec *codec, const GValue *value, gsize *size, gpointer *state, GError **error)
{
  FerryPythonOutput *output = write_value (FERRY_PYTHON_CODEC (codec), value, error);

  if (output == NULL)
    return FALSE;
  if (!ferry_python_output_get_size (output, size, error))
    {
      free_output (output);
      return FALSE;
    }
  *state = output;
  return TRUE;
}

static gboolean
write_message (const FerryPythonOutput *output, guint8 *data, gsize size, GError **error)
{
  gboolean written;
  int entered;

  if (output->encoder == NULL || output->n_parts == 0)
    return ferry_python_output_write (output, data, size, error);
  entered = ferry_python_enter ();
  written = ferry_python_output_write (output, data, size, error);
  ferry_python_leave (entered);
  return written;
}

static gboolean
ferry_python_codec_encode (FerryCodec *codec, const GValue *value, guint8 *data, gsize size, gpointer state,
                           GError **error)
{
  FerryPythonOutput *output = state;
  gboolean written;

  if (G_LIKELY (output != NULL))
    return write_message (output, data, size, error);

  output = write_value (FERRY_PYTHON_CODEC (codec), value, error);
  if (output == NULL)
    return FALSE;
  written = write_message (output, data, size, error);
  free_output (output);
  return written;
}

static void
ferry_python_codec_free_state (FerryCodec *codec, gpointer state)
{
  free_output (state);
}

static gboolean
decode_object (FerryPythonCodec *self, FerryBuffer *buffer, GType type, GValue *value, GError **error)
{
  PyObject *object = ferry_python_decode (buffer, g_atomic_int_get (&self->pickle), error);

  if (object == NULL)
    return FALSE;

  /* What g_value_init() and g_value_take_boxed() do, in a twentieth of the time. */
  value->g_type = type;
  value->data[0].v_pointer = object;
  return TRUE;
}

static gboolean
ferry_python_codec_decode (FerryCodec *codec, FerryBuffer *buffer, guint version, GValue *value, GError **error)
{
  FerryPythonCodec *self = FERRY_PYTHON_CODEC (codec);
  GType type = ferry_python_get_object_type ();
  gboolean decoded;
  int entered;

  switch ((FerryPythonDecodeTo) g_atomic_int_get ((int *) &self->decode_to))
    {
    case FERRY_PYTHON_DECODE_TO_AUTO:
      /* Who holds the GIL wants objects. */
      if (type == G_TYPE_INVALID || !ferry_python_available (NULL) || !PyGILState_Check ())
        return ferry_python_variant_decode (buffer, value, error);
      return decode_object (self, buffer, type, value, error);

    case FERRY_PYTHON_DECODE_TO_OBJECT:
      if (!ferry_python_available (error))
        return FALSE;
      if (type == G_TYPE_INVALID)
        {
          g_set_error_literal (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
                               "codec 'python': there is no GType for Python objects; import gi first");
          return FALSE;
        }
      entered = ferry_python_enter ();
      decoded = decode_object (self, buffer, type, value, error);
      ferry_python_leave (entered);
      return decoded;

    case FERRY_PYTHON_DECODE_TO_VARIANT:
    default:
      return ferry_python_variant_decode (buffer, value, error);
    }
}

static void
set_array_reducer (FerryPythonCodec *self, PyObject *array_reducer)
{
  PyObject *before = self->array_reducer;
  int entered;

  if (before == array_reducer || !ferry_python_available (NULL))
    return;
  entered = ferry_python_enter ();
  Py_XINCREF (array_reducer);
  self->array_reducer = array_reducer;
  Py_XDECREF (before);
  ferry_python_leave (entered);
}

static void
ferry_python_codec_finalize (GObject *object)
{
  set_array_reducer (FERRY_PYTHON_CODEC (object), NULL);
  G_OBJECT_CLASS (ferry_python_codec_parent_class)->finalize (object);
}

static void
ferry_python_codec_get_property (GObject *object, guint prop_id, GValue *value, GParamSpec *pspec)
{
  FerryPythonCodec *self = FERRY_PYTHON_CODEC (object);

  switch ((FerryPythonCodecProperty) prop_id)
    {
    case PROP_PICKLE:
      g_value_set_boolean (value, g_atomic_int_get (&self->pickle));
      break;

    case PROP_DECODE_TO:
      g_value_set_enum (value, g_atomic_int_get ((int *) &self->decode_to));
      break;

    case PROP_ARRAY_REDUCER:
      g_value_set_pointer (value, self->array_reducer);
      break;

    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
    }
}

static void
ferry_python_codec_set_property (GObject *object, guint prop_id, const GValue *value, GParamSpec *pspec)
{
  FerryPythonCodec *self = FERRY_PYTHON_CODEC (object);

  switch ((FerryPythonCodecProperty) prop_id)
    {
    case PROP_PICKLE:
      if (g_atomic_int_exchange (&self->pickle, g_value_get_boolean (value)) != g_value_get_boolean (value))
        g_object_notify_by_pspec (object, properties[PROP_PICKLE]);
      break;

    case PROP_DECODE_TO:
      if (g_atomic_int_exchange ((int *) &self->decode_to, g_value_get_enum (value)) != g_value_get_enum (value))
        g_object_notify_by_pspec (object, properties[PROP_DECODE_TO]);
      break;

    case PROP_ARRAY_REDUCER:
      set_array_reducer (self, g_value_get_pointer (value));
      g_object_notify_by_pspec (object, pspec);
      break;

    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
    }
}

static void
ferry_python_codec_codec_init (FerryCodecInterface *iface)
{
  iface->get_wire_name = ferry_python_codec_get_wire_name;
  iface->get_wire_version = ferry_python_codec_get_wire_version;
  iface->accepts = ferry_python_codec_accepts;
  iface->measure = ferry_python_codec_measure;
  iface->encode = ferry_python_codec_encode;
  iface->free_state = ferry_python_codec_free_state;
  iface->decode = ferry_python_codec_decode;
}

static void
ferry_python_codec_class_init (FerryPythonCodecClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);

  object_class->finalize = ferry_python_codec_finalize;
  object_class->get_property = ferry_python_codec_get_property;
  object_class->set_property = ferry_python_codec_set_property;

  /*
   * FerryPythonCodec:pickle: whether objects of classes may be sent and received. To receive one is to run code that
   * the sender chooses: only for channels all of whose senders are trusted.
   */
  properties[PROP_PICKLE] = g_param_spec_boolean ("pickle", NULL, NULL, FALSE,
                                                  G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);

  /*
   * FerryPythonCodec:decode-to: what messages become, see FerryPythonDecodeTo.
   */
  properties[PROP_DECODE_TO]
      = g_param_spec_enum ("decode-to", NULL, NULL, FERRY_TYPE_PYTHON_DECODE_TO, FERRY_PYTHON_DECODE_TO_AUTO,
                           G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);

  /*
   * FerryPythonCodec:array-reducer: a callable of Python (PyObject *), or NULL. It gets each ndarray of plain elements
   * that is to be sent, where `pickle` is set, and returns what `__reduce__()` of it would, so that something else is
   * sent in its place; or None.
   */
  properties[PROP_ARRAY_REDUCER] = g_param_spec_pointer (
      "array-reducer", NULL, NULL, G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);
  g_object_class_install_properties (object_class, G_N_ELEMENTS (properties), properties);
}

static void
ferry_python_codec_init (FerryPythonCodec *self)
{
  /* With the first message it would be late: each child of a fork would do it anew, on pages that it has to copy. */
  if (ferry_python_available (NULL) && PyGILState_Check () && !ferry_python_types_load ())
    PyErr_Clear ();
}
