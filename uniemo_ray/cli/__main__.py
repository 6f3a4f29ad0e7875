"""`python -m uniemo_ray.cli`, the same as `uniemo`."""

from uniemo_ray.cli.app import main

if __name__ == "__main__":
    main()
