/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport-conformance.h"

static const struct
{
  const char *name;
  const char *transport;
  TransportConformanceFlags flags;
} variants[] = {
  { "memfd", "memfd", TRANSPORT_CONFORMANCE_NAMED },
  { "memfd-inherited", "memfd", TRANSPORT_CONFORMANCE_INHERITED_FDS | TRANSPORT_CONFORMANCE_QUICK },
  { "memfd-passed", "memfd", TRANSPORT_CONFORMANCE_PASSED_FDS | TRANSPORT_CONFORMANCE_QUICK },
  { "posix-shm", "posix-shm", TRANSPORT_CONFORMANCE_NAMED },
};

static const char *only;

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
  for (guint i = 0; i < G_N_ELEMENTS (variants); i++)
    if (only == NULL || strcmp (only, variants[i].name) == 0)
      ferry_transport_conformance_add (suite, variants[i].transport, NULL, variants[i].flags);
}

/* With an argument: only that variant, so that several run side by side. */
int
main (int argc, char **argv)
{
  only = argc > 1 ? argv[1] : NULL;
  return ferry_test_run ("transport-conformance", add);
}
