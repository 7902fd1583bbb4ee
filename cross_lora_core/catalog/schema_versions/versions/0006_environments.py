"""Where losses were measured: another device or library version is another measurement. What was is not reused."""

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None

BEFORE = ['base_digest', 'adapter_digest', 'dataset_digest', 'dtype']

def upgrade() -> None:
    with op.batch_alter_table('evaluations', schema=None) as batch_op:
        batch_op.add_column(sa.Column('environment', sa.String(length=200), nullable=False, server_default=''))
        batch_op.drop_constraint(op.f('uq_evaluations_base_digest'), type_='unique')
        batch_op.create_unique_constraint(op.f('uq_evaluations_base_digest'), [*BEFORE, 'environment'])
    with op.batch_alter_table('evaluations', schema=None) as batch_op:
        batch_op.alter_column('environment', existing_type=sa.String(length=200), existing_nullable=False, server_default=None)

def downgrade() -> None:
    op.execute(f"DELETE FROM evaluations WHERE id NOT IN (SELECT MIN(id) FROM evaluations GROUP BY {', '.join(BEFORE)})")
    with op.batch_alter_table('evaluations', schema=None) as batch_op:
        batch_op.drop_constraint(op.f('uq_evaluations_base_digest'), type_='unique')
        batch_op.create_unique_constraint(op.f('uq_evaluations_base_digest'), BEFORE)
        batch_op.drop_column('environment')
