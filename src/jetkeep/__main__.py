"""`python -m jetkeep` is the `jetkeep` command."""

from jetkeep.cli import main

if __name__ == "__main__":
    main()
