/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib-object.h>

G_BEGIN_DECLS

/*
 * FerryDescriptionProperty: one `key=value` of a description, the quotes taken off.
 */
typedef struct
{
  char *key;
  char *value;
} FerryDescriptionProperty;

/*
 * FerryDescription: a channel description, taken apart.
 *
 * transport: the name of the transport
 * codec: the name of the codec, or NULL
 * channel_properties: (element-type FerryDescriptionProperty): what comes before the `!`;
 *   properties of the channel and of its transport, in the order of the text
 * codec_properties: (element-type FerryDescriptionProperty): what comes after the codec
 */
typedef struct
{
  char *transport;
  char *codec;
  GPtrArray *channel_properties;
  GPtrArray *codec_properties;
} FerryDescription;

FerryDescription *ferry_description_new (const char *transport, const char *codec);
FerryDescription *ferry_description_parse (const char *text, GError **error);
void ferry_description_free (FerryDescription *self);

void ferry_description_add (FerryDescription *self, const char *key, const char *value);
void ferry_description_add_codec_property (FerryDescription *self, const char *key, const char *value);
char *ferry_description_to_string (const FerryDescription *self);

gboolean ferry_description_parse_value (const char *owner, GParamSpec *pspec, const char *text, GValue *value,
                                        GError **error);
gboolean ferry_description_set_property (GObject *object, const char *key, const char *value, GError **error);
char *ferry_description_get_property (GObject *object, GParamSpec *pspec);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (FerryDescription, ferry_description_free)

G_END_DECLS
