-- Slots and rates that all processes share, each in one call. Replaced at every upgrade.
-- The lock is the key's own row in `limits`, held for no round trip; nothing here waits for the head, or for another key.

-- Lock a key, and make it if it is new; what is read in the statements after it is not stale.
CREATE OR REPLACE FUNCTION hive_limit_lock(wanted_key text) RETURNS void LANGUAGE plpgsql VOLATILE AS $body$
BEGIN
    PERFORM FROM limits AS m WHERE m.key = wanted_key FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO limits (key) VALUES (wanted_key) ON CONFLICT (key) DO NOTHING;
        PERFORM FROM limits AS m WHERE m.key = wanted_key FOR UPDATE;
    END IF;
END
$body$;

-- Take up to `wanted` slots of a key; returns how many. What a process that is gone held is free, and so is what it waited for.
CREATE OR REPLACE FUNCTION hive_limit_take(
    wanted_key text, top bigint, lease text, wanted bigint, patience bigint, asking bigint, given_now bigint
) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $body$
DECLARE
    this_time bigint;
    held bigint;
    used bigint;
    kept bigint;
    since bigint;
    granted bigint;
BEGIN
    PERFORM hive_limit_lock(wanted_key);
    this_time := hive_now(given_now);
    DELETE FROM limit_slots AS s WHERE s.key = wanted_key AND NOT EXISTS (
        SELECT FROM leases AS l WHERE l.lease_id = s.lease_id AND l.closed_at IS NULL AND l.expires_at > this_time);
    IF NOT EXISTS (SELECT FROM leases AS l WHERE l.lease_id = lease AND l.closed_at IS NULL AND l.expires_at > this_time) THEN
        RETURN 0;
    END IF;
    UPDATE limits AS m SET ceiling = top WHERE m.key = wanted_key AND m.ceiling IS DISTINCT FROM top;
    SELECT m.held_until INTO held FROM limits AS m WHERE m.key = wanted_key;
    SELECT s.waits_since INTO since FROM limit_slots AS s WHERE s.key = wanted_key AND s.lease_id = lease;
    -- For those who have waited long enough, unless this one has waited longer.
    SELECT coalesce(sum(s.taken), 0), coalesce(sum(s.missing) FILTER (
            WHERE s.lease_id <> lease AND s.asked_at > this_time - asking
            AND s.waits_since < least(this_time - patience, coalesce(since, this_time))), 0)
    INTO used, kept FROM limit_slots AS s WHERE s.key = wanted_key;
    granted := CASE WHEN held > this_time THEN 0 ELSE greatest(0, least(wanted, top - used - kept)) END;
    INSERT INTO limit_slots AS s (key, lease_id, taken, missing, waits_since, asked_at)
    VALUES (wanted_key, lease, granted, wanted - granted, CASE
        WHEN wanted = granted THEN NULL WHEN granted > 0 THEN this_time ELSE coalesce(since, this_time) END, this_time)
    ON CONFLICT (key, lease_id) DO UPDATE SET taken = s.taken + excluded.taken, missing = excluded.missing,
        waits_since = excluded.waits_since, asked_at = excluded.asked_at;
    DELETE FROM limit_slots AS s WHERE s.key = wanted_key AND s.lease_id = lease AND s.taken = 0 AND s.missing = 0;
    RETURN granted;
END
$body$;

-- Give slots back; what is not held is not given.
CREATE OR REPLACE FUNCTION hive_limit_give(wanted_key text, lease text, given_back bigint) RETURNS void LANGUAGE plpgsql VOLATILE AS $body$
BEGIN
    PERFORM hive_limit_lock(wanted_key);
    UPDATE limit_slots AS s SET taken = greatest(0, s.taken - given_back) WHERE s.key = wanted_key AND s.lease_id = lease;
    DELETE FROM limit_slots AS s WHERE s.key = wanted_key AND s.lease_id = lease AND s.taken = 0 AND s.missing = 0;
END
$body$;

-- Take `amount` from a bucket, or return how many microseconds it takes until that is there.
CREATE OR REPLACE FUNCTION hive_limit_spend(
    wanted_key text, per_second double precision, top double precision, amount double precision, given_now bigint
) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $body$
DECLARE
    this_time bigint;
    bucket record;
    present double precision;
    short double precision;
BEGIN
    PERFORM hive_limit_lock(wanted_key);
    this_time := hive_now(given_now);
    SELECT m.level, m.filled_at, m.held_until INTO bucket FROM limits AS m WHERE m.key = wanted_key;
    IF bucket.held_until > this_time THEN
        RETURN bucket.held_until - this_time;
    END IF;
    present := least(top, coalesce(
        bucket.level + per_second * greatest(0, this_time - coalesce(bucket.filled_at, this_time)) / 1000000.0, top));
    short := least(amount, top) - present;
    UPDATE limits AS m SET level = CASE WHEN short > 0 THEN present ELSE present - amount END,
        rate = per_second, burst = top, filled_at = this_time
    WHERE m.key = wanted_key;
    RETURN CASE WHEN short > 0 THEN greatest(1, ceil(short / per_second * 1000000.0))::bigint ELSE 0 END;
END
$body$;
