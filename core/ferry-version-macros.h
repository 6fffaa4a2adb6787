/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-version.h"

/**
 * FERRY_ENCODE_VERSION:
 * @major: major version
 * @minor: minor version
 *
 * A version as a number that can be compared with others.
 *
 * Since: 1.0
 */
#define FERRY_ENCODE_VERSION(major, minor) ((major) << 16 | (minor) << 8)

/**
 * FERRY_VERSION_1_0:
 *
 * Version 1.0, for comparison with %FERRY_VERSION_MIN_REQUIRED and
 * %FERRY_VERSION_MAX_ALLOWED.
 *
 * Since: 1.0
 */
#define FERRY_VERSION_1_0 (FERRY_ENCODE_VERSION (1, 0))

#define FERRY_VERSION_CUR_STABLE (FERRY_ENCODE_VERSION (FERRY_MAJOR_VERSION, FERRY_MINOR_VERSION))

/**
 * FERRY_VERSION_MIN_REQUIRED:
 *
 * Define it before including ferry.h to the oldest version whose deprecations
 * the program wants to hear of.
 *
 * Since: 1.0
 */
#ifndef FERRY_VERSION_MIN_REQUIRED
#define FERRY_VERSION_MIN_REQUIRED (FERRY_VERSION_CUR_STABLE)
#endif

/**
 * FERRY_VERSION_MAX_ALLOWED:
 *
 * Define it before including ferry.h to the newest version whose functions the
 * program may use; newer ones warn.
 *
 * Since: 1.0
 */
#ifndef FERRY_VERSION_MAX_ALLOWED
#define FERRY_VERSION_MAX_ALLOWED (FERRY_VERSION_CUR_STABLE)
#endif

#ifndef _FERRY_EXTERN
#define _FERRY_EXTERN __attribute__ ((visibility ("default"))) extern
#endif

#if FERRY_VERSION_MAX_ALLOWED < FERRY_VERSION_1_0
#define FERRY_AVAILABLE_IN_1_0 _FERRY_EXTERN G_UNAVAILABLE (1, 0)
#else
#define FERRY_AVAILABLE_IN_1_0 _FERRY_EXTERN
#endif
