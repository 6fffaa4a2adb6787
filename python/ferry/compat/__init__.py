# SPDX-License-Identifier: LGPL-2.1-or-later
"""Modules with the interfaces of other packages, for programs that were written for those.

`ferry.compat.memory` stands in for `memory`, and its later name `py_sharedmemory`, of the
package py-sharedmemory, `ferry.compat.npshmex` for npshmex. `ferry.compat.ipc_py_objects`,
`ferry.compat.ultradict` and `ferry.compat.shared_memory_dict` stand in for the packages
InterProcessPyObjects, UltraDict and shared-memory-dict.
"""
