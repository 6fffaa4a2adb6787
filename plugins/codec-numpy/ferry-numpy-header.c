/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-numpy-header.h"

#include <string.h>

/*
 * All numbers are little-endian:
 *
 *   0  u8   flags
 *   1  u8   dimensions
 *   2  u16  length of the format
 *   4  u32  bytes of an element
 *   8  u32  length of the extension
 *  12  u32  0
 *  16  i64  the shape
 *      format, extension
 */

#define KNOWN_FLAGS (FERRY_NUMPY_FORTRAN | FERRY_NUMPY_READ_ONLY)

gboolean
ferry_numpy_header_read (FerryNumpyHeader *self, const guint8 *data, gsize size, gsize *data_size, GError **error)
{
  struct
  {
    guint8 flags;
    guint8 n_dimensions;
    guint16 format_length;
    guint32 item_size;
    guint32 extension_length;
    guint32 reserved;
  } fixed;
  gint64 product;
  gint64 count = 1;

  G_STATIC_ASSERT (sizeof fixed == FERRY_NUMPY_FIXED_SIZE);

  if (size < FERRY_NUMPY_FIXED_SIZE)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "an array of %" G_GSIZE_FORMAT " bytes has no complete header, which takes %d", size,
                   FERRY_NUMPY_FIXED_SIZE);
      return FALSE;
    }

  /* The sender may still be able to write here: what is checked is a copy. */
  memcpy (&fixed, data, sizeof fixed);
  self->flags = fixed.flags;
  self->n_dimensions = fixed.n_dimensions;
  self->item_size = GUINT32_FROM_LE (fixed.item_size);
  self->format_length = GUINT16_FROM_LE (fixed.format_length);
  self->extension_length = GUINT32_FROM_LE (fixed.extension_length);
  if ((self->flags & ~(guint) KNOWN_FLAGS) != 0 || fixed.reserved != 0
      || self->n_dimensions > FERRY_TENSOR_MAX_DIMENSIONS || self->format_length == 0
      || self->extension_length > FERRY_NUMPY_EXTENSION_MAX || self->item_size > G_MAXINT32)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "the header of the array makes no sense: flags %#x, %u dimensions, elements of %" G_GSIZE_FORMAT
                   " bytes, lengths %" G_GSIZE_FORMAT " and %" G_GSIZE_FORMAT "; did another codec make it?",
                   self->flags, self->n_dimensions, self->item_size, self->format_length, self->extension_length);
      return FALSE;
    }
  if (size < ferry_numpy_header_size (self))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "the header of the array takes %" G_GSIZE_FORMAT " bytes, but there are only %" G_GSIZE_FORMAT,
                   ferry_numpy_header_size (self), size);
      return FALSE;
    }

  /* As in NumPy the product must not overflow even when another dimension is 0: strides are computed from it. */
  memcpy (self->shape, data + FERRY_NUMPY_FIXED_SIZE, self->n_dimensions * sizeof (gint64));
  product = (gint64) MAX (self->item_size, 1);
  for (guint i = 0; i < self->n_dimensions; i++)
    {
      self->shape[i] = GINT64_FROM_LE (self->shape[i]);
      if (self->shape[i] < 0 || __builtin_mul_overflow (product, MAX (self->shape[i], 1), &product)
          || product > G_MAXSSIZE)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                       "dimension %u of the array is %" G_GINT64_FORMAT ", with elements of %" G_GSIZE_FORMAT
                       " bytes: no memory can hold that",
                       i, self->shape[i], self->item_size);
          return FALSE;
        }
      count *= self->shape[i]; /* <= product */
    }
  *data_size = (gsize) count * self->item_size;
  return TRUE;
}

guint8 *
ferry_numpy_header_write (const FerryNumpyHeader *self, guint8 *to)
{
  guint16 format_length = GUINT16_TO_LE ((guint16) self->format_length);
  guint32 item_size = GUINT32_TO_LE ((guint32) self->item_size);
  guint32 extension_length = GUINT32_TO_LE ((guint32) self->extension_length);

  to[0] = (guint8) self->flags;
  to[1] = (guint8) self->n_dimensions;
  memcpy (to + 2, &format_length, sizeof format_length);
  memcpy (to + 4, &item_size, sizeof item_size);
  memcpy (to + 8, &extension_length, sizeof extension_length);
  memset (to + 12, 0, sizeof (guint32));
  to += FERRY_NUMPY_FIXED_SIZE;
  for (guint i = 0; i < self->n_dimensions; i++, to += sizeof (gint64))
    {
      gint64 length = GINT64_TO_LE (self->shape[i]);

      memcpy (to, &length, sizeof length);
    }
  return to;
}
