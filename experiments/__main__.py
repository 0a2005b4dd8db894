"""Lists the jobs: python -m experiments."""

import ast
from pathlib import Path


def main() -> None:
    print("usage: python -m experiments.<job> --workdir=runs/<name> [--config=configs/<name>.py] "
          "[--config.key=value]; --help lists a job's flags\n")
    for file in sorted(Path(__file__).parent.glob("*.py")):
        code = file.read_text(encoding="utf-8")
        if "\n    launch.main(run" in code:
            print(f"  {file.stem:<10} {ast.get_docstring(ast.parse(code)).splitlines()[0]}")


if __name__ == "__main__":
    main()
