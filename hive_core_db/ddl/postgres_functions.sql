-- What must happen on the server in one call. Replaced at every upgrade; the append's own functions are in postgres_append.sql.
-- Lock order of everything that writes: the head, then partitions by key, then work by key. A function that touches several such rows
-- takes the head first, as an append does; a statement that touches one row holds nothing while it waits for it. So nothing can deadlock.

-- The database's time in UTC microseconds: what the caller gives (a test's clock), else the server's at this moment.
CREATE OR REPLACE FUNCTION hive_now(given bigint) RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE AS $body$
    SELECT coalesce(given, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
$body$;

-- The head lock of this schema's log, until the end of the transaction.
CREATE OR REPLACE FUNCTION hive_lock_head() RETURNS void LANGUAGE sql VOLATILE AS $body$
    SELECT pg_advisory_xact_lock(1212765765, hashtext(current_schema()))
$body$;

-- Close a lease and free what it holds, under the head lock: a closed lease owns no partition. Its work is found by the clock.
CREATE OR REPLACE FUNCTION hive_close_lease(lease text, given_now bigint) RETURNS void LANGUAGE plpgsql VOLATILE AS $body$
BEGIN
    PERFORM hive_lock_head();
    UPDATE leases AS l SET closed_at = hive_now(given_now) WHERE l.lease_id = lease AND l.closed_at IS NULL;
    PERFORM hive_free(lease);
END
$body$;

-- Free what a closed lease held. The caller has the head lock.
CREATE OR REPLACE FUNCTION hive_free(lease text) RETURNS void LANGUAGE plpgsql VOLATILE AS $body$
BEGIN
    UPDATE partitions AS p SET lease_id = NULL WHERE p.lease_id = lease;
    DELETE FROM members AS m WHERE m.lease_id = lease;
END
$body$;

-- Close a lease if its time is over; a renewal that came before this moment is seen, for the row is locked before it is judged again.
CREATE OR REPLACE FUNCTION hive_expire_lease(lease text, given_now bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $body$
BEGIN
    PERFORM hive_lock_head();
    UPDATE leases AS l SET closed_at = hive_now(given_now)
    WHERE l.lease_id = lease AND l.closed_at IS NULL AND l.expires_at <= hive_now(given_now);
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM hive_free(lease);
    RETURN true;
END
$body$;

-- Stop being a member, and free what the member holds of the group, if `release`.
CREATE OR REPLACE FUNCTION hive_leave(wanted_group text, lease text, release boolean) RETURNS void LANGUAGE plpgsql VOLATILE AS $body$
BEGIN
    PERFORM hive_lock_head();
    DELETE FROM members AS m WHERE m.group_name = wanted_group AND m.lease_id = lease;
    UPDATE partitions AS p SET lease_id = NULL WHERE p.group_name = wanted_group AND p.lease_id = lease AND release;
END
$body$;

-- Own a partition that nobody alive holds; no row if somebody does, or the own lease is closed.
CREATE OR REPLACE FUNCTION hive_take(wanted_group text, wanted integer, lease text, given_now bigint)
RETURNS TABLE (taken_position bigint, taken_fence bigint) LANGUAGE plpgsql VOLATILE AS $body$
DECLARE
    held record;
BEGIN
    PERFORM hive_lock_head();
    -- The lock first, the owner in the next statement: what was read before the wait is stale.
    SELECT p.position, p.lease_id, p.fence, l.lease_id IS NOT NULL AND l.closed_at IS NULL AS is_open INTO held
    FROM partitions AS p LEFT JOIN leases AS l ON l.lease_id = p.lease_id
    WHERE p.group_name = wanted_group AND p.number = wanted FOR UPDATE OF p;
    IF NOT FOUND OR NOT EXISTS (SELECT FROM leases AS l WHERE l.lease_id = lease AND l.closed_at IS NULL) THEN
        RETURN;
    END IF;
    IF held.lease_id = lease THEN
        RETURN QUERY SELECT held.position, held.fence;
        RETURN;
    END IF;
    -- The lease first, and all that it holds with it: from here on its owner writes nothing.
    IF held.is_open AND NOT hive_expire_lease(held.lease_id, given_now) THEN
        RETURN;
    END IF;
    UPDATE partitions AS p SET lease_id = lease, fence = p.fence + 1 WHERE p.group_name = wanted_group AND p.number = wanted;
    RETURN QUERY SELECT held.position, held.fence + 1;
END
$body$;

-- Remove up to `most` blobs that no event names and nobody used since `before`, under the head lock: an append that names one finds it,
-- or finds it gone, and never names one that goes at this moment. Returns how many.
CREATE OR REPLACE FUNCTION hive_sweep(before bigint, most integer) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $body$
DECLARE
    candidates text[];
    removed bigint;
BEGIN
    -- Looked for before the lock: that takes as long as there are blobs.
    SELECT array_agg(c.digest) INTO candidates FROM (
        SELECT b.digest FROM blobs AS b WHERE b.used_at < before AND NOT EXISTS (
            SELECT FROM blob_refs AS r WHERE r.digest = b.digest) LIMIT most) AS c;
    PERFORM hive_lock_head();
    DELETE FROM blobs AS b WHERE b.digest = ANY (candidates) AND b.used_at < before AND NOT EXISTS (
        SELECT FROM blob_refs AS r WHERE r.digest = b.digest);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$body$;
