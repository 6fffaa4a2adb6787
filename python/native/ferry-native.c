/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-native.h"

#include "ferry-native-store.h"

#include <fcntl.h>
#include <math.h>
#include <pygobject.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HUGE_PAGE ((uintptr_t) 2 << 20)
/* Objects of that size and more may lie in fresh memory. Bytes. */
#define FRESH_MIN ((gsize) 4 << 20)

/* ---- errors ---- */

static PyObject *raise_code; /* ferry.errors.raise_code */

PyObject *
ferry_native_raise_code (FerryError code, const char *message)
{
  PyObject *result;

  if (raise_code == NULL)
    {
      PyObject *module = PyImport_ImportModule ("ferry.errors");

      if (module == NULL)
        return NULL;
      raise_code = PyObject_GetAttrString (module, "raise_code");
      Py_DECREF (module);
      if (raise_code == NULL)
        return NULL;
    }
  result = PyObject_CallFunction (raise_code, "is", (int) code, message);
  Py_XDECREF (result); /* it always raises */
  return NULL;
}

PyObject *
ferry_native_raise (GError **error)
{
  g_autoptr (GError) local = g_steal_pointer (error);

  /* What Python raised inside a codec is worth more than its description. */
  if (PyErr_Occurred ())
    return NULL;
  if (local == NULL)
    {
      PyErr_SetString (PyExc_RuntimeError, "a call of Ferry failed without saying why");
      return NULL;
    }
  if (local->domain != FERRY_ERROR)
    {
      PyErr_SetString (PyExc_OSError, local->message);
      return NULL;
    }
  return ferry_native_raise_code ((FerryError) local->code, local->message);
}

/* ---- codecs ---- */

const FerryNativeCodec *
ferry_native_get_codec (const char *name, gboolean pickle)
{
  static GHashTable *codecs; /* under the GIL */
  g_autofree char *key = g_strconcat (name, pickle ? "+" : "", NULL);
  g_autoptr (GError) error = NULL;
  FerryNativeCodec *codec;
  FerryCodec *object;

  if (codecs == NULL)
    codecs = g_hash_table_new (g_str_hash, g_str_equal);
  codec = g_hash_table_lookup (codecs, key);
  if (codec != NULL)
    return codec;
  object = ferry_registry_create_codec (ferry_registry_get_default (), name, &error);
  if (object == NULL)
    {
      ferry_native_raise (&error);
      return NULL;
    }
  if (g_object_class_find_property (G_OBJECT_GET_CLASS (object), "pickle") != NULL)
    g_object_set (object, "pickle", pickle, NULL);
  codec = g_new0 (FerryNativeCodec, 1);
  codec->codec = object;
  codec->iface = FERRY_CODEC_GET_IFACE (object);
  g_hash_table_insert (codecs, g_steal_pointer (&key), codec);
  return codec;
}

/* ---- memory of large objects ---- */

/* The C library maps what is larger than its threshold, 32 MiB at most, anew for each object. Touching such pages one by one
 * takes many times as long as the copy into them; huge ones are a fraction of that. */
void
ferry_native_expect_writes (gpointer data, gsize size)
{
  uintptr_t begin = ((uintptr_t) data + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
  uintptr_t end = ((uintptr_t) data + size) & ~(HUGE_PAGE - 1);

  if (size >= FRESH_MIN && end > begin)
    madvise ((gpointer) begin, end - begin, MADV_HUGEPAGE);
}

/* @data stays while other threads run. */
PyObject *
ferry_native_bytes_new (gconstpointer data, gsize size)
{
  PyObject *bytes;

  if (G_LIKELY (size < FRESH_MIN))
    return PyBytes_FromStringAndSize (data, (Py_ssize_t) size);
  bytes = PyBytes_FromStringAndSize (NULL, (Py_ssize_t) size);
  if (bytes == NULL)
    return NULL;
  ferry_native_expect_writes (PyBytes_AS_STRING (bytes), size);
  Py_BEGIN_ALLOW_THREADS
  memcpy (PyBytes_AS_STRING (bytes), data, size);
  Py_END_ALLOW_THREADS
  return bytes;
}

PyObject *
ferry_native_encode (PyObject *object, const char *name, gboolean pickle)
{
  const FerryNativeCodec *codec = ferry_native_get_codec (name, pickle);
  g_auto (GValue) value = G_VALUE_INIT;
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) bytes = NULL;
  gconstpointer data;
  gsize size;

  if (codec == NULL)
    return NULL;
  g_value_init (&value, g_type_from_name ("PyObject"));
  g_value_set_boxed (&value, object);
  bytes = ferry_codec_encode_bytes (codec->codec, &value, &error);
  if (bytes == NULL)
    return ferry_native_raise (&error);
  data = g_bytes_get_data (bytes, &size);
  return ferry_native_bytes_new (data, size);
}

/* ---- arguments ---- */

static gssize
find_name (FerryNativeSignature *signature, PyObject *name)
{
  guint i;

  for (i = 0; i < G_N_ELEMENTS (signature->names) && signature->interned[i] != NULL; i++)
    if (signature->interned[i] == name)
      return i;
  for (i = 0; i < G_N_ELEMENTS (signature->names) && signature->interned[i] != NULL; i++)
    if (PyUnicode_Compare (signature->interned[i], name) == 0)
      return i;
  return -1;
}

gboolean
ferry_native_parse (FerryNativeSignature *signature, PyObject *const *args, Py_ssize_t n_args, PyObject *keywords,
                    PyObject **values)
{
  Py_ssize_t n_keywords = keywords != NULL ? PyTuple_GET_SIZE (keywords) : 0;
  guint n_names = 0;

  if (G_UNLIKELY (signature->interned[0] == NULL))
    for (guint i = 0; i < G_N_ELEMENTS (signature->names) && signature->names[i] != NULL; i++)
      {
        signature->interned[i] = PyUnicode_InternFromString (signature->names[i]);
        if (signature->interned[i] == NULL)
          return FALSE;
      }
  while (n_names < G_N_ELEMENTS (signature->names) && signature->names[n_names] != NULL)
    n_names++;
  if (G_UNLIKELY (n_args > (Py_ssize_t) n_names))
    {
      PyErr_Format (PyExc_TypeError, "%s() takes at most %u arguments (%zd given)", signature->function, n_names,
                    n_args);
      return FALSE;
    }
  for (Py_ssize_t i = 0; i < n_args; i++)
    values[i] = args[i];
  for (Py_ssize_t i = 0; i < n_keywords; i++)
    {
      PyObject *name = PyTuple_GET_ITEM (keywords, i);
      gssize index = find_name (signature, name);

      if (index < 0 || index < n_args)
        {
          PyErr_Format (PyExc_TypeError,
                        index < 0 ? "%s() got an unexpected keyword argument '%U'"
                                  : "%s() got multiple values for argument '%U'",
                        signature->function, name);
          return FALSE;
        }
      values[index] = args[n_args + i];
    }
  for (guint i = 0; i < signature->n_required; i++)
    if (values[i] == NULL)
      {
        PyErr_Format (PyExc_TypeError, "%s() missing required argument '%s'", signature->function, signature->names[i]);
        return FALSE;
      }
  return TRUE;
}

gboolean
ferry_native_parse_timeout (PyObject *value, gint64 *timeout)
{
  double seconds;

  if (value == NULL || value == Py_None)
    {
      *timeout = FERRY_WAIT_FOREVER;
      return TRUE;
    }
  seconds = PyFloat_AsDouble (value);
  if (seconds == -1.0 && PyErr_Occurred ())
    return FALSE;
  if (isnan (seconds))
    {
      PyErr_SetString (PyExc_ValueError, "timeout is not a number");
      return FALSE;
    }
  if (seconds <= 0)
    *timeout = FERRY_NO_WAIT;
  else if (seconds > 1e12)
    *timeout = FERRY_WAIT_FOREVER;
  else
    *timeout = MAX ((gint64) (seconds * G_USEC_PER_SEC), 1);
  return TRUE;
}

/* ---- memory that is shared besides ---- */

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

int
ferry_native_make_shared (const char *name, gsize size)
{
  int fd = memfd_create (name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

  if (fd >= 0 && ftruncate (fd, (off_t) size) == 0 && fcntl (fd, F_ADD_SEALS, SEALS) == 0)
    return fd;
  PyErr_SetFromErrno (PyExc_OSError);
  if (fd >= 0)
    close (fd);
  return -1;
}

gpointer
ferry_native_map_shared (int fd, gsize size)
{
  struct stat status;
  gpointer address;
  int seals = fcntl (fd, F_GET_SEALS);

  if (seals < 0 || fstat (fd, &status) < 0)
    {
      PyErr_SetFromErrno (PyExc_OSError);
      return NULL;
    }
  if ((seals & F_SEAL_SHRINK) == 0 || status.st_size < (off_t) size)
    {
      PyErr_SetString (PyExc_ValueError, "the shared memory is too small, or is not sealed");
      return NULL;
    }
  address = mmap (NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (address != MAP_FAILED)
    return address;
  PyErr_SetFromErrno (PyExc_OSError);
  return NULL;
}

/* ---- module ---- */

/* Slow, and only for who asks for it: loads all of gi. */
static PyObject *
wrap_gobject (PyObject *unused, PyObject *address)
{
  GObject *object = PyLong_AsVoidPtr (address);
  PyObject *gi;

  if (object == NULL)
    {
      if (!PyErr_Occurred ())
        Py_RETURN_NONE;
      return NULL;
    }
  gi = pygobject_init (3, 42, 0);
  if (gi == NULL)
    return NULL;
  Py_DECREF (gi);
  return pygobject_new (object);
}

static PyObject *
encode (PyObject *unused, PyObject *args)
{
  PyObject *object;
  const char *name;
  int pickle = FALSE;

  return PyArg_ParseTuple (args, "Os|p", &object, &name, &pickle) ? ferry_native_encode (object, name, pickle) : NULL;
}

static PyObject *
make_shared (PyObject *unused, PyObject *args)
{
  const char *name;
  Py_ssize_t size;
  int fd;

  if (!PyArg_ParseTuple (args, "sn", &name, &size))
    return NULL;
  fd = ferry_native_make_shared (name, (gsize) size);
  return fd >= 0 ? PyLong_FromLong (fd) : NULL;
}

static PyObject *
forked (PyObject *unused, PyObject *unused_either)
{
  ferry_native_shared_forked ();
  ferry_native_channels_forked ();
  ferry_native_stores_forked ();
  Py_RETURN_NONE;
}

static PyObject *
about_to_fork (PyObject *unused, PyObject *unused_either)
{
  ferry_native_shared_before_fork ();
  Py_RETURN_NONE;
}

static PyMethodDef fork_methods[]
    = { { "_forked", forked, METH_NOARGS, NULL }, { "_about_to_fork", about_to_fork, METH_NOARGS, NULL } };

static gboolean
register_at_fork (void)
{
  PyObject *os = PyImport_ImportModule ("os");
  PyObject *function = PyCFunction_New (&fork_methods[0], NULL);
  PyObject *before = PyCFunction_New (&fork_methods[1], NULL);
  PyObject *call = os != NULL ? PyObject_GetAttrString (os, "register_at_fork") : NULL;
  PyObject *no_arguments = PyTuple_New (0);
  PyObject *keywords = function != NULL && before != NULL
                           ? Py_BuildValue ("{sOsO}", "after_in_child", function, "before", before)
                           : NULL;
  PyObject *result
      = call != NULL && no_arguments != NULL && keywords != NULL ? PyObject_Call (call, no_arguments, keywords) : NULL;

  Py_XDECREF (os);
  Py_XDECREF (function);
  Py_XDECREF (before);
  Py_XDECREF (call);
  Py_XDECREF (no_arguments);
  Py_XDECREF (keywords);
  Py_XDECREF (result);
  return result != NULL;
}

static PyMethodDef module_methods[] = {
  { "make_shared", make_shared, METH_VARARGS, NULL },
  { "encode", encode, METH_VARARGS, NULL },
  { "wrap_gobject", wrap_gobject, METH_O, NULL },
  { NULL },
};

static PyModuleDef module = {
  PyModuleDef_HEAD_INIT,
  .m_name = "ferry._native",
  .m_doc = "The message path of the package ferry. Use the package.",
  .m_size = -1,
  .m_methods = module_methods,
};

PyMODINIT_FUNC PyInit__native (void);

PyMODINIT_FUNC
PyInit__native (void)
{
  static PyTypeObject *const types[]
      = { &FerryNativeBuffer_Type,     &FerryNativeChannel_Type,     &FerryNativeQueue_Type,
          &FerryNativeConnection_Type, &FerryNativeSharedBlock_Type, &FerryNativeStore_Type };
  /* What is made here only. */
  static PyTypeObject *const inner_types[] = { &FerryNativeListIterator_Type, &FerryNativeDictIterator_Type,
                                               &FerryNativeArray_Type, &FerryNativeHandle_Type };
  /* Those that users know by the names that ferry.store gives them. */
  static const struct
  {
    const char *name;
    PyTypeObject *type;
  } named_types[] = {
    { "StoreList", &FerryNativeList_Type },           { "StoreDict", &FerryNativeDict_Type },
    { "StoreDictView", &FerryNativeDictView_Type },   { "StoreSet", &FerryNativeSet_Type },
    { "StoreByteArray", &FerryNativeByteArray_Type }, { "StoreField", &FerryNativeField_Type },
  };
  PyObject *gi;
  PyObject *self;

  /* It registers the type that Python objects have in GValues. */
  gi = PyImport_ImportModule ("gi._gi");
  if (gi == NULL)
    return NULL;
  Py_DECREF (gi);

  self = PyModule_Create (&module);
  if (self == NULL)
    return NULL;
  for (guint i = 0; i < G_N_ELEMENTS (types); i++)
    if (PyModule_AddType (self, types[i]) < 0)
      {
        Py_DECREF (self);
        return NULL;
      }
  for (guint i = 0; i < G_N_ELEMENTS (inner_types); i++)
    if (PyType_Ready (inner_types[i]) < 0)
      {
        Py_DECREF (self);
        return NULL;
      }
  for (guint i = 0; i < G_N_ELEMENTS (named_types); i++)
    if (PyType_Ready (named_types[i].type) < 0
        || PyModule_AddObjectRef (self, named_types[i].name, (PyObject *) named_types[i].type) < 0)
      {
        Py_DECREF (self);
        return NULL;
      }
  if (PyModule_AddFunctions (self, ferry_native_shared_functions) < 0
      || PyModule_AddFunctions (self, ferry_native_store_functions) < 0
      || PyModule_AddFunctions (self, ferry_native_record_functions) < 0 || !register_at_fork ())
    Py_CLEAR (self);
  return self;
}
