import resource
import subprocess
import sys


def test_the_soft_limit_becomes_the_hard_one():
    """In a process of its own: the limit of this one stays."""
    script = (
        "import resource; from harness.open_files import allow_many_connections as allow; "
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard)); allow(); "
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert told.split() == [str(hard), str(hard)]
