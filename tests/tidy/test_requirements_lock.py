"""What hosts install is what this checkout is tested with."""

from __future__ import annotations

import subprocess
import sys

from source_tree import ROOT


def test_hosts_install_the_versions_of_the_lock() -> None:
    check = [sys.executable, str(ROOT / "scripts" / "lock_requirements.py"), "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, "python scripts/lock_requirements.py writes it anew" + done.stderr
