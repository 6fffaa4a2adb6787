/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <ferry.h>

G_BEGIN_DECLS

#define FERRY_TYPE_MEMFD_TRANSPORT (ferry_memfd_transport_get_type ())

G_DECLARE_FINAL_TYPE (FerryMemfdTransport, ferry_memfd_transport, FERRY, MEMFD_TRANSPORT, FerrySegmentTransport)

G_END_DECLS
