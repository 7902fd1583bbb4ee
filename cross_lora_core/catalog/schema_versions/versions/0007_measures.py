"""What was measured of each row: losses, as all that was kept so far, or another measure."""

import sqlalchemy as sa
from alembic import op

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None

BEFORE = ['base_digest', 'adapter_digest', 'dataset_digest', 'dtype', 'environment']

def upgrade() -> None:
    with op.batch_alter_table('evaluations', schema=None) as batch_op:
        batch_op.add_column(sa.Column('measure', sa.String(length=80), nullable=False, server_default='loss'))
        batch_op.alter_column('mean_loss', new_column_name='mean', existing_type=sa.Double(), existing_nullable=False)
        batch_op.alter_column('losses', new_column_name='by_row', existing_type=sa.JSON(), existing_nullable=False)
        batch_op.drop_constraint(op.f('uq_evaluations_base_digest'), type_='unique')
        batch_op.create_unique_constraint(op.f('uq_evaluations_base_digest'), [*BEFORE, 'measure'])
    with op.batch_alter_table('evaluations', schema=None) as batch_op:
        batch_op.alter_column('measure', existing_type=sa.String(length=80), existing_nullable=False, server_default=None)

def downgrade() -> None:
    op.execute("DELETE FROM evaluations WHERE measure <> 'loss'")
    with op.batch_alter_table('evaluations', schema=None) as batch_op:
        batch_op.drop_constraint(op.f('uq_evaluations_base_digest'), type_='unique')
        batch_op.create_unique_constraint(op.f('uq_evaluations_base_digest'), BEFORE)
        batch_op.alter_column('mean', new_column_name='mean_loss', existing_type=sa.Double(), existing_nullable=False)
        batch_op.alter_column('by_row', new_column_name='losses', existing_type=sa.JSON(), existing_nullable=False)
        batch_op.drop_column('measure')
