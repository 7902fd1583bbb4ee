"""The catalog as the runbook backs it up and restores it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from cross_lora_core.catalog import Catalog, unchecked
from tests.support.catalog_roles import OWNER_PASSWORD, Roles, make_roles, run_sql
from tests.support.infra_files import containers
from tests.support.postgres import find_binary, running_postgres, why_not
from tests.support.rows import a_result

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def roles() -> Iterator[Roles]:
    tools = [name for name in ("psql", "pg_dump", "pg_restore") if find_binary(name) is None]
    reason = why_not() or (f"no {', '.join(tools)} on this machine" if tools else "")
    if reason:
        pytest.skip(reason)
    with running_postgres() as server:
        made = make_roles(server)
        unchecked(made.owner).upgrade()
        run_sql("catalog_grants.sql", made.owner)
        yield made


def nightly(roles: Roles, folder: Path) -> Path:
    """Run the CronJob's script, with its places and its host replaced."""
    (script,) = containers()["cross-lora-backup/dump"]["args"]
    where = make_url(roles.owner)
    script = script.replace("/backup", str(folder)).replace(
        "--host=postgres", f"--host={where.host} --port={where.port}"
    )
    binaries = Path(find_binary("pg_dump") or "").parent
    env = {"PGPASSWORD": OWNER_PASSWORD, "PATH": f"{binaries}:/usr/bin:/bin"}
    subprocess.run(["/bin/bash", "-euo", "pipefail", "-c", script], env=env, check=True, capture_output=True)
    return max(folder.glob("catalog-*.dump"))


def restore(roles: Roles, dump: Path) -> None:
    """Into an emptied database, by its owner; then the grants."""
    owner = make_url(roles.owner).set(drivername="postgresql").render_as_string(hide_password=False)
    engine = create_engine(roles.owner, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("DROP OWNED BY cross_lora_owner"))
    engine.dispose()
    tool = find_binary("pg_restore")
    assert tool is not None
    command = [tool, "--no-owner", "--no-privileges", "--exit-on-error", f"--dbname={owner}", str(dump)]
    subprocess.run(command, check=True, capture_output=True)
    run_sql("catalog_grants.sql", roles.owner)


def test_what_was_backed_up_comes_back(roles: Roles, tmp_path: Path) -> None:
    catalog = Catalog.open(roles.app)
    with catalog.begin() as work:
        item = a_result(work, "migrated")
        promotion = work.promote(item.id, actor="ada", reason="cutover")
    catalog.close()
    dump = nightly(roles, tmp_path)
    restore(roles, dump)
    again = Catalog.open(roles.app, create=False)
    with again.begin() as work:
        assert work.item(item.id) == item
        assert work.history_of(item.target_base_id, "tickets") == [promotion]
        assert work.promote(item.id, actor="bob", reason="again") == promotion
    again.close()


def test_fourteen_are_kept(roles: Roles, tmp_path: Path) -> None:
    for day in range(1, 21):
        (tmp_path / f"catalog-202601{day:02d}T000000Z.dump").touch()
    newest = nightly(roles, tmp_path)
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == 14
    assert newest in kept
