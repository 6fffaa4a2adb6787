/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#define FERRY_INSIDE

#include "ferry-buffer.h"
#include "ferry-channel-config.h"
#include "ferry-channel.h"
#include "ferry-codec-factory.h"
#include "ferry-codec.h"
#include "ferry-copy.h"
#include "ferry-enum-types.h"
#include "ferry-enums.h"
#include "ferry-error.h"
#include "ferry-feature.h"
#include "ferry-plugin.h"
#include "ferry-registry.h"
#include "ferry-segment-transport.h"
#include "ferry-statistics.h"
#include "ferry-store-live.h"
#include "ferry-store-reference.h"
#include "ferry-store-variant.h"
#include "ferry-store.h"
#include "ferry-tensor.h"
#include "ferry-transport-factory.h"
#include "ferry-transport.h"
#include "ferry-types.h"
#include "ferry-version-macros.h"
#include "ferry-version.h"

#undef FERRY_INSIDE
