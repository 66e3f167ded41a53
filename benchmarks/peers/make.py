"""Make the environments of the packages that unmix.py trains beside superpose, one for each.

They cannot all live in one, and none may change ours. pip's own settings apply.

    python benchmarks/peers/make.py [saelens dictionary_learning overcomplete sparsify]
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parent.parent / ".peers"
TORCH = "torch==2.13.0"
PEERS = {
    "saelens": ["sae-lens==6.54.12"],
    "dictionary_learning": ["dictionary-learning==0.1.0"],
    "overcomplete": ["overcomplete==0.3.0"],
    "sparsify": ["eai-sparsify==1.3.3"],
}
"""What pip is asked for; its versions are the ones that the tables name."""


def python(peer: str) -> Path:
    """The interpreter of a peer's environment."""
    return HOME / peer / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make(peer: str) -> None:
    """An environment with the peer and PyTorch, and nothing of ours."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", HOME / peer], check=True)
    pip = [python(peer), "-m", "pip"]
    subprocess.run([*pip, "install", "--quiet", TORCH, *PEERS[peer]], check=True)
    # A torchvision that comes along may be built for another torch, and then it breaks the import
    # of what finds it there; none of what is measured needs it.
    subprocess.run([*pip, "uninstall", "--quiet", "--yes", "torchvision"], check=True)


def main() -> None:
    """Make the environments asked for."""
    parser = argparse.ArgumentParser(description="environments of other packages")
    parser.add_argument("peers", nargs="*", metavar="peer", help=f"else all: {', '.join(PEERS)}")
    peers = parser.parse_args().peers or list(PEERS)
    if unknown := set(peers) - set(PEERS):
        parser.error(f"{', '.join(sorted(unknown))}: the peers are {', '.join(PEERS)}")
    for peer in peers:
        print(peer, flush=True)
        make(peer)


if __name__ == "__main__":
    main()
