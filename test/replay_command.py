"""vla-trt replay as a test calls it."""

from vla_trt_ros.cli.main import main


def replay(capsys, *words):
    """Status, what was printed, what was complained of."""
    status = main(['replay', *map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err
