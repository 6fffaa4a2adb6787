/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-native-store.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How long a queue without a limit waits for its consumers before it keeps an object in this process. Microseconds. */
#define GRACE_US (100 * 1000)
/* How long a JoinableQueue waits for memory until it looks again: the first time, and at most. Microseconds. */
#define PAUSE_US (100)
#define PAUSE_MAX_US (20 * 1000)
/* Memory that an anonymous queue has ready for its first messages, in bytes. */
#define WARM_BYTES (128 * 1024)

/* A queue has two endpoints on one channel, each opened in a process when it is first used there. Those of an anonymous
 * one are prepared before, and inherited so by fork children: open, but no participants until they are used. */

/* What a JoinableQueue shares besides: in a page of its own. */
typedef struct
{
  _Atomic guint32 unfinished; /* put and not yet done; also the word to sleep on */
  _Atomic guint32 n_waiting;  /* who sleeps */
} Tasks;

typedef struct
{
  PyObject_HEAD FerryNativeChannel *sender;
  FerryNativeChannel *receiver;
  FerryNativeChannel *prepared[2]; /* by FerryRole, no participants yet: for who needs that end, maybe a fork child */
  char *transport;
  char *name; /* NULL: anonymous, joined by its descriptors */
  char *codec;
  PyObject *store; /* objects are made live there; NULL: not */
  gboolean pickle;
  guint capacity;
  guint64 max_bytes;
  int control_fd; /* ours; -1: those of an endpoint */
  int data_fd;
  gboolean is_closed;
  gboolean is_created;
  gboolean is_unlimited;  /* what finds no room is kept in this process, see _spill() in queues.py */
  gboolean is_spilling;   /* something is kept there, and goes first */
  PyObject *closed_error; /* class and text of what a closed queue raises */
  PyObject *closed_text;
  Tasks *tasks; /* NULL: not a joinable one */
  int tasks_fd;
  PyObject *weakrefs;
} Queue;

#define SELF(object) ((Queue *) (object))

static PyObject *queue_full;
static PyObject *queue_empty;

static gboolean
load_standard (PyObject **class, const char *name)
{
  if (*class == NULL)
    {
      PyObject *module = PyImport_ImportModule ("queue");

      *class = module != NULL ? PyObject_GetAttrString (module, name) : NULL;
      Py_XDECREF (module);
    }
  return *class != NULL;
}

static PyObject *
raise_standard (PyObject **class, const char *name)
{
  if (load_standard (class, name))
    PyErr_SetNone (*class);
  return NULL;
}

/* ---- endpoints ---- */

static gboolean
queue_set_number (FerryNativeChannel *channel, const char *key, guint64 value)
{
  PyObject *name;
  PyObject *number;
  gboolean ok;

  if (value == 0)
    return TRUE;
  name = PyUnicode_FromString (key);
  number = PyLong_FromUnsignedLongLong (value);
  ok = name != NULL && number != NULL && ferry_native_channel_set (channel, name, number) == 0;
  Py_XDECREF (name);
  Py_XDECREF (number);
  return ok;
}

/* What the transport may have. */
static gboolean
queue_set_if_known (FerryNativeChannel *channel, const char *key, guint64 value)
{
  FerryTransport *transport = ferry_channel_get_transport_object (channel->channel);

  return transport == NULL || g_object_class_find_property (G_OBJECT_GET_CLASS (transport), key) == NULL
         || queue_set_number (channel, key, value);
}

/* The descriptors to join an anonymous channel with. */
static gboolean
queue_get_descriptors (Queue *self, int *control_fd, int *data_fd)
{
  *control_fd = self->control_fd;
  *data_fd = self->data_fd;
  return (*control_fd >= 0 && *data_fd >= 0)
         || (self->receiver != NULL && ferry_native_channel_get_descriptors (self->receiver, control_fd, data_fd))
         || (self->sender != NULL && ferry_native_channel_get_descriptors (self->sender, control_fd, data_fd));
}

/* An end that is still to be opened. */
static FerryNativeChannel *
queue_make (Queue *self, FerryRole role)
{
  g_autoptr (GString) description = g_string_new (self->transport);
  FerryNativeChannel *channel;
  PyObject *key;
  PyObject *name;
  int control_fd;
  int data_fd;
  gboolean ok = TRUE;

  if (self->name == NULL && self->is_created)
    {
      if (!queue_get_descriptors (self, &control_fd, &data_fd))
        {
          PyErr_SetString (PyExc_ValueError, "the queue has no descriptors to be opened with in this process");
          return NULL;
        }
      g_string_append_printf (description, " control-fd=%d data-fd=%d", control_fd, data_fd);
    }
  channel = ferry_native_channel_create (&FerryNativeChannel_Type, description->str, role,
                                         g_str_equal (self->codec, "auto") ? NULL : self->codec, self->pickle);
  if (channel == NULL)
    return NULL;
  if (self->store != NULL && role == FERRY_ROLE_SENDER)
    ok = ferry_native_channel_set_store (channel, self->store);
  if (ok && self->name != NULL)
    {
      key = PyUnicode_FromString ("name");
      name = PyUnicode_FromString (self->name);
      ok = key != NULL && name != NULL && ferry_native_channel_set (channel, key, name) == 0;
      Py_XDECREF (key);
      Py_XDECREF (name);
    }
  else if (self->is_created)
    ok = queue_set_if_known (channel, "join-late", 1);
  else
    ok = queue_set_if_known (channel, "warm-bytes", WARM_BYTES);
  /* Who joins takes what there is: the size of a queue is its creator's. */
  if (ok && !self->is_created)
    ok = queue_set_number (channel, "capacity", self->capacity)
         && queue_set_number (channel, "max-bytes", self->max_bytes);
  if (!ok)
    Py_CLEAR (channel);
  return channel;
}

/* What was prepared joins here, where it may wait without the GIL; if it can't, the call that wanted it says why. */
static void
queue_join (FerryNativeChannel *channel, FerryRole role)
{
  Py_BEGIN_ALLOW_THREADS
  ferry_channel_wait (channel->channel, role == FERRY_ROLE_SENDER ? G_IO_OUT : G_IO_IN, FERRY_NO_WAIT, NULL, NULL);
  Py_END_ALLOW_THREADS
}

static FerryNativeChannel *
queue_open (Queue *self, FerryRole role)
{
  FerryNativeChannel *channel = self->prepared[role];

  self->prepared[role] = NULL;
  if (channel != NULL)
    {
      queue_join (channel, role);
      return channel;
    }
  channel = queue_make (self, role);
  if (channel != NULL && ferry_native_channel_open (channel) < 0)
    Py_CLEAR (channel);
  return channel;
}

/* The first message of a process shall not pay for what can be done before: system calls, and pages that are touched there
 * for the first time, each of which costs microseconds. @roles: a bit each. */
static gboolean
queue_prepare (Queue *self, guint roles)
{
  if (g_str_equal (self->codec, "auto"))
    {
      if (ferry_native_get_codec ("python", self->pickle) == NULL)
        return FALSE;
      if (PyMapping_HasKeyString (PyImport_GetModuleDict (), "numpy")
          && ferry_native_get_codec ("numpy", FALSE) == NULL)
        PyErr_Clear (); /* arrays go by the other one */
    }
  if (self->name != NULL)
    return TRUE;
  for (FerryRole role = FERRY_ROLE_SENDER; role <= FERRY_ROLE_RECEIVER; role++)
    {
      FerryNativeChannel *channel;

      if ((roles & (1 << role)) == 0)
        continue;
      channel = queue_make (self, role);
      if (channel != NULL && ferry_native_channel_open (channel) < 0)
        Py_CLEAR (channel);
      if (channel == NULL)
        PyErr_Clear (); /* no descriptors left, maybe; who needs that end tries again */
      self->prepared[role] = channel;
    }
  return TRUE;
}

static PyObject *
queue_raise_closed (Queue *self)
{
  PyErr_SetObject (self->closed_error, self->closed_text);
  return NULL;
}

static gboolean
queue_ensure (Queue *self, FerryRole role)
{
  FerryNativeChannel **slot = role == FERRY_ROLE_SENDER ? &self->sender : &self->receiver;
  FerryNativeChannel *channel;

  if (self->is_closed)
    {
      queue_raise_closed (self);
      return FALSE;
    }
  if (*slot != NULL)
    return TRUE;
  channel = queue_open (self, role);
  /* The GIL was released: another thread may have been quicker, or have closed the queue. */
  if (channel != NULL && *slot == NULL && !self->is_closed)
    {
      *slot = channel;
      return TRUE;
    }
  if (channel != NULL)
    {
      ferry_native_channel_close (channel);
      Py_DECREF (channel);
    }
  if (self->is_closed)
    {
      PyErr_Clear ();
      queue_raise_closed (self);
    }
  return *slot != NULL && !self->is_closed && !PyErr_Occurred ();
}

static inline FerryNativeChannel *
queue_sender (Queue *self)
{
  if (G_UNLIKELY (self->sender == NULL || self->is_closed) && !queue_ensure (self, FERRY_ROLE_SENDER))
    return NULL;
  return self->sender;
}

static inline FerryNativeChannel *
queue_receiver (Queue *self)
{
  if (G_UNLIKELY (self->receiver == NULL || self->is_closed) && !queue_ensure (self, FERRY_ROLE_RECEIVER))
    return NULL;
  return self->receiver;
}

FerryNativeChannel *
ferry_native_queue_get_sender (PyObject *queue)
{
  return queue_sender (SELF (queue));
}

FerryNativeChannel *
ferry_native_queue_get_receiver (PyObject *queue)
{
  return queue_receiver (SELF (queue));
}

/* ---- life ---- */

static gboolean
map_tasks (Queue *self)
{
  self->tasks = ferry_native_map_shared (self->tasks_fd, sizeof (Tasks));
  return self->tasks != NULL;
}

static PyObject *
queue_new (PyTypeObject *type, PyObject *args, PyObject *keywords)
{
  Queue *self = (Queue *) type->tp_alloc (type, 0);

  if (self == NULL)
    return NULL;
  self->control_fd = self->data_fd = self->tasks_fd = -1;
  self->is_closed = TRUE;
  self->closed_error = Py_NewRef (PyExc_ValueError);
  self->closed_text = PyUnicode_FromFormat ("%s is closed", _PyType_Name (type));
  return (PyObject *) self;
}

/* With @create the queue comes into being; with descriptors it is joined when it is used. @prepare: what for, a bit for each
 * role. */
static int
queue_init (PyObject *object, PyObject *args, PyObject *keywords)
{
  static char *names[]
      = { "transport", "name",     "codec",    "pickle",    "capacity", "max_bytes", "create", "control_fd",
          "data_fd",   "tasks_fd", "joinable", "unlimited", "prepare",  "store",     NULL };
  Queue *self = SELF (object);
  const char *transport;
  const char *name = NULL;
  const char *codec = "auto";
  int pickle = TRUE;
  unsigned int capacity = 0;
  unsigned long long max_bytes = 0;
  int create = TRUE;
  int joinable = FALSE;
  int unlimited = FALSE;
  unsigned int prepare = 1 << FERRY_ROLE_SENDER | 1 << FERRY_ROLE_RECEIVER;
  int control_fd = -1;
  int data_fd = -1;
  int tasks_fd = -1;
  PyObject *store = Py_None;

  if (!PyArg_ParseTupleAndKeywords (args, keywords, "s|zspIKpiiippIO", names, &transport, &name, &codec, &pickle,
                                    &capacity, &max_bytes, &create, &control_fd, &data_fd, &tasks_fd, &joinable,
                                    &unlimited, &prepare, &store))
    return -1;
  if (store != Py_None && !PyObject_TypeCheck (store, &FerryNativeStore_Type))
    {
      PyErr_Format (PyExc_TypeError, "store must be a ferry.Store, not %.200s", Py_TYPE (store)->tp_name);
      return -1;
    }
  if (self->transport != NULL)
    {
      PyErr_SetString (PyExc_TypeError, "a queue is initialised once");
      return -1;
    }
  self->transport = g_strdup (transport);
  self->name = g_strdup (name);
  self->codec = g_strdup (codec);
  Py_XSETREF (self->store, store != Py_None ? Py_NewRef (store) : NULL);
  self->pickle = pickle != 0;
  self->capacity = capacity;
  self->max_bytes = max_bytes;
  self->control_fd = control_fd;
  self->data_fd = data_fd;
  if (self->tasks == NULL)
    self->tasks_fd = tasks_fd;
  self->is_created = !create;
  self->is_unlimited = unlimited != 0;
  self->is_closed = FALSE;
  if (joinable && self->tasks_fd < 0 && self->tasks == NULL)
    {
      self->tasks_fd = ferry_native_make_shared ("ferry-tasks", sizeof (Tasks));
      if (self->tasks_fd < 0)
        return -1;
    }
  if (self->tasks_fd >= 0 && self->tasks == NULL && !map_tasks (self))
    return -1;
  /* A receiver, for it changes nothing for the others: a sender would count for the end of the stream. */
  if ((create || name != NULL) && !queue_ensure (self, FERRY_ROLE_RECEIVER))
    {
      /* as if nothing had been tried: it may be with other settings */
      g_clear_pointer (&self->transport, g_free);
      g_clear_pointer (&self->name, g_free);
      g_clear_pointer (&self->codec, g_free);
      self->is_closed = TRUE;
      return -1;
    }
  self->is_created = TRUE;
  if (self->receiver != NULL)
    prepare &= ~(1U << FERRY_ROLE_RECEIVER);
  return queue_prepare (self, prepare) ? 0 : -1;
}

static void
close_fd (int *fd)
{
  if (*fd >= 0)
    close (*fd);
  *fd = -1;
}

static void
queue_do_close (Queue *self)
{
  FerryNativeChannel *sender = g_steal_pointer (&self->sender);
  FerryNativeChannel *receiver = g_steal_pointer (&self->receiver);

  self->is_closed = TRUE;
  for (guint i = 0; i < G_N_ELEMENTS (self->prepared); i++)
    Py_CLEAR (self->prepared[i]);
  if (sender != NULL)
    {
      ferry_native_channel_close (sender);
      Py_DECREF (sender);
    }
  if (receiver != NULL)
    {
      ferry_native_channel_close (receiver);
      Py_DECREF (receiver);
    }
  close_fd (&self->control_fd);
  close_fd (&self->data_fd);
}

static void
queue_dealloc (PyObject *object)
{
  Queue *self = SELF (object);

  if (self->weakrefs != NULL)
    PyObject_ClearWeakRefs (object);
  queue_do_close (self);
  if (self->tasks != NULL)
    munmap (self->tasks, sizeof (Tasks));
  close_fd (&self->tasks_fd);
  g_free (self->transport);
  g_free (self->name);
  g_free (self->codec);
  Py_CLEAR (self->store);
  Py_CLEAR (self->closed_error);
  Py_CLEAR (self->closed_text);
  Py_TYPE (object)->tp_free (object);
}

static PyObject *
queue_close (PyObject *object, PyObject *unused)
{
  queue_do_close (SELF (object));
  Py_RETURN_NONE;
}

/* ---- tasks ---- */

static void
tasks_wake (Tasks *tasks)
{
  /* Pairs with the increment in queue_wait_tasks(): either we see the sleeper, or it sees the zero. */
  if (atomic_load_explicit (&tasks->n_waiting, memory_order_seq_cst) > 0)
    syscall (SYS_futex, &tasks->unfinished, FUTEX_WAKE, G_MAXINT, NULL, NULL, 0);
}

static gboolean
tasks_done (Tasks *tasks)
{
  guint32 n = atomic_load_explicit (&tasks->unfinished, memory_order_relaxed);

  do
    if (n == 0)
      return FALSE;
  while (!atomic_compare_exchange_weak_explicit (&tasks->unfinished, &n, n - 1, memory_order_seq_cst,
                                                 memory_order_relaxed));
  if (n == 1)
    tasks_wake (tasks);
  return TRUE;
}

static PyObject *
queue_task_done (PyObject *object, PyObject *unused)
{
  if (SELF (object)->tasks == NULL || !tasks_done (SELF (object)->tasks))
    {
      PyErr_SetString (PyExc_ValueError, "task_done() called too many times");
      return NULL;
    }
  Py_RETURN_NONE;
}

static PyObject *
queue_wait_tasks (PyObject *object, PyObject *unused)
{
  Tasks *tasks = SELF (object)->tasks;
  struct timespec slice = { 0, FERRY_NATIVE_SLICE_US * 1000 };
  PyObject *result = Py_None;

  if (tasks == NULL)
    Py_RETURN_NONE;
  for (;;)
    {
      guint32 n = atomic_load_explicit (&tasks->unfinished, memory_order_seq_cst);

      if (n == 0)
        break;
      Py_BEGIN_ALLOW_THREADS
      atomic_fetch_add_explicit (&tasks->n_waiting, 1, memory_order_seq_cst);
      syscall (SYS_futex, &tasks->unfinished, FUTEX_WAIT, n, &slice, NULL, 0);
      atomic_fetch_sub_explicit (&tasks->n_waiting, 1, memory_order_seq_cst);
      Py_END_ALLOW_THREADS
      if (PyErr_CheckSignals () < 0)
        {
          result = NULL;
          break;
        }
    }
  return Py_XNewRef (result);
}

/* ---- put ---- */

/* Keeps the object in this process, behind those that are kept already. */
static FerryNativeStatus
queue_spill (Queue *self, PyObject *object)
{
  PyObject *result = PyObject_CallMethod ((PyObject *) self, "_spill", "O", object);

  Py_XDECREF (result);
  return result != NULL ? FERRY_NATIVE_OK : FERRY_NATIVE_FAILED;
}

static inline void
tasks_add (Tasks *tasks)
{
  atomic_fetch_add_explicit (&tasks->unfinished, 1, memory_order_seq_cst);
}

/* What is counted is sent without waiting: who is killed while it waits leaves nothing that nobody can do. */
static FerryNativeStatus
queue_put_task (Queue *self, FerryNativeChannel *sender, PyObject *object, gint64 timeout)
{
  FerryNativeWait wait = ferry_native_wait_begin (timeout);
  FerryNativeStatus status;
  gulong pause = PAUSE_US;

  for (;;)
    {
      gboolean waited;

      tasks_add (self->tasks);
      status = ferry_native_channel_put (sender, object, FERRY_NO_WAIT);
      if (G_LIKELY (status == FERRY_NATIVE_OK))
        return status;
      tasks_done (self->tasks);
      if (status != FERRY_NATIVE_TIMED_OUT || timeout == FERRY_NO_WAIT || ferry_native_wait_slice (&wait, 1) == 0)
        return status;
      status = ferry_native_channel_wait_for_room (sender, &wait, timeout, &waited);
      if (status != FERRY_NATIVE_OK)
        return status;
      if (waited)
        {
          pause = PAUSE_US;
          continue;
        }
      /* It is memory that is wanting, which nothing tells of but trying. */
      Py_BEGIN_ALLOW_THREADS
      g_usleep (pause);
      Py_END_ALLOW_THREADS
      if (PyErr_CheckSignals () < 0)
        return FERRY_NATIVE_FAILED;
      pause = MIN (2 * pause, PAUSE_MAX_US);
    }
}

static FerryNativeStatus
queue_put_one (Queue *self, PyObject *object, gint64 timeout)
{
  FerryNativeChannel *sender = queue_sender (self);
  FerryNativeStatus status = FERRY_NATIVE_TIMED_OUT;

  if (G_UNLIKELY (sender == NULL))
    return FERRY_NATIVE_FAILED;
  if (G_LIKELY (!self->is_spilling))
    {
      if (self->is_unlimited && (timeout < 0 || timeout > GRACE_US))
        timeout = GRACE_US;
      /* another thread may close the queue meanwhile */
      Py_INCREF (sender);
      status = G_LIKELY (self->tasks == NULL) ? ferry_native_channel_put (sender, object, timeout)
                                              : queue_put_task (self, sender, object, timeout);
      Py_DECREF (sender);
    }
  if (G_UNLIKELY (status == FERRY_NATIVE_TIMED_OUT && self->is_unlimited))
    {
      if (self->tasks != NULL)
        tasks_add (self->tasks);
      status = queue_spill (self, object);
      if (status != FERRY_NATIVE_OK && self->tasks != NULL)
        tasks_done (self->tasks);
    }
  if (G_UNLIKELY (status == FERRY_NATIVE_FAILED && self->is_closed))
    {
      PyErr_Clear ();
      queue_raise_closed (self);
    }
  return status;
}

static PyObject *
queue_put_result (FerryNativeStatus status)
{
  if (G_LIKELY (status == FERRY_NATIVE_OK))
    Py_RETURN_NONE;
  return status == FERRY_NATIVE_TIMED_OUT ? raise_standard (&queue_full, "Full") : NULL;
}

/* block and timeout as in the standard library: the latter counts only with the former. */
static gboolean
parse_blocking (PyObject *block, PyObject *value, gint64 *timeout)
{
  int blocking = block == NULL || block == Py_True ? 1 : PyObject_IsTrue (block);

  *timeout = FERRY_WAIT_FOREVER;
  if (blocking < 0)
    return FALSE;
  if (!blocking)
    *timeout = FERRY_NO_WAIT;
  else if (value != NULL)
    return ferry_native_parse_timeout (value, timeout);
  return TRUE;
}

static PyObject *
queue_put (PyObject *object, PyObject *const *args, Py_ssize_t n_args, PyObject *keywords)
{
  static FerryNativeSignature signature = { "put", { "obj", "block", "timeout" }, 1 };
  PyObject *values[3] = { NULL, NULL, NULL };
  gint64 timeout = FERRY_WAIT_FOREVER;

  if (G_LIKELY (n_args == 1 && keywords == NULL))
    return queue_put_result (queue_put_one (SELF (object), args[0], timeout));
  if (!ferry_native_parse (&signature, args, n_args, keywords, values)
      || !parse_blocking (values[1], values[2], &timeout))
    return NULL;
  return queue_put_result (queue_put_one (SELF (object), values[0], timeout));
}

static PyObject *
queue_put_nowait (PyObject *object, PyObject *item)
{
  return queue_put_result (queue_put_one (SELF (object), item, FERRY_NO_WAIT));
}

/* Who put some of many has to know which are left. */
static PyObject *
queue_raise_full_after (Py_ssize_t n)
{
  PyObject *number = PyLong_FromSsize_t (n);
  PyObject *full;

  if (number == NULL || !load_standard (&queue_full, "Full"))
    {
      Py_XDECREF (number);
      return NULL;
    }
  full = PyObject_CallNoArgs (queue_full);
  if (full != NULL && PyObject_SetAttrString (full, "n_put", number) == 0)
    PyErr_SetObject (queue_full, full);
  Py_XDECREF (full);
  Py_DECREF (number);
  return NULL;
}

static PyObject *
queue_put_many (PyObject *object, PyObject *const *args, Py_ssize_t n_args, PyObject *keywords)
{
  static FerryNativeSignature signature = { "put_many", { "iterable", "block", "timeout" }, 1 };
  PyObject *values[3] = { NULL, NULL, NULL };
  FerryNativeStatus status = FERRY_NATIVE_OK;
  FerryNativeWait wait;
  PyObject *iterator;
  PyObject *item;
  Py_ssize_t n = 0;
  gint64 timeout;

  if (!ferry_native_parse (&signature, args, n_args, keywords, values)
      || !parse_blocking (values[1], values[2], &timeout))
    return NULL;
  iterator = PyObject_GetIter (values[0]);
  if (iterator == NULL)
    return NULL;
  wait = ferry_native_wait_begin (timeout);
  while (status == FERRY_NATIVE_OK && (item = PyIter_Next (iterator)) != NULL)
    {
      status
          = queue_put_one (SELF (object), item, timeout <= 0 ? timeout : ferry_native_wait_slice (&wait, G_MAXINT64));
      Py_DECREF (item);
      n += status == FERRY_NATIVE_OK;
    }
  Py_DECREF (iterator);
  if (status == FERRY_NATIVE_FAILED || PyErr_Occurred ())
    return NULL;
  return status == FERRY_NATIVE_OK ? PyLong_FromSsize_t (n) : queue_raise_full_after (n);
}

/* Sends what was encoded before, without waiting; also when the queue is being closed. TRUE: it is sent. */
static PyObject *
queue_put_buffer (PyObject *object, PyObject *argument)
{
  Queue *self = SELF (object);
  FerryNativeBuffer *buffer = (FerryNativeBuffer *) argument;
  FerryNativeChannel *sender;
  g_autoptr (FerryBuffer) held = NULL;
  FerryNativeStatus status;

  if (!Py_IS_TYPE (argument, &FerryNativeBuffer_Type) || buffer->buffer == NULL || self->sender == NULL)
    {
      PyErr_SetString (PyExc_ValueError, "there is nothing to send, or nowhere to");
      return NULL;
    }
  held = ferry_buffer_ref (buffer->buffer);
  sender = (FerryNativeChannel *) Py_NewRef ((PyObject *) self->sender);
  status = ferry_native_channel_put_buffer (sender, held, FERRY_NO_WAIT);
  Py_DECREF (sender);
  return status == FERRY_NATIVE_FAILED ? NULL : PyBool_FromLong (status == FERRY_NATIVE_OK);
}

static PyObject *
queue_encode (PyObject *object, PyObject *item)
{
  FerryNativeChannel *sender = queue_sender (SELF (object));
  PyObject *result;

  if (sender == NULL)
    return NULL;
  Py_INCREF (sender); /* another thread may close the queue meanwhile */
  result = ferry_native_channel_encode (sender, item);
  Py_DECREF (sender);
  return result;
}

static PyObject *
queue_set_spilling (PyObject *object, PyObject *argument)
{
  SELF (object)->is_spilling = argument == Py_True;
  Py_RETURN_NONE;
}

/* put() and get() are refused from now on; what is kept in this process is still sent. */
static PyObject *
queue_refuse (PyObject *object, PyObject *unused)
{
  SELF (object)->is_closed = TRUE;
  Py_RETURN_NONE;
}

/* ---- get ---- */

static FerryNativeStatus
queue_get_one (Queue *self, gint64 timeout, gboolean copy, PyObject **object)
{
  FerryNativeChannel *receiver = queue_receiver (self);
  FerryNativeStatus status;

  if (G_UNLIKELY (receiver == NULL))
    return FERRY_NATIVE_FAILED;
  Py_INCREF (receiver);
  status = ferry_native_channel_get (receiver, timeout, copy, object);
  Py_DECREF (receiver);
  if (G_UNLIKELY (status == FERRY_NATIVE_FAILED && self->is_closed))
    {
      PyErr_Clear ();
      queue_raise_closed (self);
    }
  return status;
}

static PyObject *
queue_get_result (FerryNativeStatus status, PyObject *object)
{
  if (G_LIKELY (status == FERRY_NATIVE_OK))
    return object;
  if (status == FERRY_NATIVE_TIMED_OUT)
    return raise_standard (&queue_empty, "Empty");
  if (status == FERRY_NATIVE_ENDED)
    ferry_native_raise_code (FERRY_ERROR_END_OF_STREAM,
                             "every process that put into the queue has called end(), and everything is taken");
  return NULL;
}

static PyObject *
queue_get (PyObject *object, PyObject *const *args, Py_ssize_t n_args, PyObject *keywords)
{
  static FerryNativeSignature signature = { "get", { "block", "timeout", "copy" }, 0 };
  PyObject *values[3] = { NULL, NULL, NULL };
  PyObject *result = NULL;
  FerryNativeStatus status;
  gint64 timeout = FERRY_WAIT_FOREVER;
  int copy = FALSE;

  if (G_UNLIKELY (n_args != 0 || keywords != NULL)
      && (!ferry_native_parse (&signature, args, n_args, keywords, values)
          || !parse_blocking (values[0], values[1], &timeout)
          || (values[2] != NULL && (copy = PyObject_IsTrue (values[2])) < 0)))
    return NULL;
  status = queue_get_one (SELF (object), timeout, copy, &result);
  return queue_get_result (status, result);
}

static PyObject *
queue_get_nowait (PyObject *object, PyObject *unused)
{
  PyObject *result = NULL;
  FerryNativeStatus status = queue_get_one (SELF (object), FERRY_NO_WAIT, FALSE, &result);

  return queue_get_result (status, result);
}

static PyObject *
queue_get_many (PyObject *object, PyObject *const *args, Py_ssize_t n_args, PyObject *keywords)
{
  static FerryNativeSignature signature = { "get_many", { "max", "block", "timeout" }, 0 };
  PyObject *values[3] = { NULL, NULL, NULL };
  FerryNativeStatus status;
  PyObject *item = NULL;
  PyObject *list;
  Py_ssize_t max = PY_SSIZE_T_MAX;
  gint64 timeout;

  if (!ferry_native_parse (&signature, args, n_args, keywords, values)
      || !parse_blocking (values[1], values[2], &timeout))
    return NULL;
  if (values[0] != NULL && values[0] != Py_None)
    {
      max = PyNumber_AsSsize_t (values[0], PyExc_OverflowError);
      if (max == -1 && PyErr_Occurred ())
        return NULL;
      if (max < 0)
        {
          PyErr_SetString (PyExc_ValueError, "max must not be negative");
          return NULL;
        }
    }
  list = PyList_New (0);
  if (list == NULL || max == 0)
    return list;
  /* The first one may be waited for. */
  status = queue_get_one (SELF (object), timeout, FALSE, &item);
  if (status != FERRY_NATIVE_OK)
    {
      Py_DECREF (list);
      return queue_get_result (status, NULL);
    }
  while (status == FERRY_NATIVE_OK)
    {
      int appended = PyList_Append (list, item);

      Py_DECREF (item);
      if (appended < 0)
        {
          Py_DECREF (list);
          return NULL;
        }
      if (PyList_GET_SIZE (list) >= max)
        break;
      status = queue_get_one (SELF (object), FERRY_NO_WAIT, FALSE, &item);
    }
  /* What was got is not thrown away for an error of the next; that one is lost alone. */
  if (status == FERRY_NATIVE_FAILED)
    PyErr_WriteUnraisable (object);
  return list;
}

static PyObject *
queue_iternext (PyObject *object)
{
  PyObject *result = NULL;
  FerryNativeStatus status = queue_get_one (SELF (object), FERRY_WAIT_FOREVER, FALSE, &result);

  return status == FERRY_NATIVE_OK ? result : NULL;
}

/* ---- looking ---- */

/* Either end counts. */
static Py_ssize_t
queue_count (Queue *self)
{
  FerryNativeChannel *channel = self->receiver != NULL ? self->receiver : self->sender;

  if (self->is_closed || channel == NULL)
    channel = queue_receiver (self);
  return channel != NULL ? ferry_native_channel_count_waiting (channel) : -1;
}

/* Those that are kept in this process count. */
static Py_ssize_t
queue_count_all (Queue *self)
{
  Py_ssize_t n = queue_count (self);
  PyObject *kept;

  if (G_UNLIKELY (n >= 0 && self->is_spilling))
    {
      kept = PyObject_GetAttrString ((PyObject *) self, "_overflow");
      n = kept != NULL ? n + PyObject_Size (kept) : -1;
      Py_XDECREF (kept);
    }
  return n;
}

static PyObject *
queue_qsize (PyObject *object, PyObject *unused)
{
  Py_ssize_t n = queue_count_all (SELF (object));

  return n >= 0 ? PyLong_FromSsize_t (n) : NULL;
}

static PyObject *
queue_empty_method (PyObject *object, PyObject *unused)
{
  Py_ssize_t n = queue_count_all (SELF (object));

  return n >= 0 ? PyBool_FromLong (n == 0) : NULL;
}

static PyObject *
queue_full_method (PyObject *object, PyObject *unused)
{
  Queue *self = SELF (object);
  Py_ssize_t n = queue_count (self);
  FerryNativeChannel *channel = self->receiver != NULL ? self->receiver : self->sender;
  guint capacity = 0;

  if (n < 0)
    return NULL;
  g_object_get (channel->channel, "capacity", &capacity, NULL);
  return PyBool_FromLong (!self->is_unlimited && n >= (Py_ssize_t) capacity);
}

static PyObject *
queue_end (PyObject *object, PyObject *unused)
{
  FerryNativeChannel *sender = queue_sender (SELF (object));
  g_autoptr (GError) error = NULL;

  if (sender == NULL)
    return NULL;
  if (!ferry_channel_end_of_stream (sender->channel, &error))
    return ferry_native_raise (&error);
  Py_RETURN_NONE;
}

static PyObject *
queue_loan_buffer (PyObject *object, PyObject *const *args, Py_ssize_t n_args)
{
  FerryNativeChannel *sender;
  PyObject *result;
  Py_ssize_t size;
  gint64 timeout;

  if (n_args != 2)
    {
      PyErr_SetString (PyExc_TypeError, "_loan_buffer() takes a size and a time-out");
      return NULL;
    }
  size = PyNumber_AsSsize_t (args[0], PyExc_OverflowError);
  if ((size == -1 && PyErr_Occurred ()) || !ferry_native_parse_timeout (args[1], &timeout))
    return NULL;
  sender = queue_sender (SELF (object)); /* after the numbers, which may be made by Python code */
  if (sender == NULL)
    return NULL;
  Py_INCREF (sender);
  result = ferry_native_channel_loan (sender, (gsize) size, timeout);
  Py_DECREF (sender);
  return result;
}

/* The endpoint of a role, opened if need be; for what is not in a hurry. */
static PyObject *
queue_endpoint (PyObject *object, PyObject *role)
{
  FerryNativeChannel *channel = PyObject_IsTrue (role) ? queue_sender (SELF (object)) : queue_receiver (SELF (object));

  return Py_XNewRef ((PyObject *) channel);
}

static PyObject *
queue_descriptors (PyObject *object, PyObject *unused)
{
  int control_fd;
  int data_fd;

  if (SELF (object)->is_closed)
    return queue_raise_closed (SELF (object));
  if (SELF (object)->name != NULL || !queue_get_descriptors (SELF (object), &control_fd, &data_fd))
    Py_RETURN_NONE;
  return Py_BuildValue ("(iii)", control_fd, data_fd, SELF (object)->tasks_fd);
}

/* For a process that gets the descriptors and no mappings. */
static PyObject *
queue_warm_up (PyObject *object, PyObject *unused)
{
  FerryNativeChannel *receiver = SELF (object)->receiver;
  FerryTransport *transport
      = receiver != NULL && receiver->is_open ? ferry_channel_get_transport_object (receiver->channel) : NULL;

  if (FERRY_IS_SEGMENT_TRANSPORT (transport))
    ferry_segment_transport_warm_up (FERRY_SEGMENT_TRANSPORT (transport));
  Py_RETURN_NONE;
}

static PyObject *
queue_set_closed_error (PyObject *object, PyObject *args)
{
  PyObject *class;
  PyObject *text;

  if (!PyArg_ParseTuple (args, "OO", &class, &text))
    return NULL;
  Py_SETREF (SELF (object)->closed_error, Py_NewRef (class));
  Py_SETREF (SELF (object)->closed_text, Py_NewRef (text));
  Py_RETURN_NONE;
}

static PyObject *
queue_get_closed (PyObject *object, void *closure)
{
  return PyBool_FromLong (SELF (object)->is_closed);
}

static PyObject *
queue_get_name (PyObject *object, void *closure)
{
  return Py_BuildValue ("z", SELF (object)->name);
}

static PyObject *
queue_get_transport (PyObject *object, void *closure)
{
  return Py_BuildValue ("z", SELF (object)->transport);
}

static PyObject *
queue_get_codec (PyObject *object, void *closure)
{
  return Py_BuildValue ("z", SELF (object)->codec);
}

#define FAST(function) ((PyCFunction) (void (*) (void)) (function)), METH_FASTCALL | METH_KEYWORDS

static PyMethodDef queue_methods[] = {
  { "put", FAST (queue_put),
    "put($self, /, obj, block=True, timeout=None)\n--\n\n"
    "Put an object into the queue.\n\n"
    "It is encoded and copied when the call returns: there is no feeder thread, an object that can't\n"
    "be encoded raises here, and a process may end right after it. A queue without a limit that has no\n"
    "room for a tenth of a second keeps it, encoded, in this process, which does not end before a\n"
    "thread has passed it on.\n\n"
    "Parameters\n----------\n"
    "obj : object\n    Anything that codec-python encodes or pickle pickles.\n"
    "block : bool, default True\n    Whether to wait for room.\n"
    "timeout : float or None, optional\n    For how many seconds at most.\n\n"
    "Raises\n------\n"
    "queue.Full\n    There is no room, or none came in time.\n"
    "ValueError\n    The queue is closed.\n"
    "ferry.CodecError\n    The object can't be encoded." },
  { "put_nowait", queue_put_nowait, METH_O, "put_nowait($self, obj, /)\n--\n\nThe same as ``put(obj, block=False)``." },
  { "put_many", FAST (queue_put_many),
    "put_many($self, /, iterable, block=True, timeout=None)\n--\n\n"
    "Put one object after the other.\n\n"
    "Parameters\n----------\n"
    "iterable : iterable\n    The objects.\n"
    "block : bool, default True\n    Whether to wait for room.\n"
    "timeout : float or None, optional\n    For how many seconds at most, for all of them together. Without\n"
    "    `block` it does not count.\n\n"
    "Returns\n-------\nint\n    How many were put: all of them.\n\n"
    "Raises\n------\n"
    "queue.Full\n    There is no room for the next one, or none came in time. Those before it are put; the\n"
    "    attribute `n_put` of the exception tells how many they are. From an iterator the next one\n"
    "    is taken by then.\n"
    "ValueError\n    The queue is closed.\n"
    "ferry.CodecError\n    An object can't be encoded; those before it are put." },
  { "get", FAST (queue_get),
    "get($self, /, block=True, timeout=None, copy=False)\n--\n\n"
    "Take the next object out of the queue.\n\n"
    "Parameters\n----------\n"
    "block : bool, default True\n    Whether to wait for one.\n"
    "timeout : float or None, optional\n    For how many seconds at most.\n"
    "copy : bool, default False\n    Whether arrays get memory of their own; else they are writable views on the\n"
    "    message, which stays in shared memory as long as they exist.\n\n"
    "Raises\n------\n"
    "queue.Empty\n    There is none, or none came in time.\n"
    "EOFError\n    Every process that put has called `end()`, and everything is taken.\n"
    "ValueError\n    The queue is closed." },
  { "get_nowait", queue_get_nowait, METH_NOARGS, "get_nowait($self, /)\n--\n\nThe same as ``get(block=False)``." },
  { "get_many", FAST (queue_get_many),
    "get_many($self, /, max=None, block=True, timeout=None)\n--\n\n"
    "Take what is there, waiting for the first object only.\n\n"
    "Parameters\n----------\n"
    "max : int or None, optional\n    How many at most; None: all that are there.\n"
    "block : bool, default True\n    Whether to wait for the first one.\n"
    "timeout : float or None, optional\n    For how many seconds at most. Without `block` it does not count.\n\n"
    "Returns\n-------\nlist\n    At least one object, or none with ``max=0``.\n\n"
    "Raises\n------\n"
    "queue.Empty\n    There is none, or none came in time.\n"
    "EOFError\n    Every process that put has called `end()`, and everything is taken.\n"
    "ValueError\n    The queue is closed." },
  { "qsize", queue_qsize, METH_NOARGS,
    "qsize($self, /)\n--\n\n"
    "How many objects were put and not yet taken: all that are in shared memory, exactly, and what this\n"
    "process keeps because a queue without a limit had no room; not what others keep." },
  { "empty", queue_empty_method, METH_NOARGS,
    "empty($self, /)\n--\n\nWhether nothing waits at this moment. Unlike `multiprocessing.Queue` exact: what was put "
    "is seen\n(but for what another process keeps, as `qsize()` says)." },
  { "full", queue_full_method, METH_NOARGS,
    "full($self, /)\n--\n\n"
    "Whether `maxsize` objects wait at this moment; without a limit never. `put()` may have to wait all the\n"
    "same, for memory, when `max_bytes` are taken." },
  { "end", queue_end, METH_NOARGS,
    "end($self, /)\n--\n\n"
    "Declare that this process puts no more. When all processes that opened the queue for putting\n"
    "have, and everything is taken, iteration ends and `get()` raises EOFError." },
  { "close", queue_close, METH_NOARGS,
    "close($self, /)\n--\n\n"
    "This process uses the queue no more: `put()` and `get()` raise ValueError. Others go on." },
  { "_put_buffer", queue_put_buffer, METH_O, NULL },
  { "_encode", queue_encode, METH_O, NULL },
  { "_set_spilling", queue_set_spilling, METH_O, NULL },
  { "_refuse", queue_refuse, METH_NOARGS, NULL },
  { "_loan_buffer", (PyCFunction) (void (*) (void)) queue_loan_buffer, METH_FASTCALL, NULL },
  { "_endpoint", queue_endpoint, METH_O, NULL },
  { "_descriptors", queue_descriptors, METH_NOARGS, NULL },
  { "_warm_up", queue_warm_up, METH_NOARGS, NULL },
  { "_set_closed_error", queue_set_closed_error, METH_VARARGS, NULL },
  { "_task_done", queue_task_done, METH_NOARGS, NULL },
  { "_wait_tasks", queue_wait_tasks, METH_NOARGS, NULL },
  { NULL },
};

static PyGetSetDef queue_getset[] = {
  { "closed", queue_get_closed, NULL, "bool: whether `close()` was called in this process", NULL },
  { "name", queue_get_name, NULL, "str or None: under which other programs find it", NULL },
  { "transport", queue_get_transport, NULL, "str: what memory it lives in", NULL },
  { "codec", queue_get_codec, NULL, "str: the codec, or auto", NULL },
  { NULL },
};

PyTypeObject FerryNativeQueue_Type = {
  PyVarObject_HEAD_INIT (NULL, 0).tp_name = "ferry._native.Queue",
  .tp_basicsize = sizeof (Queue),
  .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
  .tp_new = queue_new,
  .tp_init = queue_init,
  .tp_dealloc = queue_dealloc,
  .tp_iter = PyObject_SelfIter,
  .tp_iternext = queue_iternext,
  .tp_methods = queue_methods,
  .tp_getset = queue_getset,
  .tp_weaklistoffset = offsetof (Queue, weakrefs),
};
