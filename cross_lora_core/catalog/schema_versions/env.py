"""Run by Alembic: upgrade over the connection that `upgrade_schema` holds."""

from alembic import context

from cross_lora_core.catalog.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_as_batch=True,
    transactional_ddl=False,
)
context.run_migrations()
