/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The extension module ferry._native: what happens for every message. Setting up and everything that is not in a hurry
 * is written in Python, in the package beside it. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <ferry.h>

G_BEGIN_DECLS

/* Waiting is done in slices, without the GIL; between them signal handlers run. Microseconds. */
#define FERRY_NATIVE_SLICE_US (100 * 1000)
/* Encodings up to this size, in bytes, are made on the stack and copied into shared memory. */
#define FERRY_NATIVE_STACK (4096)
/* From this size on, in bytes, getting memory may take so long that other threads should run meanwhile. */
#define FERRY_NATIVE_PATIENT_SIZE (16 * 1024 * 1024)

/* How a call ended that may have to wait. */
typedef enum
{
  FERRY_NATIVE_FAILED = -1, /* a Python exception is set */
  FERRY_NATIVE_OK,
  FERRY_NATIVE_TIMED_OUT, /* no exception is set, and so it is with those below */
  FERRY_NATIVE_ENDED,
  FERRY_NATIVE_INTERRUPTED, /* only where the caller asked to look at something itself */
} FerryNativeStatus;

/* Slices of a wait. */
typedef struct
{
  gint64 deadline; /* g_get_monotonic_time(); negative: none */
} FerryNativeWait;

static inline FerryNativeWait
ferry_native_wait_begin (gint64 timeout)
{
  gint64 now;

  if (timeout < 0)
    return (FerryNativeWait){ -1 };
  now = g_get_monotonic_time ();
  return (FerryNativeWait){ timeout > G_MAXINT64 - now ? -1 : now + timeout };
}

/* How long the next slice may be; 0: it is over. */
static inline gint64
ferry_native_wait_slice (const FerryNativeWait *wait, gint64 longest)
{
  if (wait->deadline < 0)
    return longest;
  return CLAMP (wait->deadline - g_get_monotonic_time (), 0, longest);
}

/* A codec of this process. */
typedef struct
{
  FerryCodec *codec;
  FerryCodecInterface *iface;
} FerryNativeCodec;

/* ---- Buffer ---- */

typedef struct
{
  PyObject_HEAD FerryBuffer *buffer; /* NULL: released, or sent */
  FerryStoreReference *reference;    /* what it refers to, kept until it is sent; NULL: nothing */
  Py_ssize_t n_exports;
  PyObject *array_dtype; /* of the array that lies in it, a loan; NULL: none, or it is sent */
  gsize array_offset;    /* of its elements, bytes */
  PyObject *weakrefs;
} FerryNativeBuffer;

extern PyTypeObject FerryNativeBuffer_Type;

PyObject *ferry_native_buffer_new (FerryBuffer *buffer); /* takes the reference */

/* One message in memory of this process. */
void ferry_native_expect_writes (gpointer data, gsize size);
PyObject *ferry_native_bytes_new (gconstpointer data, gsize size);
PyObject *ferry_native_encode (PyObject *object, const char *codec, gboolean pickle);

/* ---- Channel ---- */

typedef struct
{
  PyObject_HEAD FerryChannel *channel; /* NULL: closed, and nobody is inside any more */
  FerryNativeCodec fixed;              /* codec NULL: chosen for each message */
  gboolean pickle;
  gboolean is_raw;     /* the codec is raw: buffers in, bytes out */
  gboolean sends_live; /* the codec is chosen for each message, or is store */
  PyObject *store;     /* objects are made live there, and sent as references; NULL: not */
  gboolean is_open;
  gboolean is_closed;
  gboolean waits_for_room; /* the overflow policy is one that does not drop */
  gboolean is_opening;     /* in another thread */
  guint n_inside;          /* calls that release the GIL, or need what is decoded or encoded to stay */
  gint64 timeout;          /* of calls that name none: negative, for ever */
  GList link;              /* in the list of all channels */
  PyObject *weakrefs;
} FerryNativeChannel;

extern PyTypeObject FerryNativeChannel_Type;

FerryNativeChannel *ferry_native_channel_create (PyTypeObject *type, const char *description, FerryRole role,
                                                 const char *codec, gboolean pickle);
int ferry_native_channel_set (FerryNativeChannel *self, PyObject *key, PyObject *value);
/* A store, or None. FALSE with an exception. */
gboolean ferry_native_channel_set_store (FerryNativeChannel *self, PyObject *store);
int ferry_native_channel_open (FerryNativeChannel *self);
void ferry_native_channel_close (FerryNativeChannel *self);

/* Between them nothing of the channel is freed, although another thread may close it. FALSE with an exception: it is
 * not open. */
gboolean ferry_native_channel_enter (FerryNativeChannel *self);
void ferry_native_channel_leave (FerryNativeChannel *self);

/* In a fork child: nobody but the thread that forked is inside of anything. */
void ferry_native_channels_forked (void);

FerryNativeStatus ferry_native_channel_put (FerryNativeChannel *self, PyObject *object, gint64 timeout);
FerryNativeStatus ferry_native_channel_put_bytes (FerryNativeChannel *self, const guint8 *data, gsize size,
                                                  gint64 timeout);
FerryNativeStatus ferry_native_channel_put_buffer (FerryNativeChannel *self, FerryBuffer *buffer, gint64 timeout);
FerryNativeStatus ferry_native_channel_take (FerryNativeChannel *self, gint64 timeout, FerryBuffer **buffer);
/* Waits until a message may be sent, without sending one. @waited: whether it had to. */
FerryNativeStatus ferry_native_channel_wait_for_room (FerryNativeChannel *self, FerryNativeWait *wait, gint64 timeout,
                                                      gboolean *waited);
/* Takes the reference to the buffer. */
PyObject *ferry_native_channel_decode (FerryNativeChannel *self, FerryBuffer *buffer, gboolean copy, gboolean *was_raw);
FerryNativeStatus ferry_native_channel_get (FerryNativeChannel *self, gint64 timeout, gboolean copy, PyObject **object);
PyObject *ferry_native_channel_encode (FerryNativeChannel *self, PyObject *object);
PyObject *ferry_native_channel_loan (FerryNativeChannel *self, gsize size, gint64 timeout);
Py_ssize_t ferry_native_channel_count_waiting (FerryNativeChannel *self);
gboolean ferry_native_channel_get_descriptors (FerryNativeChannel *self, int *control_fd, int *data_fd);

/* ---- Queue, Connection ---- */

extern PyTypeObject FerryNativeQueue_Type;

/* The endpoints of a queue, borrowed, opened at their first use in this process; NULL with an exception. */
FerryNativeChannel *ferry_native_queue_get_sender (PyObject *queue);
FerryNativeChannel *ferry_native_queue_get_receiver (PyObject *queue);
extern PyTypeObject FerryNativeConnection_Type;

/* ---- SharedBlock ---- */

extern PyTypeObject FerryNativeSharedBlock_Type;
extern PyMethodDef ferry_native_shared_functions[];

/* Before a fork, and in the child, which has no part in the parent's memory. */
void ferry_native_shared_before_fork (void);
void ferry_native_shared_forked (void);

/* Loads the functions of NumPy. FALSE with an exception. */
gboolean ferry_native_numpy_load (void);

/* ---- the rest ---- */

/* Maps what processes share besides a channel. The descriptor may come from anywhere: the memory must be as large, and
 * nobody may be able to make it smaller. NULL with an exception. */
gpointer ferry_native_map_shared (int fd, gsize size);
/* Makes such memory. -1 with an exception. */
int ferry_native_make_shared (const char *name, gsize size);

/* Sets the Python exception for an error, and frees the error. Returns NULL. */
PyObject *ferry_native_raise (GError **error);
PyObject *ferry_native_raise_code (FerryError code, const char *message);

/* Codec objects that the whole process shares; NULL with an exception. */
const FerryNativeCodec *ferry_native_get_codec (const char *name, gboolean pickle);

/* Positional and keyword arguments of a METH_FASTCALL | METH_KEYWORDS function. @names are interned; the first
 * @n_required must be given. What is not given stays as it is in @values. */
typedef struct
{
  const char *function;
  const char *names[6];
  guint n_required;
  PyObject *interned[6];
} FerryNativeSignature;

gboolean ferry_native_parse (FerryNativeSignature *signature, PyObject *const *args, Py_ssize_t n_args,
                             PyObject *keywords, PyObject **values);

/* None: for ever (-1); a number of seconds: microseconds, negative ones are 0. FALSE with an exception. */
gboolean ferry_native_parse_timeout (PyObject *value, gint64 *timeout);

G_END_DECLS
