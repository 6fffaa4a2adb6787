/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/*
 * The C ABI of DLPack, declared for ourselves: the layout and the numbers are those of
 * https://github.com/dmlc/dlpack, include/dlpack/dlpack.h (v0.8 for FerryDLManagedTensor,
 * v1.0 for FerryDLManagedTensorVersioned), explained on https://dmlc.github.io/dlpack/latest/.
 */

/* Same major: same layout. */
#define FERRY_DLPACK_MAJOR (1)
#define FERRY_DLPACK_MINOR (0)

enum
{
  FERRY_DL_CPU = 1,
  FERRY_DL_CUDA_HOST = 3,
  FERRY_DL_ROCM_HOST = 11,
};

enum
{
  FERRY_DL_INT = 0,
  FERRY_DL_UINT = 1,
  FERRY_DL_FLOAT = 2,
  FERRY_DL_BFLOAT = 4,
  FERRY_DL_COMPLEX = 5,
  FERRY_DL_BOOL = 6,
};

#define FERRY_DL_FLAG_READ_ONLY (G_GUINT64_CONSTANT (1) << 0)

typedef struct
{
  guint32 major;
  guint32 minor;
} FerryDLVersion;

typedef struct
{
  gint32 device_type; /* an enum there, which has the size of an int */
  gint32 device_id;
} FerryDLDevice;

typedef struct
{
  guint8 code;
  guint8 bits;
  guint16 lanes;
} FerryDLDataType;

typedef struct
{
  gpointer data;
  FerryDLDevice device;
  gint32 ndim;
  FerryDLDataType dtype;
  gint64 *shape;
  gint64 *strides; /* in elements; NULL for C order */
  guint64 byte_offset;
} FerryDLTensor;

typedef struct _FerryDLManagedTensor FerryDLManagedTensor;

struct _FerryDLManagedTensor
{
  FerryDLTensor dl_tensor;
  gpointer manager_ctx;
  void (*deleter) (FerryDLManagedTensor *self);
};

typedef struct _FerryDLManagedTensorVersioned FerryDLManagedTensorVersioned;

struct _FerryDLManagedTensorVersioned
{
  FerryDLVersion version;
  gpointer manager_ctx;
  void (*deleter) (FerryDLManagedTensorVersioned *self);
  guint64 flags;
  FerryDLTensor dl_tensor;
};

G_END_DECLS
