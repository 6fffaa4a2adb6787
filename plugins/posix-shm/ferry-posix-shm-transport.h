/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <ferry.h>

G_BEGIN_DECLS

#define FERRY_TYPE_POSIX_SHM_TRANSPORT (ferry_posix_shm_transport_get_type ())

G_DECLARE_FINAL_TYPE (FerryPosixShmTransport, ferry_posix_shm_transport, FERRY, POSIX_SHM_TRANSPORT,
                      FerrySegmentTransport)

G_END_DECLS
