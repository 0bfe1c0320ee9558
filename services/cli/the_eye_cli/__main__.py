"""``python -m the_eye_cli``: the same as ``the-eye``, for where scripts are not on the path."""

from the_eye_cli.main import main

main(prog_name="the-eye")
