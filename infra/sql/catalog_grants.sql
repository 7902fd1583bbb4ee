-- What the application's role may do. Run by `cross_lora_owner` after every `cross-lora catalog upgrade`;
-- running it again changes nothing. A table that is not named here can be read by nobody but the owner.
BEGIN;

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM cross_lora_app;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM cross_lora_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO cross_lora_app;

-- Which schema this is: read only.
GRANT SELECT ON alembic_version TO cross_lora_app;

-- Rows that change while the work goes on. None of them is ever deleted.
GRANT SELECT, INSERT, UPDATE ON bases, adapters, migrations, items, verdicts TO cross_lora_app;

-- What was asked for, by whom, and how far it has come. Kept too.
GRANT SELECT, INSERT, UPDATE ON deliveries, starts TO cross_lora_app;

-- Who computes what now: comes and goes.
GRANT SELECT, INSERT, UPDATE, DELETE ON leases TO cross_lora_app;

-- Measurements and the audit trail of promotions: written once, never changed.
GRANT SELECT, INSERT ON measures, evaluations, promotions TO cross_lora_app;

-- The same, but for a time that was unknown at first.
GRANT SELECT, INSERT, UPDATE (seconds) ON factor_sets TO cross_lora_app;

COMMIT;
