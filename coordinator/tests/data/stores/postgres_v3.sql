-- What a store of version 3 had beside that of version 2: a run that expired while it was paused, an
-- agent in quarantine that was told to leave, and a calibration.

INSERT INTO runs VALUES ('01a2148c-9ef2-717a-b158-f155e26a6227', 'late', '# another plan
', 'another-hash', 2000, 2500, '0.1.0', -5, 2500, 2200);
INSERT INTO jobs VALUES ('01a2148c-9ef2-717a-b158-f155e26a6227', 0, '{"id":{"run":"01a2148c-9ef2-717a-b158-f155e26a6227","index":0},"model":{"id":"llama-tiny","source":{"path":"/models/llama-tiny"},"baseline":null},"kernel":"auto","threads":1,"suite":{"suite":"memory","workload":{"n_prompt":64,"n_gen":32,"n_depth":0,"n_batch":512}},"selector":{}}', 'failed', '{"class":"expired","message":"the run expired before the job was begun","stderr":""}');
UPDATE agents SET drain_unix_ns = 2600, quarantined_unix_ns = 2700, quarantine_reason = 'int8 peak is low' WHERE id = '00000000-0000-7000-8000-000000000001';
INSERT INTO calibrations VALUES ('machine-1', 2650, '00000000-0000-7000-8000-000000000001', 'a-boot', TRUE, '{"kernel":"x86_64-avx2","threads":4,"memory_read_bytes_per_s":2e10,"int8_ops_per_s":3e11,"noise":0.01,"aa_ratio":1.0,"aa_low":0.99,"aa_high":1.01,"aa_pairs":60}');
