#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Checks of what an installation consists of.

    installed.py SOURCE-FOLDER BUILD-FOLDER

Installs into a staging folder in the build folder and looks at that as a program
that uses Ferry does: through pkg-config, the headers, the bindings.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import headers
import tap

SOURCE = Path(sys.argv[1]).resolve()
BUILD = Path(sys.argv[2]).resolve()
STAGE = BUILD / "tests/lint/stage"
SCRATCH = BUILD / "tests/lint/scratch"
API = "ferry-1.0"

C_FLAGS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic"]
CXX_FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-pedantic"]


def run(*command: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def need(tool: str) -> str:
    found = shutil.which(tool)
    if not found:
        raise tap.Skip(f"{tool} is not installed")
    return found


def build_options() -> dict:
    result = run("meson", "introspect", "--buildoptions", str(BUILD))
    return {option["name"]: option["value"] for option in json.loads(result.stdout)}


OPTIONS = build_options()
PREFIX = STAGE / OPTIONS["prefix"].lstrip("/")
LIBDIR = PREFIX / OPTIONS["libdir"]
INCLUDE = PREFIX / OPTIONS["includedir"] / API
PKGCONFIG = SCRATCH / "pkgconfig"
ENVIRONMENT = {
    **os.environ,
    "PKG_CONFIG_PATH": str(PKGCONFIG),
    "LD_LIBRARY_PATH": str(LIBDIR),
    "GI_TYPELIB_PATH": str(LIBDIR / "girepository-1.0"),
    "FERRY_PLUGIN_PATH": str(LIBDIR / API),
    "FERRY_PLUGIN_SCANNER": str(PREFIX / OPTIONS["libexecdir"] / API / "ferry-plugin-scanner"),
    "FERRY_REGISTRY": str(SCRATCH / "registry.json"),
}


def stage() -> list[str]:
    """Install, and tell pkg-config that the staging folder is the prefix."""
    for folder in (STAGE, SCRATCH):
        shutil.rmtree(folder, ignore_errors=True)
    PKGCONFIG.mkdir(parents=True)
    result = run("meson", "install", "-C", str(BUILD), "--no-rebuild", "--destdir", str(STAGE))
    if result.returncode:
        return [result.stdout + result.stderr]
    text = (LIBDIR / "pkgconfig" / f"{API}.pc").read_text()
    if f"prefix={OPTIONS['prefix']}\n" not in text:
        return [f"{API}.pc does not set the prefix {OPTIONS['prefix']}"]
    text = text.replace(f"prefix={OPTIONS['prefix']}\n", f"prefix={PREFIX}\n")
    (PKGCONFIG / f"{API}.pc").write_text(text)
    return []


def pkg_config(*arguments: str) -> str:
    result = run("pkg-config", *arguments, API, env=ENVIRONMENT)
    if result.returncode:
        raise RuntimeError(result.stderr)
    return result.stdout.strip()


def compile_flags() -> list[str]:
    """What pkg-config says, with the headers of others as system headers."""
    flags = []
    for flag in shlex.split(pkg_config("--cflags")):
        if flag.startswith("-I") and not flag.startswith(f"-I{PREFIX}"):
            flags += ["-isystem", flag[2:]]
        else:
            flags.append(flag)
    return flags


def pkg_config_file() -> list[str]:
    wrong = []
    result = run("pkg-config", "--validate", API, env=ENVIRONMENT)
    if result.returncode:
        wrong.append(result.stderr)
    for variable in ("pluginsdir", "libexecdir"):
        value = pkg_config(f"--variable={variable}")
        if not value or not Path(value).is_dir():
            wrong.append(f"{variable} is '{value}', and no such folder is installed")
    scanner = Path(pkg_config("--variable=libexecdir")) / "ferry-plugin-scanner"
    if not os.access(scanner, os.X_OK):
        wrong.append(f"{scanner} is not installed")
    version = pkg_config("--modversion")
    expected = json.loads(run("meson", "introspect", "--projectinfo", str(BUILD)).stdout)["version"]
    if version != expected:
        wrong.append(f"the version is {version}, not {expected}")
    return wrong


def all_headers() -> list[str]:
    return sorted(path.name for path in INCLUDE.glob("*.h"))


def installed_headers() -> list[str]:
    expected = {*headers.public_headers(SOURCE), "ferry-version.h", "ferry-enum-types.h"}
    present = set(all_headers())
    wrong = [f"{name} is not installed" for name in sorted(expected - present)]
    return wrong + [f"{name} is installed and should not be" for name in sorted(present - expected)]


def compilers() -> list[tuple[str, list[str], str]]:
    found = [("gcc", C_FLAGS, "c"), ("clang", C_FLAGS, "c"), ("g++", CXX_FLAGS, "c++")]
    return [compiler for compiler in found if shutil.which(compiler[0])]


def syntax(compiler: str, flags: list[str], language: str, source: str) -> subprocess.CompletedProcess:
    return run(compiler, *flags, *compile_flags(), "-x", language, "-fsyntax-only", "-", input=source)


def umbrella_compiles() -> list[str]:
    need("g++")
    wrong = []
    for compiler, flags, language in compilers():
        for before in ("", "#define FERRY_VERSION_MAX_ALLOWED FERRY_VERSION_1_0\n"):
            result = syntax(compiler, flags, language, f"{before}#include <ferry.h>\nint main (void) {{ return 0; }}\n")
            if result.returncode:
                wrong.append(f"{compiler} {' '.join(flags)}:\n{result.stderr}")
    return wrong


def each_header_alone() -> list[str]:
    """Each header includes what it needs, and refuses to be included directly."""
    wrong = []
    for name in all_headers():
        if name == "ferry.h":
            continue
        for compiler, flags, language in compilers():
            if compiler == "clang":
                continue
            alone = f"#define FERRY_INSIDE\n#include <{name}>\nint main (void) {{ return 0; }}\n"
            result = syntax(compiler, flags, language, alone)
            if result.returncode:
                wrong.append(f"{compiler}: {name} does not compile alone:\n{result.stderr}")
        direct = syntax("gcc", C_FLAGS, "c", f"#include <{name}>\n")
        if name != "ferry-enum-types.h" and "Only <ferry.h> can be included directly" not in direct.stderr:
            wrong.append(f"{name} can be included directly")
    return wrong


def umbrella_reaches() -> list[str]:
    result = run("gcc", *compile_flags(), "-x", "c", "-M", "-", input="#include <ferry.h>\n")
    reached = {Path(path).name for path in result.stdout.split() if path.startswith(str(INCLUDE))}
    return [f"ferry.h does not reach {name}" for name in all_headers() if name not in reached]


def exported(path: Path) -> set[str]:
    result = run("nm", "--dynamic", "--defined-only", "--format=posix", str(path))
    assert result.returncode == 0, result.stderr
    return {line.split()[0].split("@")[0] for line in result.stdout.splitlines() if line.strip()}


def declared() -> set[str]:
    names = set()
    for path in INCLUDE.glob("*.h"):
        for declaration in headers.declarations(path.read_text()):
            if headers.is_function(declaration) and (name := headers.function_name(declaration)):
                names.add(name)
    return names


def library_symbols() -> list[str]:
    symbols = exported(LIBDIR / f"lib{API}.so")
    wrong = [f"{name} is exported" for name in sorted(symbols) if not name.startswith("ferry_")]
    undeclared = sorted(symbols - declared())
    wrong += [f"{name} is exported and in no header" for name in undeclared if name.startswith("ferry_")]
    wrong += [f"{name} is declared and not exported" for name in sorted(declared() - symbols)]
    return wrong


def plugin_symbols() -> list[str]:
    modules = sorted((LIBDIR / API).glob("*.so"))
    wrong = [] if modules else [f"no plugin is in {LIBDIR / API}"]
    for module in modules:
        name = re.sub(r"^lib(ferry-)?", "", module.stem)
        expected = {f"ferry_plugin_{name.replace('-', '_')}_desc"}
        symbols = exported(module)
        if symbols != expected:
            wrong.append(f"{module.name} exports {', '.join(sorted(symbols))} and not only {', '.join(expected)}")
    return wrong


def weak_python() -> list[str]:
    """Modules load without an interpreter: they refer to Python by the names in the sorted list only, weakly."""
    folder = SOURCE / "plugins/codec-numpy"
    listed = re.findall(r"^#pragma weak (\w+)$", (folder / "ferry-python-weak.h").read_text(), re.M)
    wrong = [] if listed == sorted(set(listed)) else ["ferry-python-weak.h is not sorted"]
    for module in sorted((LIBDIR / API).glob("*.so")):
        result = run("nm", "--dynamic", "--undefined-only", "--format=posix", str(module))
        for name, kind in (line.split()[:2] for line in result.stdout.splitlines()):
            if re.match(r"_?Py", name) and kind not in "wv":
                wrong.append(f"{module.name} needs {name}; add it to ferry-python-weak.h")
    return wrong


def example_links() -> list[str]:
    """The example in C builds as its first lines say, against the installation."""
    program = SCRATCH / "sender"
    command = ["gcc", str(SOURCE / "examples/c/sender.c"), "-o", str(program)]
    result = run(*command, *shlex.split(pkg_config("--cflags", "--libs")))
    if result.returncode:
        return [result.stderr]
    result = run(str(program), env=ENVIRONMENT)
    return [] if result.returncode == 2 and "Usage" in result.stderr else [result.stderr or "no usage is shown"]


def introspection() -> list[str]:
    if not OPTIONS["introspection"]:
        raise tap.Skip("built without introspection")
    wrong = []
    for path in (PREFIX / OPTIONS["datadir"] / "gir-1.0/Ferry-1.0.gir", LIBDIR / "girepository-1.0/Ferry-1.0.typelib"):
        if not path.exists():
            wrong.append(f"{path} is not installed")
    script = (
        "import gi; gi.require_version('Ferry', '1.0'); from gi.repository import Ferry, GLib;"
        "assert Ferry.WAIT_FOREVER == -1;"
        "channel = Ferry.Channel.new('memfd', 'lint', Ferry.Role.SENDER); assert not channel.is_open();"
        "assert GLib.quark_to_string(Ferry.error_quark()).startswith('ferry-error')"
    )
    environment = dict(ENVIRONMENT)
    if OPTIONS["python"] != "disabled":
        overrides = next(STAGE.rglob("gi/overrides/Ferry.py"), None)
        if overrides is not None:
            environment["PYTHONPATH"] = str(overrides.parents[2])
            script += "; import ferry.errors; assert hasattr(Ferry.Channel, '__enter__')"
        elif OPTIONS["python"] == "enabled" or (BUILD / "python/ferry").is_dir():
            wrong.append("gi/overrides/Ferry.py is not installed")
    result = run("/usr/bin/python3", "-c", script, env=environment)
    if result.returncode:
        wrong.append(result.stderr)
    return wrong


def vala() -> list[str]:
    if not OPTIONS["vapi"]:
        raise tap.Skip("built without Vala bindings")
    need("valac")
    program = SCRATCH / "greeting"
    flags = [part for flag in shlex.split(pkg_config("--cflags", "--libs")) for part in ("-X", flag)]
    vapi = PREFIX / OPTIONS["datadir"] / "vala/vapi"
    command = ["valac", "--vapidir", str(vapi), "--pkg", API, "--pkg", "posix", *flags, "-X", "-w"]
    command += ["--directory", str(SCRATCH), "-o", str(program), str(SOURCE / "tests/lint/greeting.vala")]
    result = run(*command, env=ENVIRONMENT)
    if result.returncode:
        return [result.stdout + result.stderr]
    result = run(str(program), env=ENVIRONMENT, timeout=20)
    return [] if result.stdout == "hello from Vala\n" else [f"it printed '{result.stdout}'", result.stderr]


def tools() -> list[Path]:
    return sorted((PREFIX / OPTIONS["bindir"]).glob("ferry-*"))


def plain(page: str) -> str:
    """A man page without its markup of hyphens and fonts."""
    return re.sub(r"\\f[BIRP]|\\f\(..", "", page).replace("\\-", "-").replace("\\(hy", "-")


def documented_tools() -> list[str]:
    """Each tool has a man page and a completion, and both know every option."""
    wrong = [] if tools() else ["no tool is installed"]
    for tool in tools():
        page = PREFIX / OPTIONS["mandir"] / "man1" / f"{tool.name}.1"
        completion = PREFIX / OPTIONS["datadir"] / "bash-completion/completions" / tool.name
        shown = run(str(tool), "--help-all", env=ENVIRONMENT)
        if shown.returncode:
            wrong.append(f"{tool.name} --help-all fails: {shown.stderr}")
        options = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", shown.stdout, re.M)) - {"--help", "--help-all"}
        for what, path in (("man page", page), ("completion", completion)):
            if not path.exists():
                wrong.append(f"{tool.name} has no {what}")
                continue
            text = plain(path.read_text())
            # Completions may ask the tool itself.
            if what == "completion" and "--help" in text:
                continue
            missing = [option for option in sorted(options) if not re.search(re.escape(option) + r"\b", text)]
            if missing:
                wrong.append(f"the {what} of {tool.name} lacks {', '.join(missing)}")
    return wrong


def man_pages_render() -> list[str]:
    if not shutil.which("man") and not shutil.which("groff"):
        raise tap.Skip("neither man nor groff is installed")
    wrong = []
    for page in sorted((PREFIX / OPTIONS["mandir"] / "man1").glob("*.1")):
        if shutil.which("groff"):
            result = run("groff", "-man", "-Tutf8", "-ww", "-z", str(page))
        else:
            result = run("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page))
        if result.returncode or result.stderr:
            wrong.append(f"{page.name}: {result.stderr}")
    return wrong


sys.exit(
    tap.run(
        [
            ("installs into a staging folder", stage),
            ("pkg-config file", pkg_config_file),
            ("the public headers are installed and no others", installed_headers),
            ("ferry.h compiles as C11 and C++17 without a warning", umbrella_compiles),
            ("each header includes what it needs", each_header_alone),
            ("ferry.h reaches every header", umbrella_reaches),
            ("the library exports what the headers declare", library_symbols),
            ("plugins export their descriptor only", plugin_symbols),
            ("plugins refer to Python weakly", weak_python),
            ("the example builds against the installation", example_links),
            ("GIR and typelib", introspection),
            ("a Vala program builds and runs", vala),
            ("each tool has a man page and a completion with all options", documented_tools),
            ("man pages have no errors", man_pages_render),
        ]
    )
)
