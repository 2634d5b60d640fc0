"""A running local session beside its plan: what its JVM, its REST API and one of its Python workers say."""

from headway.adapters.spark import RunningSpark
from headway.adapters.spark_jvm import read_jvm, settle, worker_limit_bytes
from headway.adapters.spark_rest import read_driver
from headway.memory_compare import Compared, compare_executor


def compare_session(running: RunningSpark) -> list[Compared]:
    """Return every figure the session tells beside the plan; the JVM's own only where the driver is the executor."""
    plan = running.plan
    found: list[Compared] = []
    if plan.configuration.deployment == "local":
        jvm = read_jvm(running.session)
        pairs = (
            ("heap", plan.configuration.heap_bytes, jvm.largest_heap_bytes),
            ("unified", plan.unified_bytes, jvm.unified_bytes),
            ("storage", plan.storage_bytes, jvm.storage_bytes),
            ("off-heap", plan.off_heap_bytes, jvm.off_heap_bytes),
            ("off-heap storage", plan.off_heap_storage_bytes, jvm.off_heap_storage_bytes),
            ("page", plan.page_bytes, jvm.page_bytes),
        )
        found += [Compared(where="JVM", name=name, planned_bytes=p, told_bytes=told) for name, p, told in pairs]
    limit = worker_limit_bytes(running.session)
    if plan.worker_bytes is not None:
        found.append(
            Compared(
                where="Python worker", name="address space", planned_bytes=plan.worker_bytes, told_bytes=limit or 0
            )
        )
    if running.url:
        settle(running.session)
        run = read_driver(running.url, application=running.application)
        found += [each for worker in run.workers for each in compare_executor(plan, worker)]
    return found
