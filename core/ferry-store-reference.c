/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-reference.h"
#include "ferry-store-ticket-private.h"
#include "ferry-store-variant-private.h"

#include "ferry-error.h"

/**
 * FerryStoreReference:
 *
 * A live object of a [class@Store]: a list, dict, set, object of a class, bytearray or ndarray, by its identity and not by
 * its place.
 *
 * The object lives while somebody has a reference, also when it is removed from the store. What a path leads to is
 * looked up in it as [method@Store.get] does from the root: `rate`, `[2]`, `hosts[-1].port`; the empty path is the object itself.
 *
 * A reference is a value that a [class@Channel] sends: with codec `store`, which `auto` chooses for it, the receiver
 * gets the same object, in whatever process. docs/store.md says how long it lives on the way.
 *
 * References may be used by several threads.
 *
 * Since: 1.0
 */

struct _FerryStoreReference
{
  _Atomic int ref_count;
  FerryStore *store;
  FerryRef ref; /* held */
};

G_DEFINE_BOXED_TYPE (FerryStoreReference, ferry_store_reference, ferry_store_reference_ref, ferry_store_reference_unref)

/* Private: takes over the hold, but not the store. */
FerryStoreReference *
ferry_store_reference_new_held (FerryStore *store, FerryRef ref)
{
  FerryStoreReference *self = g_new0 (FerryStoreReference, 1);

  atomic_init (&self->ref_count, 1);
  self->store = g_object_ref (store);
  self->ref = ref;
  return self;
}

/**
 * ferry_store_reference_new: (skip)
 * @store: a store
 * @ref: an object in it that the caller holds
 * @error: return location for an error
 *
 * For bindings that know objects by #FerryRef.
 *
 * Returns: (transfer full): a reference, or %NULL
 *
 * Since: 1.0
 */
FerryStoreReference *
ferry_store_reference_new (FerryStore *store, FerryRef ref, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (store), NULL);
  g_return_val_if_fail (ref != 0, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  return ferry_store_hold (store, ref, error) ? ferry_store_reference_new_held (store, ref) : NULL;
}

/**
 * ferry_store_reference_ref:
 * @self: a reference
 *
 * Counts one user more.
 *
 * Returns: (transfer full): @self
 *
 * Since: 1.0
 */
FerryStoreReference *
ferry_store_reference_ref (FerryStoreReference *self)
{
  g_return_val_if_fail (self != NULL, NULL);
  atomic_fetch_add_explicit (&self->ref_count, 1, memory_order_relaxed);
  return self;
}

/**
 * ferry_store_reference_unref:
 * @self: (transfer full): a reference
 *
 * Counts one user less. With the last one the object is given back.
 *
 * Since: 1.0
 */
void
ferry_store_reference_unref (FerryStoreReference *self)
{
  g_return_if_fail (self != NULL);
  /* release: what other users did comes before what the last one does (acquire) */
  if (atomic_fetch_sub_explicit (&self->ref_count, 1, memory_order_acq_rel) != 1)
    return;
  ferry_store_unhold (self->store, self->ref);
  g_object_unref (self->store);
  g_free (self);
}

/**
 * ferry_store_reference_get_store:
 * @self: a reference
 *
 * Tells where the object lives.
 *
 * Returns: (transfer none): its store
 *
 * Since: 1.0
 */
FerryStore *
ferry_store_reference_get_store (FerryStoreReference *self)
{
  g_return_val_if_fail (self != NULL, NULL);
  return self->store;
}

/**
 * ferry_store_reference_get_object_id:
 * @self: a reference
 *
 * Tells which object it is; see [method@Store.get_object_id].
 *
 * Returns: a number that no other object of the store has as long as this one is there
 *
 * Since: 1.0
 */
guint64
ferry_store_reference_get_object_id (FerryStoreReference *self)
{
  g_return_val_if_fail (self != NULL, 0);
  return self->ref;
}

/**
 * ferry_store_reference_equal:
 * @self: a reference
 * @other: another one
 *
 * Whether both are the same object; what is in it does not matter.
 *
 * Returns: %TRUE if so
 *
 * Since: 1.0
 */
gboolean
ferry_store_reference_equal (FerryStoreReference *self, FerryStoreReference *other)
{
  guint8 mine[16];
  guint8 theirs[16];

  g_return_val_if_fail (self != NULL, FALSE);
  g_return_val_if_fail (other != NULL, FALSE);

  if (self->ref != other->ref)
    return FALSE;
  /* a process may have a store open several times */
  ferry_store_get_identity (self->store, mine);
  ferry_store_get_identity (other->store, theirs);
  return memcmp (mine, theirs, sizeof mine) == 0;
}

/**
 * ferry_store_reference_hash:
 * @self: a reference
 *
 * A hash for [method@StoreReference.equal].
 *
 * Returns: the hash
 *
 * Since: 1.0
 */
guint
ferry_store_reference_hash (FerryStoreReference *self)
{
  g_return_val_if_fail (self != NULL, 0);
  return g_int64_hash (&self->ref);
}

/**
 * ferry_store_get_reference:
 * @self: a store
 * @path: where a list, dict, set, object, bytearray or ndarray is; see ferry_store_get()
 * @error: return location for an error
 *
 * Finds an object that is to be kept, put elsewhere, or sent.
 *
 * Errors: as of ferry_store_get(); %FERRY_ERROR_UNSUPPORTED (an immutable value, or the root, has no identity).
 *
 * Returns: (transfer full): a reference to it
 *
 * Since: 1.0
 */
FerryStoreReference *
ferry_store_get_reference (FerryStore *self, const char *path, GError **error)
{
  FerryRef ref;

  g_return_val_if_fail (FERRY_IS_STORE (self), NULL);
  g_return_val_if_fail (path != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  ref = ferry_store_find_object_at (self, 0, path, error);
  return ref != 0 ? ferry_store_reference_new_held (self, ref) : NULL;
}

static gboolean
put (FerryStore *store, FerryRef base, const char *path, FerryStoreReference *reference, GError **error)
{
  guint8 here[16];
  guint8 there[16];

  ferry_store_get_identity (store, here);
  ferry_store_get_identity (reference->store, there);
  if (memcmp (here, there, sizeof here) == 0)
    return ferry_store_put_object_at (store, base, path, reference->ref, error);
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
               "%s: the object lives in %s; set what ferry_store_reference_get() copies out of it", store->label,
               reference->store->label);
  return FALSE;
}

/**
 * ferry_store_set_reference:
 * @self: a store
 * @path: where the object is to be found, too; see ferry_store_set()
 * @reference: an object of the same store
 * @error: return location for an error
 *
 * Puts the object itself, not a copy, to another place.
 *
 * Errors: as of ferry_store_set(); %FERRY_ERROR_INVALID_ARGUMENT (it lives in another store).
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_set_reference (FerryStore *self, const char *path, FerryStoreReference *reference, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  g_return_val_if_fail (path != NULL, FALSE);
  g_return_val_if_fail (reference != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return put (self, 0, path, reference, error);
}

/**
 * ferry_store_reference_get_reference:
 * @self: a reference
 * @path: from the object; see ferry_store_get()
 * @error: return location for an error
 *
 * Finds an object within it.
 *
 * Errors: as of [method@Store.get_reference].
 *
 * Returns: (transfer full): a reference to it
 *
 * Since: 1.0
 */
FerryStoreReference *
ferry_store_reference_get_reference (FerryStoreReference *self, const char *path, GError **error)
{
  FerryRef ref;

  g_return_val_if_fail (self != NULL, NULL);
  g_return_val_if_fail (path != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  ref = ferry_store_find_object_at (self->store, self->ref, path, error);
  return ref != 0 ? ferry_store_reference_new_held (self->store, ref) : NULL;
}

/**
 * ferry_store_reference_set_reference:
 * @self: a reference
 * @path: from the object, at least one step; see ferry_store_set()
 * @reference: an object of the same store
 * @error: return location for an error
 *
 * Puts an object, not a copy, into this one.
 *
 * Errors: as of [method@Store.set_reference].
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_reference_set_reference (FerryStoreReference *self, const char *path, FerryStoreReference *reference,
                                     GError **error)
{
  g_return_val_if_fail (self != NULL, FALSE);
  g_return_val_if_fail (path != NULL, FALSE);
  g_return_val_if_fail (reference != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return put (self->store, self->ref, path, reference, error);
}

/**
 * ferry_store_reference_get:
 * @self: a reference
 * @path: from the object; see ferry_store_get()
 * @error: return location for an error
 *
 * [method@Store.get] from the object: a copy of a value, with all that is in it.
 *
 * Errors: as of [method@Store.get].
 *
 * Returns: (transfer full): the value; not floating
 *
 * Since: 1.0
 */
GVariant *
ferry_store_reference_get (FerryStoreReference *self, const char *path, GError **error)
{
  g_return_val_if_fail (self != NULL, NULL);
  g_return_val_if_fail (path != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  return ferry_store_get_at (self->store, self->ref, path, error);
}

/**
 * ferry_store_reference_get_type_name:
 * @self: a reference
 * @path: from the object; see ferry_store_get()
 * @error: return location for an error
 *
 * [method@Store.get_type_name] from the object.
 *
 * Errors: as of [method@Store.get_type_name].
 *
 * Returns: (transfer full): the name of its type
 *
 * Since: 1.0
 */
char *
ferry_store_reference_get_type_name (FerryStoreReference *self, const char *path, GError **error)
{
  g_return_val_if_fail (self != NULL, NULL);
  g_return_val_if_fail (path != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  return ferry_store_get_type_name_at (self->store, self->ref, path, error);
}

/**
 * ferry_store_reference_get_length:
 * @self: a reference
 * @path: from the object; see ferry_store_get()
 * @error: return location for an error
 *
 * [method@Store.get_length] from the object.
 *
 * Errors: as of [method@Store.get_length].
 *
 * Returns: the length; -1 on error
 *
 * Since: 1.0
 */
gint64
ferry_store_reference_get_length (FerryStoreReference *self, const char *path, GError **error)
{
  g_return_val_if_fail (self != NULL, -1);
  g_return_val_if_fail (path != NULL, -1);
  g_return_val_if_fail (error == NULL || *error == NULL, -1);

  return ferry_store_get_length_at (self->store, self->ref, path, error);
}

/**
 * ferry_store_reference_list_children:
 * @self: a reference
 * @path: from the object; see ferry_store_get()
 * @error: return location for an error
 *
 * [method@Store.list_children] from the object.
 *
 * Errors: as of [method@Store.list_children].
 *
 * Returns: (transfer full) (array zero-terminated=1): paths from the object
 *
 * Since: 1.0
 */
char **
ferry_store_reference_list_children (FerryStoreReference *self, const char *path, GError **error)
{
  g_return_val_if_fail (self != NULL, NULL);
  g_return_val_if_fail (path != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  return ferry_store_list_children_at (self->store, self->ref, path, error);
}

/**
 * ferry_store_reference_get_tensor:
 * @self: a reference
 * @path: from the object; see ferry_store_get()
 * @error: return location for an error
 *
 * [method@Store.get_tensor] from the object: the array where it lies.
 *
 * Errors: as of [method@Store.get_tensor].
 *
 * Returns: (transfer full): a tensor on the memory of the store
 *
 * Since: 1.0
 */
FerryTensor *
ferry_store_reference_get_tensor (FerryStoreReference *self, const char *path, GError **error)
{
  g_return_val_if_fail (self != NULL, NULL);
  g_return_val_if_fail (path != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  return ferry_store_get_tensor_at (self->store, self->ref, path, error);
}

/**
 * ferry_store_reference_set:
 * @self: a reference
 * @path: from the object, at least one step; see ferry_store_get()
 * @value: the value; if it is floating, it is taken over
 * @error: return location for an error
 *
 * [method@Store.set] from the object.
 *
 * Errors: as of [method@Store.set].
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_reference_set (FerryStoreReference *self, const char *path, GVariant *value, GError **error)
{
  g_return_val_if_fail (self != NULL, FALSE);
  g_return_val_if_fail (path != NULL, FALSE);
  g_return_val_if_fail (value != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return ferry_store_set_at (self->store, self->ref, path, value, error);
}

/**
 * ferry_store_reference_set_tensor:
 * @self: a reference
 * @path: from the object, at least one step; see ferry_store_get()
 * @tensor: an array
 * @error: return location for an error
 *
 * [method@Store.set_tensor] from the object.
 *
 * Errors: as of [method@Store.set_tensor].
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_reference_set_tensor (FerryStoreReference *self, const char *path, FerryTensor *tensor, GError **error)
{
  g_return_val_if_fail (self != NULL, FALSE);
  g_return_val_if_fail (path != NULL, FALSE);
  g_return_val_if_fail (tensor != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return ferry_store_set_tensor_at (self->store, self->ref, path, tensor, error);
}

/**
 * ferry_store_reference_remove:
 * @self: a reference
 * @path: from the object, at least one step; see ferry_store_get()
 * @error: return location for an error
 *
 * [method@Store.remove] from the object.
 *
 * Errors: as of [method@Store.remove].
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_reference_remove (FerryStoreReference *self, const char *path, GError **error)
{
  g_return_val_if_fail (self != NULL, FALSE);
  g_return_val_if_fail (path != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return ferry_store_remove_at (self->store, self->ref, path, error);
}

/**
 * ferry_store_reference_add_int:
 * @self: a reference
 * @path: from the object, at least one step; see ferry_store_get()
 * @delta: what to add to it
 * @sum: (out) (optional): what it is then; of a float rounded toward zero
 * @error: return location for an error
 *
 * [method@Store.add_int] from the object.
 *
 * Errors: as of [method@Store.add_int].
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_reference_add_int (FerryStoreReference *self, const char *path, gint64 delta, gint64 *sum, GError **error)
{
  g_return_val_if_fail (self != NULL, FALSE);
  g_return_val_if_fail (path != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return ferry_store_add_int_at (self->store, self->ref, path, delta, sum, error);
}

/**
 * ferry_store_reference_add_double:
 * @self: a reference
 * @path: from the object, at least one step; see ferry_store_get()
 * @delta: what to add to it
 * @sum: (out) (optional): what it is then
 * @error: return location for an error
 *
 * [method@Store.add_double] from the object.
 *
 * Errors: as of [method@Store.add_double].
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_reference_add_double (FerryStoreReference *self, const char *path, double delta, double *sum,
                                  GError **error)
{
  g_return_val_if_fail (self != NULL, FALSE);
  g_return_val_if_fail (path != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return ferry_store_add_double_at (self->store, self->ref, path, delta, sum, error);
}
