/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <ferry.h>

G_BEGIN_DECLS

#define EXAMPLE_TYPE_FILE_TRANSPORT (example_file_transport_get_type ())

G_DECLARE_FINAL_TYPE (ExampleFileTransport, example_file_transport, EXAMPLE, FILE_TRANSPORT, FerrySegmentTransport)

G_END_DECLS
