/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-feature.h"
#include "ferry-transport.h"
#include "ferry-types.h"

G_BEGIN_DECLS

/**
 * FerryTransportCapabilities:
 * @FERRY_TRANSPORT_CAPABILITIES_NONE: nothing asked for
 * @FERRY_TRANSPORT_CAPABILITIES_NAMED: unrelated processes meet under a name
 * @FERRY_TRANSPORT_CAPABILITIES_ANONYMOUS: channels without a name, handed on to child
 *   processes or by passing a descriptor
 * @FERRY_TRANSPORT_CAPABILITIES_ZERO_COPY: a loaned buffer reaches the receiver
 *   without being copied
 * @FERRY_TRANSPORT_CAPABILITIES_WORK_QUEUE: knows %FERRY_MODE_WORK_QUEUE
 * @FERRY_TRANSPORT_CAPABILITIES_BROADCAST: knows %FERRY_MODE_BROADCAST
 * @FERRY_TRANSPORT_CAPABILITIES_CROSS_HOST: the ends may be on different machines
 *
 * What a transport can do.
 *
 * Since: 1.0
 */
typedef enum /*< flags >*/
{
  FERRY_TRANSPORT_CAPABILITIES_NONE = 0,
  FERRY_TRANSPORT_CAPABILITIES_NAMED = 1 << 0,
  FERRY_TRANSPORT_CAPABILITIES_ANONYMOUS = 1 << 1,
  FERRY_TRANSPORT_CAPABILITIES_ZERO_COPY = 1 << 2,
  FERRY_TRANSPORT_CAPABILITIES_WORK_QUEUE = 1 << 3,
  FERRY_TRANSPORT_CAPABILITIES_BROADCAST = 1 << 4,
  FERRY_TRANSPORT_CAPABILITIES_CROSS_HOST = 1 << 5,
} FerryTransportCapabilities;

#define FERRY_TYPE_TRANSPORT_FACTORY (ferry_transport_factory_get_type ())

FERRY_AVAILABLE_IN_1_0
G_DECLARE_FINAL_TYPE (FerryTransportFactory, ferry_transport_factory, FERRY, TRANSPORT_FACTORY, FerryFeature)

FERRY_AVAILABLE_IN_1_0
FerryTransportCapabilities ferry_transport_factory_get_capabilities (FerryTransportFactory *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_transport_factory_has_capabilities (FerryTransportFactory *self,
                                                   FerryTransportCapabilities capabilities);

FERRY_AVAILABLE_IN_1_0
FerryTransport *ferry_transport_factory_create (FerryTransportFactory *self, GError **error);

G_END_DECLS
