/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-test.h"

/* What a transport can do beyond what all must. */
typedef enum
{
  TRANSPORT_CONFORMANCE_NAMED = 0,
  /* Channels are anonymous: joined with the descriptors in the properties control-fd and data-fd. */
  TRANSPORT_CONFORMANCE_INHERITED_FDS = 1 << 0,
  /* Likewise, with descriptors that came through a UNIX socket. */
  TRANSPORT_CONFORMANCE_PASSED_FDS = 1 << 1,
  /* It is no FerrySegmentTransport: what only shared memory can do is not asked for. */
  TRANSPORT_CONFORMANCE_NO_SHARED_MEMORY = 1 << 2,
  /* Leave out what takes seconds: another run of the same transport does it. */
  TRANSPORT_CONFORMANCE_QUICK = 1 << 3,
} TransportConformanceFlags;

/*
 * What every transport must do, whoever wrote it. @extra_properties go into the
 * description of every endpoint; NULL: none. See tests/plugins/test-transport-conformance.c.
 */
void ferry_transport_conformance_add (Suite *suite, const char *transport_name, const char *extra_properties,
                                      TransportConformanceFlags flags);
