import io

from headway.progress import Progress, progress_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_says_how_much_is_done_how_fast_and_what_is_left() -> None:
    line = progress_line("flight_delay v2", 500_000, 2_000_000, seconds=10.0)

    assert line == "flight_delay v2 [######..................]  25%  500,000 of 2,000,000 rows, 50,000/s, 30 s left"


def test_more_rows_than_were_expected_are_all_of_them() -> None:
    assert "100%  11 of 11 rows" in progress_line("x", 11, 10, seconds=1.0)


def test_nothing_to_do_is_done() -> None:
    assert "100%  0 of 0 rows" in progress_line("x", 0, 0, seconds=0.0)


def test_a_terminal_shows_one_line_and_a_log_a_line_now_and_then() -> None:
    for out, marks in ((Terminal(), ("\r", 3)), (io.StringIO(), ("\n", 2))):
        at_s = [0.0]
        progress = Progress("x", 10, out=out, now_s=lambda at_s=at_s: at_s[0])  # type: ignore[misc]  # bound
        for second in (1.0, 2.0, 11.5):
            at_s[0] = second
            progress.add(3)
        progress.end()

        mark, count = marks
        assert out.getvalue().count(mark) == count + (mark == "\r")
        assert "100%  9 of 9 rows" in out.getvalue()


def test_whoever_wants_to_be_told_is_told_the_lines_of_a_log() -> None:
    told: list[str] = []
    at_s = [0.0]
    progress = Progress("x", 10, say=told.append, out=Terminal(), now_s=lambda: at_s[0])
    for second in (1.0, 2.0, 11.5):
        at_s[0] = second
        progress.add(3)
    progress.end()

    assert [line.split("%  ")[1].partition(",")[0] for line in told] == ["9 of 10 rows", "9 of 9 rows"]
