"""`python -m kickserve` is the same as `kickserve`."""

from kickserve.cli import main

if __name__ == "__main__":
    main()
