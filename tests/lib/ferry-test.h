/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <check.h>
#include <ferry.h>
#include <string.h>

/* Check's macros compare integers as intmax_t and strings; these report GErrors. */

#define ferry_assert_no_error(error)                                                                                   \
  ck_assert_msg ((error) == NULL, "unexpected error: %s", (error) != NULL ? (error)->message : "")

#define ferry_assert_error(error, error_domain, error_code)                                                            \
  ck_assert_msg (g_error_matches ((error), (error_domain), (error_code)), "expected %s %d, got %s %d: %s",             \
                 g_quark_to_string (error_domain), (int) (error_code),                                                 \
                 (error) != NULL ? g_quark_to_string ((error)->domain) : "no error",                                   \
                 (error) != NULL ? (error)->code : 0, (error) != NULL ? (error)->message : "")

#define ferry_assert_contains(text, part)                                                                              \
  ck_assert_msg ((text) != NULL && strstr ((text), (part)) != NULL, "\"%s\" does not contain \"%s\"",                  \
                 (const char *) (text) != NULL ? (const char *) (text) : "(null)", (part))

/* The object's last reference is dropped here: nothing else holds it. */
#define ferry_assert_last_unref(object) ferry_test_assert_last_unref ((gpointer) (object), __FILE__, __LINE__)

int ferry_test_run (const char *name, void (*add) (Suite *suite));

TCase *ferry_test_add_case (Suite *suite, const char *name, double timeout, const TTest *const *tests);

gboolean ferry_test_is_thorough (void);

gboolean ferry_test_is_valgrind (void);

char *ferry_test_make_folder (void);

void ferry_test_remove_folder (const char *path);

char *ferry_test_fixture (const char *name);

char *ferry_test_install_plugin (const char *name, const char *folder);

void ferry_test_assert_last_unref (gpointer object, const char *file, int line);
