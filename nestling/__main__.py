"""python -m nestling."""

from nestling.cli.main import main

main()
