/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-native.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* One end of a pipe: a queue in each direction, and what only descriptors can tell. Through a UNIX socket nothing goes
 * at all: the kernel hangs it up when the last process that had the other end is gone, however it went, whether it ever
 * used it or not. An eventfd in each direction is the bell that wakes who polls; who is woken and finds more than one
 * message leaves it ringing for the others, which is why it is no byte in the socket: only the other end could send
 * that. */

/* Shared by both ends. */
typedef struct
{
  _Atomic guint32 armed[2]; /* the end polls its bell: ring it after a message */
} Bells;

/* Who waits longer than this polls, so that it learns at once that the other end is gone. Microseconds. */
#define SPELL_US (2 * 1000)

typedef struct
{
  PyObject_HEAD PyObject *in; /* NULL: not readable */
  PyObject *out;              /* NULL: not writable */
  int socket_fd;
  int bells_fd;
  int bell_fd;       /* what wakes this end; -1: not readable */
  int other_bell_fd; /* the other end's; -1: not writable */
  int epoll_fd;      /* -1: nobody asked for a descriptor */
  int ready_fd;      /* an eventfd: makes epoll_fd readable while messages wait */
  gboolean is_ready;
  guint side;
  guint n_inside;
  gint64 looked_at; /* when the socket was last looked at by a sender; coarse, ns */
  Bells *bells;
  gboolean is_closed;
  PyObject *weakrefs;
} Connection;

#define SELF(object) ((Connection *) (object))

static PyObject *
raise_os_error (const char *text)
{
  PyErr_SetString (PyExc_OSError, text);
  return NULL;
}

static gboolean
connection_check (Connection *self, gboolean sending)
{
  if (G_LIKELY (!self->is_closed && (sending ? self->out : self->in) != NULL))
    return TRUE;
  raise_os_error (self->is_closed ? "handle is closed"
                  : sending       ? "connection is read-only"
                                  : "connection is write-only");
  return FALSE;
}

/* ---- the socket ---- */

static gboolean
is_hung_up (Connection *self)
{
  struct pollfd fd = { self->socket_fd, 0, 0 };

  return poll (&fd, 1, 0) == 1 && (fd.revents & (POLLHUP | POLLERR)) != 0;
}

static gint64
coarse_now (void)
{
  struct timespec now;

  clock_gettime (CLOCK_MONOTONIC_COARSE, &now);
  return now.tv_sec * G_GINT64_CONSTANT (1000000000) + now.tv_nsec;
}

static void
ring_bell (int fd)
{
  guint64 number = 1;

  (void) !write (fd, &number, sizeof number);
}

static inline void
ring (Connection *self)
{
  _Atomic guint32 *armed = &self->bells->armed[1 - self->side];

  /* Pairs with the store in arm(): the message was committed with seq_cst before. */
  if (G_UNLIKELY (atomic_load_explicit (armed, memory_order_seq_cst) != 0)
      && atomic_exchange_explicit (armed, 0, memory_order_seq_cst) != 0)
    ring_bell (self->other_bell_fd);
}

/* From now on a message makes the bell readable. TRUE: one is there already, or the end. The bell may be rung for
 * several messages, and for others who poll it, in threads and processes that share this end: nobody silences it while
 * there is a message. */
static gboolean
arm (Connection *self, FerryNativeChannel *receiver)
{
  guint64 number;
  gboolean rung;

  if (ferry_channel_wait (receiver->channel, G_IO_IN, FERRY_NO_WAIT, NULL, NULL))
    return TRUE;
  rung = read (self->bell_fd, &number, sizeof number) > 0;
  atomic_store_explicit (&self->bells->armed[self->side], 1, memory_order_seq_cst);
  if (!ferry_channel_wait (receiver->channel, G_IO_IN, FERRY_NO_WAIT, NULL, NULL))
    return FALSE;
  if (rung)
    ring_bell (self->bell_fd);
  return TRUE;
}

/* Keeps the descriptor that was asked for as readable as it should be. */
static void
rearm (Connection *self, FerryNativeChannel *receiver)
{
  gboolean ready = arm (self, receiver);
  guint64 number;

  if (ready == self->is_ready)
    return;
  self->is_ready = ready;
  if (ready)
    ring_bell (self->ready_fd);
  else
    (void) !read (self->ready_fd, &number, sizeof number);
}

/* ---- life ---- */

static PyObject *
connection_new (PyTypeObject *type, PyObject *args, PyObject *keywords)
{
  Connection *self = (Connection *) type->tp_alloc (type, 0);

  if (self == NULL)
    return NULL;
  self->socket_fd = self->bells_fd = self->bell_fd = self->other_bell_fd = self->epoll_fd = self->ready_fd = -1;
  self->is_closed = TRUE;
  return (PyObject *) self;
}

/* A bell comes from anywhere; to wait for it here would be to wait for ever. */
static gboolean
check_bell (int fd, PyObject *queue)
{
  int flags;

  if (queue == Py_None && fd == -1)
    return TRUE;
  flags = fcntl (fd, F_GETFL);
  if (flags < 0)
    PyErr_SetFromErrno (PyExc_OSError);
  else if ((flags & O_NONBLOCK) == 0)
    PyErr_SetString (PyExc_ValueError, "the bell of a connection must be a descriptor that does not block");
  return flags >= 0 && (flags & O_NONBLOCK) != 0;
}

/* Queues or None, the descriptors, which become ours, and which of the two ends it is. */
static int
connection_init (PyObject *object, PyObject *args, PyObject *keywords)
{
  Connection *self = SELF (object);
  PyObject *in;
  PyObject *out;
  gpointer address;

  if (self->bells != NULL)
    {
      PyErr_SetString (PyExc_TypeError, "a connection is initialised once");
      return -1;
    }
  if (!PyArg_ParseTuple (args, "OOiiiiI", &in, &out, &self->socket_fd, &self->bells_fd, &self->bell_fd,
                         &self->other_bell_fd, &self->side))
    return -1;
  if ((in != Py_None && !PyObject_TypeCheck (in, &FerryNativeQueue_Type))
      || (out != Py_None && !PyObject_TypeCheck (out, &FerryNativeQueue_Type)) || self->side > 1)
    {
      PyErr_SetString (PyExc_TypeError, "a connection is made of queues");
      return -1;
    }
  if (!check_bell (self->bell_fd, in) || !check_bell (self->other_bell_fd, out))
    return -1;
  address = ferry_native_map_shared (self->bells_fd, sizeof (Bells));
  if (address == NULL)
    return -1;
  self->bells = address;
  self->in = in != Py_None ? Py_NewRef (in) : NULL;
  self->out = out != Py_None ? Py_NewRef (out) : NULL;
  self->is_closed = FALSE;
  return 0;
}

static void
close_fd (int *fd)
{
  if (*fd >= 0)
    close (*fd);
  *fd = -1;
}

static void
connection_clear (Connection *self)
{
  close_fd (&self->socket_fd);
  close_fd (&self->bells_fd);
  close_fd (&self->bell_fd);
  close_fd (&self->other_bell_fd);
  close_fd (&self->epoll_fd);
  close_fd (&self->ready_fd);
  if (self->bells != NULL)
    munmap (self->bells, sizeof (Bells));
  self->bells = NULL;
}

static void
connection_exit (Connection *self)
{
  /* In a fork child it may be 0 already. */
  if (self->n_inside > 0)
    self->n_inside--;
  if (self->n_inside == 0 && self->is_closed)
    connection_clear (self);
}

/* The endpoint of a direction, to be given back with connection_leave(). Opening it may release the GIL. */
static FerryNativeChannel *
connection_enter (Connection *self, gboolean sending)
{
  FerryNativeChannel *endpoint;

  if (G_UNLIKELY (!connection_check (self, sending)))
    return NULL;
  self->n_inside++;
  endpoint = sending ? ferry_native_queue_get_sender (self->out) : ferry_native_queue_get_receiver (self->in);
  if (G_UNLIKELY (self->is_closed))
    {
      PyErr_Clear ();
      connection_check (self, sending);
      endpoint = NULL;
    }
  if (G_LIKELY (endpoint != NULL && ferry_native_channel_enter (endpoint)))
    return endpoint;
  connection_exit (self);
  return NULL;
}

static void
connection_leave (Connection *self, FerryNativeChannel *endpoint)
{
  ferry_native_channel_leave (endpoint);
  connection_exit (self);
}

static void
close_queue (PyObject *queue)
{
  PyObject *result = queue != NULL ? PyObject_CallMethod (queue, "close", NULL) : NULL;

  if (queue != NULL && result == NULL)
    PyErr_WriteUnraisable (queue);
  Py_XDECREF (result);
}

static PyObject *
connection_close (PyObject *object, PyObject *unused)
{
  Connection *self = SELF (object);

  if (!self->is_closed)
    {
      self->is_closed = TRUE;
      self->n_inside++;
      close_queue (self->in);
      close_queue (self->out);
      /* Who polls here in another thread sees it; shutdown() of the socket would end the others' copies too. */
      if (self->in != NULL && self->n_inside > 1)
        ring_bell (self->bell_fd);
      connection_exit (self);
    }
  Py_RETURN_NONE;
}

static void
connection_dealloc (PyObject *object)
{
  Connection *self = SELF (object);

  if (self->weakrefs != NULL)
    PyObject_ClearWeakRefs (object);
  connection_clear (self);
  Py_CLEAR (self->in);
  Py_CLEAR (self->out);
  Py_TYPE (object)->tp_free (object);
}

/* ---- sending ---- */

static PyObject *
raise_broken (void)
{
  errno = EPIPE;
  return PyErr_SetFromErrno (PyExc_BrokenPipeError);
}

typedef struct
{
  PyObject *object; /* NULL: bytes */
  const guint8 *data;
  gsize size;
} Content;

static PyObject *
connection_put (Connection *self, const Content *content)
{
  FerryNativeStatus status = FERRY_NATIVE_TIMED_OUT;
  FerryNativeChannel *sender;
  gint64 timeout = FERRY_NO_WAIT;
  gint64 now;

  sender = connection_enter (self, TRUE);
  if (G_UNLIKELY (sender == NULL))
    return NULL;
  /* Who sends into the void is told, as soon as that is not a system call a message. */
  now = coarse_now ();
  if (G_UNLIKELY (now != self->looked_at))
    {
      self->looked_at = now;
      if (is_hung_up (self))
        {
          connection_leave (self, sender);
          return raise_broken ();
        }
    }
  while (status == FERRY_NATIVE_TIMED_OUT)
    {
      status = content->object != NULL ? ferry_native_channel_put (sender, content->object, timeout)
                                       : ferry_native_channel_put_bytes (sender, content->data, content->size, timeout);
      if (G_UNLIKELY (status == FERRY_NATIVE_TIMED_OUT))
        {
          timeout = FERRY_NATIVE_SLICE_US;
          if (is_hung_up (self))
            {
              raise_broken ();
              status = FERRY_NATIVE_FAILED;
            }
        }
    }
  if (G_LIKELY (status == FERRY_NATIVE_OK))
    ring (self); /* also when another thread has closed this end meanwhile: the other one may sleep */
  connection_leave (self, sender);
  return status == FERRY_NATIVE_OK ? Py_NewRef (Py_None) : NULL;
}

static PyObject *
connection_send (PyObject *object, PyObject *item)
{
  Content content = { .object = item };

  return connection_put (SELF (object), &content);
}

static PyObject *
connection_send_bytes (PyObject *object, PyObject *const *args, Py_ssize_t n_args, PyObject *keywords)
{
  static FerryNativeSignature signature = { "send_bytes", { "buf", "offset", "size" }, 1 };
  PyObject *values[3] = { NULL, NULL, NULL };
  PyObject *result = NULL;
  Content content = { NULL };
  Py_ssize_t offset = 0;
  Py_ssize_t size = 0;
  Py_buffer view;
  const char *wrong = NULL;

  if (!ferry_native_parse (&signature, args, n_args, keywords, values) || !connection_check (SELF (object), TRUE))
    return NULL;
  if (PyObject_GetBuffer (values[0], &view, PyBUF_SIMPLE) < 0)
    return NULL;
  if (values[1] != NULL)
    offset = PyNumber_AsSsize_t (values[1], PyExc_OverflowError);
  if (!PyErr_Occurred ())
    {
      if (offset < 0)
        wrong = "offset is negative";
      else if (view.len < offset)
        wrong = "buffer length < offset";
      if (wrong != NULL)
        PyErr_SetString (PyExc_ValueError, wrong);
    }
  if (!PyErr_Occurred ())
    {
      size = view.len - offset;
      if (values[2] != NULL && values[2] != Py_None)
        size = PyNumber_AsSsize_t (values[2], PyExc_OverflowError);
    }
  if (!PyErr_Occurred ())
    {
      if (size < 0)
        wrong = "size is negative";
      else if (size > view.len - offset)
        wrong = "buffer length < offset + size";
      if (wrong != NULL)
        PyErr_SetString (PyExc_ValueError, wrong);
    }
  if (!PyErr_Occurred ())
    {
      content.data = (const guint8 *) view.buf + offset;
      content.size = (gsize) size;
      result = connection_put (SELF (object), &content);
    }
  PyBuffer_Release (&view);
  return result;
}

/* ---- receiving ---- */

/* Waits until a message may be there. FERRY_NATIVE_ENDED: the other end is gone, but look once more. */
static FerryNativeStatus
connection_sleep (Connection *self, FerryNativeChannel *receiver, FerryNativeWait *wait)
{
  struct pollfd fds[] = { { self->socket_fd, 0, 0 }, { self->bell_fd, POLLIN, 0 } };
  gint64 slice = ferry_native_wait_slice (wait, FERRY_NATIVE_SLICE_US);

  if (arm (self, receiver))
    return FERRY_NATIVE_OK;
  if (slice == 0)
    return is_hung_up (self) ? FERRY_NATIVE_ENDED : FERRY_NATIVE_TIMED_OUT;
  Py_BEGIN_ALLOW_THREADS
  poll (fds, G_N_ELEMENTS (fds), (int) ((slice + 999) / 1000));
  Py_END_ALLOW_THREADS
  if (PyErr_CheckSignals () < 0)
    return FERRY_NATIVE_FAILED;
  if (self->is_closed)
    {
      raise_os_error ("handle is closed");
      return FERRY_NATIVE_FAILED;
    }
  return fds[0].revents & (POLLHUP | POLLERR) ? FERRY_NATIVE_ENDED : FERRY_NATIVE_OK;
}

/* @buffer NULL: only waits until a message is there. */
static FerryNativeStatus
connection_take (Connection *self, FerryNativeChannel *receiver, gint64 timeout, FerryBuffer **buffer)
{
  FerryNativeStatus status = FERRY_NATIVE_OK;
  FerryNativeWait wait;
  gboolean ended = FALSE;
  gboolean first = TRUE;

  if (buffer != NULL)
    {
      *buffer = ferry_channel_receive (receiver->channel, FERRY_NO_WAIT, NULL, NULL);
      if (G_LIKELY (*buffer != NULL))
        {
          if (G_UNLIKELY (self->epoll_fd >= 0))
            rearm (self, receiver);
          return FERRY_NATIVE_OK;
        }
    }
  wait = ferry_native_wait_begin (timeout);
  for (;;)
    {
      gboolean got;

      if (buffer != NULL)
        {
          gint64 spell = ended ? FERRY_NO_WAIT : ferry_native_wait_slice (&wait, SPELL_US);

          /* Spins and then sleeps on the channel: what comes soon comes fastest there. */
          status = first && spell > 0 ? ferry_native_channel_take (receiver, spell, buffer)
                                      : ferry_native_channel_take (receiver, FERRY_NO_WAIT, buffer);
          got = status == FERRY_NATIVE_OK;
          if (status == FERRY_NATIVE_FAILED)
            break;
        }
      else
        {
          got = ferry_channel_wait (receiver->channel, G_IO_IN, FERRY_NO_WAIT, NULL, NULL);
        }
      first = FALSE;
      status = got ? FERRY_NATIVE_OK : FERRY_NATIVE_ENDED;
      if (got || ended)
        break;
      status = connection_sleep (self, receiver, &wait);
      if (status == FERRY_NATIVE_FAILED || status == FERRY_NATIVE_TIMED_OUT)
        break;
      ended = status == FERRY_NATIVE_ENDED;
    }
  if (self->epoll_fd >= 0 && !self->is_closed && buffer != NULL && status == FERRY_NATIVE_OK)
    rearm (self, receiver);
  if (status == FERRY_NATIVE_ENDED && buffer != NULL)
    PyErr_SetNone (PyExc_EOFError);
  return status;
}

static PyObject *
connection_recv (PyObject *object, PyObject *unused)
{
  Connection *self = SELF (object);
  FerryNativeChannel *receiver = connection_enter (self, FALSE);
  FerryBuffer *buffer;
  gboolean was_raw = FALSE;
  PyObject *result = NULL;
  PyObject *loaded;

  if (G_UNLIKELY (receiver == NULL))
    return NULL;
  if (connection_take (self, receiver, FERRY_WAIT_FOREVER, &buffer) == FERRY_NATIVE_OK)
    result = ferry_native_channel_decode (receiver, buffer, FALSE, &was_raw);
  connection_leave (self, receiver);
  if (G_LIKELY (!was_raw || result == NULL))
    return result;
  /* sent with send_bytes(): what it contains should be a pickle */
  loaded = PyObject_CallMethod (object, "_loads", "O", result);
  Py_DECREF (result);
  return loaded;
}

/* The message, of whatever kind: a Buffer, and for what send() sent an object to be pickled. */
static PyObject *
connection_recv_contents (PyObject *object, PyObject *unused)
{
  Connection *self = SELF (object);
  FerryNativeChannel *receiver = connection_enter (self, FALSE);
  FerryBuffer *buffer;
  PyObject *result = NULL;

  if (G_UNLIKELY (receiver == NULL))
    return NULL;
  if (connection_take (self, receiver, FERRY_WAIT_FOREVER, &buffer) == FERRY_NATIVE_OK)
    {
      g_autofree char *name = ferry_buffer_dup_wire_name (buffer, NULL);

      if (g_str_equal (name, "raw"))
        result = ferry_native_buffer_new (buffer);
      else
        result = Py_BuildValue ("(N)", ferry_native_channel_decode (receiver, buffer, FALSE, NULL));
    }
  connection_leave (self, receiver);
  return result;
}

static PyObject *
connection_recv_bytes (PyObject *object, PyObject *const *args, Py_ssize_t n_args, PyObject *keywords)
{
  static FerryNativeSignature signature = { "recv_bytes", { "maxlength" }, 0 };
  PyObject *values[1] = { NULL };
  PyObject *contents;
  PyObject *result;
  Py_buffer view;
  Py_ssize_t longest = PY_SSIZE_T_MAX;
  Py_ssize_t size;

  if (!ferry_native_parse (&signature, args, n_args, keywords, values) || !connection_check (SELF (object), FALSE))
    return NULL;
  if (values[0] != NULL && values[0] != Py_None)
    {
      longest = PyNumber_AsSsize_t (values[0], PyExc_OverflowError);
      if (longest < 0)
        {
          if (!PyErr_Occurred ())
            PyErr_SetString (PyExc_ValueError, "negative maxlength");
          return NULL;
        }
    }
  contents = connection_recv_contents (object, NULL);
  if (contents != NULL && PyTuple_CheckExact (contents))
    {
      PyObject *dumped = PyObject_CallMethod (object, "_dumps", "O", PyTuple_GET_ITEM (contents, 0));

      Py_DECREF (contents);
      contents = dumped;
    }
  if (contents == NULL)
    return NULL;
  size = PyObject_Size (contents);
  if (size > longest)
    {
      Py_DECREF (contents);
      result = PyObject_CallMethod (object, "close", NULL);
      Py_XDECREF (result);
      return result != NULL ? raise_os_error ("bad message length") : NULL;
    }
  result = NULL;
  if (PyBytes_CheckExact (contents))
    {
      result = Py_NewRef (contents);
    }
  else if (PyObject_GetBuffer (contents, &view, PyBUF_SIMPLE) == 0)
    {
      result = ferry_native_bytes_new (view.buf, (gsize) view.len);
      PyBuffer_Release (&view);
    }
  Py_DECREF (contents);
  return result;
}

static PyObject *
connection_poll (PyObject *object, PyObject *const *args, Py_ssize_t n_args, PyObject *keywords)
{
  static FerryNativeSignature signature = { "poll", { "timeout" }, 0 };
  PyObject *values[1] = { NULL };
  FerryNativeChannel *receiver;
  FerryNativeStatus status;
  gint64 timeout = FERRY_NO_WAIT;

  if (!ferry_native_parse (&signature, args, n_args, keywords, values)
      || (values[0] != NULL && !ferry_native_parse_timeout (values[0], &timeout)))
    return NULL;
  receiver = connection_enter (SELF (object), FALSE);
  if (receiver == NULL)
    return NULL;
  status = connection_take (SELF (object), receiver, timeout, NULL);
  connection_leave (SELF (object), receiver);
  /* The end is something to receive, too. */
  return status == FERRY_NATIVE_FAILED ? NULL : PyBool_FromLong (status != FERRY_NATIVE_TIMED_OUT);
}

static PyObject *
connection_fileno (PyObject *object, PyObject *unused)
{
  Connection *self = SELF (object);
  FerryNativeChannel *receiver;
  PyObject *result;
  struct epoll_event event = { .events = EPOLLIN };
  struct epoll_event end = { .events = 0 }; /* it is told of hanging up all the same */

  if (self->is_closed)
    return raise_os_error ("handle is closed");
  if (self->in == NULL)
    return PyLong_FromLong (self->socket_fd);
  receiver = connection_enter (self, FALSE);
  if (receiver == NULL)
    return NULL;
  if (self->epoll_fd < 0)
    {
      self->ready_fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
      self->epoll_fd = epoll_create1 (EPOLL_CLOEXEC);
      if (self->ready_fd < 0 || self->epoll_fd < 0
          || epoll_ctl (self->epoll_fd, EPOLL_CTL_ADD, self->ready_fd, &event) < 0
          || epoll_ctl (self->epoll_fd, EPOLL_CTL_ADD, self->bell_fd, &event) < 0
          || epoll_ctl (self->epoll_fd, EPOLL_CTL_ADD, self->socket_fd, &end) < 0)
        {
          PyErr_SetFromErrno (PyExc_OSError);
          close_fd (&self->epoll_fd);
          close_fd (&self->ready_fd);
          connection_leave (self, receiver);
          return NULL;
        }
    }
  rearm (self, receiver);
  result = PyLong_FromLong (self->epoll_fd);
  connection_leave (self, receiver);
  return result;
}

/* In a fork child: what polls is the parent's, and so are the threads that were inside. */
static PyObject *
connection_forked (PyObject *object, PyObject *unused)
{
  Connection *self = SELF (object);

  close_fd (&self->epoll_fd);
  close_fd (&self->ready_fd);
  self->is_ready = FALSE;
  self->n_inside = 0;
  if (self->is_closed)
    connection_clear (self);
  else if (self->bells != NULL)
    (void) atomic_load_explicit (&self->bells->armed[0], memory_order_relaxed); /* the page fault: not by a message */
  Py_RETURN_NONE;
}

static PyObject *
connection_descriptors (PyObject *object, PyObject *unused)
{
  Connection *self = SELF (object);

  if (self->is_closed)
    return raise_os_error ("handle is closed");
  return Py_BuildValue ("(OOiiiiI)", self->in != NULL ? self->in : Py_None, self->out != NULL ? self->out : Py_None,
                        self->socket_fd, self->bells_fd, self->bell_fd, self->other_bell_fd, self->side);
}

static PyObject *
connection_get_closed (PyObject *object, void *closure)
{
  return PyBool_FromLong (SELF (object)->is_closed);
}

static PyObject *
connection_get_readable (PyObject *object, void *closure)
{
  return PyBool_FromLong (SELF (object)->in != NULL);
}

static PyObject *
connection_get_writable (PyObject *object, void *closure)
{
  return PyBool_FromLong (SELF (object)->out != NULL);
}

#define FAST(function) ((PyCFunction) (void (*) (void)) (function)), METH_FASTCALL | METH_KEYWORDS

static PyMethodDef connection_methods[] = {
  { "send", connection_send, METH_O,
    "send($self, obj, /)\n--\n\n"
    "Send an object.\n\n"
    "Raises\n------\n"
    "BrokenPipeError\n    The other end is gone.\n"
    "OSError\n    This end is closed, or can only receive." },
  { "send_bytes", FAST (connection_send_bytes),
    "send_bytes($self, /, buf, offset=0, size=None)\n--\n\n"
    "Send the bytes of anything with the buffer protocol as one message." },
  { "recv", connection_recv, METH_NOARGS,
    "recv($self, /)\n--\n\n"
    "Receive the next object; wait for it.\n\n"
    "Raises\n------\nEOFError\n    The other end is gone, and everything is received." },
  { "recv_bytes", FAST (connection_recv_bytes),
    "recv_bytes($self, /, maxlength=None)\n--\n\nReceive the next message as bytes." },
  { "poll", FAST (connection_poll),
    "poll($self, /, timeout=0.0)\n--\n\n"
    "Whether a message, or the end, is there; wait for it up to `timeout` seconds, or for ever with None." },
  { "fileno", connection_fileno, METH_NOARGS,
    "fileno($self, /)\n--\n\nA descriptor that is readable as long as a message, or the end, is there." },
  { "close", connection_close, METH_NOARGS, "close($self, /)\n--\n\nClose this end in this process." },
  { "_recv_contents", connection_recv_contents, METH_NOARGS, NULL },
  { "_forked", connection_forked, METH_NOARGS, NULL },
  { "_descriptors", connection_descriptors, METH_NOARGS, NULL },
  { NULL },
};

static PyGetSetDef connection_getset[] = {
  { "closed", connection_get_closed, NULL, "bool: whether this end is closed in this process", NULL },
  { "readable", connection_get_readable, NULL, "bool: whether it can receive", NULL },
  { "writable", connection_get_writable, NULL, "bool: whether it can send", NULL },
  { NULL },
};

PyTypeObject FerryNativeConnection_Type = {
  PyVarObject_HEAD_INIT (NULL, 0).tp_name = "ferry._native.Connection",
  .tp_basicsize = sizeof (Connection),
  .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
  .tp_new = connection_new,
  .tp_init = connection_init,
  .tp_dealloc = connection_dealloc,
  .tp_methods = connection_methods,
  .tp_getset = connection_getset,
  .tp_weaklistoffset = offsetof (Connection, weakrefs),
};
