-- What begins an attempt holds the rows of its job, machine and agent until it is committed, and what
-- keeps a signature that of its attempt; nothing is ever deleted. A foreign key looks for each of them
-- again, row by row, and that was a third of what beginning an attempt took.
ALTER TABLE attempts DROP CONSTRAINT attempts_run_job_fkey;
ALTER TABLE attempts DROP CONSTRAINT attempts_machine_fkey;
ALTER TABLE attempts DROP CONSTRAINT attempts_agent_fkey;
ALTER TABLE signatures DROP CONSTRAINT signatures_run_job_attempt_fkey;
