/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-error.h"

/**
 * ferry_error_quark:
 *
 * The quark of the domain %FERRY_ERROR. Use the macro.
 *
 * Returns: the quark
 *
 * Since: 1.0
 */
GQuark
ferry_error_quark (void)
{
  /* G_DEFINE_QUARK() writes its variable without any synchronisation */
  static gsize quark = 0;

  if (g_once_init_enter (&quark))
    g_once_init_leave (&quark, g_quark_from_static_string ("ferry-error-quark"));
  return (GQuark) quark;
}
