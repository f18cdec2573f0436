-- The schema that the migrations lead to, for a new file. A test proves that both are equal.
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE events (
    position INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    stream TEXT NOT NULL,
    version INTEGER NOT NULL,
    topic TEXT NOT NULL,
    correlation_id TEXT NOT NULL,
    causation_id TEXT,
    cause_position INTEGER,
    decided_by TEXT,
    source TEXT NOT NULL,
    schema_version INTEGER NOT NULL,
    payload TEXT,
    metadata TEXT,
    digest TEXT NOT NULL,
    append_first INTEGER NOT NULL,
    occurred_at INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    PRIMARY KEY (position),
    CONSTRAINT events_event_id UNIQUE (event_id),
    CONSTRAINT events_stream_version UNIQUE (stream, version)
);

CREATE INDEX events_correlation ON events (correlation_id, position);

CREATE INDEX events_topic ON events (topic, position);

CREATE TABLE log_meta (
    id INTEGER NOT NULL,
    name TEXT NOT NULL,
    log_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    database_id TEXT NOT NULL,
    first_position INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT log_meta_one_row CHECK (id = 1)
);

CREATE TABLE epochs (
    epoch INTEGER NOT NULL,
    epoch_id TEXT NOT NULL,
    first_position INTEGER NOT NULL,
    began_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (epoch)
);

CREATE TABLE topics (
    topic TEXT NOT NULL,
    PRIMARY KEY (topic)
) WITHOUT ROWID;

CREATE TABLE maintenance (
    session TEXT NOT NULL,
    reason TEXT NOT NULL,
    began_at INTEGER NOT NULL,
    PRIMARY KEY (session)
);

CREATE TABLE blobs (
    digest TEXT NOT NULL,
    body BLOB NOT NULL,
    used_at INTEGER NOT NULL,
    PRIMARY KEY (digest)
);

CREATE TABLE blob_refs (
    digest TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (digest, position)
) WITHOUT ROWID;

CREATE TABLE leases (
    lease_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    opened_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    closed_at INTEGER,
    info TEXT NOT NULL,
    PRIMARY KEY (lease_id)
) WITHOUT ROWID;

CREATE TABLE consumer_groups (
    group_name TEXT NOT NULL,
    partitions INTEGER NOT NULL,
    made_at INTEGER NOT NULL,
    PRIMARY KEY (group_name)
) WITHOUT ROWID;

CREATE TABLE partitions (
    group_name TEXT NOT NULL,
    number INTEGER NOT NULL,
    position INTEGER NOT NULL,
    lease_id TEXT,
    fence INTEGER NOT NULL,
    PRIMARY KEY (group_name, number)
) WITHOUT ROWID;

CREATE INDEX partitions_lease ON partitions (lease_id) WHERE lease_id IS NOT NULL;

CREATE TABLE members (
    group_name TEXT NOT NULL,
    lease_id TEXT NOT NULL,
    joined_at INTEGER NOT NULL,
    PRIMARY KEY (group_name, lease_id)
) WITHOUT ROWID;

CREATE TABLE parked (
    group_name TEXT NOT NULL,
    "key" TEXT NOT NULL,
    number INTEGER NOT NULL,
    from_position INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    next_try INTEGER,
    error TEXT NOT NULL,
    parked_at INTEGER NOT NULL,
    PRIMARY KEY (group_name, "key")
) WITHOUT ROWID;

CREATE TABLE work (
    work_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    topic TEXT NOT NULL,
    correlation_id TEXT NOT NULL,
    stream TEXT NOT NULL,
    queue TEXT NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    cost DOUBLE NOT NULL,
    base DOUBLE NOT NULL,
    turn DOUBLE NOT NULL,
    attempt INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    lease_id TEXT,
    cancel_requested INTEGER NOT NULL,
    due_at INTEGER,
    wake_at INTEGER,
    ready_at INTEGER,
    claimed_at INTEGER,
    touched_at INTEGER,
    inserted_at INTEGER NOT NULL,
    waiting_timeout INTEGER,
    running_timeout INTEGER,
    silent_timeout INTEGER,
    total_timeout INTEGER,
    preferred TEXT,
    hold_until INTEGER,
    PRIMARY KEY (work_id),
    CONSTRAINT work_state CHECK (state IN ('ready', 'delayed', 'waiting', 'claimed'))
) WITHOUT ROWID;

CREATE INDEX work_wake ON work (wake_at) WHERE wake_at IS NOT NULL;

CREATE INDEX work_held_out ON work (queue, hold_until) WHERE state = 'ready' AND cancel_requested = 0 AND preferred IS NOT NULL;

CREATE INDEX work_ready ON work (queue, preferred, turn, position) WHERE state = 'ready' AND cancel_requested = 0;

CREATE INDEX work_of_correlation ON work (correlation_id, queue, base);

CREATE INDEX work_of_lease ON work (lease_id) WHERE lease_id IS NOT NULL;

CREATE TABLE queues (
    queue TEXT NOT NULL,
    current DOUBLE NOT NULL,
    PRIMARY KEY (queue)
) WITHOUT ROWID;

CREATE TABLE limits (
    "key" TEXT NOT NULL,
    ceiling INTEGER,
    level DOUBLE,
    rate DOUBLE,
    burst DOUBLE,
    filled_at INTEGER,
    held_until INTEGER,
    PRIMARY KEY ("key")
) WITHOUT ROWID;

CREATE TABLE limit_slots (
    "key" TEXT NOT NULL,
    lease_id TEXT NOT NULL,
    taken INTEGER NOT NULL,
    missing INTEGER NOT NULL,
    waits_since INTEGER,
    asked_at INTEGER NOT NULL,
    PRIMARY KEY ("key", lease_id)
) WITHOUT ROWID;

CREATE TABLE view_rows (
    "view" TEXT NOT NULL,
    version INTEGER NOT NULL,
    "key" TEXT NOT NULL,
    from_position INTEGER NOT NULL,
    until_position INTEGER,
    sort TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY ("view", version, "key", from_position)
) WITHOUT ROWID;

CREATE INDEX view_rows_now ON view_rows ("view", version, sort, "key") WHERE until_position IS NULL;

CREATE TABLE snapshots (
    brain TEXT NOT NULL,
    "key" TEXT NOT NULL,
    decided INTEGER NOT NULL,
    code TEXT NOT NULL,
    handled INTEGER NOT NULL,
    folded INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (brain, "key", decided)
);

CREATE TRIGGER events_no_update BEFORE UPDATE ON events
WHEN NOT EXISTS (SELECT 1 FROM maintenance)
BEGIN SELECT RAISE(ABORT, 'events are changed in a maintenance session only'); END;

CREATE TRIGGER events_no_delete BEFORE DELETE ON events
WHEN NOT EXISTS (SELECT 1 FROM maintenance)
BEGIN SELECT RAISE(ABORT, 'events are deleted in a maintenance session only'); END;
