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
/* The macro makes a string of its first argument, spaces and all. */
/* clang-format off */
G_DEFINE_QUARK (ferry-error-quark, ferry_error)
/* clang-format on */
