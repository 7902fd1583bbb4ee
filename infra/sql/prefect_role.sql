-- Prefect's database and role; its server keeps the schema itself. Run once, by a superuser:
--   PREFECT_DATABASE_PASSWORD=… psql --set=ON_ERROR_STOP=1 --file=prefect_role.sql
\getenv password PREFECT_DATABASE_PASSWORD

CREATE ROLE prefect LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password';
CREATE DATABASE prefect OWNER prefect;
REVOKE ALL ON DATABASE prefect FROM PUBLIC;

-- Prefect creates it where it may; a superuser has to where it may not.
\connect prefect
CREATE EXTENSION IF NOT EXISTS pg_trgm;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO prefect;
