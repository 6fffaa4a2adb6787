/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Bodies of lists and bytearrays: a word with the capacity, then the items. Those of the container are items {start} to
 * {start + length - 1} of it, so that both ends can be appended to and taken from by changing one word, the size. */

#include "ferry-store-container-private.h"

G_BEGIN_DECLS

#define FERRY_BODY_HEAD (sizeof (guint64))

#define FERRY_BODY_SIZE(start, length) ((guint64) (start) << 32 | (guint64) (length))
#define FERRY_BODY_START(size) ((guint32) ((size) >> 32))
#define FERRY_BODY_LENGTH(size) ((guint32) (size))

typedef struct
{
  guint64 body;
  guint64 capacity;
  guint64 start;
  guint64 length;
  /* of the body; NULL when there is none */
  union
  {
    _Atomic guint64 *cells;
    guint8 *bytes;
  };
} FerryBody;

/* Inside a look, or locked by us; items have @unit bytes. FALSE: nonsense. */
static inline gboolean
ferry_body_view (FerryLook *look, FerryObjectKind kind, gsize unit, FerryBody *view)
{
  FerryStore *self = look->store;
  guint64 size = ferry_store_load (look, &look->object->size);

  view->body = ferry_store_load (look, &look->object->body);
  view->start = FERRY_BODY_START (size);
  view->length = FERRY_BODY_LENGTH (size);
  view->capacity = 0;
  view->bytes = NULL;
  if (ferry_object_kind (look->object) != kind)
    return FALSE;
  if (view->body == 0)
    return view->start + view->length == 0;
  if (view->body % 16 != 0 || !ferry_store_in_heap (self, view->body, FERRY_BODY_HEAD))
    return FALSE;
  view->capacity = ferry_word_get (ferry_store_at (self, view->body));
  view->bytes = ferry_store_at (self, view->body + FERRY_BODY_HEAD);
  return view->capacity <= self->data_size / unit
         && ferry_store_in_heap (self, view->body, FERRY_BODY_HEAD + view->capacity * unit)
         && view->start + view->length <= view->capacity;
}

/* For @wanted items or more, a multiple of @granule. 0: error. */
guint64 ferry_body_new (FerryStore *self, gsize unit, gsize granule, guint64 wanted, guint64 *capacity, GError **error);

/* Makes @body, which has @length items from @start on, the body of the locked object. On failure it is freed. */
gboolean ferry_body_exchange (FerryStore *self, FerryObject *object, const FerryBody *view, guint64 body, guint64 start,
                              guint64 length, GError **error);

G_END_DECLS
