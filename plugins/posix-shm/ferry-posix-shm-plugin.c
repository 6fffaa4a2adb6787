/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-posix-shm-transport.h"

static gboolean
init (FerryPlugin *plugin, GError **error)
{
  return ferry_plugin_register_transport (plugin, "posix-shm", FERRY_RANK_SECONDARY,
                                          FERRY_TRANSPORT_CAPABILITIES_NAMED | FERRY_TRANSPORT_CAPABILITIES_ZERO_COPY
                                              | FERRY_TRANSPORT_CAPABILITIES_WORK_QUEUE
                                              | FERRY_TRANSPORT_CAPABILITIES_BROADCAST,
                                          "Shared memory in files of /dev/shm", FERRY_TYPE_POSIX_SHM_TRANSPORT, error);
}

FERRY_PLUGIN_DEFINE (1, 0, posix_shm, "Channels in POSIX shared memory", init, "1.0.0", "LGPL-2.1-or-later", "Ferry")
