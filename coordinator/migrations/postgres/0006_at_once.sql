-- What a coordinator decides together is done by one call of one function: it costs one question and
-- one answer, and rows are held no longer than they must be. Each statement of a function sees what was
-- committed when it began, as it must where it looks at something after having taken hold of it.
--
-- Rows are held in the order machines, agents, jobs, pins, attempts, runs, each in the order of its key,
-- so that no two calls wait for each other.

-- An attempt is changed for every message of its agent. Beside it there shall be room for the next state of
-- its row, so that no index has to hear of it.
ALTER TABLE attempts SET (fillfactor = 50);

CREATE TYPE attempt_start AS (
    n          BIGINT,
    run        UUID,
    job        BIGINT,
    agent      TEXT,
    machine    TEXT,
    started    BIGINT,
    lease      BIGINT,
    -- of what needs its machine to itself: what it is compared in, and where that is believed to be
    -- measured
    comparison TEXT,
    believed   TEXT
);

-- Begins attempts. Returns of each start, by its position, the attempt, its fence and when it began (what
-- was waited for here is added to `started`, so that nothing seems to begin before what it had to wait
-- for had ended), or why not:
-- 'elsewhere' (the agent is not linked to the coordinator `caller`), 'busy' (the machine is), 'queued'
-- (the job is not, or is paused, or somebody is taking it), 'pinned' (to another machine). `told` goes to
-- who listens.
CREATE FUNCTION begin_attempts(
    caller      UUID,
    runs        UUID[],
    jobs        BIGINT[],
    agents      TEXT[],
    machines    TEXT[],
    started     BIGINT[],
    leases      BIGINT[],
    comparisons TEXT[],
    believed    TEXT[],
    channel     TEXT,
    told        TEXT[]
) RETURNS TABLE (n BIGINT, refused TEXT, attempt BIGINT, fence BIGINT, began BIGINT)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    -- those that nobody has refused yet
    starts attempt_start[];
    -- those of them that are not refused by what is looked at
    kept   attempt_start[];
    linked TEXT[];
    waited BIGINT;
BEGIN
    starts := ARRAY(
        SELECT ROW(s.n, s.run, s.job, s.agent, s.machine, s.started, s.lease, s.comparison, s.believed)
            ::attempt_start
        FROM UNNEST(begin_attempts.runs, begin_attempts.jobs, begin_attempts.agents,
            begin_attempts.machines, begin_attempts.started, begin_attempts.leases,
            begin_attempts.comparisons, begin_attempts.believed) WITH ORDINALITY
            AS s(run, job, agent, machine, started, lease, comparison, believed, n)
        ORDER BY s.n);

    -- Held until the end: what the next statements see stays so.
    PERFORM FROM machines WHERE id = ANY (begin_attempts.machines) ORDER BY id FOR NO KEY UPDATE;
    linked := ARRAY(
        SELECT id FROM agents WHERE id = ANY (begin_attempts.agents) AND coordinator = caller
        ORDER BY id FOR SHARE);
    kept := ARRAY(
        SELECT s FROM UNNEST(starts) AS s JOIN UNNEST(linked) AS l(agent) USING (agent) ORDER BY s.n);
    IF cardinality(kept) < cardinality(starts) THEN
        RETURN QUERY SELECT s.n, 'elsewhere', NULL::bigint, NULL::bigint, NULL::bigint FROM UNNEST(starts) AS s
            WHERE NOT EXISTS (SELECT FROM UNNEST(kept) AS k WHERE k.n = s.n);
        starts := kept;
    END IF;

    -- What runs on a machine is looked up machine by machine: with all of them at once, every attempt
    -- that runs would be compared with each. Of several for one machine, the first that may begin says
    -- whether others may.
    kept := ARRAY(
        SELECT it.start FROM (
            SELECT s AS start, s.n, s.comparison IS NOT NULL AS exclusive,
                row_number() OVER on_it AS place,
                first_value(s.comparison IS NOT NULL) OVER on_it AS first
            FROM UNNEST(starts) AS s CROSS JOIN LATERAL (
                SELECT bool_or(exclusive) AS exclusive FROM attempts
                WHERE state = 'running' AND attempts.machine = s.machine
            ) AS load
            WHERE load.exclusive IS NULL OR NOT (load.exclusive OR s.comparison IS NOT NULL)
            WINDOW on_it AS (PARTITION BY s.machine ORDER BY s.n)
        ) AS it
        WHERE it.place = 1 OR NOT (it.first OR it.exclusive)
        ORDER BY it.n);
    IF cardinality(kept) < cardinality(starts) THEN
        RETURN QUERY SELECT s.n, 'busy', NULL::bigint, NULL::bigint, NULL::bigint FROM UNNEST(starts) AS s
            WHERE NOT EXISTS (SELECT FROM UNNEST(kept) AS k WHERE k.n = s.n);
        starts := kept;
    END IF;

    -- A job that somebody else is taking just now is theirs; asked for twice, it is given once.
    WITH free AS (
        SELECT jobs.run, jobs.job FROM jobs JOIN UNNEST(starts) AS s USING (run, job)
        WHERE state = 'queued' AND NOT EXISTS (
            SELECT FROM runs WHERE runs.id = jobs.run AND paused_unix_ns IS NOT NULL)
        ORDER BY jobs.run, jobs.job FOR NO KEY UPDATE OF jobs SKIP LOCKED
    ), taken AS (
        UPDATE jobs SET state = 'running' FROM free
        WHERE jobs.run = free.run AND jobs.job = free.job RETURNING jobs.run, jobs.job
    )
    SELECT COALESCE(array_agg(it.start ORDER BY it.n), '{}') INTO kept FROM (
        SELECT DISTINCT ON (s.run, s.job) s AS start, s.run, s.job, s.n FROM UNNEST(starts) AS s
        ORDER BY s.run, s.job, s.n
    ) AS it JOIN taken USING (run, job);
    IF cardinality(kept) < cardinality(starts) THEN
        RETURN QUERY SELECT s.n, 'queued', NULL::bigint, NULL::bigint, NULL::bigint FROM UNNEST(starts) AS s
            WHERE NOT EXISTS (SELECT FROM UNNEST(kept) AS k WHERE k.n = s.n);
        starts := kept;
    END IF;

    IF EXISTS (SELECT FROM UNNEST(starts) AS s WHERE s.comparison IS NOT NULL) THEN
        INSERT INTO pins (run, comparison, machine)
        SELECT DISTINCT ON (s.run, s.comparison) s.run, s.comparison, s.machine
        FROM UNNEST(starts) AS s WHERE s.comparison IS NOT NULL AND s.believed IS NULL
        ORDER BY s.run, s.comparison, s.n
        ON CONFLICT DO NOTHING;
        -- A pin that stands already is only looked at.
        WITH wanted AS (
            SELECT DISTINCT ON (s.run, s.comparison) s.run, s.comparison, s.machine, s.believed
            FROM UNNEST(starts) AS s WHERE s.comparison IS NOT NULL
            ORDER BY s.run, s.comparison, s.n
        ), moved AS (
            UPDATE pins SET machine = wanted.machine FROM wanted
            WHERE pins.run = wanted.run AND pins.comparison = wanted.comparison
            AND pins.machine <> wanted.machine AND pins.machine = wanted.believed
            RETURNING pins.run, pins.comparison, pins.machine
        ), here AS (
            SELECT run, comparison, machine FROM moved UNION ALL
            SELECT run, comparison, machine FROM pins JOIN wanted USING (run, comparison, machine)
        )
        SELECT COALESCE(array_agg(s ORDER BY s.n), '{}') INTO kept FROM UNNEST(starts) AS s
        WHERE s.comparison IS NULL OR EXISTS (
            SELECT FROM here WHERE here.run = s.run AND here.comparison = s.comparison
            AND here.machine = s.machine);
        IF cardinality(kept) < cardinality(starts) THEN
            UPDATE jobs SET state = 'queued' FROM UNNEST(starts) AS s
            WHERE jobs.run = s.run AND jobs.job = s.job
            AND NOT EXISTS (SELECT FROM UNNEST(kept) AS k WHERE k.n = s.n);
            RETURN QUERY SELECT s.n, 'pinned', NULL::bigint, NULL::bigint, NULL::bigint FROM UNNEST(starts) AS s
                WHERE NOT EXISTS (SELECT FROM UNNEST(kept) AS k WHERE k.n = s.n);
            starts := kept;
        END IF;
    END IF;

    IF cardinality(starts) > 0 THEN
        waited := extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000000000;
        RETURN QUERY WITH begun AS (
            INSERT INTO attempts (run, job, attempt, fence, agent, machine, exclusive, state,
                started_unix_ns, lease_until_unix_ns)
            SELECT s.run, s.job, (
                    SELECT COALESCE(max(attempts.attempt), 0) + 1 FROM attempts
                    WHERE attempts.run = s.run AND attempts.job = s.job
                ), nextval('fence'), s.agent, s.machine, s.comparison IS NOT NULL, 'running',
                s.started + waited, s.lease
            FROM UNNEST(starts) AS s
            RETURNING attempts.run, attempts.job, attempts.attempt, attempts.fence, attempts.agent,
                attempts.started_unix_ns
        ), noted AS (
            INSERT INTO events (at_unix_ns, run, job, attempt, kind, detail)
            SELECT started_unix_ns, run, job, begun.attempt, 'started', agent FROM begun
        )
        SELECT s.n, NULL, begun.attempt, begun.fence, begun.started_unix_ns FROM begun
        JOIN UNNEST(starts) AS s USING (run, job);
        PERFORM pg_notify(channel, it) FROM UNNEST(told) AS it;
    END IF;
END
$$;

-- Marks runs as ended, at the times given, of whose jobs none has anything to come.
CREATE FUNCTION end_runs_if_done(runs UUID[], times BIGINT[]) RETURNS VOID
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    -- Two transactions that each end one of the last two jobs must not both see the other's as running:
    -- the second waits here, and its next statement sees the first's.
    PERFORM FROM runs WHERE id = ANY (end_runs_if_done.runs) ORDER BY id FOR NO KEY UPDATE;
    WITH ended AS (
        UPDATE runs SET ended_unix_ns = w.at
        FROM UNNEST(end_runs_if_done.runs, end_runs_if_done.times) AS w(id, at)
        WHERE runs.id = w.id AND ended_unix_ns IS NULL AND NOT EXISTS (
            SELECT FROM jobs WHERE jobs.run = runs.id AND state IN ('queued', 'running'))
        RETURNING runs.id, ended_unix_ns
    ), noted AS (
        INSERT INTO events (at_unix_ns, run, kind) SELECT ended_unix_ns, id, 'ended' FROM ended
    )
    DELETE FROM pins USING ended WHERE pins.run = ended.id;
END
$$;

CREATE TYPE attempt_held AS (
    n                   BIGINT,
    state               TEXT,
    stored_below        BIGINT,
    fence               BIGINT,
    lease_until_unix_ns BIGINT,
    may_end             BOOLEAN
);

-- Ends attempts. Returns how each that is known stood before, by its position, and whether it was ended: it
-- was not if it did not run, had another fence, or had a lease beyond `unless_alive`. Asked twice for one,
-- the second comes too late. `told` goes to who listens.
CREATE FUNCTION end_attempts(
    runs         UUID[],
    jobs         BIGINT[],
    attempts     BIGINT[],
    fences       BIGINT[],
    unless_alive BIGINT[],
    states       TEXT[],
    job_states   TEXT[],
    times        BIGINT[],
    n_records    BIGINT[],
    failures     TEXT[],
    counts       BOOLEAN[],
    voids        BOOLEAN[],
    details      TEXT[],
    channel      TEXT,
    told         TEXT[]
) RETURNS TABLE (
    n BIGINT, is_ended BOOLEAN, state TEXT, stored_below BIGINT, fence BIGINT, lease_until_unix_ns BIGINT
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    held  attempt_held[];
    -- the positions of those that end
    ended BIGINT[];
BEGIN
    PERFORM FROM jobs WHERE (run, job) IN (
            SELECT run, job FROM UNNEST(end_attempts.runs, end_attempts.jobs) AS e(run, job))
        ORDER BY run, job FOR NO KEY UPDATE;
    -- Each is looked up by its key: joined with all of them, the planner would read every attempt that
    -- runs. What is read is what is held, whoever changed it meanwhile.
    held := ARRAY(
        SELECT ROW(it.n, it.state, it.stored_below, it.fence, it.lease_until_unix_ns,
                it.state = 'running' AND it.fence = it.asked_fence
                AND (it.unless_alive IS NULL OR it.lease_until_unix_ns <= it.unless_alive))
            ::attempt_held
        FROM (
            SELECT e.n, e.fence AS asked_fence, e.unless_alive, found.state, found.stored_below,
                found.fence, found.lease_until_unix_ns
            FROM (
                SELECT * FROM UNNEST(end_attempts.runs, end_attempts.jobs, end_attempts.attempts,
                    end_attempts.fences, end_attempts.unless_alive) WITH ORDINALITY
                    AS e(run, job, attempt, fence, unless_alive, n)
                ORDER BY run, job, attempt, n
            ) AS e
            CROSS JOIN LATERAL (
                SELECT * FROM attempts
                WHERE run = e.run AND job = e.job AND attempts.attempt = e.attempt
                FOR NO KEY UPDATE
            ) AS found
        ) AS it);
    ended := ARRAY(
        SELECT DISTINCT ON (e.run, e.job, e.attempt) e.n FROM UNNEST(held) AS h
        JOIN UNNEST(end_attempts.runs, end_attempts.jobs, end_attempts.attempts) WITH ORDINALITY
            AS e(run, job, attempt, n) USING (n)
        WHERE h.may_end ORDER BY e.run, e.job, e.attempt, e.n);
    RETURN QUERY SELECT h.n, h.n = ANY (ended), h.state, h.stored_below, h.fence, h.lease_until_unix_ns
        FROM UNNEST(held) AS h;
    IF cardinality(ended) = 0 THEN
        RETURN;
    END IF;

    WITH e AS (
        SELECT * FROM UNNEST(end_attempts.runs, end_attempts.jobs, end_attempts.attempts,
            end_attempts.states, end_attempts.job_states, end_attempts.times,
            end_attempts.n_records, end_attempts.failures, end_attempts.counts,
            end_attempts.details) WITH ORDINALITY
            AS e(run, job, attempt, state, job_state, at, n_records, failure, counts, detail, n)
        JOIN UNNEST(ended) AS own(n) USING (n)
    ), over AS (
        UPDATE attempts SET state = e.state, ended_unix_ns = e.at, n_records = e.n_records,
            failure = e.failure, counts = e.counts
        FROM e WHERE attempts.run = e.run AND attempts.job = e.job AND attempts.attempt = e.attempt
    ), moved AS (
        UPDATE jobs SET state = e.job_state FROM e WHERE jobs.run = e.run AND jobs.job = e.job
    )
    INSERT INTO events (at_unix_ns, run, job, attempt, kind, detail)
    SELECT at, run, job, attempt, state, detail FROM e;
    IF TRUE = ANY (voids) THEN
        UPDATE attempts SET void = TRUE
        FROM UNNEST(end_attempts.runs, end_attempts.jobs, end_attempts.attempts,
            end_attempts.voids) WITH ORDINALITY AS e(run, job, attempt, voids, n)
        JOIN UNNEST(ended) AS own(n) USING (n)
        WHERE e.voids AND attempts.run = e.run AND attempts.job = e.job
        AND attempts.attempt < e.attempt;
    END IF;
    PERFORM end_runs_if_done(array_agg(it.run), array_agg(it.at)) FROM (
        SELECT e.run, max(e.at) AS at
        FROM UNNEST(end_attempts.runs, end_attempts.job_states, end_attempts.times) WITH ORDINALITY
            AS e(run, job_state, at, n)
        JOIN UNNEST(ended) AS own(n) USING (n)
        WHERE e.job_state IN ('succeeded', 'failed', 'cancelled') GROUP BY e.run
    ) AS it HAVING count(*) > 0;
    PERFORM pg_notify(channel, it) FROM UNNEST(told) AS it;
END
$$;
