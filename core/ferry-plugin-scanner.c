/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Looks at plugins for a registry, which starts it; see ferry-scan-helper.c for what
 * they say to each other.
 */

#include "ferry-config.h"

#include "ferry-plugin-json-private.h"
#include "ferry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#ifdef __linux__
#include <signal.h>
#include <sys/prctl.h>
#endif

static void
write_line (int fd, const char *text, gsize length)
{
  g_autofree char *line = g_strconcat (text, "\n", NULL);

  length++;
  for (gsize written = 0; written < length;)
    {
      gssize n = write (fd, line + written, length - written);

      if (n > 0)
        written += (gsize) n;
      else if (errno != EINTR)
        _exit (1); /* nobody listens any more */
    }
}

static void
scan (int fd, const char *filename)
{
  g_autoptr (FerryPlugin) plugin = ferry_plugin_new_from_file (filename);
  g_autoptr (JsonGenerator) generator = json_generator_new ();
  g_autoptr (JsonNode) root = json_node_new (JSON_NODE_OBJECT);
  g_autofree char *text = NULL;
  gsize length;

  json_node_take_object (root, ferry_plugin_to_json (plugin));
  json_generator_set_root (generator, root);
  text = json_generator_to_data (generator, &length);
  write_line (fd, text, length);
}

static void
usage (void)
{
  fputs ("ferry-plugin-scanner is started by programs that use Ferry, to look at plugins.\n"
         "To see plugins use ferry-inspect.\n",
         stdout);
}

int
main (int argc, char **argv)
{
  const struct rlimit no_core = { 0, 0 };
  g_autoptr (GByteArray) path = g_byte_array_new ();
  guint8 byte;
  int fd;

  if (argc > 1)
    {
      usage ();
      return strcmp (argv[1], "--help") == 0 ? 0 : 2;
    }
  if (isatty (STDIN_FILENO))
    {
      usage ();
      return 2;
    }

#ifdef __linux__
  /* A plugin that hangs must not outlive who asked. */
  prctl (PR_SET_PDEATHSIG, SIGKILL);
#endif
  /* A plugin that crashes is told of; it needs no core file in the user's folder. */
  setrlimit (RLIMIT_CORE, &no_core);

  /* What plugins print goes to where errors go. */
  fd = fcntl (STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
  if (fd < 0 || dup2 (STDERR_FILENO, STDOUT_FILENO) < 0)
    return 1;

  write_line (fd, FERRY_SCANNER_GREETING FERRY_PACKAGE_VERSION, strlen (FERRY_SCANNER_GREETING FERRY_PACKAGE_VERSION));

  for (;;)
    {
      gssize n = read (STDIN_FILENO, &byte, 1);

      if (n < 0 && errno == EINTR)
        continue;
      if (n <= 0)
        break;
      g_byte_array_append (path, &byte, 1);
      if (byte == '\0')
        {
          scan (fd, (const char *) path->data);
          g_byte_array_set_size (path, 0);
        }
    }

  /* Without the destructors of plugins. */
  _exit (0);
}
