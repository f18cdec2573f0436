-- The schema that the migrations lead to, for a new database. A test proves that both are equal.
-- Text keys compare by bytes (COLLATE "C"): prefix reads use the index, and a libc upgrade cannot break uniqueness.
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Only ever inserted: vacuum marks pages as all-visible early, so that counts and positions come from the index alone.
CREATE TABLE events (
    position BIGINT NOT NULL,
    event_id TEXT COLLATE "C" NOT NULL,
    stream TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    topic TEXT COLLATE "C" NOT NULL,
    correlation_id TEXT COLLATE "C" NOT NULL,
    causation_id TEXT COLLATE "C",
    cause_position BIGINT,
    decided_by TEXT COLLATE "C",
    source TEXT NOT NULL,
    schema_version SMALLINT NOT NULL,
    payload TEXT,
    metadata TEXT,
    digest TEXT NOT NULL,
    append_first BIGINT NOT NULL,
    occurred_at BIGINT NOT NULL,
    recorded_at BIGINT NOT NULL,
    PRIMARY KEY (position),
    CONSTRAINT events_event_id UNIQUE (event_id),
    CONSTRAINT events_stream_version UNIQUE (stream, version)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);

CREATE INDEX events_topic ON events (topic, position);

CREATE INDEX events_correlation ON events (correlation_id, position);

CREATE TABLE log_meta (
    id SMALLINT NOT NULL,
    name TEXT NOT NULL,
    log_id TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    database_id TEXT NOT NULL,
    first_position BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT log_meta_one_row CHECK (id = 1)
);

CREATE TABLE epochs (
    epoch BIGINT NOT NULL,
    epoch_id TEXT NOT NULL,
    first_position BIGINT NOT NULL,
    began_at BIGINT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (epoch)
);

CREATE TABLE topics (
    topic TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (topic)
);

CREATE TABLE maintenance (
    session TEXT NOT NULL,
    reason TEXT NOT NULL,
    began_at BIGINT NOT NULL,
    PRIMARY KEY (session)
);

CREATE TABLE blobs (
    digest TEXT COLLATE "C" NOT NULL,
    body BYTEA NOT NULL,
    used_at BIGINT NOT NULL,
    PRIMARY KEY (digest)
);

CREATE TABLE blob_refs (
    digest TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (digest, position)
);

-- leases, partitions, queues: rows that are rewritten all the time. Room in each page lets a new version of a row stay beside the old
-- one (no index entry changes), and vacuum comes after so many changed rows, whatever the size of the table.
CREATE TABLE leases (
    lease_id TEXT COLLATE "C" NOT NULL,
    owner TEXT NOT NULL,
    opened_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    closed_at BIGINT,
    info TEXT NOT NULL,
    PRIMARY KEY (lease_id)
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

CREATE TABLE consumer_groups (
    group_name TEXT COLLATE "C" NOT NULL,
    partitions SMALLINT NOT NULL,
    made_at BIGINT NOT NULL,
    PRIMARY KEY (group_name)
);

CREATE TABLE partitions (
    group_name TEXT COLLATE "C" NOT NULL,
    number SMALLINT NOT NULL,
    position BIGINT NOT NULL,
    lease_id TEXT COLLATE "C",
    fence BIGINT NOT NULL,
    PRIMARY KEY (group_name, number)
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

CREATE INDEX partitions_lease ON partitions (lease_id) WHERE lease_id IS NOT NULL;

CREATE TABLE members (
    group_name TEXT COLLATE "C" NOT NULL,
    lease_id TEXT COLLATE "C" NOT NULL,
    joined_at BIGINT NOT NULL,
    PRIMARY KEY (group_name, lease_id)
);

CREATE TABLE parked (
    group_name TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    number SMALLINT NOT NULL,
    from_position BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    next_try BIGINT,
    error TEXT NOT NULL,
    parked_at BIGINT NOT NULL,
    PRIMARY KEY (group_name, key)
);

-- Rows come and go by the million: vacuum comes when two in a hundred are dead, and does not dawdle.
CREATE TABLE work (
    work_id TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    topic TEXT COLLATE "C" NOT NULL,
    correlation_id TEXT COLLATE "C" NOT NULL,
    stream TEXT COLLATE "C" NOT NULL,
    queue TEXT COLLATE "C" NOT NULL,
    state TEXT NOT NULL,
    priority SMALLINT NOT NULL,
    cost DOUBLE PRECISION NOT NULL,
    base DOUBLE PRECISION NOT NULL,
    turn DOUBLE PRECISION NOT NULL,
    attempt BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    lease_id TEXT COLLATE "C",
    cancel_requested SMALLINT NOT NULL,
    due_at BIGINT,
    wake_at BIGINT,
    ready_at BIGINT,
    claimed_at BIGINT,
    touched_at BIGINT,
    inserted_at BIGINT NOT NULL,
    waiting_timeout BIGINT,
    running_timeout BIGINT,
    silent_timeout BIGINT,
    total_timeout BIGINT,
    preferred TEXT COLLATE "C",
    hold_until BIGINT,
    PRIMARY KEY (work_id),
    CONSTRAINT work_state CHECK (state IN ('ready', 'delayed', 'waiting', 'claimed'))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX work_of_lease ON work (lease_id) WHERE lease_id IS NOT NULL;

CREATE INDEX work_wake ON work (wake_at) WHERE wake_at IS NOT NULL;

CREATE INDEX work_ready ON work (queue, preferred, turn, position) WHERE state = 'ready' AND cancel_requested = 0;

CREATE INDEX work_of_correlation ON work (correlation_id, queue, base);

CREATE INDEX work_held_out ON work (queue, hold_until) WHERE state = 'ready' AND cancel_requested = 0 AND preferred IS NOT NULL;

CREATE TABLE queues (
    queue TEXT COLLATE "C" NOT NULL,
    current DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (queue)
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

CREATE TABLE limits (
    key TEXT COLLATE "C" NOT NULL,
    ceiling BIGINT,
    level DOUBLE PRECISION,
    rate DOUBLE PRECISION,
    burst DOUBLE PRECISION,
    filled_at BIGINT,
    held_until BIGINT,
    PRIMARY KEY (key)
);

CREATE TABLE limit_slots (
    key TEXT COLLATE "C" NOT NULL,
    lease_id TEXT COLLATE "C" NOT NULL,
    taken BIGINT NOT NULL,
    missing BIGINT NOT NULL,
    waits_since BIGINT,
    asked_at BIGINT NOT NULL,
    PRIMARY KEY (key, lease_id)
);

CREATE TABLE view_rows (
    view TEXT COLLATE "C" NOT NULL,
    version SMALLINT NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    from_position BIGINT NOT NULL,
    until_position BIGINT,
    sort TEXT COLLATE "C" NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (view, version, key, from_position)
);

CREATE INDEX view_rows_now ON view_rows (view, version, sort, key) WHERE until_position IS NULL;

CREATE TABLE snapshots (
    brain TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    decided BIGINT NOT NULL,
    code TEXT NOT NULL,
    handled BIGINT NOT NULL,
    folded BIGINT NOT NULL,
    body BYTEA NOT NULL,
    PRIMARY KEY (brain, key, decided)
);

-- Facts are for ever: only a maintenance session (a row in `maintenance`, in the same transaction) may touch them.
CREATE FUNCTION hive_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    is_open boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %I.maintenance)', TG_TABLE_SCHEMA) INTO is_open;
    IF NOT is_open THEN
        RAISE EXCEPTION 'events are changed in a maintenance session only' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$body$;

CREATE TRIGGER events_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION hive_refuse_change();
