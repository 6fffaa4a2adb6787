/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <ferry.h>

G_BEGIN_DECLS

/* What a joiner sends, and what it gets; the descriptors of both areas come along as
 * SCM_RIGHTS. One SOCK_SEQPACKET message each way. */
#define FERRY_MEMFD_MAGIC (0x6d656d66)
#define FERRY_MEMFD_VERSION (1)

typedef struct
{
  guint32 magic;
  guint32 version;
  guint32 role;
  guint32 reserved;
} FerryMemfdRequest;

typedef struct
{
  guint32 magic;
  guint32 version;
  guint32 status; /* 0, or an errno */
  guint32 reserved;
} FerryMemfdReply;

#define FERRY_MEMFD_SOCKET_SUFFIX ".sock"
#define FERRY_MEMFD_KEY_LENGTH (32) /* hexadecimal digits */
#define FERRY_MEMFD_PATH_MAX (108)  /* of sockaddr_un */

/* One segment that this process hands to joiners. */
typedef struct _FerryMemfdExport FerryMemfdExport;

FerryMemfdExport *ferry_memfd_service_export (const char *directory, int control_fd, int data_fd, gint64 group,
                                              GError **error);
void ferry_memfd_service_renew (FerryMemfdExport *export, int data_fd);
gboolean ferry_memfd_service_listen (FerryMemfdExport *export, const char *path, guint index, GError **error);
gboolean ferry_memfd_service_is_listening (FerryMemfdExport *export);
guint ferry_memfd_service_get_index (FerryMemfdExport *export);
void ferry_memfd_service_unexport (FerryMemfdExport *export);
FerryMemfdExport *ferry_memfd_service_find (const char *directory, gboolean reference, int *control_fd, int *data_fd);
gboolean ferry_memfd_same_file (int a, int b);
gboolean ferry_memfd_uid_is_welcome (int socket_fd, gint64 group);

G_END_DECLS
