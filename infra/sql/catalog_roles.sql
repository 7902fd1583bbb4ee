-- The catalog's database and its two roles. Run once, by a superuser:
--   CATALOG_OWNER_PASSWORD=… CATALOG_APP_PASSWORD=… psql --set=ON_ERROR_STOP=1 --file=catalog_roles.sql
-- `cross_lora_owner` upgrades the schema (`cross-lora catalog upgrade`); `cross_lora_app` does the daily work.
\getenv owner_password CATALOG_OWNER_PASSWORD
\getenv app_password CATALOG_APP_PASSWORD

CREATE ROLE cross_lora_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'owner_password';
CREATE ROLE cross_lora_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'app_password';
CREATE DATABASE cross_lora OWNER cross_lora_owner;

REVOKE ALL ON DATABASE cross_lora FROM PUBLIC;
GRANT CONNECT ON DATABASE cross_lora TO cross_lora_app;

-- A worker that died or hangs inside a unit of work must not hold up the others for longer than this.
ALTER ROLE cross_lora_app IN DATABASE cross_lora SET idle_in_transaction_session_timeout = '10min';
ALTER ROLE cross_lora_app IN DATABASE cross_lora SET tcp_keepalives_idle = '60';

\connect cross_lora
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO cross_lora_app;
