"""The bus in a plain synchronous program: one per process, safe from every thread."""

from hive_bus import TaskEventType, create_task_event, get_event_bus

bus = get_event_bus()

assigned = create_task_event(
    event_type=TaskEventType.ASSIGNED, source_agent="planner", correlation_id="invoice-7", task_id="t1", assignee="ada"
)
reviewed = create_task_event(
    event_type=TaskEventType.REVIEW_COMPLETED, source_agent="grace", correlation_id="invoice-7", task_id="t1"
)
bus.publish(assigned)
bus.publish(reviewed)

for record in bus.get_event_history("invoice-7"):
    print(record.position, record.topic, record.source, record.data["task_id"])
