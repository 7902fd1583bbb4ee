"""Which method made an item's output; the verdict of adapters that no method moves surely."""

import sqlalchemy as sa
from alembic import op

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None

BEFORE = ('copied', 'migrated', 'no_effect', 'harmful', 'unverified', 'refused', 'failed')
AFTER = (*BEFORE[:4], 'needs_retraining', *BEFORE[4:])

def _allow(verdicts: tuple[str, ...]) -> None:
    listed = ', '.join(f"'{verdict}'" for verdict in verdicts)
    for table in ('items', 'verdicts'):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_constraint(op.f(f'ck_{table}_verdict'), type_='check')
            batch_op.create_check_constraint(op.f(f'ck_{table}_verdict'), f'verdict IN ({listed})')

def upgrade() -> None:
    with op.batch_alter_table('items', schema=None) as batch_op:
        batch_op.add_column(sa.Column('method', sa.String(length=40), nullable=True))
    _allow(AFTER)
    made = 'SELECT method FROM migrations WHERE migrations.id = items.migration_id'
    op.execute(f'UPDATE items SET method = ({made}) WHERE output IS NOT NULL')

def downgrade() -> None:
    op.execute("UPDATE items SET verdict = 'no_effect' WHERE verdict = 'needs_retraining'")
    op.execute("UPDATE verdicts SET verdict = 'no_effect' WHERE verdict = 'needs_retraining'")
    _allow(BEFORE)
    with op.batch_alter_table('items', schema=None) as batch_op:
        batch_op.drop_column('method')
