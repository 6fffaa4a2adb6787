/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-native-store.h"

#include <structmember.h>

/*
 * Records: instances of the user's classes.
 *
 * One that is read is an instance of a class that is generated from the user's, once for each set of fields. It has a slot for
 * the handle, which says what record it is, and for each field a descriptor that reads and writes the cell. Everything
 * else, methods, properties, constants, is the user's class. What is no field is in a dict of the record's.
 */

/* What an instance has in its slot. */
typedef struct
{
  FerryNativeProxy proxy;
  PyObject *instance; /* borrowed, for it has this */
} Handle;

/* The descriptor of a field. */
typedef struct
{
  PyObject_HEAD PyTypeObject *type; /* borrowed: the generated class, which has this */
  PyTypeObject *original;           /* borrowed from it */
  PyObject *name;
  guint index;
  Py_ssize_t offset;
} Field;

/* More about a generated class than others need to know. */
typedef struct
{
  FerryNativeLive live;
  gboolean has_dict;
  gboolean custom_get; /* the user's class has a __getattribute__() */
} Live;

static GHashTable *lives; /* PyTypeObject to Live; for good */

static Live *
find_class (PyTypeObject *type)
{
  return lives != NULL && PyType_HasFeature (type, Py_TPFLAGS_HEAPTYPE) ? g_hash_table_lookup (lives, type) : NULL;
}

gboolean
ferry_native_is_record (PyObject *object)
{
  return find_class (Py_TYPE (object)) != NULL;
}

FerryNativeProxy *
ferry_native_record_get_handle (PyObject *object)
{
  Live *self = find_class (Py_TYPE (object));

  return self != NULL ? *(FerryNativeProxy **) ((char *) object + self->live.offset) : NULL;
}

/* ---- handles ---- */

static void
handle_dealloc (PyObject *object)
{
  Handle *self = (Handle *) object;
  FerryStore *store = ferry_native_store_get_to_unhold (self->proxy.owner);

  if (store != NULL)
    {
      if (ferry_store_get_binding (store, self->proxy.ref) == self->instance)
        ferry_store_set_binding (store, self->proxy.ref, NULL);
      ferry_store_unhold (store, self->proxy.ref);
    }
  Py_DECREF ((PyObject *) self->proxy.owner);
  PyObject_Free (self);
}

PyTypeObject FerryNativeHandle_Type = {
  PyVarObject_HEAD_INIT (NULL, 0).tp_name = "ferry.store.Handle",
  .tp_basicsize = sizeof (Handle),
  .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
  .tp_dealloc = handle_dealloc,
};

/* ---- fields ---- */

static PyObject *
raise_attribute (PyTypeObject *original, PyObject *name)
{
  PyErr_Format (PyExc_AttributeError, "'%.100s' object has no attribute '%U'", original->tp_name, name);
  return NULL;
}

/* What the class has for it, where the instance has nothing. */
static PyObject *
get_from_class (Field *self, PyObject *object)
{
  PyObject *attribute = _PyType_Lookup (self->original, self->name);
  PyObject *result;

  if (attribute == NULL || Py_IS_TYPE (attribute, &PyMemberDescr_Type))
    return raise_attribute (self->original, self->name);
  Py_INCREF (attribute);
  if (Py_TYPE (attribute)->tp_descr_get == NULL)
    return attribute;
  result = Py_TYPE (attribute)->tp_descr_get (attribute, object, (PyObject *) self->original);
  Py_DECREF (attribute);
  return result;
}

static inline PyObject *
field_read (Field *self, PyObject *object)
{
  FerryNativeProxy *handle = *(FerryNativeProxy **) ((char *) object + self->offset);
  GError *error = NULL;
  FerryReading reading;
  FerryStore *store;
  FerryCell cell;
  int found;

  if (G_UNLIKELY (handle == NULL))
    return raise_attribute (self->original, self->name);
  store = ferry_native_store_get (handle->owner);
  if (G_UNLIKELY (store == NULL))
    return NULL;
  if (G_LIKELY (ferry_store_record_peek (store, handle->ref, self->index, &cell)))
    return ferry_native_inline_object (handle->owner, cell);
  ferry_native_reading_init (&reading);
  found = ferry_store_record_get (store, handle->ref, self->index, &reading, &error);
  if (G_LIKELY (found > 0))
    return ferry_native_reading_take (handle->owner, &reading);
  Py_XDECREF ((PyObject *) reading.user_data);
  return found == 0 ? get_from_class (self, object) : ferry_native_raise (&error);
}

static PyObject *
field_get (PyObject *object, PyObject *instance, PyObject *type)
{
  Field *self = (Field *) object;

  if (instance == NULL)
    return PyObject_GetAttr ((PyObject *) self->original, self->name);
  if (G_UNLIKELY (Py_TYPE (instance) != self->type))
    {
      PyErr_Format (PyExc_TypeError, "descriptor '%U' for '%.100s' objects doesn't apply to a '%.100s' object",
                    self->name, self->original->tp_name, Py_TYPE (instance)->tp_name);
      return NULL;
    }
  return field_read (self, instance);
}

static int
field_write (Field *self, PyObject *object, PyObject *item)
{
  FerryNativeProxy *handle = *(FerryNativeProxy **) ((char *) object + self->offset);
  GError *error = NULL;
  FerryNativeValue value = { .cell = FERRY_CELL_EMPTY };
  int done = -1;

  if (G_UNLIKELY (handle == NULL))
    {
      raise_attribute (self->original, self->name);
      return -1;
    }
  if (G_UNLIKELY (item != NULL && !ferry_native_value_prepare (&value, handle->owner, item)))
    return -1;
  if (G_LIKELY (ferry_native_store_begin (handle->owner)))
    {
      FerryStore *store = handle->owner->live;

      if (G_LIKELY (ferry_native_value_make (&value, handle->owner)))
        {
          done = ferry_store_record_set (store, handle->ref, self->index, value.cell, &error);
          if (G_UNLIKELY (done < 0))
            ferry_native_value_release (&value, handle->owner);
        }
      ferry_store_end (store);
    }
  ferry_native_value_clear (&value);
  if (G_UNLIKELY (done < 0))
    {
      if (!PyErr_Occurred ())
        ferry_native_raise (&error);
      return -1;
    }
  if (G_UNLIKELY (item == NULL && done == 0))
    {
      raise_attribute (self->original, self->name);
      return -1;
    }
  return 0;
}

static int
field_set (PyObject *object, PyObject *instance, PyObject *value)
{
  Field *self = (Field *) object;

  if (G_UNLIKELY (Py_TYPE (instance) != self->type))
    {
      PyErr_Format (PyExc_TypeError, "descriptor '%U' for '%.100s' objects doesn't apply to a '%.100s' object",
                    self->name, self->original->tp_name, Py_TYPE (instance)->tp_name);
      return -1;
    }
  return field_write (self, instance, value);
}

static PyObject *
field_new (PyTypeObject *type, PyObject *args, PyObject *keywords)
{
  PyObject *name;
  unsigned int index;
  Field *self;

  if (!PyArg_ParseTuple (args, "UI", &name, &index))
    return NULL;
  self = PyObject_New (Field, type);
  if (self == NULL)
    return NULL;
  self->type = NULL;
  self->original = &PyBaseObject_Type;
  self->name = Py_NewRef (name);
  self->index = index;
  self->offset = 0;
  return (PyObject *) self;
}

static void
field_dealloc (PyObject *object)
{
  Py_DECREF (((Field *) object)->name);
  PyObject_Free (object);
}

PyTypeObject FerryNativeField_Type = {
  PyVarObject_HEAD_INIT (NULL, 0).tp_name = "ferry._native.StoreField",
  .tp_basicsize = sizeof (Field),
  .tp_flags = Py_TPFLAGS_DEFAULT,
  .tp_new = field_new,
  .tp_dealloc = field_dealloc,
  .tp_descr_get = field_get,
  .tp_descr_set = field_set,
};

/* ---- what is no field ---- */

/* The dict of a record for further attributes, a proxy; NULL without an exception: it has none. */
static PyObject *
get_extra (FerryNativeProxy *handle, gboolean create)
{
  FerryStore *store = ferry_native_store_get (handle->owner);
  GError *error = NULL;
  FerryRef ref;

  if (store == NULL)
    return NULL;
  if (create)
    {
      if (!ferry_native_store_begin (handle->owner))
        return NULL;
      ref = ferry_store_record_extra (store, handle->ref, TRUE, &error);
      ferry_store_end (store);
    }
  else
    {
      ref = ferry_store_record_extra (store, handle->ref, FALSE, &error);
    }
  if (ref == 0)
    {
      if (error != NULL)
        ferry_native_raise (&error);
      return NULL;
    }
  return ferry_native_object_for (handle->owner, ref);
}

/* A new reference, or NULL without an exception. */
static PyObject *
find_extra (FerryNativeProxy *handle, PyObject *name)
{
  PyObject *extra = handle != NULL ? get_extra (handle, FALSE) : NULL;
  PyObject *result = NULL;

  if (extra == NULL)
    return NULL;
  result = PyObject_GetItem (extra, name);
  Py_DECREF (extra);
  if (result == NULL && PyErr_ExceptionMatches (PyExc_KeyError))
    PyErr_Clear ();
  return result;
}

/* The class of an instance that is known to have one; mostly the same as last time. */
static inline Live *
get_class (PyTypeObject *type)
{
  static PyTypeObject *last_type;
  static Live *last;

  if (G_UNLIKELY (type != last_type))
    {
      last = find_class (type);
      last_type = last != NULL ? type : NULL;
    }
  return last;
}

static gboolean
is_attribute_error (void)
{
  if (!PyErr_ExceptionMatches (PyExc_AttributeError))
    return FALSE;
  PyErr_Clear ();
  return TRUE;
}

/* In the order of the interpreter: data descriptors, of which fields are ones; the instance, which is the record; the
 * class; __getattr__(). */
static PyObject *
record_getattro (PyObject *object, PyObject *name)
{
  PyTypeObject *type = Py_TYPE (object);
  PyObject *attribute = _PyType_Lookup (type, name);
  PyObject *result;
  Live *self;

  if (G_LIKELY (attribute != NULL && Py_IS_TYPE (attribute, &FerryNativeField_Type)
                && ((Field *) attribute)->type == type))
    {
      result = field_read ((Field *) attribute, object);
      if (G_LIKELY (result != NULL) || !is_attribute_error ())
        return result;
      attribute = NULL; /* field_read() has looked at the class */
    }
  self = get_class (type);
  if (G_UNLIKELY (self == NULL))
    return PyObject_GenericGetAttr (object, name);
  if (G_UNLIKELY (self->custom_get))
    {
      result = self->live.original->tp_getattro (object, name);
      if (result != NULL || !is_attribute_error ())
        return result;
      attribute = NULL;
    }
  if (attribute != NULL && Py_TYPE (attribute)->tp_descr_set != NULL && Py_TYPE (attribute)->tp_descr_get != NULL)
    {
      Py_INCREF (attribute);
      result = Py_TYPE (attribute)->tp_descr_get (attribute, object, (PyObject *) type);
      Py_DECREF (attribute);
      if (result != NULL || self->live.original->tp_getattro == PyObject_GenericGetAttr || !is_attribute_error ())
        return result;
      return self->live.original->tp_getattro (object, name);
    }
  if (self->has_dict)
    {
      Py_XINCREF (attribute);
      result = find_extra (*(FerryNativeProxy **) ((char *) object + self->live.offset), name);
      if (result != NULL || PyErr_Occurred ())
        {
          Py_XDECREF (attribute);
          return result;
        }
      if (attribute != NULL && Py_TYPE (attribute)->tp_descr_get != NULL)
        {
          result = Py_TYPE (attribute)->tp_descr_get (attribute, object, (PyObject *) type);
          Py_DECREF (attribute);
          return result;
        }
      if (attribute != NULL)
        return attribute;
    }
  /* Says what is missing, or calls the user's __getattr__(). */
  if (self->custom_get)
    {
      PyErr_Format (PyExc_AttributeError, "'%.100s' object has no attribute '%U'", type->tp_name, name);
      return NULL;
    }
  return self->live.original->tp_getattro (object, name);
}

static int
set_extra (PyObject *object, PyObject *name, PyObject *value)
{
  FerryNativeProxy *handle = ferry_native_record_get_handle (object);
  PyObject *extra = handle != NULL ? get_extra (handle, value != NULL) : NULL;
  int done = -1;

  if (extra != NULL)
    {
      done = value != NULL ? PyObject_SetItem (extra, name, value) : PyObject_DelItem (extra, name);
      Py_DECREF (extra);
      if (done < 0 && value == NULL && PyErr_ExceptionMatches (PyExc_KeyError))
        {
          PyErr_Clear ();
          PyErr_SetObject (PyExc_AttributeError, name);
        }
    }
  else if (!PyErr_Occurred ())
    {
      PyErr_SetObject (PyExc_AttributeError, name);
    }
  return done;
}

static int
record_setattro (PyObject *object, PyObject *name, PyObject *value)
{
  PyTypeObject *type = Py_TYPE (object);
  PyObject *attribute = _PyType_Lookup (type, name);

  if (G_LIKELY (attribute != NULL && Py_IS_TYPE (attribute, &FerryNativeField_Type)
                && ((Field *) attribute)->type == type))
    return field_write ((Field *) attribute, object, value);
  if (attribute != NULL && Py_TYPE (attribute)->tp_descr_set != NULL)
    return PyObject_GenericSetAttr (object, name, value);
  return set_extra (object, name, value);
}

/* What a __setattr__() of the user's has put into the instance itself is the record's. */
static PyObject *
store_flush_record (PyObject *unused, PyObject *object)
{
  PyObject *dict = PyObject_GenericGetDict (object, NULL);
  PyObject *key;
  PyObject *value;
  Py_ssize_t position = 0;
  gboolean ok = TRUE;

  if (dict == NULL)
    {
      PyErr_Clear ();
      Py_RETURN_NONE;
    }
  while (ok && PyDict_GET_SIZE (dict) > 0 && PyDict_Next (dict, &position, &key, &value))
    {
      Py_INCREF (key);
      Py_INCREF (value);
      ok = set_extra (object, key, value) == 0;
      Py_DECREF (key);
      Py_DECREF (value);
    }
  PyDict_Clear (dict);
  Py_DECREF (dict);
  if (!ok)
    return NULL;
  Py_RETURN_NONE;
}

/* store_extra(record, create): the dict, or None. */
static PyObject *
store_extra (PyObject *unused, PyObject *args)
{
  PyObject *object;
  int create;
  FerryNativeProxy *handle;
  PyObject *extra;

  if (!PyArg_ParseTuple (args, "Op", &object, &create))
    return NULL;
  handle = ferry_native_record_get_handle (object);
  extra = handle != NULL ? get_extra (handle, create) : NULL;
  if (extra == NULL && !PyErr_Occurred ())
    Py_RETURN_NONE;
  return extra;
}

/* store_read_field(record, field): what is in the cell, whatever the class has under that name. */
static PyObject *
store_read_field (PyObject *unused, PyObject *args)
{
  FerryNativeProxy *handle;
  GError *error = NULL;
  FerryReading reading;
  PyObject *object;
  Field *field;
  int found;

  if (!PyArg_ParseTuple (args, "OO!", &object, &FerryNativeField_Type, &field))
    return NULL;
  handle = ferry_native_record_get_handle (object);
  if (handle == NULL || Py_TYPE (object) != field->type)
    return raise_attribute (field->original, field->name);
  if (ferry_native_store_get (handle->owner) == NULL)
    return NULL;
  ferry_native_reading_init (&reading);
  found = ferry_store_record_get (handle->owner->live, handle->ref, field->index, &reading, &error);
  if (found > 0)
    return ferry_native_reading_take (handle->owner, &reading);
  Py_XDECREF ((PyObject *) reading.user_data);
  return found == 0 ? raise_attribute (field->original, field->name) : ferry_native_raise (&error);
}

/* store_add_to_field(record, field, number): the sum; NotImplemented: not both are numbers that fit. */
static PyObject *
store_add_to_field (PyObject *unused, PyObject *args)
{
  PyObject *object;
  Field *field;
  PyObject *number;
  FerryNativeProxy *handle;
  GError *error = NULL;
  FerryReading reading;
  FerryCell delta;
  int done;

  if (!PyArg_ParseTuple (args, "OO!O", &object, &FerryNativeField_Type, &field, &number))
    return NULL;
  handle = ferry_native_record_get_handle (object);
  if (handle == NULL || Py_TYPE (object) != field->type || !ferry_native_inline_number (number, &delta))
    return Py_NewRef (Py_NotImplemented);
  if (!ferry_native_store_begin (handle->owner))
    return NULL;
  ferry_native_reading_init (&reading);
  done = ferry_store_record_add (handle->owner->live, handle->ref, field->index, delta, &reading, &error);
  ferry_store_end (handle->owner->live);
  return done == 0 ? raise_attribute (field->original, field->name)
                   : ferry_native_sum_take (handle->owner, done, &reading, &error);
}

/* ---- generated classes ---- */

/* store_finish_class(generated, original, names, fields, has_dict, generic_set, custom_get) */
static PyObject *
store_finish_class (PyObject *unused, PyObject *args)
{
  PyTypeObject *type;
  PyTypeObject *original;
  PyObject *names;
  PyObject *fields;
  PyObject *member;
  int has_dict;
  int generic_set;
  int custom_get;
  Live *self;

  if (!PyArg_ParseTuple (args, "O!O!O!O!ppp", &PyType_Type, &type, &PyType_Type, &original, &PyTuple_Type, &names,
                         &PyTuple_Type, &fields, &has_dict, &generic_set, &custom_get))
    return NULL;
  member = PyDict_GetItemString (type->tp_dict, "_ferry_handle");
  if (member == NULL || !Py_IS_TYPE (member, &PyMemberDescr_Type))
    {
      PyErr_SetString (PyExc_TypeError, "a generated class has no place for its handle");
      return NULL;
    }
  if (lives == NULL)
    lives = g_hash_table_new (NULL, NULL);
  self = g_new0 (Live, 1);
  self->live.type = (PyTypeObject *) Py_NewRef ((PyObject *) type);
  self->live.original = (PyTypeObject *) Py_NewRef ((PyObject *) original);
  self->live.names = Py_NewRef (names);
  self->live.offset = ((PyMemberDescrObject *) member)->d_member->offset;
  self->has_dict = has_dict;
  self->custom_get = custom_get;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE (fields); i++)
    {
      Field *field = (Field *) PyTuple_GET_ITEM (fields, i);

      field->type = type;
      field->original = original;
      field->offset = self->live.offset;
    }
  /* Nobody but us is to see it. */
  PyDict_DelItemString (type->tp_dict, "_ferry_handle");
  if (has_dict || original->tp_getattro != PyObject_GenericGetAttr)
    type->tp_getattro = record_getattro;
  if (has_dict && generic_set)
    type->tp_setattro = record_setattro;
  PyType_Modified (type);
  g_hash_table_insert (lives, type, self);
  Py_RETURN_NONE;
}

static FerryNativeLive *
get_live (FerryNativeStore *owner, FerryRef ref)
{
  FerryStore *store = ferry_native_store_get (owner);
  g_autoptr (GError) error = NULL;
  FerryNativeLive *live;
  FerryReading reading;
  PyObject *description;
  PyObject *type;
  FerryRef shape;

  if (store == NULL)
    return NULL;
  shape = ferry_store_record_shape (store, ref);
  live = g_hash_table_lookup (owner->classes, GSIZE_TO_POINTER ((gsize) shape));
  if (G_LIKELY (live != NULL))
    return live;
  ferry_native_reading_init (&reading);
  if (shape == 0 || !ferry_store_shape_read (store, shape, &reading, &error))
    {
      if (error == NULL)
        ferry_native_raise_code (FERRY_ERROR_CORRUPT, "a record of a store has no class");
      else
        ferry_native_raise (&error);
      return NULL;
    }
  description = ferry_native_reading_take (owner, &reading);
  if (description == NULL)
    return NULL;
  type = ferry_native_store_call ("_live_class", "(OO)", description, owner->pickle ? Py_True : Py_False);
  Py_DECREF (description);
  if (type == NULL)
    return NULL;
  live = (FerryNativeLive *) find_class ((PyTypeObject *) type);
  Py_DECREF (type); /* the table has it */
  if (live == NULL)
    {
      PyErr_SetString (PyExc_RuntimeError, "a generated class was not finished");
      return NULL;
    }
  g_hash_table_insert (owner->classes, GSIZE_TO_POINTER ((gsize) shape), live);
  return live;
}

static PyObject *
new_instance (PyTypeObject *type)
{
  static PyObject *no_arguments;

  if (no_arguments == NULL)
    no_arguments = PyTuple_New (0);
  return no_arguments != NULL ? PyBaseObject_Type.tp_new (type, no_arguments, NULL) : NULL;
}

PyObject *
ferry_native_record_new (FerryNativeStore *owner, FerryRef ref)
{
  FerryNativeLive *live = get_live (owner, ref);
  PyObject *instance = live != NULL ? new_instance (live->type) : NULL;
  Handle *handle = instance != NULL ? PyObject_New (Handle, &FerryNativeHandle_Type) : NULL;
  FerryStore *store = ferry_native_store_get_to_unhold (owner);

  if (handle == NULL)
    {
      Py_XDECREF (instance);
      if (store != NULL)
        ferry_store_unhold (store, ref);
      return NULL;
    }
  handle->proxy.owner = (FerryNativeStore *) Py_NewRef ((PyObject *) owner);
  handle->proxy.ref = ref;
  handle->proxy.weakrefs = NULL;
  handle->instance = instance;
  *(PyObject **) ((char *) instance + live->offset) = (PyObject *) handle;
  if (owner->live != NULL)
    ferry_store_set_binding (owner->live, ref, instance);
  return instance;
}

PyObject *
ferry_native_record_plain (FerryNativeStore *owner, FerryRef ref, FerryNativeLive **live)
{
  FerryNativeLive *found = get_live (owner, ref);

  if (found == NULL)
    return NULL;
  if (live != NULL)
    *live = found;
  return new_instance (found->original);
}

gboolean
ferry_native_record_set_plain (PyObject *instance, PyObject *name, PyObject *value)
{
  if (PyObject_GenericSetAttr (instance, name, value) == 0)
    return TRUE;
  if (!PyErr_ExceptionMatches (PyExc_AttributeError))
    return FALSE;
  /* The class has a property of that name. */
  {
    PyObject *dict;
    gboolean ok;

    PyErr_Clear ();
    dict = PyObject_GenericGetDict (instance, NULL);
    ok = dict != NULL && PyDict_SetItem (dict, name, value) == 0;
    Py_XDECREF (dict);
    return ok;
  }
}

/* ---- instances that are to be stored ---- */

FerryNativeClass
ferry_native_classify (PyTypeObject *type)
{
  static PyObject *known;
  PyObject *found;
  long result;

  if (!PyType_HasFeature (type, Py_TPFLAGS_HEAPTYPE))
    return FERRY_NATIVE_CLASS_CODEC;
  if (known == NULL)
    known = PyDict_New ();
  if (known == NULL)
    return FERRY_NATIVE_CLASS_UNKNOWN;
  found = PyDict_GetItemWithError (known, (PyObject *) type);
  if (found != NULL)
    return (FerryNativeClass) PyLong_AsLong (found);
  if (PyErr_Occurred ())
    return FERRY_NATIVE_CLASS_UNKNOWN;
  found = ferry_native_store_call ("_classify", "(O)", type);
  if (found == NULL)
    return FERRY_NATIVE_CLASS_UNKNOWN;
  result = PyLong_AsLong (found);
  if (PyDict_SetItem (known, (PyObject *) type, found) < 0)
    result = FERRY_NATIVE_CLASS_UNKNOWN;
  Py_DECREF (found);
  return result > 0 ? (FerryNativeClass) result : FERRY_NATIVE_CLASS_UNKNOWN;
}

/* (slots, declared names, (class, all of them)) */
static PyObject *
get_class_info (PyTypeObject *type)
{
  static PyObject *known;
  PyObject *info;

  if (known == NULL)
    known = PyDict_New ();
  if (known == NULL)
    return NULL;
  info = PyDict_GetItemWithError (known, (PyObject *) type);
  if (info != NULL || PyErr_Occurred ())
    return info;
  info = ferry_native_store_call ("_class_info", "(O)", type);
  if (info == NULL || !PyTuple_Check (info) || PyDict_SetItem (known, (PyObject *) type, info) < 0)
    {
      Py_XDECREF (info);
      return NULL;
    }
  Py_DECREF (info);
  return info; /* the table has it */
}

gboolean
ferry_native_record_read_plain (PyObject *object, PyObject **key, PyObject **values)
{
  PyObject *info = get_class_info (Py_TYPE (object));
  PyObject *slots;
  PyObject *declared;
  PyObject *dict = NULL;
  PyObject *more = NULL;
  PyObject *name;
  PyObject *value;
  Py_ssize_t n_slots;
  Py_ssize_t n_declared;
  Py_ssize_t n_found = 0;
  Py_ssize_t n_more = 0;
  Py_ssize_t position = 0;

  *key = *values = NULL;
  if (info == NULL)
    return FALSE;
  slots = PyTuple_GET_ITEM (info, 0);
  declared = PyTuple_GET_ITEM (info, 1);
  n_slots = PyTuple_GET_SIZE (slots);
  n_declared = PyTuple_GET_SIZE (declared);
  if (PyTuple_GET_ITEM (info, 3) == Py_True)
    {
      dict = PyObject_GenericGetDict (object, NULL);
      if (dict == NULL)
        return FALSE;
    }
  if (dict != NULL)
    {
      for (Py_ssize_t i = 0; i < n_declared; i++)
        n_found += PyDict_GetItemWithError (dict, PyTuple_GET_ITEM (declared, i)) != NULL;
      n_more = PyDict_GET_SIZE (dict) - n_found;
    }
  *values = PyTuple_New (n_slots + n_declared + n_more);
  if (*values == NULL)
    goto failed;
  for (Py_ssize_t i = 0; i < n_slots; i++)
    {
      value = PyObject_GenericGetAttr (object, PyTuple_GET_ITEM (slots, i));
      if (value == NULL)
        {
          if (!PyErr_ExceptionMatches (PyExc_AttributeError))
            goto failed;
          PyErr_Clear ();
        }
      PyTuple_SET_ITEM (*values, i, value);
    }
  for (Py_ssize_t i = 0; dict != NULL && i < n_declared; i++)
    {
      value = PyDict_GetItemWithError (dict, PyTuple_GET_ITEM (declared, i));
      Py_XINCREF (value);
      PyTuple_SET_ITEM (*values, n_slots + i, value);
    }
  if (n_more == 0)
    {
      *key = Py_NewRef (PyTuple_GET_ITEM (info, 2));
    }
  else
    {
      Py_ssize_t n = 0;

      more = PyTuple_New (1 + n_slots + n_declared + n_more);
      if (more == NULL)
        goto failed;
      for (Py_ssize_t i = 0; i < 1 + n_slots + n_declared; i++)
        PyTuple_SET_ITEM (more, i, Py_NewRef (PyTuple_GET_ITEM (PyTuple_GET_ITEM (info, 2), i)));
      while (n < n_more && PyDict_Next (dict, &position, &name, &value))
        {
          int known;

          if (!PyUnicode_CheckExact (name))
            {
              PyErr_Format (PyExc_TypeError, "an attribute of %.100s is named by a %.100s, not a str",
                            Py_TYPE (object)->tp_name, Py_TYPE (name)->tp_name);
              goto failed;
            }
          known = n_declared > 0 ? PySequence_Contains (declared, name) : 0;
          if (known < 0)
            goto failed;
          if (known > 0)
            continue;
          PyTuple_SET_ITEM (more, 1 + n_slots + n_declared + n, Py_NewRef (name));
          PyTuple_SET_ITEM (*values, n_slots + n_declared + n, Py_NewRef (value));
          n++;
        }
      if (n != n_more)
        {
          PyErr_SetString (PyExc_RuntimeError, "an object changed while it was stored");
          goto failed;
        }
      *key = more;
      more = NULL;
    }
  Py_XDECREF (dict);
  return TRUE;

failed:
  Py_XDECREF (dict);
  Py_XDECREF (more);
  Py_CLEAR (*values);
  return FALSE;
}

PyMethodDef ferry_native_record_functions[] = {
  { "store_finish_class", store_finish_class, METH_VARARGS, NULL },
  { "store_flush_record", store_flush_record, METH_O, NULL },
  { "store_extra", store_extra, METH_VARARGS, NULL },
  { "store_read_field", store_read_field, METH_VARARGS, NULL },
  { "store_add_to_field", store_add_to_field, METH_VARARGS, NULL },
  { NULL },
};
