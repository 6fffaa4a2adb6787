/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Arrays of other libraries. All of it needs the GIL. */

#include "ferry-python.h"

#include <ferry.h>

G_BEGIN_DECLS

/* A tensor on the memory of an object that has __dlpack__(). The object keeps that memory until the tensor is freed, which
 * needs the GIL too. Failures are FERRY_ERROR_CODEC; no Python exception is left behind. */
FerryTensor *ferry_dlpack_import (PyObject *object, GError **error);

G_END_DECLS
