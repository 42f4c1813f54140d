"""The command line as a module: `python -m mmalign`, and `torchrun -m mmalign` for several processes."""

from mmalign_runtime.cli import main

if __name__ == "__main__":
    main()
