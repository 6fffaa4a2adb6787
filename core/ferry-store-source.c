/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-private.h"
#include "ferry-store-variant.h"

#include "ferry-error.h"

/* Changes of a store in a main loop. */

typedef struct
{
  GSource source;
  FerryStore *store;
  GCancellable *cancellable;
  gpointer tag;
  guint64 seen;
  gboolean changed;
} StoreSource;

static gboolean
store_source_ready (StoreSource *self)
{
  if (ferry_store_check (self->store, &self->seen))
    self->changed = TRUE;
  return self->changed || self->store->closed;
}

static gboolean
store_source_prepare (GSource *source, int *timeout)
{
  *timeout = -1;
  return store_source_ready ((StoreSource *) source);
}

static gboolean
store_source_check (GSource *source)
{
  return store_source_ready ((StoreSource *) source);
}

static gboolean
store_source_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  StoreSource *self = (StoreSource *) source;
  FerryStoreSourceFunc func = (FerryStoreSourceFunc) (void (*) (void)) callback;

  /* also for the cancellable */
  if (!store_source_ready (self) && !g_cancellable_is_cancelled (self->cancellable))
    return G_SOURCE_CONTINUE;
  self->changed = FALSE;
  if (func == NULL)
    return G_SOURCE_REMOVE;
  return func (self->store, user_data) && !self->store->closed ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static void
store_source_finalize (GSource *source)
{
  g_clear_object (&((StoreSource *) source)->store);
  g_clear_object (&((StoreSource *) source)->cancellable);
}

static gboolean
store_source_closure_cb (FerryStore *store, gpointer data)
{
  GClosure *closure = data;
  g_auto (GValue) param = G_VALUE_INIT;
  g_auto (GValue) result = G_VALUE_INIT;

  g_value_init (&result, G_TYPE_BOOLEAN);
  g_value_init (&param, FERRY_TYPE_STORE);
  g_value_set_object (&param, store);
  g_closure_invoke (closure, &result, 1, &param, NULL);
  return g_value_get_boolean (&result);
}

static GSourceFuncs store_source_funcs = {
  store_source_prepare,
  store_source_check,
  store_source_dispatch,
  store_source_finalize,
  (GSourceFunc) (void (*) (void)) store_source_closure_cb,
  NULL,
};

static GSource *
create_source (FerryStore *self, guint64 seen, GCancellable *cancellable, GError **error)
{
  StoreSource *source;
  int fd = ferry_store_get_fd (self, error);

  if (fd < 0)
    return NULL;
  source = (StoreSource *) g_source_new (&store_source_funcs, sizeof (StoreSource));
  g_source_set_static_name (&source->source, "FerryStore");
  source->store = g_object_ref (self);
  source->seen = seen;
  source->tag = g_source_add_unix_fd (&source->source, fd, G_IO_IN);
  if (cancellable != NULL)
    {
      g_autoptr (GSource) child = g_cancellable_source_new (cancellable);

      source->cancellable = g_object_ref (cancellable);
      g_source_set_dummy_callback (child);
      g_source_add_child_source (&source->source, child);
    }
  return &source->source;
}

/**
 * ferry_store_create_source:
 * @self: an open store
 * @cancellable: (nullable): makes the source ready when cancelled
 * @error: return location for an error
 *
 * A source for a main loop, whose callback is a [callback@StoreSourceFunc]: it is called after anything in the store has
 * changed, once for however many changes there were since the call before. The callback looks whether it is
 * what it waits for. It is called a last time when the store is closed here. It costs no CPU time while nothing happens.
 *
 * All sources of one store belong into the same main context.
 *
 * Errors: %FERRY_ERROR_CLOSED, %FERRY_ERROR_FAILED (no more descriptors).
 *
 * Returns: (transfer full): a source
 *
 * Since: 1.0
 */
GSource *
ferry_store_create_source (FerryStore *self, GCancellable *cancellable, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), NULL);
  g_return_val_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  return create_source (self, ferry_store_watch (self), cancellable, error);
}

/* Finishes the task when there is something to tell. */
static gboolean
change_try (GTask *task)
{
  FerryStore *self = g_task_get_source_object (task);
  guint64 *seen = g_task_get_task_data (task);

  if (g_task_return_error_if_cancelled (task))
    return TRUE;
  if (ferry_store_check (self, seen))
    {
      g_task_return_boolean (task, TRUE);
      return TRUE;
    }
  if (self->closed)
    {
      g_task_return_new_error (task, FERRY_ERROR, FERRY_ERROR_CLOSED, "%s is closed; open it anew", self->label);
      return TRUE;
    }
  return FALSE;
}

static gboolean
change_cb (FerryStore *store, gpointer user_data)
{
  return change_try (user_data) ? G_SOURCE_REMOVE : G_SOURCE_CONTINUE;
}

/**
 * ferry_store_wait_change_async:
 * @self: a store
 * @seen: what ferry_store_watch() or an earlier call gave
 * @io_priority: priority of the callback, such as %G_PRIORITY_DEFAULT
 * @cancellable: (nullable): to give up
 * @callback: (nullable) (scope async) (closure user_data): called when anything in the store has changed since @seen
 * @user_data: user data for @callback
 *
 * Waits as ferry_store_wait_change() does, without a thread.
 *
 * Since: 1.0
 */
void
ferry_store_wait_change_async (FerryStore *self, guint64 seen, int io_priority, GCancellable *cancellable,
                               GAsyncReadyCallback callback, gpointer user_data)
{
  g_autoptr (GTask) task = NULL;
  g_autoptr (GSource) source = NULL;
  GError *error = NULL;

  g_return_if_fail (FERRY_IS_STORE (self));
  g_return_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable));

  task = g_task_new (self, cancellable, callback, user_data);
  g_task_set_source_tag (task, ferry_store_wait_change_async);
  g_task_set_priority (task, io_priority);
  g_task_set_task_data (task, g_memdup2 (&seen, sizeof seen), g_free);
  source = create_source (self, seen, cancellable, &error);
  if (source == NULL)
    {
      g_task_return_error (task, error);
      return;
    }
  if (!change_try (task))
    g_task_attach_source (task, source, (GSourceFunc) (void (*) (void)) change_cb);
}

/**
 * ferry_store_wait_change_finish:
 * @self: a store
 * @result: what the callback got
 * @seen: (out) (optional): the new number, for the next call
 * @error: return location for an error
 *
 * Finishes ferry_store_wait_change_async().
 *
 * Errors: %FERRY_ERROR_CLOSED, %G_IO_ERROR_CANCELLED.
 *
 * Returns: %TRUE: there was a change
 *
 * Since: 1.0
 */
gboolean
ferry_store_wait_change_finish (FerryStore *self, GAsyncResult *result, guint64 *seen, GError **error)
{
  g_return_val_if_fail (g_task_is_valid (result, self), FALSE);
  g_return_val_if_fail (g_async_result_is_tagged (result, ferry_store_wait_change_async), FALSE);

  if (!g_task_propagate_boolean (G_TASK (result), error))
    return FALSE;
  if (seen != NULL)
    *seen = *(guint64 *) g_task_get_task_data (G_TASK (result));
  return TRUE;
}
