#!/bin/sh
# Run by the postgres image when it makes its database: Relevo's own log-in, which is no superuser, and its database.
set -eu
psql --no-psqlrc --set ON_ERROR_STOP=1 --set password="$RELEVO_PASSWORD" --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE relevo LOGIN PASSWORD :'password';
CREATE DATABASE relevo OWNER relevo;
SQL
