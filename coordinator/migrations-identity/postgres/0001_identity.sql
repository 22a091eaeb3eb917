-- As ../sqlite/0001_identity.sql, for PostgreSQL, in a schema of its own. Redeeming a token locks the
-- table of identities against others who redeem, so that two who enroll at once under one name cannot
-- both succeed.

CREATE TABLE identities (
    serial            text PRIMARY KEY,
    name              text NOT NULL,
    role              text NOT NULL CHECK (role IN ('agent', 'submitter', 'viewer', 'admin')),
    labels            text NOT NULL,
    agent_id          text,
    signing_key       bytea,
    certificate_pem   text NOT NULL,
    not_before_unix_s bigint NOT NULL,
    not_after_unix_s  bigint NOT NULL,
    revoked_unix_s    bigint,
    revoked_reason    text,
    -- tells the order of those that are valid from the same second on
    added             bigint GENERATED ALWAYS AS IDENTITY
);
CREATE INDEX identities_by_name ON identities (name);
CREATE INDEX identities_revoked ON identities (not_after_unix_s) WHERE revoked_unix_s IS NOT NULL;

CREATE TABLE tokens (
    hash            bytea PRIMARY KEY,
    role            text NOT NULL CHECK (role IN ('agent', 'submitter', 'viewer', 'admin')),
    name            text,
    labels          text NOT NULL,
    created_unix_s  bigint NOT NULL,
    expires_unix_s  bigint NOT NULL,
    used_unix_s     bigint,
    used_by         text REFERENCES identities (serial)
);

CREATE TABLE audit (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_unix_ns bigint NOT NULL,
    event      text NOT NULL CHECK (event IN ('call', 'outcome', 'denied')),
    refers     bigint,
    peer       text NOT NULL,
    serial     text,
    address    text,
    what       text NOT NULL,
    detail     text NOT NULL
);
CREATE FUNCTION audit_is_only_added_to() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the audit log is only added to'; END $$;
CREATE TRIGGER audit_is_only_added_to BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION audit_is_only_added_to();
