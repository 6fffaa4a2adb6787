/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

static FerryTransportFactory *
get_factory (void)
{
  g_autofree char *path = ferry_test_fixture ("libferry-good.so");
  g_autoptr (FerryPlugin) plugin = ferry_plugin_new_from_file (path);
  g_autoptr (GPtrArray) features = ferry_plugin_list_features (plugin);

  return g_object_ref (g_ptr_array_index (features, 0));
}

START_TEST (capabilities)
{
  g_autoptr (FerryTransportFactory) factory = get_factory ();
  FerryTransportCapabilities both = FERRY_TRANSPORT_CAPABILITIES_NAMED | FERRY_TRANSPORT_CAPABILITIES_BROADCAST;
  FerryTransportCapabilities property;

  ck_assert_int_eq (ferry_transport_factory_get_capabilities (factory), both);
  g_object_get (factory, "capabilities", &property, NULL);
  ck_assert_int_eq (property, both);

  ck_assert (ferry_transport_factory_has_capabilities (factory, FERRY_TRANSPORT_CAPABILITIES_NONE));
  ck_assert (ferry_transport_factory_has_capabilities (factory, FERRY_TRANSPORT_CAPABILITIES_NAMED));
  ck_assert (ferry_transport_factory_has_capabilities (factory, both));
  ck_assert (!ferry_transport_factory_has_capabilities (factory, FERRY_TRANSPORT_CAPABILITIES_ZERO_COPY));
  ck_assert (!ferry_transport_factory_has_capabilities (factory, both | FERRY_TRANSPORT_CAPABILITIES_ZERO_COPY));
}
END_TEST

START_TEST (create)
{
  g_autoptr (FerryTransportFactory) factory = get_factory ();
  g_autoptr (GError) error = NULL;
  FerryTransport *first = ferry_transport_factory_create (factory, &error);
  FerryTransport *second = ferry_transport_factory_create (factory, &error);

  ferry_assert_no_error (error);
  ck_assert (FERRY_IS_TRANSPORT (first));
  ck_assert_ptr_ne (first, second);
  ferry_assert_last_unref (first);
  ferry_assert_last_unref (second);
}
END_TEST

START_TEST (final) { ck_assert (G_TYPE_IS_FINAL (FERRY_TYPE_TRANSPORT_FACTORY)); }
END_TEST

static void
add (Suite *suite)
{
  const TTest *tests[] = { capabilities, create, final, NULL };

  ferry_test_add_case (suite, "transport-factory", 10, tests);
}

int
main (void)
{
  return ferry_test_run ("transport-factory", add);
}
