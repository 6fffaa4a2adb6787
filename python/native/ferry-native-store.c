/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-native-store.h"

/* A store, and its root mapping. */

#define SELF(object) ((FerryNativeStore *) (object))
#define FAST(function) FERRY_NATIVE_FAST (function)

static GQueue stores = G_QUEUE_INIT; /* of all that are open; under the GIL */

PyObject *
ferry_native_store_call (const char *name, const char *format, ...)
{
  static PyObject *module;
  PyObject *function;
  PyObject *args;
  PyObject *result = NULL;
  va_list list;

  if (module == NULL)
    {
      module = PyImport_ImportModule ("ferry.store");
      if (module == NULL)
        return NULL;
    }
  va_start (list, format);
  args = Py_VaBuildValue (format, list);
  va_end (list);
  function = PyObject_GetAttrString (module, name);
  if (function != NULL && args != NULL)
    result = PyObject_Call (function, args, NULL);
  Py_XDECREF (function);
  Py_XDECREF (args);
  return result;
}

static void
raise_closed (FerryNativeStore *self)
{
  const char *name = self->store != NULL ? ferry_store_get_name (self->store) : NULL;
  g_autofree char *message
      = g_strdup_printf ("store '%s' is closed in this process; open it anew", name != NULL ? name : "(anonymous)");

  ferry_native_raise_code (FERRY_ERROR_CLOSED, message);
}

FerryStore *
ferry_native_store_get_slow (FerryNativeStore *self)
{
  g_autoptr (GArray) lost = NULL;
  g_autoptr (GError) error = NULL;

  if (!self->is_forked)
    {
      raise_closed (self);
      return NULL;
    }
  if (!ferry_store_rejoin (self->store, &lost, &error))
    {
      ferry_native_raise (&error);
      return NULL;
    }
  self->is_forked = FALSE;
  self->live = self->store;
  /* What stands for objects that are gone must not be taken for what is there now. */
  for (guint i = 0; i < lost->len; i++)
    {
      FerryRef ref = g_array_index (lost, FerryRef, i);
      PyObject *object = ferry_store_get_binding (self->store, ref);
      FerryNativeProxy *proxy = NULL;

      if (object != NULL && (ferry_native_is_proxy (object) || Py_IS_TYPE (object, &FerryNativeArray_Type)))
        proxy = FERRY_NATIVE_PROXY (object);
      else if (object != NULL)
        proxy = ferry_native_record_get_handle (object);
      if (proxy == NULL)
        continue;
      proxy->ref = FERRY_REF_LOST;
      ferry_store_set_binding (self->store, ref, NULL);
      ferry_store_unhold (self->store, ref);
    }
  return self->live;
}

/* ---- stretches of work, transactions ---- */

void
ferry_native_store_enter (FerryNativeStore *self)
{
  Py_INCREF ((PyObject *) self);
  self->n_inside++;
}

void
ferry_native_store_leave (FerryNativeStore *self)
{
  if (--self->n_inside == 0 && self->is_closing)
    {
      self->is_closing = FALSE;
      ferry_store_close (self->store);
    }
  Py_DECREF ((PyObject *) self);
}

gboolean
ferry_native_store_begin_slow (FerryNativeStore *self)
{
  for (;;)
    {
      g_autoptr (GError) error = NULL;
      FerryStore *store = ferry_native_store_get (self);
      gboolean ok;

      if (store == NULL)
        return FALSE;
      if (ferry_store_try_begin (store))
        return TRUE;
      /* Only until it could be begun: whoever waits for the GIL must not keep others out. */
      ferry_native_store_enter (self);
      Py_BEGIN_ALLOW_THREADS
      ok = ferry_store_begin_within (store, FERRY_NATIVE_SLICE_US, &error);
      if (ok)
        ferry_store_end (store);
      Py_END_ALLOW_THREADS
      ferry_native_store_leave (self);
      if (!ok && !g_error_matches (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT))
        {
          ferry_native_raise (&error);
          return FALSE;
        }
      if (PyErr_CheckSignals () < 0)
        return FALSE;
    }
}

gboolean
ferry_native_store_begin_transaction (FerryNativeStore *self, gint64 timeout)
{
  FerryNativeWait wait = ferry_native_wait_begin (timeout);

  for (;;)
    {
      g_autoptr (GError) error = NULL;
      FerryStore *store = ferry_native_store_get (self);
      gint64 slice = ferry_native_wait_slice (&wait, FERRY_NATIVE_SLICE_US);
      gboolean ok;

      if (store == NULL)
        return FALSE;
      if (ferry_store_in_transaction (store))
        {
          ok = ferry_store_begin_transaction (store, slice, NULL, &error);
        }
      else
        {
          ferry_native_store_enter (self);
          Py_BEGIN_ALLOW_THREADS
          ok = ferry_store_begin_transaction (store, slice, NULL, &error);
          Py_END_ALLOW_THREADS
          ferry_native_store_leave (self);
        }
      if (ok)
        return TRUE;
      if (slice == 0 || !g_error_matches (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT))
        {
          ferry_native_raise (&error);
          return FALSE;
        }
      if (PyErr_CheckSignals () < 0)
        return FALSE;
    }
}

/* An exception that is set stays. */
gboolean
ferry_native_store_end_transaction (FerryNativeStore *self, gboolean commit)
{
  g_autoptr (GError) error = NULL;
  FerryStore *store = ferry_native_store_get_to_unhold (self);
  PyObject *type;
  PyObject *value;
  PyObject *traceback;
  gboolean ok;

  PyErr_Fetch (&type, &value, &traceback);
  if (store == NULL)
    ok = ferry_native_store_get (self) != NULL;
  else
    ok = commit ? ferry_store_commit (store, &error) : ferry_store_roll_back (store, &error);
  if (type != NULL)
    {
      PyErr_Clear ();
      PyErr_Restore (type, value, traceback);
      return ok;
    }
  if (!ok && !PyErr_Occurred ())
    ferry_native_raise (&error);
  return ok;
}

/* ---- opening and closing ---- */

static PyObject *
store_new (PyTypeObject *type, PyObject *args, PyObject *keywords)
{
  return type->tp_alloc (type, 0);
}

static int
store_init (PyObject *object, PyObject *args, PyObject *keywords)
{
  FerryNativeStore *self = SELF (object);
  static char *names[] = { "description", "pickle", NULL };
  g_autoptr (GError) error = NULL;
  FerryStore *store;
  const char *text;
  PyObject *description;
  int pickle = FALSE;

  if (!PyArg_ParseTupleAndKeywords (args, keywords, "U|p", names, &description, &pickle))
    return -1;
  if (self->store != NULL)
    {
      PyErr_SetString (PyExc_RuntimeError, "a store is opened once");
      return -1;
    }
  text = PyUnicode_AsUTF8 (description);
  if (text == NULL)
    return -1;
  self->shapes = PyDict_New ();
  if (self->shapes == NULL)
    return -1;
  Py_BEGIN_ALLOW_THREADS
  store = ferry_store_open (text, NULL, &error);
  Py_END_ALLOW_THREADS
  if (store == NULL)
    {
      ferry_native_raise (&error);
      return -1;
    }
  self->classes = g_hash_table_new (NULL, NULL);
  self->description = Py_NewRef (description);
  self->pickle = pickle;
  self->store = store;
  self->live = store;
  ferry_store_get_identity (store, self->identity);
  self->link.data = self;
  g_queue_push_tail_link (&stores, &self->link);
  return 0;
}

static PyObject *
store_close (PyObject *object, PyObject *unused)
{
  FerryNativeStore *self = SELF (object);

  if (ferry_native_store_get_to_unhold (self) != NULL)
    {
      self->live = NULL;
      self->is_forked = FALSE;
      g_queue_unlink (&stores, &self->link);
      if (self->n_inside > 0)
        self->is_closing = TRUE;
      else
        ferry_store_close (self->store);
    }
  Py_RETURN_NONE;
}

static void
store_dealloc (PyObject *object)
{
  FerryNativeStore *self = SELF (object);

  if (self->weakrefs != NULL)
    PyObject_ClearWeakRefs (object);
  if (self->store != NULL)
    Py_XDECREF (store_close (object, NULL));
  g_clear_object (&self->store);
  g_clear_pointer (&self->classes, g_hash_table_unref);
  Py_CLEAR (self->shapes);
  Py_CLEAR (self->description);
  Py_TYPE (object)->tp_free (object);
}

static PyObject *
list_all (PyObject *unused, PyObject *unused_either)
{
  PyObject *list = PyList_New (0);

  for (GList *link = stores.head; list != NULL && link != NULL; link = link->next)
    if (PyList_Append (list, link->data) < 0)
      Py_CLEAR (list);
  return list;
}

void
ferry_native_stores_forked (void)
{
  for (GList *link = stores.head; link != NULL; link = link->next)
    {
      FerryNativeStore *self = SELF (link->data);

      self->n_inside = 0;
      self->live = NULL;
      self->is_forked = TRUE;
    }
}

/* ---- the root mapping ---- */

static gboolean
key_init (FerryNativeKey *key, FerryNativeStore *self, PyObject *object)
{
  if (G_LIKELY (PyUnicode_CheckExact (object)))
    return ferry_native_key_init (key, self, object);
  PyErr_Format (PyExc_TypeError, "keys of a store are str, not %.200s; put a dict into it for others",
                Py_TYPE (object)->tp_name);
  return FALSE;
}

static int
root_find (FerryNativeStore *self, PyObject *object, FerryReading *reading)
{
  FerryStore *store = ferry_native_store_get (self);
  GError *error = NULL;
  FerryNativeKey key;
  int found;

  if (G_UNLIKELY (store == NULL || !key_init (&key, self, object)))
    return -1;
  found = ferry_store_root_get (store, &key.key, reading, &error);
  ferry_native_key_clear (&key);
  if (G_UNLIKELY (found < 0))
    ferry_native_raise (&error);
  return found;
}

static PyObject *
store_subscript (PyObject *object, PyObject *key)
{
  FerryReading reading;
  int found;

  ferry_native_reading_init (&reading);
  found = root_find (SELF (object), key, &reading);
  if (G_LIKELY (found > 0))
    return ferry_native_reading_take (SELF (object), &reading);
  Py_XDECREF ((PyObject *) reading.user_data);
  return found == 0 ? ferry_native_raise_key (key) : NULL;
}

static int
store_contains (PyObject *object, PyObject *key)
{
  return PyUnicode_CheckExact (key) ? root_find (SELF (object), key, NULL) : 0;
}

static gboolean
root_store (FerryNativeStore *self, PyObject *object, PyObject *item)
{
  GError *error = NULL;
  FerryNativeKey key;
  FerryNativeValue value;
  gboolean done = FALSE;

  if (G_UNLIKELY (!key_init (&key, self, object)))
    return FALSE;
  if (G_LIKELY (ferry_native_value_prepare (&value, self, item)))
    {
      if (G_LIKELY (ferry_native_store_begin (self)))
        {
          FerryStore *store = self->live;

          if (G_LIKELY (ferry_native_value_make (&value, self)))
            {
              done = ferry_store_root_set (store, &key.key, value.cell, &error);
              if (G_UNLIKELY (!done))
                ferry_native_value_release (&value, self);
            }
          ferry_store_end (store);
        }
      ferry_native_value_clear (&value);
    }
  ferry_native_key_clear (&key);
  if (G_UNLIKELY (!done && !PyErr_Occurred ()))
    ferry_native_raise (&error);
  return done;
}

static int
root_take (FerryNativeStore *self, PyObject *object, FerryReading *reading)
{
  GError *error = NULL;
  FerryNativeKey key;
  FerryStore *store;
  int done;

  if (!key_init (&key, self, object))
    return -1;
  if (!ferry_native_store_begin (self))
    {
      ferry_native_key_clear (&key);
      return -1;
    }
  store = self->live;
  done = ferry_store_root_remove (store, &key.key, reading, &error);
  ferry_store_end (store);
  ferry_native_key_clear (&key);
  if (done < 0)
    ferry_native_raise (&error);
  return done;
}

static int
store_assign_subscript (PyObject *object, PyObject *key, PyObject *value)
{
  FerryReading reading;
  int done;

  if (G_LIKELY (value != NULL))
    return root_store (SELF (object), key, value) ? 0 : -1;
  ferry_native_reading_init (&reading);
  done = root_take (SELF (object), key, &reading);
  if (done > 0)
    {
      ferry_native_reading_drop (SELF (object), &reading);
      return 0;
    }
  if (done == 0)
    ferry_native_raise_key (key);
  return -1;
}

static Py_ssize_t
store_length (PyObject *object)
{
  FerryStore *store = ferry_native_store_get (SELF (object));

  return store != NULL ? ferry_store_dict_length (store, ferry_store_get_root (store)) : -1;
}

static PyObject *
store_get (PyObject *object, PyObject *const *args, Py_ssize_t n_args)
{
  FerryReading reading;
  int found;

  if (n_args < 1 || n_args > 2)
    return PyErr_Format (PyExc_TypeError, "get expected 1 or 2 arguments, got %zd", n_args);
  ferry_native_reading_init (&reading);
  found = root_find (SELF (object), args[0], &reading);
  if (found > 0)
    return ferry_native_reading_take (SELF (object), &reading);
  Py_XDECREF ((PyObject *) reading.user_data);
  return found < 0 ? NULL : Py_NewRef (n_args > 1 ? args[1] : Py_None);
}

static PyObject *
store_pop (PyObject *object, PyObject *const *args, Py_ssize_t n_args)
{
  FerryReading reading;
  int done;

  if (n_args < 1 || n_args > 2)
    return PyErr_Format (PyExc_TypeError, "pop expected 1 or 2 arguments, got %zd", n_args);
  ferry_native_reading_init (&reading);
  done = root_take (SELF (object), args[0], &reading);
  if (done > 0)
    return ferry_native_reading_take (SELF (object), &reading);
  if (done < 0)
    return NULL;
  return n_args > 1 ? Py_NewRef (args[1]) : ferry_native_raise_key (args[0]);
}

/* Adds to a value in one step; NotImplemented: not both are numbers that fit. */
static PyObject *
store_add (PyObject *object, PyObject *args)
{
  FerryNativeStore *self = SELF (object);
  GError *error = NULL;
  FerryNativeKey key;
  FerryReading reading;
  FerryCell delta;
  PyObject *name;
  PyObject *number;
  int done;

  if (!PyArg_ParseTuple (args, "OO", &name, &number))
    return NULL;
  if (!ferry_native_inline_number (number, &delta))
    return Py_NewRef (Py_NotImplemented);
  if (!key_init (&key, self, name))
    return NULL;
  if (!ferry_native_store_begin (self))
    {
      ferry_native_key_clear (&key);
      return NULL;
    }
  ferry_native_reading_init (&reading);
  done = ferry_store_root_add (self->live, &key.key, delta, &reading, &error);
  ferry_store_end (self->live);
  ferry_native_key_clear (&key);
  return done == 0 ? ferry_native_raise_key (name) : ferry_native_sum_take (self, done, &reading, &error);
}

/* The keys at an instant. */
static PyObject *
store_list_keys (PyObject *object, PyObject *unused)
{
  FerryNativeStore *self = SELF (object);

  for (;;)
    {
      FerryStore *store = ferry_native_store_get (self);
      GError *error = NULL;
      PyObject *keys;
      FerryRef root;
      guint64 version;
      guint64 position = 0;
      int found = 1;

      if (store == NULL)
        return NULL;
      root = ferry_store_get_root (store);
      version = ferry_store_object_version (store, root);
      keys = PyList_New (0);
      while (keys != NULL && found > 0)
        {
          FerryReading reading;
          PyObject *key;

          ferry_native_reading_init (&reading);
          found = ferry_store_dict_next (store, root, &position, FALSE, &reading, NULL, &error);
          if (found <= 0)
            break;
          key = ferry_native_reading_take (self, &reading);
          if (key == NULL || PyList_Append (keys, key) < 0)
            Py_CLEAR (keys);
          Py_XDECREF (key);
        }
      if (keys == NULL)
        return NULL;
      if (found < 0)
        {
          Py_DECREF (keys);
          return ferry_native_raise (&error);
        }
      if (ferry_store_object_version (store, root) == version)
        return keys;
      Py_DECREF (keys);
    }
}

static PyObject *
store_iterate (PyObject *object)
{
  PyObject *keys = store_list_keys (object, NULL);
  PyObject *iterator = keys != NULL ? PyObject_GetIter (keys) : NULL;

  Py_XDECREF (keys);
  return iterator;
}

/* ---- methods ---- */

static PyObject *
store_begin_transaction (PyObject *object, PyObject *args)
{
  PyObject *timeout = Py_None;
  gint64 microseconds;

  if (!PyArg_ParseTuple (args, "|O", &timeout) || !ferry_native_parse_timeout (timeout, &microseconds)
      || !ferry_native_store_begin_transaction (SELF (object), microseconds))
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
store_commit (PyObject *object, PyObject *unused)
{
  if (!ferry_native_store_end_transaction (SELF (object), TRUE))
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
store_roll_back (PyObject *object, PyObject *unused)
{
  if (!ferry_native_store_end_transaction (SELF (object), FALSE))
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
store_get_in_transaction (PyObject *object, void *closure)
{
  FerryStore *store = SELF (object)->live;

  return PyBool_FromLong (store != NULL && ferry_store_in_transaction (store));
}

static PyObject *
store_watch (PyObject *object, PyObject *unused)
{
  FerryStore *store = ferry_native_store_get (SELF (object));

  return store != NULL ? PyLong_FromUnsignedLongLong (ferry_store_watch (store)) : NULL;
}

/* The new number, or None: the time is over. */
static PyObject *
store_wait_change (PyObject *object, PyObject *args)
{
  FerryNativeStore *self = SELF (object);
  unsigned long long number;
  PyObject *timeout = Py_None;
  FerryNativeWait wait;
  gint64 microseconds;
  guint64 seen;

  if (!PyArg_ParseTuple (args, "K|O", &number, &timeout) || !ferry_native_parse_timeout (timeout, &microseconds))
    return NULL;
  seen = number;
  wait = ferry_native_wait_begin (microseconds);
  for (;;)
    {
      g_autoptr (GError) error = NULL;
      FerryStore *store = ferry_native_store_get (self);
      gint64 slice = ferry_native_wait_slice (&wait, FERRY_NATIVE_SLICE_US);
      gboolean changed;

      if (store == NULL)
        return NULL;
      ferry_native_store_enter (self);
      Py_BEGIN_ALLOW_THREADS
      changed = ferry_store_wait_change (store, &seen, slice, NULL, &error);
      Py_END_ALLOW_THREADS
      ferry_native_store_leave (self);
      if (changed)
        return PyLong_FromUnsignedLongLong (seen);
      if (!g_error_matches (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT))
        return ferry_native_raise (&error);
      if (PyErr_CheckSignals () < 0)
        return NULL;
      if (slice == 0)
        Py_RETURN_NONE;
    }
}

static PyObject *
store_fileno (PyObject *object, PyObject *unused)
{
  FerryStore *store = ferry_native_store_get (SELF (object));
  g_autoptr (GError) error = NULL;
  int fd;

  if (store == NULL)
    return NULL;
  fd = ferry_store_get_fd (store, &error);
  return fd >= 0 ? PyLong_FromLong (fd) : ferry_native_raise (&error);
}

/* The new number, or None: nothing has changed, and the descriptor will tell. */
static PyObject *
store_check (PyObject *object, PyObject *number)
{
  FerryStore *store = ferry_native_store_get (SELF (object));
  guint64 seen = PyLong_AsUnsignedLongLong (number);

  if (store == NULL || PyErr_Occurred ())
    return NULL;
  if (ferry_store_check (store, &seen))
    return PyLong_FromUnsignedLongLong (seen);
  Py_RETURN_NONE;
}

static PyObject *
store_collect (PyObject *object, PyObject *unused)
{
  FerryNativeStore *self = SELF (object);
  FerryStore *store = ferry_native_store_get (self);
  g_autoptr (GError) error = NULL;
  gboolean ok;

  if (store == NULL)
    return NULL;
  ferry_native_store_enter (self);
  Py_BEGIN_ALLOW_THREADS
  ok = ferry_store_collect (store, &error);
  Py_END_ALLOW_THREADS
  ferry_native_store_leave (self);
  if (!ok)
    return ferry_native_raise (&error);
  Py_RETURN_NONE;
}

static PyObject *
store_trim (PyObject *object, PyObject *unused)
{
  FerryNativeStore *self = SELF (object);
  FerryStore *store = ferry_native_store_get (self);
  gsize bytes;

  if (store == NULL)
    return NULL;
  ferry_native_store_enter (self);
  Py_BEGIN_ALLOW_THREADS
  bytes = ferry_store_trim (store);
  Py_END_ALLOW_THREADS
  ferry_native_store_leave (self);
  return PyLong_FromSize_t (bytes);
}

static PyObject *
store_verify (PyObject *object, PyObject *unused)
{
  FerryNativeStore *self = SELF (object);
  FerryStore *store = ferry_native_store_get (self);
  g_autoptr (GError) error = NULL;
  gboolean ok;

  if (store == NULL)
    return NULL;
  ferry_native_store_enter (self);
  Py_BEGIN_ALLOW_THREADS
  ok = ferry_store_verify (store, &error);
  Py_END_ALLOW_THREADS
  ferry_native_store_leave (self);
  if (!ok)
    return ferry_native_raise (&error);
  Py_RETURN_NONE;
}

static PyObject *
store_get_name (PyObject *object, void *closure)
{
  const char *name = SELF (object)->store != NULL ? ferry_store_get_name (SELF (object)->store) : NULL;

  return name != NULL ? PyUnicode_FromString (name) : Py_NewRef (Py_None);
}

static PyObject *
store_get_identity (PyObject *object, void *closure)
{
  return PyBytes_FromStringAndSize ((const char *) SELF (object)->identity, sizeof SELF (object)->identity);
}

static PyObject *
store_get_closed (PyObject *object, void *closure)
{
  return PyBool_FromLong (ferry_native_store_get_to_unhold (SELF (object)) == NULL);
}

static PyObject *
store_get_pickle (PyObject *object, void *closure)
{
  return PyBool_FromLong (SELF (object)->pickle);
}

static PyObject *
store_get_description (PyObject *object, void *closure)
{
  return Py_NewRef (SELF (object)->description != NULL ? SELF (object)->description : Py_None);
}

typedef guint64 (*GetBytes) (FerryStore *store);

static const GetBytes bytes_used = ferry_store_get_bytes_used;
static const GetBytes bytes_committed = ferry_store_get_bytes_committed;
static const GetBytes max_bytes = ferry_store_get_max_bytes;

static PyObject *
store_get_bytes (PyObject *object, void *closure)
{
  FerryStore *store = ferry_native_store_get (SELF (object));

  return store != NULL ? PyLong_FromUnsignedLongLong ((*(const GetBytes *) closure) (store)) : NULL;
}

/* ---- references that travel ---- */

static PyObject *
reduce (PyObject *object, FerryNativeStore *owner, FerryRef ref)
{
  static PyObject *load;
  g_autoptr (GError) error = NULL;
  guint64 ticket = 0;

  if (ferry_native_store_is_encoding ())
    {
      PyObject *plain = ferry_native_deep_snapshot (owner, ref);

      return plain != NULL ? Py_BuildValue ("N(N)", ferry_native_store_call ("_get_plain_maker", "()"), plain) : NULL;
    }
  if (load == NULL)
    {
      PyObject *module = PyImport_ImportModule ("ferry._native");

      load = module != NULL ? PyObject_GetAttrString (module, "store_load") : NULL;
      Py_XDECREF (module);
      if (load == NULL)
        return NULL;
    }
  if (!ferry_native_store_begin (owner))
    return NULL;
  ticket = ferry_store_ticket_new (owner->live, ref, &error);
  ferry_store_end (owner->live);
  if (ticket == 0)
    return ferry_native_raise (&error);
  return Py_BuildValue ("O(y#OOK)", load, (const char *) owner->identity, (Py_ssize_t) sizeof owner->identity,
                        owner->description, owner->pickle ? Py_True : Py_False, (unsigned long long) ticket);
}

PyObject *
ferry_native_proxy_reduce (PyObject *self, PyObject *protocol)
{
  if (!ferry_native_check_there (FERRY_NATIVE_PROXY (self)->owner, &FERRY_NATIVE_PROXY (self)->ref))
    return NULL;
  return reduce (self, FERRY_NATIVE_PROXY (self)->owner, FERRY_NATIVE_PROXY (self)->ref);
}

static gboolean
find_live (PyObject *object, FerryNativeStore **owner, FerryRef *ref)
{
  if (ferry_native_find_live (object, owner, ref))
    return ferry_native_check_there (*owner, ref);
  PyErr_Format (PyExc_TypeError, "a %.200s is no live object of a store", Py_TYPE (object)->tp_name);
  return FALSE;
}

static PyObject *
store_reduce (PyObject *unused, PyObject *object)
{
  FerryNativeStore *owner;
  FerryRef ref;

  return find_live (object, &owner, &ref) ? reduce (object, owner, ref) : NULL;
}

static PyObject *
store_load (PyObject *unused, PyObject *const *args, Py_ssize_t n_args)
{
  g_autoptr (GError) error = NULL;
  FerryNativeStore *owner = NULL;
  PyObject *opened = NULL;
  PyObject *result = NULL;
  unsigned long long ticket;
  FerryRef ref = 0;

  if (n_args != 4 || !PyBytes_CheckExact (args[0]) || PyBytes_GET_SIZE (args[0]) != sizeof owner->identity
      || !PyUnicode_Check (args[1]))
    {
      PyErr_SetString (PyExc_TypeError, "that is no reference to an object of a store");
      return NULL;
    }
  ticket = PyLong_AsUnsignedLongLong (args[3]);
  if (PyErr_Occurred ())
    return NULL;
  for (GList *link = stores.head; link != NULL && owner == NULL; link = link->next)
    if (memcmp (SELF (link->data)->identity, PyBytes_AS_STRING (args[0]), sizeof owner->identity) == 0)
      owner = SELF (link->data);
  if (owner == NULL)
    {
      opened = ferry_native_store_call ("_open_for_reference", "(OOO)", args[0], args[1], args[2]);
      if (opened == NULL)
        return NULL;
      if (!PyObject_TypeCheck (opened, &FerryNativeStore_Type))
        {
          PyErr_SetString (PyExc_TypeError, "no store was opened");
          Py_DECREF (opened);
          return NULL;
        }
      owner = SELF (opened);
    }
  Py_INCREF ((PyObject *) owner);
  if (ferry_native_store_begin (owner))
    {
      ref = ferry_store_ticket_take (owner->live, ticket, &error);
      ferry_store_end (owner->live);
      if (ref != 0)
        result = ferry_native_object_for (owner, ref);
      else
        ferry_native_raise (&error);
    }
  Py_DECREF ((PyObject *) owner);
  Py_XDECREF (opened);
  return result;
}

static FerryNativeStore *
find_open (const guint8 *identity)
{
  for (GList *link = stores.head; link != NULL; link = link->next)
    if (memcmp (SELF (link->data)->identity, identity, sizeof SELF (link->data)->identity) == 0)
      return SELF (link->data);
  return NULL;
}

/* What is copied when it is stored, and what stands for something else, goes as ever. */
static gboolean
may_become_live (PyObject *object)
{
  PyTypeObject *type = Py_TYPE (object);

  if (PyList_Check (object) || PyDict_Check (object) || PyAnySet_Check (object) || PyByteArray_Check (object)
      || ferry_native_is_array (object))
    return !PyFrozenSet_Check (object);
  if (!PyType_HasFeature (type, Py_TPFLAGS_HEAPTYPE) || PyTuple_Check (object) || PyUnicode_Check (object)
      || PyBytes_Check (object) || PyLong_Check (object) || PyFloat_Check (object) || PyType_Check (object))
    return FALSE;
  switch (ferry_native_classify (type))
    {
    case FERRY_NATIVE_CLASS_RECORD:
    case FERRY_NATIVE_CLASS_TENSOR:
      return TRUE;
    case FERRY_NATIVE_CLASS_UNKNOWN:
    case FERRY_NATIVE_CLASS_CODEC:
    case FERRY_NATIVE_CLASS_MEMBER:
    case FERRY_NATIVE_CLASS_NAMED:
    case FERRY_NATIVE_CLASS_LIVE:
    case FERRY_NATIVE_CLASS_STAND_IN:
    default:
      return FALSE;
    }
}

gboolean
ferry_native_store_reference_for (PyObject *object, FerryNativeStore *owner, FerryStoreReference **reference)
{
  FerryNativeStore *found;
  FerryNativeValue value;
  FerryRef ref;
  GError *error = NULL;
  FerryStore *store;

  *reference = NULL;
  if (stores.length > 0 && ferry_native_find_live (object, &found, &ref))
    {
      store = ferry_native_store_get (found);
      if (store == NULL || !ferry_native_check_there (found, &ref))
        return FALSE;
      *reference = ferry_store_reference_new (store, ref, &error);
      if (*reference == NULL)
        ferry_native_raise (&error);
      return *reference != NULL;
    }
  if (owner == NULL || !may_become_live (object))
    return !PyErr_Occurred ();
  if (ferry_native_store_get (owner) == NULL || !ferry_native_value_prepare (&value, owner, object))
    return FALSE;
  if (ferry_native_store_begin (owner))
    {
      store = owner->live;
      if (ferry_native_value_make (&value, owner))
        {
          if (ferry_cell_tag (value.cell) == FERRY_CELL_OBJECT)
            *reference = ferry_store_reference_new (store, ferry_cell_payload (value.cell), &error);
          /* the reference alone keeps it from here on */
          ferry_native_value_release (&value, owner);
        }
      ferry_store_end (store);
    }
  ferry_native_value_clear (&value);
  if (error != NULL)
    ferry_native_raise (&error);
  return !PyErr_Occurred ();
}

PyObject *
ferry_native_object_for_reference (FerryStoreReference *reference)
{
  g_autoptr (GError) error = NULL;
  guint8 identity[16];
  FerryNativeStore *owner;
  FerryStore *store;

  ferry_store_get_identity (ferry_store_reference_get_store (reference), identity);
  owner = find_open (identity);
  if (owner == NULL)
    return ferry_native_raise_code (FERRY_ERROR_CLOSED, "the store of the object is not open in this process any more");
  store = ferry_native_store_get (owner);
  if (store == NULL)
    return NULL;
  if (!ferry_store_hold (store, ferry_store_reference_get_object_id (reference), &error))
    return ferry_native_raise (&error);
  return ferry_native_object_for (owner, ferry_store_reference_get_object_id (reference));
}

int
ferry_native_store_prepare_reference (FerryBuffer *buffer, FerryCodec *codec, gboolean pickle)
{
  g_autofree char *transport = NULL;
  g_autofree char *name = NULL;
  g_autofree char *accept = NULL;
  gboolean may_open = TRUE;
  guint8 identity[16];
  PyObject *opened;

  if (!ferry_store_reference_peek (buffer, identity, &transport, &name))
    return 0;
  if (find_open (identity) != NULL)
    return 1;
  /* What the codec does not want is its to refuse. */
  if (codec != NULL && g_object_class_find_property (G_OBJECT_GET_CLASS (codec), "open-stores") != NULL)
    g_object_get (codec, "open-stores", &may_open, "accept", &accept, NULL);
  if (!may_open || (accept != NULL && strcmp (accept, name) != 0))
    return 1;
  opened = ferry_native_store_call ("_open_named", "(y#ssO)", (const char *) identity, (Py_ssize_t) sizeof identity,
                                    transport, name, pickle ? Py_True : Py_False);
  Py_XDECREF (opened); /* ferry.store keeps it */
  return opened != NULL ? 1 : -1;
}

static PyObject *
store_snapshot (PyObject *unused, PyObject *object)
{
  FerryNativeStore *owner;
  FerryRef ref;

  return find_live (object, &owner, &ref) ? ferry_native_deep_snapshot (owner, ref) : NULL;
}

/* The store that an object lives in, or None. */
static PyObject *
store_of (PyObject *unused, PyObject *object)
{
  FerryNativeStore *owner;
  FerryRef ref;

  return Py_NewRef (ferry_native_find_live (object, &owner, &ref) ? (PyObject *) owner : Py_None);
}

/* A number that changes with every change of the object itself. */
static PyObject *
store_version (PyObject *unused, PyObject *object)
{
  FerryNativeStore *owner;
  FerryRef ref;
  FerryStore *store;

  if (!find_live (object, &owner, &ref))
    return NULL;
  store = ferry_native_store_get (owner);
  return store != NULL ? PyLong_FromUnsignedLongLong (ferry_store_object_version (store, ref)) : NULL;
}

static PyObject *
store_is_same (PyObject *unused, PyObject *args)
{
  PyObject *one;
  PyObject *other;
  FerryNativeStore *owner;
  FerryNativeStore *other_owner;
  FerryRef ref;
  FerryRef other_ref;

  if (!PyArg_ParseTuple (args, "OO", &one, &other))
    return NULL;
  return PyBool_FromLong (ferry_native_find_live (one, &owner, &ref)
                          && ferry_native_find_live (other, &other_owner, &other_ref) && ref == other_ref
                          && memcmp (owner->identity, other_owner->identity, sizeof owner->identity) == 0);
}

/* The number of a live object, the same in all processes; None for what is not live. */
static PyObject *
store_number (PyObject *unused, PyObject *object)
{
  FerryNativeStore *owner;
  FerryRef ref;

  if (!ferry_native_find_live (object, &owner, &ref))
    Py_RETURN_NONE;
  return PyLong_FromUnsignedLongLong (ref);
}

/* The live object of a number, or None: there is none any more. */
static PyObject *
store_find (PyObject *unused, PyObject *args)
{
  g_autoptr (GError) error = NULL;
  FerryNativeStore *owner;
  unsigned long long ref;
  FerryStore *store;

  if (!PyArg_ParseTuple (args, "O!K", &FerryNativeStore_Type, &owner, &ref))
    return NULL;
  store = ferry_native_store_get (owner);
  if (store == NULL)
    return NULL;
  if (ferry_store_hold (store, ref, &error))
    return ferry_native_object_for (owner, ref);
  if (g_error_matches (error, FERRY_ERROR, FERRY_ERROR_CORRUPT))
    Py_RETURN_NONE;
  return ferry_native_raise (&error);
}

PyMethodDef ferry_native_store_functions[] = {
  { "store_number", store_number, METH_O, NULL },
  { "store_find", store_find, METH_VARARGS, NULL },
  { "store_list", list_all, METH_NOARGS, NULL },
  { "store_reduce", store_reduce, METH_O, NULL },
  { "store_load", FAST (store_load), METH_FASTCALL, NULL },
  { "store_snapshot", store_snapshot, METH_O, NULL },
  { "store_of", store_of, METH_O, NULL },
  { "store_version", store_version, METH_O, NULL },
  { "store_is_same", store_is_same, METH_VARARGS, NULL },
  { NULL },
};

static PyMethodDef store_methods[] = {
  { "close", store_close, METH_NOARGS,
    "close($self, /)\n--\n\nLeave the store; the objects that were read can't be used any more." },
  { "get", FAST (store_get), METH_FASTCALL,
    "get($self, key, default=None, /)\n--\n\nThe value of a key, or the default." },
  { "pop", FAST (store_pop), METH_FASTCALL,
    "pop($self, key, default=..., /)\n--\n\nRemove a key and return its value, or the default." },
  { "begin_transaction", store_begin_transaction, METH_VARARGS,
    "begin_transaction($self, timeout=None, /)\n--\n\nHold the store; see `ferry.Store.transaction()`." },
  { "commit", store_commit, METH_NOARGS,
    "commit($self, /)\n--\n\nMake what the transaction of this thread changed count." },
  { "roll_back", store_roll_back, METH_NOARGS,
    "roll_back($self, /)\n--\n\nUndo what the transaction of this thread changed." },
  { "watch", store_watch, METH_NOARGS,
    "watch($self, /)\n--\n\nA number that grows with every change of anything in the store." },
  { "wait_change", store_wait_change, METH_VARARGS,
    "wait_change($self, seen, timeout=None, /)\n--\n\n"
    "Wait until anything has changed since `seen`, from `watch()`; return the new number, or None when the time is "
    "over." },
  { "fileno", store_fileno, METH_NOARGS,
    "fileno($self, /)\n--\n\nA descriptor that gets readable on a change after `check()` returned None." },
  { "check", store_check, METH_O,
    "check($self, seen, /)\n--\n\nThe new number if anything has changed since `seen`, or None." },
  { "collect", store_collect, METH_NOARGS, "collect($self, /)\n--\n\nFree cycles that nobody refers to." },
  { "trim", store_trim, METH_NOARGS,
    "trim($self, /)\n--\n\nGive free memory back to the system; return how many bytes." },
  { "verify", store_verify, METH_NOARGS,
    "verify($self, /)\n--\n\nRaise CorruptError if anything in its memory can't be right." },
  { "_list_keys", store_list_keys, METH_NOARGS, NULL },
  { "_add", store_add, METH_VARARGS, NULL },
  { NULL },
};

static PyGetSetDef store_getset[] = {
  { "name", store_get_name, NULL, "str or None: its name", NULL },
  { "identity", store_get_identity, NULL, "bytes: 16 bytes that no other store has", NULL },
  { "closed", store_get_closed, NULL, "bool: whether it is closed in this process", NULL },
  { "pickle", store_get_pickle, NULL, "bool: whether objects of any class may be stored and read", NULL },
  { "in_transaction", store_get_in_transaction, NULL, "bool: whether this thread is in a transaction", NULL },
  { "bytes_used", store_get_bytes, NULL, "int: bytes in use by values", (gpointer) &bytes_used },
  { "bytes_committed", store_get_bytes, NULL, "int: bytes of memory taken from the system",
    (gpointer) &bytes_committed },
  { "max_bytes", store_get_bytes, NULL, "int: the bound of its memory", (gpointer) &max_bytes },
  { "_description", store_get_description, NULL, NULL, NULL },
  { NULL },
};

static PySequenceMethods store_as_sequence = { .sq_length = store_length, .sq_contains = store_contains };

static PyMappingMethods store_as_mapping
    = { .mp_length = store_length, .mp_subscript = store_subscript, .mp_ass_subscript = store_assign_subscript };

PyTypeObject FerryNativeStore_Type = {
  PyVarObject_HEAD_INIT (NULL, 0).tp_name = "ferry._native.Store",
  .tp_basicsize = sizeof (FerryNativeStore),
  .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
  .tp_new = store_new,
  .tp_init = store_init,
  .tp_dealloc = store_dealloc,
  .tp_iter = store_iterate,
  .tp_as_sequence = &store_as_sequence,
  .tp_as_mapping = &store_as_mapping,
  .tp_methods = store_methods,
  .tp_getset = store_getset,
  .tp_weaklistoffset = offsetof (FerryNativeStore, weakrefs),
};
