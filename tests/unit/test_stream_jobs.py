from headway.local.stack import STREAM_JOBS
from streaming.jobs import JOBS


def test_the_stack_starts_every_job_of_the_table_in_its_order() -> None:
    """A job's port is its place in the table; the core may not import the table, so the names stand twice."""
    assert [job.name for job in JOBS] == list(STREAM_JOBS)
