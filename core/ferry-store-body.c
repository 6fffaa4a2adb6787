/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-body-private.h"

guint64
ferry_body_new (FerryStore *self, gsize unit, gsize granule, guint64 wanted, guint64 *capacity, GError **error)
{
  guint64 body;
  gsize usable;

  wanted = (wanted + granule - 1) / granule * granule;
  body = ferry_store_heap_alloc (self, FERRY_BODY_HEAD + wanted * unit, error);
  if (body == 0)
    return 0;
  usable = ferry_store_heap_block_size (self, body);
  usable = usable > FERRY_BODY_HEAD ? (usable - FERRY_BODY_HEAD) / unit : 0;
  *capacity = MAX (wanted, usable / granule * granule);
  ferry_word_set (ferry_store_at (self, body), *capacity);
  return body;
}

gboolean
ferry_body_exchange (FerryStore *self, FerryObject *object, const FerryBody *view, guint64 body, guint64 start,
                     guint64 length, GError **error)
{
  FERRY_STEP ("store-body-made");
  if (!ferry_store_put (self, &object->body, body, error))
    goto fail;
  FERRY_STEP ("store-body-put");
  if (!ferry_store_put (self, &object->size, FERRY_BODY_SIZE (start, length), error))
    goto fail;
  FERRY_STEP ("store-body-size-put");
  if (body != 0)
    ferry_store_note_made (self, body);
  if (view->body != 0)
    ferry_store_retire_block (self, view->body);
  return TRUE;

fail:
  /* others see the old body, which is noted, until it is put back */
  if (body != 0)
    ferry_store_heap_free (self, body);
  return FALSE;
}
