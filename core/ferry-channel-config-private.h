/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The ranges and defaults that FerryChannelConfig documents, for all who check or apply them: the configuration, the
 * properties of FerryChannel, and the header of a segment. */

#define FERRY_MAX_NAME (200) /* bytes */

#define FERRY_MIN_CAPACITY (1) /* messages */
#define FERRY_MAX_CAPACITY (1 << 20)
#define FERRY_DEFAULT_CAPACITY (256)

#define FERRY_MAX_HISTORY (1 << 16) /* messages */

/* Bytes. The largest fills a slot of a page, header included. */
#define FERRY_MIN_INLINE (64)
#define FERRY_MAX_INLINE (4040)
#define FERRY_DEFAULT_INLINE (200)

/* gid_t has 32 bits, and its largest value means "no group". */
#define FERRY_MAX_GROUP (G_MAXUINT32 - 1)
