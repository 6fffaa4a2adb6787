/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "example-file-transport.h"

static gboolean
init (FerryPlugin *plugin, GError **error)
{
  return ferry_plugin_register_transport (plugin, "file", FERRY_RANK_MARGINAL,
                                          FERRY_TRANSPORT_CAPABILITIES_NAMED | FERRY_TRANSPORT_CAPABILITIES_ZERO_COPY
                                              | FERRY_TRANSPORT_CAPABILITIES_WORK_QUEUE
                                              | FERRY_TRANSPORT_CAPABILITIES_BROADCAST,
                                          "Shared memory in ordinary files", EXAMPLE_TYPE_FILE_TRANSPORT, error);
}

FERRY_PLUGIN_DEFINE (1, 0, file, "Channels in ordinary files", init, "1.0.0", "LGPL-2.1-or-later", "Ferry's examples")
