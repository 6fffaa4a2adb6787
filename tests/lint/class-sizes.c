/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The public structures, whose size is part of the ABI: new members take the place of
 * reserved ones. The numbers are for 64 bits, where a pointer and a guint64 have 8 bytes.
 */
#include <ferry.h>

#define WORD (8) /* bytes */

typedef struct
{
  const char *name;
  gsize size;
  gsize expected; /* words */
} PublicStruct;

#define PUBLIC_STRUCT(type, words)                                                                                     \
  {                                                                                                                    \
#type, sizeof(type), (words)                                                                                       \
  }

static const PublicStruct structs[] = {
  PUBLIC_STRUCT (FerryChannelConfig, 16),    PUBLIC_STRUCT (FerryCodecInterface, 17),
  PUBLIC_STRUCT (FerryFeatureClass, 21),     PUBLIC_STRUCT (FerryParticipant, 13),
  PUBLIC_STRUCT (FerryPluginDescriptor, 12), PUBLIC_STRUCT (FerrySegmentTransportClass, 36),
  PUBLIC_STRUCT (FerryStatistics, 23),       PUBLIC_STRUCT (FerryTransportInterface, 32),
};

int
main (void)
{
  guint failed = 0;

  if (sizeof (gpointer) != WORD)
    {
      g_print ("1..0 # SKIP the sizes are for 64 bits\n");
      return 0;
    }

  g_print ("1..%u\n", (guint) G_N_ELEMENTS (structs));
  for (guint i = 0; i < G_N_ELEMENTS (structs); i++)
    {
      gboolean ok = structs[i].size == structs[i].expected * WORD;

      if (!ok)
        {
          g_print ("# %s has %" G_GSIZE_FORMAT " bytes, not %" G_GSIZE_FORMAT "\n", structs[i].name, structs[i].size,
                   structs[i].expected * WORD);
          failed++;
        }
      g_print ("%s %u %s keeps its size\n", ok ? "ok" : "not ok", i + 1, structs[i].name);
    }

  return failed > 0 ? 1 : 0;
}
