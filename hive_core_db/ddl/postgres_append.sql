-- The append: judged by the client, verified and written here, in one autocommit call each.
-- The head lock is taken first and never held across a round trip: a client that is stopped or killed during its call holds nobody up.
-- A volatile function gets a new snapshot for each of its statements (READ COMMITTED): what is read after the wait for the lock is fresh.
-- Both answer with numbers. Above zero the first is a position: the first of the append, then recorded_at, then the versions that the
-- streams had (none where they were as the hints said). Below zero nothing was written, for something is not as the client believed:
-- -1 the epoch, -2 versions, -3 quiet correlations, -4 the head, -5 owners, -6 leases, -7 blobs, -8 documents, -9 work items.

-- The values of a column that came as one text: the driver writes that ten times as fast as an array of texts.
-- A mark that parts them occurs in none of them; `nil` (null: there is none) stands for null.
CREATE OR REPLACE FUNCTION hive_split(joined text, mark text, nil text) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $body$
    SELECT CASE WHEN joined = '' THEN ARRAY[''] ELSE string_to_array(joined, mark, nil) END
$body$;

-- One event that depends on nothing: the shortest way into the log.
CREATE OR REPLACE FUNCTION hive_append_one(
    wanted_epoch bigint, given_now bigint, is_fresh boolean, hint bigint, hints_at bigint, is_new_topic boolean,
    e_event_id text, e_stream text, e_topic text, e_correlation_id text, e_causation_id text, e_cause_position bigint, e_decided_by text,
    e_source text, e_schema_version smallint, e_payload text, e_metadata text, e_digest text, e_occurred_at bigint
) RETURNS bigint[] LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan AS $body$
DECLARE
    epoch_now bigint;
    first bigint;
    stamp bigint;
    base bigint := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(1212765765, hashtext(current_schema()));
    SELECT m.epoch, greatest(h.position + 1, b.first_position),
        greatest(coalesce(given_now, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint), h.recorded_at)
    INTO STRICT epoch_now, first, stamp
    FROM log_meta AS m JOIN epochs AS b ON b.epoch = m.epoch
    LEFT JOIN LATERAL (SELECT e.position, e.recorded_at FROM events AS e ORDER BY e.position DESC LIMIT 1) AS h ON true;
    IF epoch_now <> wanted_epoch THEN
        RETURN ARRAY[-1];
    END IF;
    IF hint IS NOT NULL AND hints_at = first - 1 THEN
        base := hint;
    ELSIF NOT is_fresh THEN
        SELECT coalesce(max(e.version), 0) INTO base FROM events AS e WHERE e.stream = e_stream;
    END IF;
    INSERT INTO events (
            position, event_id, stream, version, topic, correlation_id, causation_id, cause_position, decided_by, source,
            schema_version, payload, metadata, digest, append_first, occurred_at, recorded_at
    ) VALUES (
        first, e_event_id, e_stream, base + 1, e_topic, e_correlation_id, e_causation_id,
        CASE WHEN e_cause_position < 0 THEN first - 1 - e_cause_position ELSE e_cause_position END,
        e_decided_by, e_source, e_schema_version, e_payload, e_metadata, e_digest, first, coalesce(e_occurred_at, stamp), stamp
    );
    IF is_new_topic THEN
        INSERT INTO topics (topic) VALUES (e_topic) ON CONFLICT DO NOTHING;
    END IF;
    RETURN ARRAY[first, stamp, base];
END
$body$;

-- A batch: what the verdicts depend on is verified in new statements behind the lock, then everything is written. All arrays may be null.
--   e_*  events, in order, `wanted` of them; `version` counts from the stream's base (index `base` into `b_stream`; null: a fresh stream,
--        from 0), `opens` is the offset of the append's first event (null: each event is an append of its own)
--   b_*  streams whose versions are needed (`b_stream` null: those of the events, one for each); where `b_version` is not null, that is
--        what it must be. `b_hint` is what the client knows of them as of the position `hints_at`: while nobody else appends, nothing
--        needs to be read. Should another's events have filled the very positions that the client awaited of its own, the unique
--        index refuses the versions.
--   s_*  work items as the client believed them: first those of c_*, then those of g_*
--   c_*  items that change, g_* that end, n_* that are new (position as an offset)
-- Positions in `refs` are offsets. `least_head` is what the head must be at least, for checkpoints to lie within the log.
CREATE OR REPLACE FUNCTION hive_append(
    wanted_epoch bigint, given_now bigint, mark text, nil text, wanted integer,
    e_event_id text, e_stream text, e_topic text, e_correlation_id text, e_causation_id text, e_cause_position bigint[],
    e_decided_by text, e_source text, e_schema_version smallint[], e_payload text, e_metadata text, e_digest text,
    e_occurred_at bigint[], e_version bigint[], e_base integer[], e_opens bigint[],
    b_stream text, b_version bigint[], b_hint bigint[], hints_at bigint, new_topics text[], quiet json, least_head bigint, owners json,
    lease_ids text[], blob_digests text[],
    documents json,
    s_work_id text, s_state text, s_fence bigint[], s_cancel_requested smallint[],
    g_work_id text,
    c_work_id text, c_state text, c_attempt bigint[], c_fence bigint[], c_lease_id text, c_cancel_requested smallint[],
    c_due_at bigint[], c_wake_at bigint[], c_ready_at bigint[], c_claimed_at bigint[], c_touched_at bigint[],
    n_work_id text, n_position bigint[], n_topic text, n_correlation_id text, n_stream text, n_queue text, n_state text,
    n_priority smallint[], n_cost double precision[], n_base double precision[], n_turn double precision[], n_attempt bigint[],
    n_fence bigint[], n_lease_id text, n_cancel_requested smallint[], n_due_at bigint[], n_wake_at bigint[], n_ready_at bigint[],
    n_claimed_at bigint[], n_touched_at bigint[], n_inserted_at bigint[], n_waiting_timeout bigint[], n_running_timeout bigint[],
    n_silent_timeout bigint[], n_total_timeout bigint[], n_preferred text, n_hold_until bigint[],
    turns json, moves json, refs json, parks json, unparks json, view_lines json
) RETURNS bigint[] LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $body$
DECLARE
    epoch_now bigint;
    first bigint;
    stamp bigint;
    bases bigint[];
    is_known boolean := false;
    written bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(1212765765, hashtext(current_schema()));
    -- The lock first, the head in the next statement: a snapshot taken before the wait is stale.
    SELECT m.epoch, greatest(h.position + 1, b.first_position),
        greatest(coalesce(given_now, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint), h.recorded_at)
    INTO STRICT epoch_now, first, stamp
    FROM log_meta AS m JOIN epochs AS b ON b.epoch = m.epoch
    LEFT JOIN LATERAL (SELECT e.position, e.recorded_at FROM events AS e ORDER BY e.position DESC LIMIT 1) AS h ON true;
    IF epoch_now <> wanted_epoch THEN
        RETURN ARRAY[-1];
    END IF;
    IF b_hint IS NOT NULL THEN
        IF hints_at = first - 1 AND array_position(b_hint, NULL) IS NULL THEN
            bases := b_hint;
            is_known := true;
        ELSE
            bases := ARRAY(
                SELECT coalesce(
                    CASE WHEN hints_at = first - 1 THEN b.hint END, (SELECT max(e.version) FROM events AS e WHERE e.stream = b.stream), 0
                )
                FROM unnest(hive_split(coalesce(b_stream, e_stream), mark, NULL), b_hint) AS b (stream, hint)
            );
        END IF;
        IF b_version IS NOT NULL AND EXISTS (
            SELECT FROM unnest(b_version, bases) AS b (believed, stored) WHERE b.believed <> b.stored
        ) THEN
            RETURN ARRAY[-2];
        END IF;
    END IF;
    IF quiet IS NOT NULL AND EXISTS (
        SELECT FROM json_to_recordset(quiet) AS q (correlation_id text, after bigint)
        WHERE EXISTS (SELECT FROM events AS e WHERE e.correlation_id = q.correlation_id AND e.position > q.after)
    ) THEN
        RETURN ARRAY[-3];
    END IF;
    IF least_head >= first THEN
        RETURN ARRAY[-4];
    END IF;
    -- The head before the owners, the owners before the work, each by key: the one order in which locks are taken.
    -- Each row is looked for by its key, by a count or a ctid, never by a join: tables that are small and change much look empty to the planner,
    -- and a join begun at their side walks every dead row that an old snapshot keeps from vacuum.
    IF owners IS NOT NULL AND EXISTS (
        SELECT FROM json_to_recordset(owners) AS o (group_name text, number smallint, lease_id text, fence bigint, reaches bigint)
        WHERE 0 = (
            SELECT count(*) FROM partitions AS p JOIN leases AS l ON l.lease_id = p.lease_id
            WHERE p.group_name = o.group_name AND p.number = o.number AND p.lease_id = o.lease_id AND p.fence = o.fence
                AND l.closed_at IS NULL AND p.position <= coalesce(o.reaches, p.position)
        )
    ) THEN
        RETURN ARRAY[-5];
    END IF;
    IF lease_ids IS NOT NULL AND EXISTS (
        SELECT FROM unnest(lease_ids) AS u (lease_id)
        WHERE 0 = (SELECT count(*) FROM leases AS l WHERE l.lease_id = u.lease_id AND l.closed_at IS NULL)
    ) THEN
        RETURN ARRAY[-6];
    END IF;
    IF blob_digests IS NOT NULL AND EXISTS (
        SELECT FROM unnest(blob_digests) AS u (digest) WHERE NOT EXISTS (SELECT FROM blobs AS b WHERE b.digest = u.digest)
    ) THEN
        RETURN ARRAY[-7];
    END IF;
    IF documents IS NOT NULL AND EXISTS (
        SELECT FROM json_to_recordset(documents) AS d (view text, version smallint, key text, position bigint)
        WHERE d.position < (
            SELECT coalesce(v.until_position, v.from_position) FROM view_rows AS v
            WHERE v.view = d.view AND v.version = d.version AND v.key = d.key ORDER BY v.from_position DESC LIMIT 1
        )
    ) THEN
        RETURN ARRAY[-8];
    END IF;
    IF s_work_id IS NOT NULL AND EXISTS (
        SELECT FROM unnest(
            hive_split(s_work_id, mark, NULL), hive_split(s_state, mark, NULL), s_fence, s_cancel_requested
        ) AS s (work_id, state, fence, cancel_requested)
        WHERE 0 = (
            SELECT count(*) FROM work AS w
            WHERE w.work_id = s.work_id AND w.state = s.state AND w.fence = s.fence AND w.cancel_requested = s.cancel_requested
        )
    ) THEN
        RETURN ARRAY[-9];
    END IF;
    -- From here on it is written. Who changes a work item without the head lock is noticed by the count, and nothing is.
    IF moves IS NOT NULL THEN
        UPDATE partitions AS p SET position = m.position
        FROM (
            SELECT j.position, (SELECT o.ctid FROM partitions AS o WHERE o.group_name = j.group_name AND o.number = j.number) AS place
            FROM json_to_recordset(moves) AS j (group_name text, number smallint, position bigint)
        ) AS m
        WHERE p.ctid = m.place;
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written <> json_array_length(moves) THEN
            RAISE EXCEPTION 'a partition changed meanwhile' USING ERRCODE = 'HV001';
        END IF;
    END IF;
    IF c_work_id IS NOT NULL THEN
        UPDATE work AS w SET
            state = c.state, attempt = c.attempt, fence = c.fence, lease_id = c.lease_id, cancel_requested = c.cancel_requested,
            due_at = c.due_at, wake_at = c.wake_at, ready_at = c.ready_at, claimed_at = c.claimed_at, touched_at = c.touched_at
        FROM (SELECT i.*, (
            SELECT o.ctid FROM work AS o WHERE o.work_id = i.work_id AND o.state = i.was_state AND o.fence = i.was_fence
                AND o.cancel_requested = i.was_cancel_requested
        ) AS place FROM unnest(
            hive_split(c_work_id, mark, NULL), hive_split(c_state, mark, NULL), c_attempt, c_fence, hive_split(c_lease_id, mark, nil),
            c_cancel_requested, c_due_at, c_wake_at, c_ready_at, c_claimed_at,
            c_touched_at, hive_split(s_state, mark, NULL), s_fence, s_cancel_requested
        ) AS i (
            work_id, state, attempt, fence, lease_id, cancel_requested, due_at, wake_at, ready_at, claimed_at, touched_at, was_state,
            was_fence, was_cancel_requested
        )) AS c
        WHERE w.ctid = c.place;
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written <> cardinality(c_fence) THEN
            RAISE EXCEPTION 'a work item changed meanwhile' USING ERRCODE = 'HV001';
        END IF;
    END IF;
    IF g_work_id IS NOT NULL THEN
        DELETE FROM work AS w WHERE w.work_id = ANY (hive_split(g_work_id, mark, NULL));
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written <> cardinality(hive_split(g_work_id, mark, NULL)) THEN
            RAISE EXCEPTION 'a work item ended meanwhile' USING ERRCODE = 'HV001';
        END IF;
    END IF;
    IF wanted > 0 THEN
        INSERT INTO events (
            position, event_id, stream, version, topic, correlation_id, causation_id, cause_position, decided_by, source,
            schema_version, payload, metadata, digest, append_first, occurred_at, recorded_at
        )
        SELECT
            first + r.number, r.event_id, r.stream,
            coalesce(bases[CASE WHEN b_stream IS NULL THEN r.number + 1 ELSE r.base END], 0) + coalesce(r.version, 1), r.topic,
            r.correlation_id,
            r.causation_id,
            CASE WHEN r.cause_position < 0 THEN first + coalesce(r.opens, r.number) - 1 - r.cause_position ELSE r.cause_position END,
            r.decided_by, r.source, r.schema_version, r.payload, r.metadata, r.digest, first + coalesce(r.opens, r.number),
            coalesce(r.occurred_at, stamp), stamp
        FROM (
            -- Side by side in one select list they step together, without a store for each.
            SELECT generate_series(0, wanted - 1) AS number,
            unnest(hive_split(e_event_id, mark, NULL)) AS event_id, unnest(hive_split(e_stream, mark, NULL)) AS stream,
            unnest(hive_split(e_topic, mark, NULL)) AS topic,
            unnest(hive_split(e_correlation_id, mark, NULL)) AS correlation_id,
            unnest(hive_split(e_causation_id, mark, nil)) AS causation_id,
            unnest(e_cause_position) AS cause_position, unnest(hive_split(e_decided_by, mark, nil)) AS decided_by,
            unnest(hive_split(e_source, mark, NULL)) AS source,
            unnest(e_schema_version) AS schema_version, unnest(hive_split(e_payload, mark, nil)) AS payload,
            unnest(hive_split(e_metadata, mark, nil)) AS metadata,
            unnest(hive_split(e_digest, mark, NULL)) AS digest, unnest(e_occurred_at) AS occurred_at, unnest(e_version) AS version,
            unnest(e_base) AS base,
            unnest(e_opens) AS opens
        ) AS r;
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written <> wanted THEN
            RAISE EXCEPTION '% events were inserted, not %', written, wanted USING ERRCODE = 'data_corrupted';
        END IF;
    END IF;
    IF new_topics IS NOT NULL THEN
        INSERT INTO topics (topic) SELECT unnest(new_topics) ON CONFLICT DO NOTHING;
    END IF;
    IF refs IS NOT NULL THEN
        INSERT INTO blob_refs (digest, position)
        SELECT r.digest, first + r.number FROM json_to_recordset(refs) AS r (digest text, number bigint) ON CONFLICT DO NOTHING;
    END IF;
    IF n_work_id IS NOT NULL THEN
        INSERT INTO work (
            work_id, position, topic, correlation_id, stream, queue, state, priority, cost, base, turn, attempt, fence, lease_id,
            cancel_requested, due_at, wake_at, ready_at, claimed_at, touched_at, inserted_at, waiting_timeout, running_timeout,
            silent_timeout, total_timeout, preferred, hold_until
        )
        SELECT
            unnest(hive_split(n_work_id, mark, NULL)) AS work_id, unnest(n_position) + first AS position,
            unnest(hive_split(n_topic, mark, NULL)) AS topic,
            unnest(hive_split(n_correlation_id, mark, NULL)) AS correlation_id, unnest(hive_split(n_stream, mark, NULL)) AS stream,
            unnest(hive_split(n_queue, mark, NULL)) AS queue, unnest(hive_split(n_state, mark, NULL)) AS state,
            unnest(n_priority) AS priority, unnest(n_cost) AS cost, unnest(n_base) AS base, unnest(n_turn) AS turn,
            unnest(n_attempt) AS attempt, unnest(n_fence) AS fence, unnest(hive_split(n_lease_id, mark, nil)) AS lease_id,
            unnest(n_cancel_requested) AS cancel_requested, unnest(n_due_at) AS due_at, unnest(n_wake_at) AS wake_at,
            unnest(n_ready_at) AS ready_at, unnest(n_claimed_at) AS claimed_at, unnest(n_touched_at) AS touched_at,
            unnest(n_inserted_at) AS inserted_at, unnest(n_waiting_timeout) AS waiting_timeout,
            unnest(n_running_timeout) AS running_timeout, unnest(n_silent_timeout) AS silent_timeout,
            unnest(n_total_timeout) AS total_timeout, unnest(hive_split(n_preferred, mark, nil)) AS preferred,
            unnest(n_hold_until) AS hold_until;
    END IF;
    IF turns IS NOT NULL THEN
        INSERT INTO queues AS q (queue, current) SELECT t.queue,
        t.current FROM json_to_recordset(turns) AS t (queue text, current double precision)
        ON CONFLICT (queue) DO UPDATE SET current = excluded.current WHERE q.current < excluded.current;
    END IF;
    IF unparks IS NOT NULL THEN
        DELETE FROM parked AS p USING json_to_recordset(unparks) AS u (group_name text, key text)
        WHERE p.group_name = u.group_name AND p.key = u.key;
    END IF;
    IF parks IS NOT NULL THEN
        INSERT INTO parked (group_name, key, number, from_position, attempt, next_try, error, parked_at)
        SELECT k.group_name, k.key, k.number, k.from_position, k.attempt, k.next_try, k.error, k.parked_at
        FROM json_to_recordset(parks) AS k (
            group_name text, key text, number smallint, from_position bigint, attempt bigint, next_try bigint, error text, parked_at bigint
        )
        ON CONFLICT (group_name, key) DO UPDATE SET number = excluded.number, from_position = excluded.from_position,
            attempt = excluded.attempt, next_try = excluded.next_try, error = excluded.error;
    END IF;
    IF documents IS NOT NULL THEN
        -- A row that began at the very position is replaced; one that began before ends there.
        DELETE FROM view_rows AS v USING json_to_recordset(documents) AS d (view text, version smallint, key text, position bigint)
        WHERE v.view = d.view AND v.version = d.version AND v.key = d.key AND v.from_position = d.position;
        UPDATE view_rows AS v SET until_position = d.position
        FROM (
            SELECT r.*, (
                SELECT o.from_position FROM view_rows AS o WHERE o.view = r.view AND o.version = r.version AND o.key = r.key
                ORDER BY o.from_position DESC LIMIT 1
            ) AS begun
            FROM json_to_recordset(documents) AS r (view text, version smallint, key text, position bigint)
        ) AS d
        WHERE v.view = d.view AND v.version = d.version AND v.key = d.key AND v.from_position = d.begun AND v.until_position IS NULL;
        INSERT INTO view_rows (view, version, key, from_position, until_position, sort, body)
        SELECT l.view, l.version, l.key, l.from_position, l.until_position, l.sort, l.body
        FROM json_to_recordset(view_lines) AS l (
            view text, version smallint, key text, from_position bigint, until_position bigint, sort text, body text
        );
    END IF;
    RETURN CASE WHEN is_known THEN ARRAY[first, stamp] ELSE ARRAY[first, stamp] || bases END;
END
$body$;
