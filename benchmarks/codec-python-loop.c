/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <ferry.h>

/*
 * For codec-python.py: the codec's functions in a loop, called as the extension module ferry._native calls them, without
 * the microseconds that a call through GObject-Introspection takes. Return seconds a round, or a negative number and
 * print the error.
 */

__attribute__ ((visibility ("default"))) double
ferry_bench_encode (FerryCodec *codec, PyObject *object, guint8 *data, gsize size, long n_rounds)
{
  FerryCodecInterface *iface = FERRY_CODEC_GET_IFACE (codec);
  GType type = g_type_from_name ("PyObject");
  gint64 begin = g_get_monotonic_time ();

  for (long i = 0; i < n_rounds; i++)
    {
      GValue value = G_VALUE_INIT;
      gsize needed = 0;
      gpointer state = NULL;
      g_autoptr (GError) error = NULL;

      g_value_init (&value, type);
      g_value_set_static_boxed (&value, object);
      if (!iface->measure (codec, &value, &needed, &state, &error) || needed > size
          || !iface->encode (codec, &value, data, needed, state, &error))
        {
          g_printerr ("%s\n", error != NULL ? error->message : "no room");
          return -1;
        }
      iface->free_state (codec, state);
    }
  return (double) (g_get_monotonic_time () - begin) / (double) n_rounds / G_USEC_PER_SEC;
}

__attribute__ ((visibility ("default"))) double
ferry_bench_decode (FerryCodec *codec, guint8 *data, gsize size, long n_rounds)
{
  FerryCodecInterface *iface = FERRY_CODEC_GET_IFACE (codec);
  FerryBuffer *buffer = ferry_buffer_new_take (data, size, TRUE, NULL, NULL);
  gint64 begin = g_get_monotonic_time ();
  gint64 end;

  for (long i = 0; i < n_rounds; i++)
    {
      GValue value = G_VALUE_INIT;
      g_autoptr (GError) error = NULL;

      if (!iface->decode (codec, buffer, 1, &value, &error))
        {
          g_printerr ("%s\n", error->message);
          ferry_buffer_unref (buffer);
          return -1;
        }
      Py_DECREF ((PyObject *) g_value_get_boxed (&value));
    }
  end = g_get_monotonic_time ();
  ferry_buffer_unref (buffer);
  return (double) (end - begin) / (double) n_rounds / G_USEC_PER_SEC;
}
