"""`python -m smtpmaild`."""

from smtpmaild.cli import main

main()
