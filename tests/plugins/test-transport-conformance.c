/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport-conformance.h"

/* FERRY_TEST_TRANSPORT="NAME [PROPERTY=VALUE ...]" tests that transport instead of our own: for authors of plugins. */
static void
add (Suite *suite)
{
  const char *other = g_getenv ("FERRY_TEST_TRANSPORT");

  if (other != NULL && *other != '\0')
    {
      g_auto (GStrv) parts = g_strsplit (other, " ", 2);

      ferry_transport_conformance_add (suite, parts[0], parts[1],
                                       g_getenv ("FERRY_TEST_TRANSPORT_NO_SHARED_MEMORY") != NULL
                                           ? TRANSPORT_CONFORMANCE_NO_SHARED_MEMORY
                                           : TRANSPORT_CONFORMANCE_NAMED);
      return;
    }
  ferry_transport_conformance_add (suite, "memfd", NULL, TRANSPORT_CONFORMANCE_NAMED);
  ferry_transport_conformance_add (suite, "memfd", NULL,
                                   TRANSPORT_CONFORMANCE_INHERITED_FDS | TRANSPORT_CONFORMANCE_QUICK);
  ferry_transport_conformance_add (suite, "memfd", NULL,
                                   TRANSPORT_CONFORMANCE_PASSED_FDS | TRANSPORT_CONFORMANCE_QUICK);
  ferry_transport_conformance_add (suite, "posix-shm", NULL, TRANSPORT_CONFORMANCE_NAMED);
}

int
main (void)
{
  return ferry_test_run ("transport-conformance", add);
}
