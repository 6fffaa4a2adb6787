/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-channel-config.h"

#include "ferry-channel-config-private.h"
#include "ferry-error.h"

#include <string.h>

G_DEFINE_BOXED_TYPE (FerryChannelConfig, ferry_channel_config, ferry_channel_config_copy, ferry_channel_config_free)

/**
 * ferry_channel_config_new:
 *
 * The default configuration: an anonymous work queue whose sender waits when it is
 * full, created or joined, open to its owner only.
 *
 * Returns: (transfer full): a new configuration
 *
 * Since: 1.0
 */
FerryChannelConfig *
ferry_channel_config_new (void)
{
  FerryChannelConfig *self = g_new0 (FerryChannelConfig, 1);

  self->role = FERRY_ROLE_SENDER;
  self->mode = FERRY_MODE_WORK_QUEUE;
  self->overflow = FERRY_OVERFLOW_BLOCK;
  self->wait_strategy = FERRY_WAIT_STRATEGY_ADAPTIVE;
  self->open_mode = FERRY_OPEN_MODE_CREATE_OR_JOIN;
  self->join_settings = TRUE;
  self->group = -1;
  return self;
}

/**
 * ferry_channel_config_copy:
 * @self: a configuration
 *
 * Copies a configuration.
 *
 * Returns: (transfer full): a copy
 *
 * Since: 1.0
 */
FerryChannelConfig *
ferry_channel_config_copy (const FerryChannelConfig *self)
{
  FerryChannelConfig *copy;

  g_return_val_if_fail (self != NULL, NULL);

  copy = g_memdup2 (self, sizeof *self);
  copy->name = g_strdup (self->name);
  return copy;
}

/**
 * ferry_channel_config_free:
 * @self: (nullable) (transfer full): a configuration
 *
 * Frees a configuration.
 *
 * Since: 1.0
 */
void
ferry_channel_config_free (FerryChannelConfig *self)
{
  if (self == NULL)
    return;
  g_free (self->name);
  g_free (self);
}

static gboolean
check_name (const char *name, GError **error)
{
  gsize length = strlen (name);

  if (length == 0)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "the channel's name is empty; give it 1 to %d bytes, or none at all for an anonymous channel",
                   FERRY_MAX_NAME);
      return FALSE;
    }
  if (length > FERRY_MAX_NAME)
    {
      g_autofree char *valid = g_utf8_make_valid (name, FERRY_MAX_NAME / 8);

      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "the channel's name \"%s...\" has %" G_GSIZE_FORMAT " bytes; at most %d are allowed", valid, length,
                   FERRY_MAX_NAME);
      return FALSE;
    }
  if (!g_utf8_validate_len (name, length, NULL))
    {
      g_autofree char *escaped = g_strescape (name, NULL);

      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "the channel's name \"%s\" is not valid UTF-8; use another name", escaped);
      return FALSE;
    }
  for (const char *p = name; *p != '\0'; p = g_utf8_next_char (p))
    {
      if (g_unichar_iscntrl (g_utf8_get_char (p)))
        {
          g_autofree char *escaped = g_strescape (name, NULL);

          g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                       "the channel's name \"%s\" has a control character (at byte %d); leave it out", escaped,
                       (int) (p - name));
          return FALSE;
        }
    }
  if (strchr (name, '/') != NULL)
    {
      g_autofree char *better = g_strdelimit (g_strdup (name), "/", '-');

      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "the channel's name \"%s\" has a slash, but names are not paths; use for instance \"%s\"", name,
                   better);
      return FALSE;
    }
  if (name[0] == '.')
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "the channel's name \"%s\" starts with a dot; begin it with another character", name);
      return FALSE;
    }
  return TRUE;
}

/* What error messages call the channel. */
static const char *
display_name (const FerryChannelConfig *self)
{
  return self->name != NULL ? self->name : "(anonymous)";
}

static gboolean
check_range (const FerryChannelConfig *self, const char *field, guint64 value, guint64 min, guint64 max,
             guint64 default_value, GError **error)
{
  if (value == 0 || (value >= min && value <= max))
    return TRUE;
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
               "channel '%s': %s is %" G_GUINT64_FORMAT "; it must be %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT
               ", or 0 for %" G_GUINT64_FORMAT,
               display_name (self), field, value, min, max, default_value);
  return FALSE;
}

/* Enumerations come from bindings and from text as any number. */
static gboolean
check_enum (const FerryChannelConfig *self, const char *field, int value, int last, GError **error)
{
  if (value >= 0 && value <= last)
    return TRUE;
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
               "channel '%s': %s is %d, which is no value of its enumeration (0 to %d)", display_name (self), field,
               value, last);
  return FALSE;
}

/**
 * ferry_channel_config_validate:
 * @self: a configuration
 * @error: return location for an error
 *
 * Checks that every field is in its range and goes with the others. A transport
 * may know narrower ranges, and says so when it opens the channel.
 *
 * Errors: %FERRY_ERROR_INVALID_ARGUMENT.
 *
 * Returns: %TRUE if the configuration can be opened
 *
 * Since: 1.0
 */
gboolean
ferry_channel_config_validate (const FerryChannelConfig *self, GError **error)
{
  g_return_val_if_fail (self != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  if (self->name != NULL && !check_name (self->name, error))
    return FALSE;

  if (!check_enum (self, "role", self->role, FERRY_ROLE_OBSERVER, error)
      || !check_enum (self, "mode", self->mode, FERRY_MODE_STORE, error)
      || !check_enum (self, "overflow", self->overflow, FERRY_OVERFLOW_DROP_NEWEST, error)
      || !check_enum (self, "wait-strategy", self->wait_strategy, FERRY_WAIT_STRATEGY_SLEEP, error)
      || !check_enum (self, "open-mode", self->open_mode, FERRY_OPEN_MODE_JOIN, error))
    return FALSE;

  if (!check_range (self, "capacity", self->capacity, FERRY_MIN_CAPACITY, FERRY_MAX_CAPACITY, FERRY_DEFAULT_CAPACITY,
                    error)
      || !check_range (self, "inline-size", self->inline_size, FERRY_MIN_INLINE, FERRY_MAX_INLINE, FERRY_DEFAULT_INLINE,
                       error))
    return FALSE;

  if (self->history > FERRY_MAX_HISTORY)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "channel '%s': history is %u; it must be 0 to %d messages", display_name (self), self->history,
                   FERRY_MAX_HISTORY);
      return FALSE;
    }
  /* Who only joins with join-settings takes mode and history from the channel. */
  if (self->history > 0 && self->mode != FERRY_MODE_BROADCAST
      && !(self->join_settings && self->open_mode == FERRY_OPEN_MODE_JOIN))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "channel '%s': history is %u, but a work queue keeps no history; use mode=broadcast or history=0",
                   display_name (self), self->history);
      return FALSE;
    }
  if (self->group < -1 || self->group > (gint64) FERRY_MAX_GROUP)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "channel '%s': group is %" G_GINT64_FORMAT "; it must be a group id (0 to %" G_GINT64_FORMAT
                   "), or -1 for the owner only",
                   display_name (self), self->group, (gint64) FERRY_MAX_GROUP);
      return FALSE;
    }
  return TRUE;
}
