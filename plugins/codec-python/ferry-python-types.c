/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-python-types.h"

#include "ferry-ndarray.h"
#include "ferry-python-numpy.h"

#include <string.h>

/* A power of two. Classes that fall on the same place take turns. */
#define KINDS_CACHED (256)

FerryPythonNames ferry_python_names;

static PyObject *classes[FERRY_PYTHON_N_CLASSES];

static const struct
{
  const char *module;
  const char *name;
} class_names[FERRY_PYTHON_N_CLASSES] = {
  [FERRY_PYTHON_CLASS_DECIMAL] = { "decimal", "Decimal" },
  [FERRY_PYTHON_CLASS_FRACTION] = { "fractions", "Fraction" },
  [FERRY_PYTHON_CLASS_UUID] = { "uuid", "UUID" },
  [FERRY_PYTHON_CLASS_SAFE_UUID] = { "uuid", "SafeUUID" },
  [FERRY_PYTHON_CLASS_ZONEINFO] = { "zoneinfo", "ZoneInfo" },
  [FERRY_PYTHON_CLASS_DATE] = { "datetime", "date" },
  [FERRY_PYTHON_CLASS_TIME] = { "datetime", "time" },
  [FERRY_PYTHON_CLASS_DATETIME] = { "datetime", "datetime" },
  [FERRY_PYTHON_CLASS_TIMEDELTA] = { "datetime", "timedelta" },
  [FERRY_PYTHON_CLASS_TIMEZONE] = { "datetime", "timezone" },
  [FERRY_PYTHON_CLASS_TENSOR] = { "torch", "Tensor" },
  [FERRY_PYTHON_CLASS_FORKING_PICKLER] = { "multiprocessing.reduction", "ForkingPickler" },
};

/* Python numbers the states of classes: as long as the number is the same, nothing of the class has changed, and no other
 * class ever has that number. */
static struct
{
  PyTypeObject *type;
  unsigned int version;
  FerryPythonKind kind;
} kinds[KINDS_CACHED];

/*
 * ferry_python_types_load: must be called before anything else here; cheap when done before.
 */
gboolean
ferry_python_types_load (void)
{
  if (G_LIKELY (ferry_python_names.name_int != NULL))
    return TRUE;

#define NAME(name)                                                                                                     \
  if (ferry_python_names.name == NULL)                                                                                 \
    ferry_python_names.name = PyUnicode_InternFromString (#name);                                                      \
  if (ferry_python_names.name == NULL)                                                                                 \
    return FALSE;
  FERRY_PYTHON_NAMES (NAME)
#undef NAME
  ferry_python_names.name_int = PyUnicode_InternFromString ("int");
  return ferry_python_names.name_int != NULL;
}

PyObject *
ferry_python_class_find (FerryPythonClass id)
{
  PyObject *name;
  PyObject *module;

  if (G_LIKELY (classes[id] != NULL))
    return classes[id];

  name = PyUnicode_FromString (class_names[id].module);
  if (name == NULL)
    return NULL;
  module = PyImport_GetModule (name);
  Py_DECREF (name);
  if (module == NULL)
    return NULL;
  classes[id] = PyObject_GetAttrString (module, class_names[id].name);
  Py_DECREF (module);

  /* It may still be being imported. */
  if (classes[id] == NULL && PyErr_ExceptionMatches (PyExc_AttributeError))
    PyErr_Clear ();
  return classes[id];
}

PyObject *
ferry_python_class_import (FerryPythonClass id)
{
  PyObject *module;

  if (G_LIKELY (classes[id] != NULL))
    return classes[id];

  module = PyImport_ImportModule (class_names[id].module);
  if (module == NULL)
    return NULL;
  classes[id] = PyObject_GetAttrString (module, class_names[id].name);
  Py_DECREF (module);
  return classes[id];
}

/* What collections.namedtuple() and typing.NamedTuple make, and not a class derived from that, which may have a
 * constructor of its own. */
gboolean
ferry_python_type_is_namedtuple (PyTypeObject *type, Py_ssize_t *n_fields)
{
  PyObject *fields;

  if (type->tp_base != &PyTuple_Type || type->tp_dict == NULL || type->tp_dictoffset != 0
      || PyTuple_GET_SIZE (type->tp_bases) != 1)
    return FALSE;
  fields = PyDict_GetItemWithError (type->tp_dict, ferry_python_names._fields);
  if (fields == NULL || !PyTuple_CheckExact (fields)
      || PyDict_GetItemWithError (type->tp_dict, ferry_python_names._make) == NULL)
    {
      PyErr_Clear ();
      return FALSE;
    }
  *n_fields = PyTuple_GET_SIZE (fields);
  return TRUE;
}

static gboolean
inherits (PyTypeObject *type, PyObject *attribute)
{
  return _PyType_Lookup (type, attribute) == _PyType_Lookup (&PyBaseObject_Type, attribute);
}

/* Whether object.__reduce_ex__(5) would say: copyreg.__newobj__, (class,), the __dict__. */
static gboolean
is_plain (PyTypeObject *type)
{
  Py_ssize_t size = sizeof (PyObject);

  if (!(type->tp_flags & Py_TPFLAGS_HEAPTYPE) || type->tp_dictoffset == 0 || type->tp_itemsize != 0
      || type->tp_getattro != PyObject_GenericGetAttr || type->tp_new == NULL
      || (type->tp_flags & (Py_TPFLAGS_LIST_SUBCLASS | Py_TPFLAGS_DICT_SUBCLASS | Py_TPFLAGS_TYPE_SUBCLASS)))
    return FALSE;

  /* More than the two pointers is slots, or something of C. */
  size += (Py_ssize_t) sizeof (PyObject *) * ((type->tp_dictoffset > 0) + (type->tp_weaklistoffset > 0));
  if (type->tp_basicsize > size)
    return FALSE;

  return inherits (type, ferry_python_names.__reduce_ex__) && inherits (type, ferry_python_names.__reduce__)
         && inherits (type, ferry_python_names.__getstate__)
         && _PyType_Lookup (type, ferry_python_names.__getnewargs__) == NULL
         && _PyType_Lookup (type, ferry_python_names.__getnewargs_ex__) == NULL;
}

static gboolean
is_class (PyTypeObject *type, FerryPythonClass id)
{
  return ferry_python_class_find (id) == (PyObject *) type;
}

/* Arrays of other libraries. Subclasses of what has a form of its own are more than their elements. */
static gboolean
is_dlpack (PyTypeObject *type)
{
  PyObject *tensor = ferry_python_class_find (FERRY_PYTHON_CLASS_TENSOR);

  return _PyType_Lookup (type, ferry_python_names.__dlpack__) != NULL && !ferry_python_numpy_is_subtype (type)
         && (tensor == NULL || !PyType_Check (tensor) || !PyType_IsSubtype (type, (PyTypeObject *) tensor));
}

static FerryPythonKind
classify (PyTypeObject *type)
{
  static const struct
  {
    FerryPythonClass id;
    FerryPythonKind kind;
  } known[] = {
    { FERRY_PYTHON_CLASS_DECIMAL, FERRY_PYTHON_KIND_DECIMAL },
    { FERRY_PYTHON_CLASS_FRACTION, FERRY_PYTHON_KIND_FRACTION },
    { FERRY_PYTHON_CLASS_UUID, FERRY_PYTHON_KIND_UUID },
    { FERRY_PYTHON_CLASS_ZONEINFO, FERRY_PYTHON_KIND_ZONEINFO },
    { FERRY_PYTHON_CLASS_DATE, FERRY_PYTHON_KIND_DATE },
    { FERRY_PYTHON_CLASS_TIME, FERRY_PYTHON_KIND_TIME },
    { FERRY_PYTHON_CLASS_DATETIME, FERRY_PYTHON_KIND_DATETIME },
    { FERRY_PYTHON_CLASS_TIMEDELTA, FERRY_PYTHON_KIND_TIMEDELTA },
    { FERRY_PYTHON_CLASS_TIMEZONE, FERRY_PYTHON_KIND_TIMEZONE },
    { FERRY_PYTHON_CLASS_TENSOR, FERRY_PYTHON_KIND_TENSOR },
  };
  FerryPythonKind kind;
  Py_ssize_t n_fields;

  if (type == &PySet_Type)
    return FERRY_PYTHON_KIND_SET;
  if (type == &PyFrozenSet_Type)
    return FERRY_PYTHON_KIND_FROZENSET;
  if (type == &PyComplex_Type)
    return FERRY_PYTHON_KIND_COMPLEX;
  if (type == &PyByteArray_Type)
    return FERRY_PYTHON_KIND_BYTEARRAY;
  if (type == &PyMemoryView_Type)
    return FERRY_PYTHON_KIND_MEMORYVIEW;
  if (type == &PyPickleBuffer_Type)
    return FERRY_PYTHON_KIND_PICKLE_BUFFER;
  if (type == &PyRange_Type)
    return FERRY_PYTHON_KIND_RANGE;
  if (type == &PySlice_Type)
    return FERRY_PYTHON_KIND_SLICE;
  if (type == Py_TYPE (Py_Ellipsis))
    return FERRY_PYTHON_KIND_ELLIPSIS;
  if (type == Py_TYPE (Py_NotImplemented))
    return FERRY_PYTHON_KIND_NOT_IMPLEMENTED;
  if (type == &PyFunction_Type || PyType_IsSubtype (type, &PyType_Type))
    return FERRY_PYTHON_KIND_GLOBAL;
  for (guint i = 0; i < G_N_ELEMENTS (known); i++)
    if (is_class (type, known[i].id))
      return known[i].kind;
  if (ferry_python_numpy_classify (type, &kind))
    return kind;
  if (ferry_python_type_is_namedtuple (type, &n_fields) && inherits (type, ferry_python_names.__reduce_ex__)
      && inherits (type, ferry_python_names.__reduce__) && inherits (type, ferry_python_names.__getstate__)
      && _PyType_Lookup (type, ferry_python_names.__getnewargs_ex__) == NULL)
    return FERRY_PYTHON_KIND_NAMEDTUPLE;
  if (is_dlpack (type))
    return FERRY_PYTHON_KIND_DLPACK;
  return is_plain (type) ? FERRY_PYTHON_KIND_PLAIN : FERRY_PYTHON_KIND_REDUCE;
}

FerryPythonKind
ferry_python_type_get_kind (PyTypeObject *type)
{
  gsize i = (GPOINTER_TO_SIZE (type) >> 4 ^ GPOINTER_TO_SIZE (type) >> 12) % KINDS_CACHED;
  FerryPythonKind kind;

  if (G_LIKELY (kinds[i].type == type && kinds[i].version == type->tp_version_tag
                && PyType_HasFeature (type, Py_TPFLAGS_VALID_VERSION_TAG)))
    return kinds[i].kind;

  /* Looking something up gives the class a number, unless Python ran out of them. */
  _PyType_Lookup (type, ferry_python_names.__reduce_ex__);
  kind = classify (type);
  PyErr_Clear ();
  if (PyType_HasFeature (type, Py_TPFLAGS_VALID_VERSION_TAG) && type->tp_version_tag != 0)
    {
      kinds[i].type = type;
      kinds[i].version = type->tp_version_tag;
      kinds[i].kind = kind;
    }
  return kind;
}

PyObject *
ferry_python_type_find_reducer (PyTypeObject *type)
{
  static PyObject *copyreg_table;
  static PyObject *forking_table;
  PyObject *reducer = NULL;

  /* As ForkingPickler does: its own come first. Neither dict is ever replaced. */
  if (forking_table == NULL)
    {
      PyObject *pickler = ferry_python_class_find (FERRY_PYTHON_CLASS_FORKING_PICKLER);

      if (pickler != NULL)
        forking_table = PyObject_GetAttr (pickler, ferry_python_names._extra_reducers);
      PyErr_Clear ();
    }
  if (forking_table != NULL && PyDict_Check (forking_table))
    reducer = PyDict_GetItemWithError (forking_table, (PyObject *) type);
  if (reducer != NULL || PyErr_Occurred ())
    return reducer;

  if (copyreg_table == NULL)
    {
      PyObject *copyreg = PyImport_Import (ferry_python_names.copyreg);

      if (copyreg == NULL)
        return NULL;
      copyreg_table = PyObject_GetAttr (copyreg, ferry_python_names.dispatch_table);
      Py_DECREF (copyreg);
      if (copyreg_table == NULL)
        return NULL;
    }
  return PyDict_Check (copyreg_table) ? PyDict_GetItemWithError (copyreg_table, (PyObject *) type) : NULL;
}

gboolean
ferry_python_type_has_reducer (PyTypeObject *type)
{
  gboolean registered = ferry_python_type_find_reducer (type) != NULL;

  PyErr_Clear ();
  return registered || !inherits (type, ferry_python_names.__reduce_ex__)
         || !inherits (type, ferry_python_names.__reduce__);
}

/* The attribute at the end of a path like `Outer.Inner`; a new reference. */
static PyObject *
follow_path (PyObject *from, PyObject *path)
{
  Py_ssize_t length = PyUnicode_GET_LENGTH (path);
  Py_ssize_t dot = PyUnicode_FindChar (path, '.', 0, length, 1);
  Py_ssize_t begin = 0;
  PyObject *found;

  if (dot == -1)
    return PyObject_GetAttr (from, path);

  found = Py_NewRef (from);
  while (begin <= length)
    {
      PyObject *name;
      PyObject *next;

      dot = PyUnicode_FindChar (path, '.', begin, length, 1);
      if (dot < 0)
        dot = length;
      name = PyUnicode_Substring (path, begin, dot);
      if (name == NULL)
        {
          Py_DECREF (found);
          return NULL;
        }
      if (PyUnicode_CompareWithASCIIString (name, "<locals>") == 0)
        {
          PyErr_Format (PyExc_AttributeError, "%R is local to a function", path);
          next = NULL;
        }
      else
        {
          next = PyObject_GetAttr (found, name);
        }
      Py_DECREF (name);
      Py_DECREF (found);
      if (next == NULL)
        return NULL;
      found = next;
      begin = dot + 1;
    }
  return found;
}

PyObject *
ferry_python_global_import (PyObject *module_name, PyObject *qualname)
{
  PyObject *module;
  PyObject *found;

  if (PySys_Audit ("pickle.find_class", "OO", module_name, qualname) < 0)
    return NULL;
  module = PyImport_GetModule (module_name);
  if (module == NULL)
    {
      if (PyErr_Occurred ())
        return NULL;
      module = PyImport_Import (module_name);
      if (module == NULL)
        return NULL;

      /* For a dotted name that was the top of the package, or the module: whatever is registered is right. */
      Py_SETREF (module, PyImport_GetModule (module_name));
      if (module == NULL)
        {
          if (!PyErr_Occurred ())
            PyErr_Format (PyExc_ImportError, "no module named %R", module_name);
          return NULL;
        }
    }
  found = follow_path (module, qualname);
  Py_DECREF (module);
  return found;
}

/* For the rare object that does not tell its module. */
static PyObject *
search_module (PyObject *object, PyObject *qualname)
{
  PyObject *pickle = PyImport_ImportModule ("pickle");
  PyObject *module;

  if (pickle == NULL)
    return NULL;
  module = PyObject_CallMethod (pickle, "whichmodule", "OO", object, qualname);
  Py_DECREF (pickle);
  return module;
}

gboolean
ferry_python_global_get_name (PyObject *object, PyObject *name, PyObject **module, PyObject **qualname)
{
  PyObject *found;
  gboolean same;

  *module = NULL;
  *qualname = NULL;
  if (name != NULL)
    *qualname = Py_NewRef (name);
  else if (_PyObject_LookupAttr (object, ferry_python_names.__qualname__, qualname) < 0)
    return FALSE;
  if (*qualname == NULL)
    *qualname = PyObject_GetAttr (object, ferry_python_names.__name__);
  if (*qualname == NULL)
    return FALSE;

  if (_PyObject_LookupAttr (object, ferry_python_names.__module__, module) < 0)
    {
      Py_CLEAR (*qualname);
      return FALSE;
    }
  if (*module == NULL || *module == Py_None)
    Py_XSETREF (*module, search_module (object, *qualname));
  if (*module == NULL || !PyUnicode_CheckExact (*module) || !PyUnicode_CheckExact (*qualname))
    {
      if (!PyErr_Occurred ())
        PyErr_Format (PyExc_TypeError, "can't send %R by reference: its name is no str", object);
      Py_CLEAR (*module);
      Py_CLEAR (*qualname);
      return FALSE;
    }

  /* What a receiver would find, and so what must be there. */
  found = ferry_python_global_import (*module, *qualname);
  same = found == object;
  if (found != NULL && !same)
    PyErr_Format (PyExc_TypeError, "can't send %R by reference: it's not the same object as %U.%U", object, *module,
                  *qualname);
  Py_XDECREF (found);
  if (!same)
    {
      Py_CLEAR (*module);
      Py_CLEAR (*qualname);
    }
  return same;
}
