/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-dlpack.h"

/* Devices of dlpack.h whose memory the CPU reads as its own. */
enum
{
  DEVICE_CPU = 1,
  DEVICE_CUDA_HOST = 3,
  DEVICE_ROCM_HOST = 11,
};

/* The capsule's memory becomes the tensor's: https://dmlc.github.io/dlpack/latest/python_spec.html */
static FerryTensor *
take_capsule (PyObject *capsule, GError **error)
{
  gboolean versioned = PyCapsule_IsValid (capsule, "dltensor_versioned");
  gpointer managed;
  FerryTensor *tensor;

  managed = PyCapsule_GetPointer (capsule, versioned ? "dltensor_versioned" : "dltensor");
  if (managed == NULL)
    {
      ferry_python_take_exception (error, FERRY_ERROR_CODEC, "__dlpack__() gave no DLPack capsule");
      return NULL;
    }
  tensor = ferry_tensor_new_from_dlpack (managed, versioned, error);
  if (tensor == NULL)
    {
      if (error != NULL && *error != NULL)
        (*error)->code = FERRY_ERROR_CODEC;
      return NULL; /* the capsule still owns it */
    }
  if (PyCapsule_SetName (capsule, versioned ? "used_dltensor_versioned" : "used_dltensor") < 0)
    PyErr_Clear ();
  return tensor;
}

/* Before anything is exported, which another device may have to wait for. */
static gboolean
check_device (PyObject *object, GError **error)
{
  PyObject *device;
  long type = DEVICE_CPU;
  long id = 0;
  gboolean valid;

  /* Those that don't tell are looked at when they are exported. */
  if (!PyObject_HasAttrString (object, "__dlpack_device__"))
    return TRUE;
  device = PyObject_CallMethod (object, "__dlpack_device__", NULL);
  valid = device != NULL && PyArg_ParseTuple (device, "ll", &type, &id);
  Py_XDECREF (device);
  if (!valid)
    {
      ferry_python_take_exception (error, FERRY_ERROR_CODEC, "the object's __dlpack_device__() failed");
      return FALSE;
    }
  if (type == DEVICE_CPU || type == DEVICE_CUDA_HOST || type == DEVICE_ROCM_HOST)
    return TRUE;
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
               "the elements of a %.100s are on the DLPack device %ld:%ld; move it to the CPU first",
               Py_TYPE (object)->tp_name, type, id);
  return FALSE;
}

static PyObject *
get_capsule (PyObject *object)
{
  PyObject *capsule = PyObject_CallMethod (object, "__dlpack__", NULL);
  PyObject *type;
  PyObject *value;
  PyObject *traceback;
  PyObject *method;
  PyObject *args;
  PyObject *kwargs;

  /* What is read only can't be described by the old form. */
  if (capsule != NULL || !PyErr_ExceptionMatches (PyExc_BufferError))
    return capsule;

  PyErr_Fetch (&type, &value, &traceback);
  method = PyObject_GetAttrString (object, "__dlpack__");
  args = PyTuple_New (0);
  kwargs = Py_BuildValue ("{s:(ii)}", "max_version", 1, 0);
  if (method != NULL && args != NULL && kwargs != NULL)
    capsule = PyObject_Call (method, args, kwargs);
  Py_XDECREF (kwargs);
  Py_XDECREF (args);
  Py_XDECREF (method);

  /* Those that don't know the new form had the better reason the first time. */
  if (capsule == NULL && PyErr_ExceptionMatches (PyExc_TypeError))
    {
      PyErr_Restore (type, value, traceback);
    }
  else
    {
      Py_XDECREF (type);
      Py_XDECREF (value);
      Py_XDECREF (traceback);
    }
  return capsule;
}

FerryTensor *
ferry_dlpack_import (PyObject *object, GError **error)
{
  PyObject *capsule;
  FerryTensor *tensor;

  if (!check_device (object, error))
    return NULL;
  capsule = get_capsule (object);
  if (capsule == NULL)
    {
      ferry_python_take_exception (error, FERRY_ERROR_CODEC, "the object's __dlpack__() failed");
      return NULL;
    }
  tensor = take_capsule (capsule, error);
  Py_DECREF (capsule);
  return tensor;
}
