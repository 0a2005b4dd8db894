"""What holds for the package as a whole: its layers, its imports, its size, its version."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "pcamjax").rglob("*.py"))
LAYERED = [file for file in FILES if file != ROOT / "pcamjax" / "__init__.py"]
# A layer imports from later rows alone, or from itself; neighbours in a row know nothing of each other.
LAYERS = (
    {"benchmark"},
    {"report"},
    {"evaluation", "explain", "baselines"},
    {"inference"},
    {"training"},
    {"weights"},
    {"models", "data"},
    {"ops", "download"},
    {"hdf5"},
    {"files", "host_memory", "hosts", "isolation", "locks", "meter", "npy", "stopping"},
    {"errors"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(file: Path) -> set[str]:
    """The full names of our own modules that a file imports anywhere, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute here"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in ("pcamjax", "experiments", "configs", "tests")}


def run(code: str) -> None:
    """Runs code in a fresh interpreter where every warning is an error."""
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("file", LAYERED, ids=module_name)
def test_imports_go_downwards(file):
    layer = module_name(file).split(".")[1]
    assert layer in LEVEL, f"give {layer} its place in LAYERS"
    for name in imported(file):
        package, _, below = name.partition(".")
        assert package == "pcamjax", f"{name} is not installed with the package"
        below = below.split(".")[0]
        assert below in LEVEL, f"{name} is not one of the layers"
        assert below == layer or LEVEL[below] > LEVEL[layer], f"{below} does not stand below {layer}"


def reached(file: Path) -> set[Path]:
    """Every file of the package that runs when this one is imported, but for pcamjax/__init__.py."""
    found, open_ends = set(), [file]
    while open_ends:
        file = open_ends.pop()
        if file not in found:
            found.add(file)
            prefixes = {name[:end.start()] for name in imported(file) for end in re.finditer(r"\.|$", name)}
            open_ends += [other for other in FILES if module_name(other) in prefixes - {"pcamjax"}]
    return found


@pytest.mark.parametrize("layer", ["evaluation", "report"])
def test_results_are_read_without_a_network(layer):
    for file in FILES:
        if layer in file.parts:
            models = [module_name(other) for other in reached(file) if "models" in other.parts]
            assert not models, f"{module_name(file)} reaches {models}"


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_file_is_short_and_named_for_its_subject(file):
    assert not {"utils", "util", "helpers", "common", "misc"} & set(module_name(file).split("."))
    limit = 300 if "models" in file.parts else 400
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= limit, f"{lines} lines, {limit} at most: it is more than one subject"


def test_every_folder_is_a_package():
    """find_packages leaves a folder without __init__.py out of the wheel."""
    assert {file.parent for file in FILES} == {file.parent for file in FILES if file.name == "__init__.py"}


# What runs other frameworks imports them, in processes of their own.
CORE = [module_name(file) for file in FILES if "peers" not in file.parts]
IMPORT_ALL = f"""import importlib, sys
for name in {CORE}: importlib.import_module(name)
"""


def test_core_imports_without_tensorflow():
    run("""import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "keras", "torch"):
            raise ImportError(f"{name} is not part of the core")
sys.meta_path.insert(0, Blocked())
""" + IMPORT_ALL)


def test_import_starts_no_jax_backend():
    run(IMPORT_ALL + """
import jax
jax.config.update("jax_num_cpu_devices", 3)  # raises once a backend runs
assert len(jax.local_devices(backend="cpu")) == 3
""")


def test_import_reads_and_writes_no_file():
    """Once other packages are loaded, a second import of ours opens Python files of ours and nothing else."""
    run(IMPORT_ALL + f"""
for name in [name for name in sys.modules if name.split(".")[0] == "pcamjax"]: del sys.modules[name]
touched = []
def record(event, args):
    if event in ("socket.connect", "subprocess.Popen", "os.mkdir", "os.rename", "os.remove"):
        touched.append((event, args))
    if event == "open" and not (str(args[0]).startswith({str(ROOT / "pcamjax")!r}) and ".py" in str(args[0])):
        touched.append((event, args))
sys.dont_write_bytecode = True
sys.addaudithook(record)
""" + IMPORT_ALL + "assert not touched, touched\n")


def test_one_version_everywhere():
    where = {
        "setup.py": r'version="(.+?)"',
        "CITATION.cff": r"^version: (\S+)",
        "CHANGELOG.md": r"^## \[(\d\S*)\]",
    }
    stated = {name: re.findall(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)[0]
              for name, pattern in where.items()}
    assert len(set(stated.values())) == 1, stated
