/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-memfd-transport.h"

static gboolean
init (FerryPlugin *plugin, GError **error)
{
  return ferry_plugin_register_transport (
      plugin, "memfd", FERRY_RANK_PRIMARY,
      FERRY_TRANSPORT_CAPABILITIES_NAMED | FERRY_TRANSPORT_CAPABILITIES_ANONYMOUS
          | FERRY_TRANSPORT_CAPABILITIES_ZERO_COPY | FERRY_TRANSPORT_CAPABILITIES_WORK_QUEUE
          | FERRY_TRANSPORT_CAPABILITIES_BROADCAST,
      "Shared memory in sealed memfds, handed over sockets", FERRY_TYPE_MEMFD_TRANSPORT, error);
}

FERRY_PLUGIN_DEFINE (1, 0, memfd, "Channels in sealed memfds", init, "1.0.0", "LGPL-2.1-or-later", "Ferry")
