/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-variant.h"

#include "ferry-error.h"
#include "ferry-store-lookup-private.h"
#include "ferry-store-to-variant-private.h"
#include "ferry-store-variant-private.h"

/* Values of a store as GVariants. */

GVariant *
ferry_store_get_at (FerryStore *self, FerryRef base, const char *path, GError **error)
{
  g_auto (FerryLookup) lookup = { 0 };
  g_autoptr (GPtrArray) items = NULL;
  FerrySnapshot names = { 0 };
  GVariant *made;

  if (!ferry_lookup_all (&lookup, self, base, path, error))
    return NULL;
  if (!lookup.at_root)
    return ferry_view_to_variant (self, &lookup.value, error);

  if (!ferry_store_snapshot (self, ferry_store_get_root (self), &names, error))
    {
      ferry_store_snapshot_clear (self, &names);
      return NULL;
    }
  items = g_ptr_array_new_with_free_func ((GDestroyNotify) g_variant_unref);
  for (gsize i = 0; i + 1 < names.n; i += 2)
    {
      g_autoptr (GError) local = NULL;
      g_autoptr (GVariant) name = NULL;
      g_autoptr (GString) name_path = g_string_new (NULL);
      GVariant *variant;
      FerryView value;

      ferry_view_init (&value, names.cells[i],
                       ferry_cell_tag (names.cells[i]) == FERRY_CELL_LEAF
                           ? names.memory + ferry_cell_payload (names.cells[i])
                           : NULL);
      name = ferry_view_to_variant (self, &value, &local);
      if (name != NULL)
        {
          ferry_store_path_append (name_path, name);
          variant = ferry_store_get (self, name_path->str, &local);
          if (variant != NULL)
            {
              g_ptr_array_add (items, g_steal_pointer (&name));
              g_ptr_array_add (items, variant);
            }
        }
      /* Somebody may have removed it meanwhile. */
      if (local != NULL && !g_error_matches (local, FERRY_ERROR, FERRY_ERROR_NOT_FOUND))
        {
          g_propagate_error (error, g_steal_pointer (&local));
          ferry_store_snapshot_clear (self, &names);
          return NULL;
        }
    }
  ferry_store_snapshot_clear (self, &names);
  made = ferry_variant_make_dict (items);
  return g_variant_take_ref (made);
}

/**
 * ferry_store_get:
 * @self: a store
 * @path: where the value is
 * @error: return location for an error
 *
 * Reads a value with all that is in it.
 *
 * A *path* begins with a name of the root; `.name` is a key of a dict that is a str, or an attribute of an object; `[3]`
 * is an element of a list or tuple (negative: from the end), or a key of a dict that is an integer; `["a key with . in it"]` any str;
 * other keys stand in brackets in the text format of GVariant, such as `[1.5]`, `[true]`, `[(1, "x")]`. `[+]` is the place
 * behind the last element of a list, for ferry_store_set(). Examples: `cfg.servers[2].port`, `["my cfg"].limits["a.b"]`.
 * The empty path is the root itself.
 *
 * What values become: None is nothing, `mv`; bool, float, str are `b`, `d`, `s`; int is `x`, from 2^63 to 2^64-1 `t`, others
 * are `("int", ay)`, two's complement, little-endian; complex is `(dd)`; bytes and bytearray `ay`; a tuple a tuple of what its items are, or
 * `av` where that would be long; list, set and frozenset `av`; a dict `a{sv}` if all keys are str, else `a(vv)`; an object a dict of its
 * attributes; an ndarray `(saxaxay)`: format, shape, strides, elements ([method@Store.get_tensor] copies nothing). A str with zeros or lone surrogates is `("str", ay)`, a member
 * of an enumeration `(sv)`: its class, its name or value. Other immutable values are what codec `python` makes of them without an interpreter.
 *
 * Each list, dict and object is read at one instant; a value that contains several of them only in a transaction
 * ([method@Store.begin_transaction]).
 *
 * Errors: %FERRY_ERROR_NOT_FOUND, %FERRY_ERROR_PARSE (of the path), %FERRY_ERROR_UNSUPPORTED (values that contain themselves, more
 * than 128 levels, values that GVariant can't express), %FERRY_ERROR_CLOSED, %FERRY_ERROR_CORRUPT.
 *
 * Returns: (transfer full): the value; not floating
 *
 * Since: 1.0
 */
GVariant *
ferry_store_get (FerryStore *self, const char *path, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), NULL);
  g_return_val_if_fail (path != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);
  return ferry_store_get_at (self, 0, path, error);
}

/**
 * ferry_store_contains:
 * @self: a store
 * @path: see ferry_store_get()
 * @error: return location for an error
 *
 * Whether there is a value. Looks only; use ferry_store_wait() to wait for one.
 *
 * Errors: %FERRY_ERROR_PARSE, %FERRY_ERROR_CLOSED, %FERRY_ERROR_CORRUPT.
 *
 * Returns: %TRUE: there is; %FALSE without an error: there is none
 *
 * Since: 1.0
 */
gboolean
ferry_store_contains (FerryStore *self, const char *path, GError **error)
{
  g_auto (FerryLookup) lookup = { 0 };
  g_autoptr (GError) local = NULL;

  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  g_return_val_if_fail (path != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  if (ferry_lookup_all (&lookup, self, 0, path, &local))
    return TRUE;
  if (!g_error_matches (local, FERRY_ERROR, FERRY_ERROR_NOT_FOUND))
    g_propagate_error (error, g_steal_pointer (&local));
  return FALSE;
}

/* Cell @i of a class's or named tuple's description, a str. */
static char *
dup_item_text (const FerryView *value, gsize i)
{
  FerryView item;
  gboolean is_text;
  gsize n;
  GString *text;

  if (!ferry_view_count (value, &n) || i >= n || !ferry_view_item (value, i, &item))
    return NULL;
  text = ferry_view_get_text (&item, &is_text);
  if (text == NULL)
    return NULL;
  return is_text ? g_string_free (text, FALSE) : (g_string_free (text, TRUE), NULL);
}

char *
ferry_store_get_type_name_at (FerryStore *self, FerryRef base, const char *path, GError **error)
{
  g_auto (FerryLookup) lookup = { 0 };
  const char *name;
  char *class_name = NULL;

  if (!ferry_lookup_all (&lookup, self, base, path, error))
    return NULL;
  if (lookup.at_root)
    return g_strdup ("dict");
  if (ferry_view_tag (&lookup.value) == FERRY_CELL_OBJECT)
    {
      FerryRef ref = ferry_cell_payload (lookup.value.cell);
      FerryObjectKind kind = ferry_store_object_kind (self, ref);

      name = ferry_object_type_name (kind);
      if (kind == FERRY_OBJECT_RECORD)
        {
          FerryReading reading = FERRY_READING_INIT;
          FerryView shape;
          gsize n;
          gboolean ok = ferry_view_read_shape (self, ref, &reading, &shape, &n, error);

          if (ok)
            class_name = dup_item_text (&shape, FERRY_SHAPE_NAME);
          ferry_reading_clear (&reading);
          if (!ok)
            return NULL;
        }
    }
  else
    {
      name = ferry_view_type_name (&lookup.value);
      if (ferry_view_is_leaf (&lookup.value, FERRY_LEAF_TUPLE) && (lookup.value.head.flags & FERRY_LEAF_NAMED) != 0)
        {
          class_name = dup_item_text (&lookup.value, 1);
        }
      else if (ferry_view_is_leaf (&lookup.value, FERRY_LEAF_CODEC))
        {
          g_autoptr (GVariant) variant = ferry_view_to_variant (self, &lookup.value, NULL);

          if (variant != NULL && g_variant_is_of_type (variant, G_VARIANT_TYPE ("(sv)")))
            g_variant_get_child (variant, 0, "s", &class_name);
        }
    }
  if (class_name != NULL)
    return class_name;
  if (name == NULL)
    ferry_store_set_corrupt (self, "a value is of no known kind", error);
  return g_strdup (name);
}

/**
 * ferry_store_get_type_name:
 * @self: a store
 * @path: see ferry_store_get()
 * @error: return location for an error
 *
 * What a value is, by the name that Python has for it: `NoneType`, `bool`, `int`, `float`, `complex`, `str`, `bytes`, `bytearray`,
 * `tuple`, `list`, `dict`, `set`, `frozenset`, `ndarray`, or the qualified name of its class.
 *
 * Errors: as of ferry_store_get().
 *
 * Returns: (transfer full): the name of its type
 *
 * Since: 1.0
 */
char *
ferry_store_get_type_name (FerryStore *self, const char *path, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), NULL);
  g_return_val_if_fail (path != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);
  return ferry_store_get_type_name_at (self, 0, path, error);
}

/**
 * ferry_store_get_object_id:
 * @self: a store
 * @path: see ferry_store_get()
 * @error: return location for an error
 *
 * Tells whether two paths lead to the same list, dict, set, object, bytearray or ndarray.
 *
 * Errors: as of ferry_store_get().
 *
 * Returns: a number that no other object has as long as this one is there; 0 for immutable values, and on error
 *
 * Since: 1.0
 */
guint64
ferry_store_get_object_id (FerryStore *self, const char *path, GError **error)
{
  g_auto (FerryLookup) lookup = { 0 };

  g_return_val_if_fail (FERRY_IS_STORE (self), 0);
  g_return_val_if_fail (path != NULL, 0);
  g_return_val_if_fail (error == NULL || *error == NULL, 0);

  if (!ferry_lookup_all (&lookup, self, 0, path, error))
    return 0;
  if (lookup.at_root)
    return ferry_store_get_root (self);
  return ferry_view_tag (&lookup.value) == FERRY_CELL_OBJECT ? ferry_cell_payload (lookup.value.cell) : 0;
}

/* The object, held for the caller; 0: error. */
FerryRef
ferry_store_find_object_at (FerryStore *self, FerryRef base, const char *path, GError **error)
{
  g_auto (FerryLookup) lookup = { 0 };
  FerryRef ref;

  if (!ferry_lookup_all (&lookup, self, base, path, error))
    return 0;
  if (lookup.at_root || ferry_view_tag (&lookup.value) != FERRY_CELL_OBJECT)
    {
      g_autofree char *type = lookup.at_root ? g_strdup ("the root") : ferry_view_describe_type (self, &lookup.value);

      g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
                   "%s: '%s' is %s; only a list, dict, set, object, bytearray or ndarray can be referred to",
                   self->label, path, type);
      return 0;
    }
  ref = ferry_cell_payload (lookup.value.cell);
  return ferry_store_hold (self, ref, error) ? ref : 0;
}

/* @ref: an object that the caller holds. */
gboolean
ferry_store_put_object_at (FerryStore *self, FerryRef base, const char *path, FerryRef ref, GError **error)
{
  g_auto (FerryLookup) lookup = { 0 };
  const FerryPathStep *last = ferry_lookup_parent (&lookup, self, base, path, error);

  if (last == NULL || !ferry_store_begin (self, error))
    return FALSE;
  return ferry_lookup_put (&lookup, last, ferry_store_new_reference (self, ref), error);
}

gboolean
ferry_store_set_at (FerryStore *self, FerryRef base, const char *path, GVariant *value, GError **error)
{
  g_auto (FerryLookup) lookup = { 0 };
  g_autoptr (GVariant) sunk = NULL;
  const FerryPathStep *last;
  FerryCell cell;

  sunk = g_variant_ref_sink (value);
  last = ferry_lookup_parent (&lookup, self, base, path, error);
  if (last == NULL || !ferry_store_begin (self, error))
    return FALSE;
  if (!ferry_plan_make_cell (self, sunk, &cell, 0, error))
    {
      ferry_store_end (self);
      return FALSE;
    }
  return ferry_lookup_put (&lookup, last, cell, error);
}

/**
 * ferry_store_set:
 * @self: a store
 * @path: where the value is to be; see ferry_store_get()
 * @value: the value; if it is floating, it is taken over
 * @error: return location for an error
 *
 * Sets a value, in one step: others see the one before or all of this one. The last step of the path is made if it is not there yet, the steps before
 * it must be there.
 *
 * What a GVariant becomes: integers int, `d` float, `b` bool; `s`, `o`, `g` str; `ay` bytes; dictionaries dict, other
 * arrays list, tuples tuple; `v` and `m` what is in them, or None. `("int", <ay>)` and `("str", <ay>)`, boxed as ferry_store_get() gives
 * them, become what they stand for.
 *
 * Errors: %FERRY_ERROR_NOT_FOUND (a step before the last, an index beyond the end), %FERRY_ERROR_PARSE, %FERRY_ERROR_UNSUPPORTED (what is in a
 * tuple, set or ndarray can't be set), %FERRY_ERROR_INVALID_ARGUMENT (more than 128 levels), %FERRY_ERROR_NO_SPACE,
 * %FERRY_ERROR_TOO_BIG, %FERRY_ERROR_TIMED_OUT (somebody is stopped in the middle of a change), %FERRY_ERROR_CLOSED, %FERRY_ERROR_CORRUPT.
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_set (FerryStore *self, const char *path, GVariant *value, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  g_return_val_if_fail (path != NULL, FALSE);
  g_return_val_if_fail (value != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);
  return ferry_store_set_at (self, 0, path, value, error);
}

gboolean
ferry_store_remove_at (FerryStore *self, FerryRef base, const char *path, GError **error)
{
  g_auto (FerryLookup) lookup = { 0 };
  const FerryPathStep *last;
  int found;

  last = ferry_lookup_parent (&lookup, self, base, path, error);
  if (last == NULL)
    return FALSE;
  found = ferry_lookup_change (&lookup, last, FERRY_CHANGE_REMOVE, FERRY_CELL_EMPTY, NULL, error);
  return found == 0 ? ferry_lookup_not_there (&lookup, lookup.steps->len - 1, error) : found > 0;
}

/**
 * ferry_store_remove:
 * @self: a store
 * @path: see ferry_store_get()
 * @error: return location for an error
 *
 * Removes a name of the root, a key of a dict, an element of a list (those behind it move up), of a bytearray or a set, an
 * attribute of an object.
 *
 * Errors: %FERRY_ERROR_NOT_FOUND, and as of ferry_store_set().
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_remove (FerryStore *self, const char *path, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  g_return_val_if_fail (path != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);
  return ferry_store_remove_at (self, 0, path, error);
}

/* Takes @delta over, a number. Inside a stretch of work, which it ends. */
static gboolean
add_number (FerryStore *self, FerryRef base, const char *path, FerryCell delta, gint64 *sum_int, double *sum_double,
            gboolean *is_int, GError **error)
{
  g_auto (FerryLookup) lookup = { 0 };
  FerryReading reading = FERRY_READING_INIT;
  const FerryPathStep *last = ferry_lookup_parent (&lookup, self, base, path, error);
  int found = -1;

  if (last != NULL)
    found = ferry_lookup_change (&lookup, last, FERRY_CHANGE_ADD, delta, &reading, error);
  ferry_store_release_cell (self, delta);
  ferry_store_end (self);
  if (found == 1)
    {
      FerryView value;

      ferry_view_init (&value, reading.cell, reading.leaf);
      *is_int = ferry_view_get_int (&value, sum_int);
      if (*is_int)
        *sum_double = (double) *sum_int;
      else if (ferry_view_get_double (&value, sum_double))
        *sum_int = *sum_double >= 0x1p63 ? G_MAXINT64 : *sum_double >= -0x1p63 ? (gint64) *sum_double : G_MININT64;
    }
  ferry_reading_clear (&reading);
  return found == 0 ? ferry_lookup_not_there (&lookup, lookup.steps->len - 1, error) : found > 0;
}

gboolean
ferry_store_add_int_at (FerryStore *self, FerryRef base, const char *path, gint64 delta, gint64 *sum, GError **error)
{
  gint64 sum_int = 0;
  double sum_double = 0;
  gboolean is_int;
  FerryCell cell;

  if (!ferry_store_begin (self, error))
    return FALSE;
  cell = ferry_store_new_int (self, delta, error);
  if (cell == 0)
    {
      ferry_store_end (self);
      return FALSE;
    }
  if (!add_number (self, base, path, cell, &sum_int, &sum_double, &is_int, error))
    return FALSE;
  if (sum != NULL)
    *sum = sum_int;
  return TRUE;
}

/**
 * ferry_store_add_int:
 * @self: a store
 * @path: where a number is; see ferry_store_get()
 * @delta: what to add to it
 * @sum: (out) (optional): what it is then; of a float rounded toward zero
 * @error: return location for an error
 *
 * Adds to a number in one step, whatever others do to it at the same time.
 *
 * Errors: %FERRY_ERROR_NOT_FOUND, %FERRY_ERROR_UNSUPPORTED (no number, or the sum needs more than 64 bits), and as of
 * ferry_store_set().
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_add_int (FerryStore *self, const char *path, gint64 delta, gint64 *sum, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  g_return_val_if_fail (path != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);
  return ferry_store_add_int_at (self, 0, path, delta, sum, error);
}

static gboolean
add_double (FerryStore *self, FerryRef base, const char *path, double delta, gint64 *sum_int, double *sum_double,
            gboolean *is_int, GError **error)
{
  g_autoptr (GError) local = NULL;
  FerryCell cell;

  if (!ferry_store_begin (self, error))
    return FALSE;
  cell = ferry_store_new_float (self, delta, &local);
  if (local != NULL)
    {
      ferry_store_end (self);
      g_propagate_error (error, g_steal_pointer (&local));
      return FALSE;
    }
  return add_number (self, base, path, cell, sum_int, sum_double, is_int, error);
}

gboolean
ferry_store_add_double_at (FerryStore *self, FerryRef base, const char *path, double delta, double *sum, GError **error)
{
  gint64 sum_int = 0;
  double sum_double = 0;
  gboolean is_int;

  if (!add_double (self, base, path, delta, &sum_int, &sum_double, &is_int, error))
    return FALSE;
  if (sum != NULL)
    *sum = sum_double;
  return TRUE;
}

/**
 * ferry_store_add_double:
 * @self: a store
 * @path: where a number is; see ferry_store_get()
 * @delta: what to add to it
 * @sum: (out) (optional): what it is then
 * @error: return location for an error
 *
 * Adds to a number in one step, as ferry_store_add_int(); the sum is a float.
 *
 * Errors: as of ferry_store_add_int().
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_add_double (FerryStore *self, const char *path, double delta, double *sum, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  g_return_val_if_fail (path != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);
  return ferry_store_add_double_at (self, 0, path, delta, sum, error);
}

/**
 * ferry_store_add:
 * @self: a store
 * @path: where a number is; see ferry_store_get()
 * @delta: what to add to it: `d` or an integer; if it is floating, it is taken over
 * @error: return location for an error
 *
 * Adds to a number in one step, whatever others do to it at the same time.
 *
 * Errors: as of ferry_store_add_int(); %FERRY_ERROR_INVALID_ARGUMENT (@delta is no number).
 *
 * Returns: (transfer full): what it is then, `x` or `d`
 *
 * Since: 1.0
 */
GVariant *
ferry_store_add (FerryStore *self, const char *path, GVariant *delta, GError **error)
{
  g_autoptr (GVariant) sunk = NULL;
  g_autoptr (GVariant) inner = NULL;
  gint64 sum_int = 0;
  double sum_double = 0;
  gboolean is_int = TRUE;
  GVariant *sum;

  g_return_val_if_fail (FERRY_IS_STORE (self), NULL);
  g_return_val_if_fail (path != NULL, NULL);
  g_return_val_if_fail (delta != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  sunk = g_variant_ref_sink (delta);
  inner = ferry_variant_unwrap (sunk);
  if (inner != NULL && ferry_variant_get_int (inner, &sum_int))
    {
      FerryCell cell;

      if (!ferry_store_begin (self, error))
        return NULL;
      cell = ferry_store_new_int (self, sum_int, error);
      if (cell == 0)
        {
          ferry_store_end (self);
          return NULL;
        }
      if (!add_number (self, 0, path, cell, &sum_int, &sum_double, &is_int, error))
        return NULL;
    }
  else if (inner != NULL && g_variant_is_of_type (inner, G_VARIANT_TYPE_DOUBLE))
    {
      if (!add_double (self, 0, path, g_variant_get_double (inner), &sum_int, &sum_double, &is_int, error))
        return NULL;
    }
  else
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "%s: expected a number of up to 64 bits to add, found one of type '%s'", self->label,
                   g_variant_get_type_string (sunk));
      return NULL;
    }
  sum = is_int ? g_variant_new_int64 (sum_int) : g_variant_new_double (sum_double);
  return g_variant_take_ref (sum);
}

/**
 * ferry_store_wait:
 * @self: a store
 * @path: see ferry_store_get()
 * @not_this: (nullable): a value to wait for the end of; %NULL: waits until there is any; if it is floating, it is taken over
 * @timeout: how long to wait, in microseconds; negative: for ever
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * Waits until there is a value that differs from @not_this. Numbers are equal whatever type they have in a GVariant. Values that come and
 * go in between may be missed.
 *
 * Errors: %FERRY_ERROR_TIMED_OUT, %G_IO_ERROR_CANCELLED, and as of ferry_store_get() but %FERRY_ERROR_NOT_FOUND.
 *
 * Returns: (transfer full): the value
 *
 * Since: 1.0
 */
GVariant *
ferry_store_wait (FerryStore *self, const char *path, GVariant *not_this, gint64 timeout, GCancellable *cancellable,
                  GError **error)
{
  g_autoptr (GVariant) sunk = NULL;
  g_autoptr (GVariant) unwanted = NULL;
  gint64 started = g_get_monotonic_time ();

  g_return_val_if_fail (FERRY_IS_STORE (self), NULL);
  g_return_val_if_fail (path != NULL, NULL);
  g_return_val_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  if (not_this != NULL)
    {
      sunk = g_variant_ref_sink (not_this);
      unwanted = ferry_variant_normalize (sunk);
    }
  for (;;)
    {
      guint64 seen = ferry_store_watch (self);
      g_autoptr (GError) local = NULL;
      g_autoptr (GVariant) value = ferry_store_get (self, path, &local);
      gint64 left = timeout < 0 ? -1 : MAX (timeout - (g_get_monotonic_time () - started), 0);

      if (value != NULL && (unwanted == NULL || !g_variant_equal (value, unwanted)))
        return g_steal_pointer (&value);
      if (value == NULL && !g_error_matches (local, FERRY_ERROR, FERRY_ERROR_NOT_FOUND))
        {
          g_propagate_error (error, g_steal_pointer (&local));
          return NULL;
        }
      g_clear_error (&local);
      if (!ferry_store_wait_change (self, &seen, left, cancellable, &local))
        {
          if (!g_error_matches (local, FERRY_ERROR, FERRY_ERROR_TIMED_OUT))
            g_propagate_error (error, g_steal_pointer (&local));
          else
            g_set_error (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT, "%s: %s%s within %g s", self->label,
                         value != NULL ? "no other value at " : "there was no ", path,
                         (double) timeout / G_USEC_PER_SEC);
          return NULL;
        }
    }
}
