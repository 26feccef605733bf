"""Runs the command line: python -m prunelora."""

from prunelora.cli.main import main

if __name__ == "__main__":
    main()
